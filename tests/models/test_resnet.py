"""Encoders: known parameter counts, a float64 NumPy forward pass, precision, BatchNorm over devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict
from helpers import published
from helpers.step_cases import distance, in_precision
from jax.sharding import PartitionSpec as P

from lt_noisy.collectives import AXIS
from lt_noisy.config.spec import bind
from lt_noisy.errors import UserError
from lt_noisy.models.resnet import ResNet
from lt_noisy.models.table import MODELS
from lt_noisy.precision import float_dtype


def make(text):
    return bind(text, MODELS, "model")(jnp.float32, None)


def small(blocks=(1, 1), width=4, stem="cifar", projection=False, dtype=jnp.float32, norm_axis=None, bottleneck=False):
    return ResNet(blocks, width, stem, projection, dtype, norm_axis, bottleneck=bottleneck)


def shapes(net, size=32):
    return jax.eval_shape(lambda x: net.init(jax.random.key(0), x, train=False), jnp.zeros((1, size, size, 3)))


@pytest.mark.parametrize(
    "text,count",
    [
        ("resnet20()", 269_722 - 650),  # published totals, less a linear classifier of ten classes
        ("resnet32()", 464_154 - 650),
        ("resnet44()", 658_586 - 650),
        ("resnet56()", 853_018 - 650),
        ("resnet18()", 11_173_962 - 5_130),
        ('resnet18(stem="imagenet")', 11_689_512 - 513_000),  # torchvision's, less its thousand classes
        ('resnet34(stem="imagenet")', 21_797_672 - 513_000),
        ("resnet50()", 25_557_032 - 2_049_000),
        ("resnet101()", 44_549_160 - 2_049_000),
    ],
)
def test_parameter_counts_are_the_published_ones(text, count):
    assert sum(p.size for p in jax.tree.leaves(shapes(make(text))["params"])) == count


@pytest.mark.parametrize(
    "text,size,stage_sizes,num_features",
    [("resnet8(width=4)", 8, (8, 4, 2), 16), ('resnet18(stem="imagenet", width=4)', 64, (16, 8, 4, 2), 32)],
)
def test_feature_and_stage_shapes(text, size, stage_sizes, num_features):
    net = make(text)

    def run(x):
        variables = net.init(jax.random.key(0), x, train=False)
        return net.apply(variables, x, train=False, capture_intermediates=True)

    features, captured = jax.eval_shape(run, jnp.zeros((2, size, size, 3)))
    assert features.shape == (2, num_features) and features.dtype == jnp.float32
    maps = captured["intermediates"]
    for group, side in enumerate(stage_sizes):
        output = maps[f"group{group + 1}_block1_norm2"]["__call__"][0]
        assert output.shape == (2, side, side, 4 * 2**group)


def reference_conv(x, kernel, stride):
    """PyTorch's: symmetric padding of half the kernel."""
    size = kernel.shape[0]
    x = np.pad(x, ((0, 0), (size // 2,) * 2, (size // 2,) * 2, (0, 0)))
    patches = np.lib.stride_tricks.sliding_window_view(x, (size, size), axis=(1, 2))[:, ::stride, ::stride]
    return np.einsum("bijcuv,uvcd->bijd", patches, np.float64(kernel))


def reference_forward(variables, x, blocks, stem, train):
    params, stats = variables["params"], variables["batch_stats"]

    def norm(x, name):
        mean, var = np.float64(stats[name]["mean"]), np.float64(stats[name]["var"])
        if train:
            mean, var = x.mean((0, 1, 2)), x.var((0, 1, 2))
        return (x - mean) / np.sqrt(var + 1e-5) * np.float64(params[name]["scale"]) + np.float64(params[name]["bias"])

    def conv(x, name, stride):
        return reference_conv(x, params[name]["kernel"], stride)

    x = np.maximum(norm(conv(np.float64(x), "stem_conv", 2 if stem == "imagenet" else 1), "stem_norm"), 0)
    if stem == "imagenet":
        padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-np.inf)
        windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
        x = windows[:, ::2, ::2].max((-1, -2))
    for group, count in enumerate(blocks, start=1):
        for i in range(1, count + 1):
            name, stride = f"group{group}_block{i}", 2 if group > 1 and i == 1 else 1
            if f"{name}_conv3" in params:
                y = np.maximum(norm(conv(x, f"{name}_conv1", 1), f"{name}_norm1"), 0)
                y = np.maximum(norm(conv(y, f"{name}_conv2", stride), f"{name}_norm2"), 0)
                y = norm(conv(y, f"{name}_conv3", 1), f"{name}_norm3")
            else:
                y = np.maximum(norm(conv(x, f"{name}_conv1", stride), f"{name}_norm1"), 0)
                y = norm(conv(y, f"{name}_conv2", 1), f"{name}_norm2")
            if f"{name}_shortcut_conv" in params:
                x = norm(conv(x, f"{name}_shortcut_conv", stride), f"{name}_shortcut_norm")
            elif stride == 2:  # channels c -> 2c: c/2 zeros, the old ones, c/2 zeros
                zeros = np.zeros((*x[:, ::2, ::2].shape[:3], x.shape[-1] // 2))
                x = np.concatenate([zeros, x[:, ::2, ::2], zeros], axis=-1)
            x = np.maximum(y + x, 0)
    return x.mean((1, 2))


def variables_of(net, x):
    """Random variables of the right shapes: every scale, offset and statistic away from its neutral start."""
    generator = np.random.default_rng(1)

    def fill(path, leaf):
        name = path[-1].key
        if name == "kernel":
            return (generator.normal(size=leaf.shape) / np.sqrt(leaf[..., 0].size)).astype(np.float32)
        return (generator.random(leaf.shape) + (name in ("scale", "var"))).astype(np.float32)

    tree = jax.eval_shape(lambda x: net.init(jax.random.key(0), x, train=False), x)
    return jax.tree_util.tree_map_with_path(lambda p, leaf: fill(p, np.empty(leaf.shape)), tree)


@pytest.mark.parametrize(
    "blocks,stem,projection,size,bottleneck",
    [
        ((1, 2), "cifar", False, 8, False),
        ((1, 1), "imagenet", True, 16, False),
        ((1, 2), "imagenet", True, 16, True),
    ],
)
def test_forward_pass_is_the_reference(blocks, stem, projection, size, bottleneck):
    net = small(blocks, stem=stem, projection=projection, bottleneck=bottleneck)
    x = np.random.default_rng(0).normal(size=(3, size, size, 3)).astype(np.float32)
    variables = variables_of(net, x)
    for train in (False, True):
        run = jax.jit(lambda v, x, train=train: net.apply(v, x, train=train, mutable=["batch_stats"]))
        out, new = run(variables, x)
        expected = reference_forward(variables, x, blocks, stem, train)
        np.testing.assert_allclose(out, expected, atol=1e-4 * np.abs(expected).max())
        old = variables["batch_stats"]["stem_norm"]
        if not train:
            jax.tree.map(np.testing.assert_array_equal, new["batch_stats"], variables["batch_stats"])
            continue
        stride = 2 if stem == "imagenet" else 1
        y = reference_conv(np.float64(x), variables["params"]["stem_conv"]["kernel"], stride)
        moved = new["batch_stats"]["stem_norm"]
        np.testing.assert_allclose(moved["mean"], 0.9 * old["mean"] + 0.1 * y.mean((0, 1, 2)), atol=1e-5)
        np.testing.assert_allclose(moved["var"], 0.9 * old["var"] + 0.1 * y.var((0, 1, 2)), atol=1e-5)


def features_of_published_weights(text, images):
    """Compiled `parameters by name -> features` in training mode, float64, and the parameters of `published`."""
    net, x = bind(text, MODELS, "model")(float_dtype(), None), jnp.asarray(images / 255)
    variables = jax.eval_shape(lambda: net.init(jax.random.key(0), x, train=False))
    named = published.weights({k: v.shape for k, v in flatten_dict(variables["params"], sep="/").items()})
    stats = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), variables["batch_stats"])

    def features(named):
        params = unflatten_dict(named, sep="/")
        return net.apply({"params": params, "batch_stats": stats}, x, train=True, mutable=["batch_stats"])[0]

    return features, named


def test_resnet18_is_torchvisions_and_so_is_its_gradient(x64):
    features, named = features_of_published_weights("resnet18()", published.images(2, 3, 8))
    expected = published.load("resnet18")

    def total(named):
        out = features(named)
        return (out * published.normal(3, *out.shape)).sum(), out

    gradients, out = jax.jit(jax.grad(total, has_aux=True))(named)
    np.testing.assert_allclose(out[:, :8], expected["features"], rtol=1e-11, atol=1e-12)
    of_largest = np.abs(expected["gradients"]).max()
    np.testing.assert_allclose(published.summary(gradients), expected["gradients"], rtol=1e-9, atol=1e-12 * of_largest)


# Over the three pixels of its last maps ResNet-50's BatchNorm makes a million times as much of rounding.
@pytest.mark.parametrize(("name", "rtol"), [("resnet34", 1e-11), ("resnet50", 1e-7)])
def test_resnets_with_the_stem_for_large_images_are_torchvisions(x64, name, rtol):
    features, named = features_of_published_weights(f'{name}(stem="imagenet")', published.images(2, 3, 32))
    out = jax.jit(features)(named)
    np.testing.assert_allclose(out[:, :8], published.load(name)["features"], rtol=rtol, atol=0.1 * rtol)


@pytest.mark.parametrize("projection,fan", [(False, 16 * 9), (True, 32 * 9)])
def test_initialisation_is_kaiming_normal_with_the_familys_fan(projection, fan):
    net = small(width=16, projection=projection)
    init = jax.jit(lambda x: net.init(jax.random.key(0), x, train=False))
    kernel = init(jnp.zeros((1, 8, 8, 3)))["params"]["group2_block1_conv1"]["kernel"]  # 16 -> 32 channels
    assert abs(np.std(kernel) / np.sqrt(2 / fan) - 1) < 0.05


@pytest.mark.parametrize("projection", [False, True])
def test_initialisation_as_pytorch_starts_every_convolution(projection):
    """U(-b, b) with b = 1 / sqrt(fan_in): what `kaiming_uniform_(a=sqrt(5))` comes to, whatever the family."""
    net = ResNet((1, 1), 16, "cifar", projection, jnp.float32, None, start="torch")
    params = jax.jit(lambda x: net.init(jax.random.key(0), x, train=False))(jnp.zeros((1, 8, 8, 3)))["params"]
    kernels = {name: layer["kernel"] for name, layer in params.items() if "kernel" in layer}
    assert ("group2_block1_shortcut_conv" in kernels) == projection
    for name, kernel in kernels.items():
        bound = kernel[..., 0].size ** -0.5
        assert 0.97 * bound < np.abs(kernel).max() <= bound, name
        assert abs(np.std(kernel) / (bound / np.sqrt(3)) - 1) < 0.06, name
        assert abs(np.mean(kernel)) < 0.1 * bound, name


def test_the_argument_reaches_the_network():
    for name in (name for name in MODELS if name.startswith("resnet")):
        builds = [make(f"{name}(width=2{init})").start for init in ("", ", init=kaiming", ", init=torch")]
        assert builds == ["kaiming", "kaiming", "torch"], name


def test_bfloat16_keeps_float32_parameters_statistics_and_features():
    x = np.random.default_rng(0).normal(size=(4, 8, 8, 1)).astype(np.float32)
    half, full = small(dtype=jnp.bfloat16), small()
    variables = variables_of(half, x)

    def run(net):
        return jax.jit(lambda v, x: net.apply(v, x, train=True, mutable=["batch_stats"]))(variables, x)

    (out, new), (exact, _) = run(half), run(full)
    assert {leaf.dtype for leaf in jax.tree.leaves((shapes(half), new, out))} == {jnp.dtype("float32")}
    assert 1e-4 < np.abs(out - exact).max() < 0.1  # it did compute in bfloat16


def test_synchronised_norm_on_eight_devices_is_one_device(x64):
    generator = np.random.default_rng(0)
    x = generator.normal(size=(16, 8, 8, 1)) * np.linspace(0.5, 2, 16)[:, None, None, None]
    target = generator.normal(size=(16, 8))
    one, many = small(dtype=float_dtype()), small(dtype=float_dtype(), norm_axis=AXIS)
    variables = in_precision(variables_of(one, x))
    stats = variables["batch_stats"]

    def loss(params, net, x, target):
        out, new = net.apply({"params": params, "batch_stats": stats}, x, train=True, mutable=["batch_stats"])
        return ((out - target) ** 2).sum() / 16, new["batch_stats"]

    def step(params, x, target):
        gradient, new = jax.grad(loss, has_aux=True)(params, many, x, target)
        return jax.lax.psum(gradient, AXIS), new

    mesh = jax.make_mesh((8,), (AXIS,), axis_types=(jax.sharding.AxisType.Auto,))
    specs = {"in_specs": (P(), P(AXIS), P(AXIS)), "out_specs": P()}
    on_devices = jax.jit(jax.shard_map(step, mesh=mesh, check_vma=False, **specs))

    expected, moved = jax.jit(lambda p: jax.grad(loss, has_aux=True)(p, one, x, target))(variables["params"])
    gradient, new = on_devices(variables["params"], x, target)
    assert distance(gradient, expected) < 1e-9
    assert distance(new, moved) < 1e-9


@pytest.mark.parametrize(
    "text,message",
    [
        ("resnet18(width=0)", "width=0"),
        ("resnet32(width=5)", "even"),
        ("resnet8(width=0)", "even"),
        ("resnet34(stem=stl)", "is cifar or imagenet, not stl"),
        ("resnet18(init=pytorch)", "is kaiming or torch, not pytorch"),
    ],
)
def test_bad_values_are_refused(text, message):
    with pytest.raises(UserError, match=message):
        bind(text, MODELS, "model")
