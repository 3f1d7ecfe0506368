"""Vision Transformers: published parameter counts, a float64 NumPy forward pass, symmetries, precision, refusals."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.step_cases import in_precision

from lt_noisy.config.spec import bind
from lt_noisy.errors import UserError
from lt_noisy.models.table import MODELS
from lt_noisy.models.vit import ViT
from lt_noisy.precision import float_dtype

KINDS = [(False, 0, "cls"), (True, 0, "mean"), (True, 2, "cls"), (False, 3, "mean")]


def make(text):
    return bind(text, MODELS, "model")(jnp.float32, None)


def small(layer_scale=True, registers=2, pool="cls", dtype=jnp.float32, epsilon=1e-6):
    return ViT(4, 12, 2, 3, layer_scale, registers, pool, dtype, epsilon)


def images(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def shapes(net, x):
    return jax.eval_shape(lambda: net.init(jax.random.key(0), x, train=False))


def variables_of(net, x):
    """Random variables of the right shapes: every scale and offset away from its neutral start."""
    generator = np.random.default_rng(1)

    def fill(path, leaf):
        scale = leaf.shape[0] ** -0.5 if path[-1].key == "kernel" and len(leaf.shape) == 2 else 0.5
        return (scale * generator.normal(size=leaf.shape) + (path[-1].key == "scale")).astype(np.float32)

    return jax.tree_util.tree_map_with_path(fill, shapes(net, x))


@pytest.mark.parametrize(
    "text,size,count",
    [
        # timm's, less a classifier of a thousand classes and the position of the class token, which ours has not
        ("vit_s16()", 224, 22_050_664 - 385_000 - 384),
        ("vit_b16()", 224, 86_567_656 - 769_000 - 768),
        ("vit_l16()", 224, 304_326_632 - 1_025_000 - 1_024),
        ("vit_s14()", 518, 22_056_192 - 384),
        ("vit_b14()", 518, 86_579_712 - 768),
        ("vit_b14(registers=4)", 518, 86_582_016),
    ],
)
def test_parameter_counts_are_the_published_ones(text, size, count):
    params = shapes(make(text), jnp.zeros((1, size, size, 3)))["params"]
    assert sum(p.size for p in jax.tree.leaves(params)) == count


def test_the_names_of_layers_tell_their_depth():
    names = set(shapes(small(), images(1, 8, 12, 3))["params"])
    before = {"patch_embed", "positions", "cls", "registers"}
    inside = ("norm1", "qkv", "proj", "scale1", "norm2", "mlp1", "mlp2", "scale2")
    assert names == before | {f"block{i}_{name}" for i in (1, 2) for name in inside} | {"norm"}
    assert shapes(small(), images(1, 8, 12, 3))["params"]["positions"].shape == (2, 3, 12)


def reference_forward(params, x, layer_scale, registers, pool, patch=4, heads=3, depth=2, epsilon=1e-6):
    params = jax.tree.map(np.float64, params)

    def norm(x, name):
        x = x - x.mean(-1, keepdims=True)
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + epsilon) * params[name]["scale"] + params[name]["bias"]

    def dense(x, name):
        return x @ params[name]["kernel"] + params[name]["bias"]

    def scaled(x, name):
        return x * params[name] if layer_scale else x

    def attend(x, name):
        q, k, v = (
            np.stack(np.split(part, heads, -1), 1) for part in np.split(dense(x, f"{name}_qkv"), 3, -1)
        )  # [B, heads, T, D / heads]
        weights = np.exp(q @ k.swapaxes(-1, -2) / np.sqrt(q.shape[-1]))
        y = weights / weights.sum(-1, keepdims=True) @ v
        return dense(np.concatenate(list(y.swapaxes(0, 1)), -1), f"{name}_proj")

    kernel, width = params["patch_embed"]["kernel"], params["cls"].shape[0]
    rows, columns = (side // patch for side in x.shape[1:3])
    patches = np.float64(x).reshape(len(x), rows, patch, columns, patch, -1).swapaxes(2, 3)
    grid = np.einsum("brcuvi,uvid->brcd", patches, kernel) + params["patch_embed"]["bias"] + params["positions"]
    tokens = [params["cls"][None], *([params["registers"]] if registers else [])]
    tokens = [np.broadcast_to(token, (len(x), *token.shape)) for token in tokens]
    x = np.concatenate([*tokens, grid.reshape(len(x), -1, width)], 1)
    for i in range(1, depth + 1):
        name = f"block{i}"
        x = x + scaled(attend(norm(x, f"{name}_norm1"), name), f"{name}_scale1")
        y = dense(norm(x, f"{name}_norm2"), f"{name}_mlp1")
        y = y * (1 + np.vectorize(math.erf)(y / np.sqrt(2))) / 2
        x = x + scaled(dense(y, f"{name}_mlp2"), f"{name}_scale2")
    x = norm(x, "norm")
    return x[:, 0] if pool == "cls" else x[:, 1 + registers :].mean(1)


@pytest.mark.parametrize("at", range(len(KINDS)))
def test_forward_pass_is_the_reference(x64, at):
    (layer_scale, registers, pool), channels = KINDS[at], (1, 3)[at % 2]
    net, x = small(layer_scale, registers, pool, float_dtype()), images(3, 8, 12, channels)
    variables = variables_of(net, x)
    expected = reference_forward(variables["params"], x, layer_scale, registers, pool)
    for train in (False, True):
        out = jax.jit(lambda v, x, train=train: net.apply(v, x, train=train))(in_precision(variables), np.float64(x))
        assert out.dtype == np.float64
        np.testing.assert_allclose(out, expected, rtol=1e-10, atol=1e-10)


def test_epsilon_is_that_of_every_norm(x64):
    x = images(2, 8, 8, 3)
    net = small(dtype=float_dtype(), epsilon=0.3)
    variables = variables_of(net, x)
    out = net.apply(in_precision(variables), np.float64(x), train=False)
    np.testing.assert_allclose(out, reference_forward(variables["params"], x, True, 2, "cls", epsilon=0.3), rtol=1e-10)


@pytest.mark.parametrize("pool", ["cls", "mean"])
def test_patches_that_change_places_with_their_positions_change_nothing(x64, pool):
    net, x = small(pool=pool, dtype=float_dtype()), np.float64(images(2, 8, 8, 3))
    variables = in_precision(variables_of(net, x))
    features = jax.jit(lambda params, x: net.apply({"params": params}, x, train=False))
    params = variables["params"]
    turned = {**params, "positions": params["positions"][::-1]}
    below = np.concatenate([x[:, 4:], x[:, :4]], axis=1)  # the lower row of patches comes first
    expected = features(params, x)
    np.testing.assert_allclose(features(turned, below), expected, rtol=1e-10)
    assert np.abs(features(params, below) - expected).max() > 1e-3
    np.testing.assert_allclose(features({**params, "registers": params["registers"][::-1]}, x), expected, rtol=1e-10)


def test_images_of_a_batch_do_not_see_each_other():
    net, x = small(), images(3, 8, 8, 3)
    variables = variables_of(net, x)
    features = jax.jit(lambda x: net.apply(variables, x, train=True))
    np.testing.assert_allclose(features(x)[::-1], features(x[::-1]), rtol=1e-5, atol=1e-5)


def test_blocks_start_as_the_identity_with_layer_scale():
    """Up to 1e-5: the features are the class token, normalised, whatever the image."""
    net, x = small(), images(2, 8, 8, 3)
    variables = jax.jit(lambda: net.init(jax.random.key(0), x, train=False))()
    cls = np.float64(variables["params"]["cls"])
    assert 0 < np.abs(cls).max() < 1e-5
    np.testing.assert_array_equal(variables["params"]["block1_scale1"], np.full(12, 1e-5, np.float32))
    cls = cls + 1.0  # of size 1 for the norm, whose epsilon would hide it
    variables["params"]["cls"] = np.float32(np.arange(12) * cls)
    expected = (np.arange(12) - 5.5) / np.arange(12).std()
    np.testing.assert_allclose(net.apply(variables, x, train=False), np.stack([expected] * 2), atol=1e-4)


def test_initialisation_is_timms():
    x = jnp.zeros((1, 32, 32, 3))
    params = jax.jit(lambda: ViT(4, 48, 1, 3, False, 0, "cls", jnp.float32).init(jax.random.key(0), x, train=False))()
    params = params["params"]
    for kernel in (params["block1_qkv"]["kernel"], params["block1_mlp2"]["kernel"], params["positions"]):
        assert abs(np.std(kernel) / 0.02 - 1) < 0.05 and abs(np.mean(kernel)) < 0.002
    bound = 48**-0.5  # of 4x4 patches of three channels
    for leaf in params["patch_embed"].values():
        assert 0.9 * bound < np.abs(leaf).max() <= bound
    assert not params["block1_qkv"]["bias"].any() and not params["block1_mlp1"]["bias"].any()


def test_bfloat16_keeps_float32_parameters_and_features():
    x = images(4, 8, 8, 1)
    half, full = small(dtype=jnp.bfloat16), small()
    variables = variables_of(half, x)
    out, exact = (jax.jit(lambda v, x, net=net: net.apply(v, x, train=True))(variables, x) for net in (half, full))
    assert {leaf.dtype for leaf in jax.tree.leaves((shapes(half, x), out))} == {jnp.dtype("float32")}
    assert 1e-4 < np.abs(out - exact).max() < 0.1  # it did compute in bfloat16


@pytest.mark.parametrize(
    "layer_scale,registers,pool,dtype",
    [(True, 2, "cls", jnp.float32), (True, 2, "cls", jnp.bfloat16), (False, 3, "mean", jnp.float32)],
)
def test_a_gradient_is_finite_and_reaches_every_parameter(layer_scale, registers, pool, dtype):
    net, x, weights = small(layer_scale, registers, pool, dtype), images(2, 8, 8, 3), images(2, 12)
    gradient = jax.jit(jax.grad(lambda v: (net.apply(v, x, train=True) * weights).sum()))
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient(variables_of(net, x))):
        assert leaf.dtype == jnp.float32 and np.isfinite(leaf).all() and leaf.any(), path
    start = jax.jit(lambda: net.init(jax.random.key(0), x, train=False))()
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient(start)))


@pytest.mark.parametrize("size", [(30, 32), (32, 28)])
def test_images_that_patches_do_not_fill_are_refused(size):
    message = f"images of {size[0]}x{size[1]} pixels do not divide into patches of 16x16"
    with pytest.raises(UserError, match=message):
        shapes(make("vit_s16()"), jnp.zeros((1, *size, 3)))


@pytest.mark.parametrize(
    "text,message",
    [
        ("vit_s16(registers=-1)", "registers=-1 must be 0 or more"),
        ("vit_b14(pool=max)", "is cls or mean, not max"),
        ("vit_l16(epsilon=0)", "must be above 0"),
        ("vit_b16(epsilon=1.0)", "and below 1"),
    ],
)
def test_bad_values_are_refused(text, message):
    with pytest.raises(UserError, match=message):
        bind(text, MODELS, "model")


def test_arguments_reach_the_network():
    net = make("vit_b14(registers=4, pool=mean, epsilon=1e-12)")
    assert (net.registers, net.pool, net.epsilon, net.layer_scale, net.patch) == (4, "mean", 1e-12, True, 14)
    assert not make("vit_b16()").layer_scale and make("vit_s16(layer_scale=True)").layer_scale
