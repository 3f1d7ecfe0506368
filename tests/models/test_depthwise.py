"""Depthwise convolutions and their gradients against XLA's own, in float64."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from lt_noisy.models.convolution import LAYOUT, convolution

RNG = np.random.default_rng(0)
# images, height, width, channels, kernel, strides, padding
SHAPES = [
    (3, 8, 8, 4, 3, (1, 1), ((1, 1), (1, 1))),
    (3, 8, 6, 4, 3, (2, 2), ((0, 1), (0, 1))),
    (3, 8, 6, 4, 3, (2, 2), ((1, 1), (1, 1))),
    (2, 7, 9, 5, 5, (2, 2), ((2, 2), (2, 2))),
    (2, 10, 12, 5, 5, (2, 2), ((1, 2), (1, 2))),
    (2, 5, 5, 6, 5, (1, 1), ((2, 2), (2, 2))),
    (2, 2, 2, 6, 5, (1, 1), ((2, 2), (2, 2))),
    (2, 6, 7, 3, 3, (1, 1), ((0, 0), (3, 1))),  # more padding than the kernel reaches
    (2, 9, 7, 3, 2, (3, 2), ((0, 0), (0, 1))),  # pixels that no window meets
    (1, 6, 6, 2, 1, (1, 1), ((0, 0), (0, 0))),
]


def arrays(shape, dtype=jnp.float64):
    images, height, width, channels, size, strides, padding = shape
    x = jnp.asarray(RNG.normal(size=(images, height, width, channels)), dtype)
    return x, jnp.asarray(RNG.normal(size=(size, size, 1, channels)), dtype), strides, padding


def grouped(conv, x, kernel, strides, padding):
    return conv(x, kernel, strides, padding, dimension_numbers=LAYOUT, feature_group_count=x.shape[-1])


@functools.partial(jax.jit, static_argnums=(0, 3, 4))
def pulled_back(conv, x, kernel, strides, padding, dy):
    out, pull = jax.vjp(lambda x, kernel: grouped(conv, x, kernel, strides, padding), x, kernel)
    return (out, *pull(dy))


@pytest.mark.parametrize("shape", SHAPES)
def test_gradients_are_xlas(x64, shape):
    given = arrays(shape)
    dy = jnp.asarray(RNG.normal(size=jax.eval_shape(lambda: grouped(lax.conv_general_dilated, *given)).shape))
    ours, theirs = (pulled_back(conv, *given, dy) for conv in (convolution, lax.conv_general_dilated))
    for got, expected in zip(ours, theirs, strict=True):
        assert got.dtype == expected.dtype
        np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-12)


def test_bfloat16_sums_in_float32():
    """1,024 products of 1 are 1,024, and 256 and 24 ones 280: in bfloat16 a sum of ones stays at 256."""
    x = jnp.ones((4, 16, 16, 2), jnp.bfloat16)
    _, pull = jax.vjp(lambda k: grouped(convolution, x, k, (1, 1), ((0, 0), (0, 0))), jnp.ones((1, 1, 1, 2), x.dtype))
    (gradient,) = pull(x)
    assert gradient.dtype == jnp.bfloat16 and gradient.ravel().tolist() == [1024, 1024]
    kernel = jnp.ones((5, 5, 1, 2), x.dtype).at[0, 0].set(256)
    out = grouped(convolution, x, kernel, (1, 1), ((0, 0), (0, 0)))
    assert out.dtype == jnp.bfloat16 and set(np.ravel(out).tolist()) == {280}


def test_flax_hands_its_depthwise_convolutions_over(x64):
    x = jnp.asarray(RNG.normal(size=(4, 8, 8, 3)))
    settings = {"features": 3, "kernel_size": (3, 3), "strides": 2, "padding": [(0, 1), (0, 1)], "use_bias": False}
    settings |= {"dtype": jnp.float64, "param_dtype": jnp.float64, "feature_group_count": 3}
    ours, theirs = nn.Conv(conv_general_dilated=convolution, **settings), nn.Conv(**settings)
    params = ours.init(jax.random.key(0), x)
    gradients = [jax.grad(lambda p, net=net: (net.apply(p, x) ** 3).sum())(params) for net in (ours, theirs)]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), *gradients)
    assert "conv_general_dilated" not in str(jax.make_jaxpr(jax.grad(lambda p: ours.apply(p, x).sum()))(params))


def test_a_kernel_for_each_channel_of_a_batch_of_networks(x64):
    """Under `vmap`, as the networks of several seeds run."""
    x, kernel, strides, padding = arrays(SHAPES[1])
    xs, kernels = jnp.stack([x, 2 * x]), jnp.stack([kernel, kernel + 1])

    def loss(conv, x, kernel):
        return (grouped(conv, x, kernel, strides, padding) ** 2).sum()

    both = [
        jax.vmap(jax.grad(lambda x, k, conv=conv: loss(conv, x, k), argnums=(0, 1)))(xs, kernels)
        for conv in (convolution, lax.conv_general_dilated)
    ]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12), *both)
    assert jax.tree.map(jnp.shape, both[0]) == (xs.shape, kernels.shape)


def test_other_groups_stay_xlas(x64):
    """Two kernels a channel, and two channels a kernel."""
    for channels, inside, outputs, groups in ((3, 1, 6, 3), (4, 2, 4, 2)):
        x, kernel = jnp.asarray(RNG.normal(size=(2, 6, 6, channels))), jnp.ones((3, 3, inside, outputs))
        options = {"dimension_numbers": LAYOUT, "feature_group_count": groups}
        got = convolution(x, kernel, (1, 1), ((1, 1), (1, 1)), **options)
        np.testing.assert_array_equal(got, lax.conv_general_dilated(x, kernel, (1, 1), ((1, 1), (1, 1)), **options))
