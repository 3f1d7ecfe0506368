"""Convolutions and their gradients against XLA's own, in float64, for every shape that a network here has."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from lt_noisy.models import convolution as module
from lt_noisy.models import winograd
from lt_noisy.models.convolution import LAYOUT, convolution

RNG = np.random.default_rng(0)
# images, height, width, channels, outputs, kernel, stride, padding
SHAPES = [
    (6, 8, 8, 3, 4, 3, 1, 1),
    (6, 8, 8, 4, 4, 3, 1, 1),
    (6, 8, 8, 4, 6, 3, 2, 1),
    (5, 7, 9, 2, 3, 3, 2, 1),
    (6, 8, 8, 4, 6, 1, 1, 0),
    (6, 8, 8, 4, 6, 1, 2, 0),
    (5, 7, 7, 4, 6, 1, 2, 0),
    (3, 20, 16, 3, 5, 7, 2, 3),
    (4, 9, 6, 3, 2, 5, 1, 2),
    (4, 9, 6, 3, 2, 3, 1, 0),
    (4, 9, 6, 3, 2, 2, 1, 1),
    (6, 6, 8, 4, 5, 3, 1, 0),
    (3, 6, 4, 2, 2, 3, 1, 2),
    (2, 4, 4, 2, 2, 3, 1, 3),
]


def arrays(shape, dtype=jnp.float64):
    images, height, width, channels, outputs, size, stride, pad = shape
    x = jnp.asarray(RNG.normal(size=(images, height, width, channels)), dtype)
    kernel = jnp.asarray(RNG.normal(size=(size, size, channels, outputs)), dtype)
    return x, kernel, (stride, stride), ((pad, pad), (pad, pad))


def xla(x, kernel, strides, padding):
    return lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=LAYOUT)


def pulled_back(conv, x, kernel, strides, padding, dy):
    out, pull = jax.vjp(lambda x, kernel: conv(x, kernel, strides, padding), x, kernel)
    return (out, *pull(dy))


CACHES = (1, 4000, 10**9)  # an image at a time, a few, all at once
OFTEN = [SHAPES[at] for at in (1, 2, 4, 5, 7, 8, 10)]  # one of each size and stride, with all of them


def _settings():
    """(shape, cache, channels from which on Winograd's form is taken), each shape by each form that it has."""
    for shape in SHAPES:
        _, height, width, _, _, size, stride, pad = shape
        if (size, stride) == (3, 1) and (height + 2 * pad) % 2 == (width + 2 * pad) % 2 == 0:
            yield from ((shape, cache, 1) for cache in CACHES)
        yield from ((shape, cache, 10**6) for cache in (CACHES if shape in OFTEN else CACHES[1:2]))


@pytest.mark.parametrize(("shape", "cache", "channels"), list(_settings()))
def test_gradients_are_xlas(x64, monkeypatch, shape, cache, channels):
    monkeypatch.setattr(module, "_CACHE", cache)
    monkeypatch.setattr(winograd, "_CACHE", cache)
    monkeypatch.setattr(module, "WINOGRAD_FROM", {"forward": channels, "kernel_gradient": channels})
    given = arrays(shape)
    dy = jnp.asarray(RNG.normal(size=xla(*given).shape))
    for function in (module.forward, module.input_gradient, module.kernel_gradient):
        function.clear_cache()  # of what other settings gave for this shape
    for got, expected in zip(pulled_back(convolution, *given, dy), pulled_back(xla, *given, dy), strict=True):
        assert got.dtype == expected.dtype
        np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-12)


def test_bfloat16_sums_in_float32():
    """4,096 products of 1 are 4,096: in bfloat16 a sum of ones stays at 256."""
    x, dy = jnp.ones((16, 16, 16, 1), jnp.bfloat16), jnp.ones((16, 16, 16, 1), jnp.bfloat16)
    _, pull = jax.vjp(lambda k: convolution(x, k, (1, 1), ((0, 0), (0, 0))), jnp.ones((1, 1, 1, 1), jnp.bfloat16))
    (gradient,) = pull(dy)
    assert gradient.dtype == jnp.bfloat16 and float(gradient[0, 0, 0, 0]) == 4096


def test_flax_hands_its_convolutions_over(x64):
    x = jnp.asarray(RNG.normal(size=(4, 8, 8, 3)))
    settings = {"features": 5, "kernel_size": (3, 3), "strides": 2, "padding": 1, "use_bias": False}
    settings |= {"dtype": jnp.float64, "param_dtype": jnp.float64}
    ours, theirs = nn.Conv(conv_general_dilated=convolution, **settings), nn.Conv(**settings)
    params = ours.init(jax.random.key(0), x)
    gradients = [jax.grad(lambda p, net=net: (net.apply(p, x) ** 3).sum())(params) for net in (ours, theirs)]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), *gradients)
    text = str(jax.make_jaxpr(jax.grad(lambda p: ours.apply(p, x).sum()))(params))
    assert "dot_general" in text  # the kernel's gradient is a product


def test_what_is_no_plain_convolution_is_xlas(x64):
    """Groups and dilation, which no network here has; and other backends."""
    x, kernel = jnp.asarray(RNG.normal(size=(2, 6, 6, 4))), jnp.asarray(RNG.normal(size=(3, 3, 2, 4)))
    options = {"dimension_numbers": LAYOUT, "feature_group_count": 2, "rhs_dilation": (2, 2), "lhs_dilation": (1, 1)}
    got = convolution(x, kernel, (1, 1), ((1, 1), (1, 1)), **options)
    np.testing.assert_array_equal(got, lax.conv_general_dilated(x, kernel, (1, 1), ((1, 1), (1, 1)), **options))


def test_other_backends_keep_their_own(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    x, kernel, strides, padding = arrays(SHAPES[0], jnp.float32)
    text = str(
        jax.make_jaxpr(lambda x, kernel: convolution(x, kernel, strides, padding, dimension_numbers=LAYOUT))(x, kernel)
    )
    assert "conv_general_dilated" in text and "custom_vjp" not in text
