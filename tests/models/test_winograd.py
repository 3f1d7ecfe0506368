"""Winograd's form: its choice by shape, its rounding, half precision. Its values: `test_convolution.py`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lt_noisy.models import winograd
from lt_noisy.models.convolution import (
    HALF_WINOGRAD_FROM,
    WINOGRAD_FROM,
    convolution,
    forward,
    input_gradient,
    kernel_gradient,
)

ONE = ((1, 1), (1, 1))


def arrays(images, side, channels, outputs, dtype=jnp.float32):
    rng = np.random.default_rng(0)
    shapes = ((images, side, side, channels), (3, 3, channels, outputs), (images, side, side, outputs))
    return [jnp.asarray(rng.normal(size=shape), dtype) for shape in shapes]


@pytest.fixture
def taken(monkeypatch):
    """The names of Winograd's functions as they are called."""
    names = []
    for name in ("forward", "kernel_gradient"):
        function = getattr(winograd, name)
        monkeypatch.setattr(winograd, name, lambda *args, f=function, name=name: names.append(name) or f(*args))
    return names


def traced(channels, outputs, side=4, stride=1, dtype=jnp.float32):
    x, kernel, _ = arrays(1, side, channels, outputs, dtype)
    for function in (forward, input_gradient, kernel_gradient):
        function.clear_cache()  # or a shape that was traced before is not traced again

    def loss(x, kernel):
        return convolution(x, kernel, (stride, stride), ONE).sum()

    jax.eval_shape(jax.grad(loss, (0, 1)), x, kernel)


def test_it_is_taken_from_some_channels_on_where_it_fits(taken):
    least, most = sorted(WINOGRAD_FROM.values())
    traced(most, most + 1)
    assert taken == ["forward", "forward", "kernel_gradient"]  # the second: the input's gradient
    del taken[:]
    traced(least, least + 1)
    assert taken == ["forward", "forward"]
    del taken[:]
    traced(least - 1, most)
    traced(most, most, side=5)
    traced(most, most, stride=2)
    assert taken == []


def test_of_half_precision_it_is_taken_from_more_channels_on(taken):
    least, most = sorted(HALF_WINOGRAD_FROM.values())
    traced(most, most, dtype=jnp.bfloat16)
    assert taken == ["forward", "forward", "kernel_gradient"]
    del taken[:]
    traced(least, least, dtype=jnp.bfloat16)
    assert taken == ["kernel_gradient"]


def test_float32_rounds_about_as_the_direct_sum_does(x64):
    """Against float64: the error of either form is a few units in the last place of the largest sum."""
    given = arrays(4, 8, 64, 64, jnp.float64)

    def errors(found, exact):
        return np.abs(np.asarray(found, np.float64) - exact).max() / np.abs(exact).max()

    x, kernel, dy = (array.astype(jnp.float32) for array in given)
    exact = [np.asarray(array, np.float64) for array in (x, kernel, dy)]
    wanted = winograd.forward(*map(jnp.asarray, exact[:2]), ONE)
    assert errors(winograd.forward(x, kernel, ONE), wanted) < 8 * np.finfo(np.float32).eps
    wanted = winograd.kernel_gradient(jnp.asarray(exact[0]), jnp.asarray(exact[2]), ONE)
    assert errors(winograd.kernel_gradient(x, dy, ONE), wanted) < 8 * np.finfo(np.float32).eps


def test_half_precision_is_summed_in_float32():
    """The result is the float32 one, rounded once."""
    x, kernel, dy = arrays(2, 4, 128, 128, jnp.bfloat16)
    wide = [array.astype(jnp.float32) for array in (x, kernel, dy)]
    out = forward(x, kernel, (1, 1), ONE)
    assert out.dtype == jnp.bfloat16
    np.testing.assert_array_equal(out, winograd.forward(wide[0], wide[1], ONE).astype(jnp.bfloat16))
    gradient = kernel_gradient(x, dy, kernel.shape, (1, 1), ONE)
    assert gradient.dtype == jnp.float32
    np.testing.assert_array_equal(gradient, winograd.kernel_gradient(wide[0], wide[2], ONE))


def test_images_count_for_themselves():
    """A prime number of images, which no block but one divides."""
    x, kernel, _ = arrays(7, 4, 2, 2)
    whole = winograd.forward(x, kernel, ONE)
    alone = jnp.concatenate([winograd.forward(x[i : i + 1], kernel, ONE) for i in range(7)])
    np.testing.assert_allclose(whole, alone, rtol=1e-6, atol=1e-6)
