"""EfficientNet-Lite: size, shapes, start, precision, and the CPU's own forms against XLA's. Features: tests/weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.step_cases import distance, in_precision

from lt_noisy.config.spec import bind
from lt_noisy.errors import UserError
from lt_noisy.models.convolution import as_elsewhere
from lt_noisy.models.efficientnet import LITE0, EfficientNetLite, Group
from lt_noisy.models.table import MODELS
from lt_noisy.precision import float_dtype

SMALL = (Group(1, 3, 1, 1, 4), Group(2, 5, 2, 3, 6))


def make(text):
    return bind(text, MODELS, "model")(jnp.float32, None)


def small(dtype=jnp.float32, program="tensorflow", groups=SMALL):
    return EfficientNetLite(groups, program, dtype, None)


def variables_of(net, x):
    return jax.jit(lambda x: net.init(jax.random.key(0), x, train=False))(x)


def test_parameter_count_is_the_published_one():
    net = make("efficientnet_lite0()")
    shapes = jax.eval_shape(lambda: net.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)), train=False))
    assert sum(p.size for p in jax.tree.leaves(shapes["params"])) == 4_652_008 - 1_281_000  # less a thousand classes


def test_the_argument_reaches_the_network():
    texts = ("efficientnet_lite0()", "efficientnet_lite0(program=timm)")
    assert [make(text).program for text in texts] == ["tensorflow", "timm"]
    assert make(texts[0]).groups == LITE0
    with pytest.raises(UserError, match="is tensorflow or timm, not torch"):
        make("efficientnet_lite0(program=torch)")


@pytest.mark.parametrize("program", ["tensorflow", "timm"])
def test_sides_halve_upwards(program):
    net, x = make(f"efficientnet_lite0(program={program})"), jnp.zeros((2, 50, 33, 3))

    def run():
        return net.apply(net.init(jax.random.key(0), x, train=False), x, train=False, capture_intermediates=True)

    features, captured = jax.eval_shape(run)
    assert features.shape == (2, 1280) and features.dtype == jnp.float32
    maps = [captured["intermediates"][f"group{at}_block1_project_norm"]["__call__"][0] for at in range(1, 8)]
    assert [m.shape[1:3] for m in maps] == [(25, 17), (13, 9), (7, 5), (4, 3), (4, 3), (2, 2), (2, 2)]
    assert [m.shape[3] for m in maps] == [16, 24, 40, 80, 112, 192, 320]


def test_programs_differ_by_the_side_that_is_padded():
    """At stride 2 the stem sees the last row and column of an even image once more, or the first ones."""
    x = jnp.zeros((1, 8, 8, 1)).at[:, 0].set(1)
    net = small(groups=())
    variables = variables_of(net, x)
    kernel = jnp.zeros((3, 3, 1, 32)).at[1].set(1)  # the middle row
    variables["params"]["stem_conv"]["kernel"] = kernel

    def stem(program):
        _, captured = small(program=program, groups=()).apply(variables, x, train=False, capture_intermediates=True)
        return captured["intermediates"]["stem_conv"]["__call__"][0]

    np.testing.assert_array_equal(stem("tensorflow")[0, :, :, 0], 0)  # its middle is row 1
    np.testing.assert_array_equal(stem("timm")[0, :, :, 0], [[2, 3, 3, 3], [0] * 4, [0] * 4, [0] * 4])


@pytest.mark.parametrize(("program", "train"), [("tensorflow", True), ("timm", False)])
def test_forms_of_the_cpu_are_xlas_and_so_are_their_gradients(x64, program, train):
    generator = np.random.default_rng(0)
    x, target = generator.normal(size=(4, 14, 11, 3)), generator.normal(size=(4, 1280))
    net = small(float_dtype(), program)
    variables = in_precision(variables_of(net, x))

    def loss(params, x):
        out, new = net.apply({**variables, "params": params}, x, train=train, mutable=["batch_stats"])
        return (out * target).sum(), (out, new)

    def found():
        return jax.jit(lambda params, x: jax.grad(loss, argnums=(0, 1), has_aux=True)(params, x))

    own = found()(variables["params"], x)
    with as_elsewhere():
        text = str(jax.make_jaxpr(loss)(variables["params"], x))
        xla = found()(variables["params"], x)
    assert "feature_group_count=18" in text and distance(own, xla) < 1e-10


def test_bfloat16_keeps_float32_parameters_statistics_and_features():
    x = np.random.default_rng(0).normal(size=(4, 16, 16, 3)).astype(np.float32)
    half, full = small(jnp.bfloat16), small()
    variables = variables_of(half, x)

    def run(net):
        return jax.jit(lambda v, x: net.apply(v, x, train=True, mutable=["batch_stats"]))(variables, x)

    (out, new), (exact, _) = run(half), run(full)
    assert {leaf.dtype for leaf in jax.tree.leaves((variables, new, out))} == {jnp.dtype("float32")}
    assert 1e-4 < np.abs(out - exact).max() < 0.2  # it did compute in bfloat16


def test_a_depthwise_kernel_starts_by_the_pixels_of_one_channel():
    """N(0, 2 / (k * k)), and 2 / (k * k * outputs) elsewhere, as TensorFlow's program has them."""
    net = small(groups=(Group(2, 5, 1, 8, 32),))
    params = variables_of(net, jnp.zeros((1, 8, 8, 3)))["params"]
    for name, fan in (("group1_block2_depthwise_conv", 25), ("group1_block2_expand_conv", 256), ("stem_conv", 9 * 32)):
        assert abs(np.std(params[name]["kernel"]) / np.sqrt(2 / fan) - 1) < 0.1, name
