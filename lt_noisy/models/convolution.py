"""Two-dimensional convolutions that are fast on a CPU too; elsewhere they are XLA's own.

XLA's CPU backend computes the gradient of a kernel as a convolution whose window is the whole image, slower than the
forward pass, and inside a `scan` or `while` both gradients by a naive loop (jax-ml/jax#12868). Here the
kernel's gradient is matrix products over a few images at a time, so that the shifted copies they take stay in the
core's cache; the input's gradient is a forward convolution, in the layout that XLA hands to its fast library
everywhere; and from some channels on both, and the forward pass, are Winograd's (`winograd`). A 1 x 1 convolution is a
matrix product, one with a kernel for each channel a sum of shifted products (`depthwise`). The sums are the same, their
order and rounding are not. `benchmarks/convolutions.py` measures each form and shape without groups.

First-order reverse mode only: forward-mode and second derivatives of such a convolution raise JAX's own error.
"""

import contextlib
import functools
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from lt_noisy.models import depthwise, winograd
from lt_noisy.models.image_blocks import Padding, input_padding, sum_blocks
from lt_noisy.precision import sum_dtype

LAYOUT = ("NHWC", "HWIO", "NHWC")
_CACHE = 800 * 1024  # bytes of shifted copies at a time: what a core's second-level cache holds beside the rest
# The channels, of input and output, from which on Winograd's form is the faster at 3 x 3 and stride 1.
WINOGRAD_FROM = {"forward": 32, "kernel_gradient": 64}
# Of half precision, which it transforms in float32.
HALF_WINOGRAD_FROM = {"forward": 128, "kernel_gradient": 64}

_own = True


@contextlib.contextmanager
def as_elsewhere() -> Iterator[None]:
    """Within it what is traced on a CPU has XLA's own convolutions, as on an accelerator whose program is planned."""
    global _own
    _own, before = False, _own
    try:
        yield
    finally:
        _own = before


def convolution(x: jax.Array, kernel: jax.Array, strides: Any, padding: Any, **options: Any) -> jax.Array:
    """`lax.conv_general_dilated` for `flax.linen.Conv(conv_general_dilated=...)`, with gradients for the backend.

    Args:
      x: [B, H, W, C].
      kernel: [k, k, C, O]; [k, k, 1, C] with `feature_group_count=C`, one for each channel.
      strides: two numbers.
      padding: two pairs (before, after), in pixels.
      options: the others, as Flax gives them.

    Returns:
      [B, H', W', O].
    """
    dilated = any(d != 1 for name in ("lhs_dilation", "rhs_dilation") for d in options.get(name) or ())
    groups = options.get("feature_group_count", 1)
    known = groups == 1 or groups == x.shape[-1] == kernel.shape[-1]
    plain = x.ndim == 4 and not dilated and known and not isinstance(padding, str)
    if not plain or not _own or jax.default_backend() != "cpu":
        return lax.conv_general_dilated(x, kernel, strides, padding, **options)
    (top, bottom), (left, right) = padding
    return _convolution(x, kernel, tuple(strides), ((top, bottom), (left, right)))


# Each form is a program of its own, so that layers of equal shape are traced and lowered once.
@functools.partial(jax.jit, static_argnums=(2, 3))
def forward(x: jax.Array, kernel: jax.Array, strides: tuple[int, int], padding: Padding) -> jax.Array:
    """The convolution [B, H', W', O] by the form that is the fastest for its shape."""
    if _is_depthwise(kernel.shape, x.shape):
        return depthwise.forward(x, kernel, strides, padding)
    if kernel.shape[:2] == (1, 1) and strides == (1, 1) and padding == ((0, 0), (0, 0)):
        return lax.dot_general(x, kernel[0, 0], (((3,), (0,)), ((), ())))
    sides = [size + sum(pads) - 2 for size, pads in zip(x.shape[1:3], padding, strict=True)]
    if _is_winograds("forward", x.dtype, kernel.shape, strides, padding, sides):
        return winograd.forward(x, kernel, padding)
    return lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=LAYOUT)


def _is_depthwise(kernel: tuple[int, ...], x: tuple[int, ...]) -> bool:
    """Whether a kernel of this shape is one for each channel of an input of that shape."""
    return kernel[2] != x[-1]


def _is_winograds(
    what: str,
    dtype: jnp.dtype,
    kernel: tuple[int, ...],
    strides: tuple[int, int],
    padding: Padding,
    sides: Sequence[int],
) -> bool:
    """Whether Winograd's form takes this convolution, whose output has `sides`, and is the faster."""
    fits = kernel[:2] == (3, 3) and strides == (1, 1) and not any(side % 2 for side in sides)
    least = WINOGRAD_FROM if jnp.finfo(dtype).bits >= 32 else HALF_WINOGRAD_FROM
    return fits and min(min(pads) for pads in padding) >= 0 and min(kernel[2:]) >= least[what]


_convolution = functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))(forward)


def _forward(
    x: jax.Array, kernel: jax.Array, strides: tuple[int, int], padding: Padding
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _convolution(x, kernel, strides, padding), (x, kernel)


def _backward(
    strides: tuple[int, int], padding: Padding, saved: tuple[jax.Array, jax.Array], dy: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x, kernel = saved
    return (
        input_gradient(dy, kernel, strides, padding, x.shape),
        kernel_gradient(x, dy, kernel.shape, strides, padding).astype(kernel.dtype),
    )


_convolution.defvjp(_forward, _backward)


@functools.partial(jax.jit, static_argnums=(2, 3, 4))
def input_gradient(
    dy: jax.Array, kernel: jax.Array, strides: tuple[int, int], padding: Padding, shape: tuple[int, ...]
) -> jax.Array:
    """The gradient [B, H, W, C] of the input, of `shape`: a convolution of dy with the kernel turned round."""
    if _is_depthwise(kernel.shape, shape):
        return depthwise.input_gradient(dy, kernel, strides, padding, shape)
    turned = jnp.flip(kernel, (0, 1)).transpose(0, 1, 3, 2)
    pads = input_padding(kernel.shape, strides, padding, dy.shape, shape)
    if strides == (1, 1):
        return forward(dy, turned, strides, pads)
    return lax.conv_general_dilated(dy, turned, (1, 1), pads, lhs_dilation=strides, dimension_numbers=LAYOUT)


@functools.partial(jax.jit, static_argnums=(2, 3, 4))
def kernel_gradient(
    x: jax.Array, dy: jax.Array, shape: tuple[int, ...], strides: tuple[int, int], padding: Padding
) -> jax.Array:
    """The gradient [k, k, C, O] of the kernel, of `shape`, summed in float32 at least.

    Rows and columns of the window are independent shifts. At stride 1 the columns shift x and the rows shift dy the
    other way, so that one product of [kC, pixels] by [pixels, kO] holds all k * k taps and copies only k of each; at
    other strides all taps of x are laid side by side: [kkC, pixels] by [pixels, O].
    """
    if _is_depthwise(shape, x.shape):
        return depthwise.kernel_gradient(x, dy, shape, strides, padding)
    rows, columns, channels, outputs = shape
    height, width = dy.shape[1:3]
    if _is_winograds("kernel_gradient", x.dtype, shape, strides, padding, (height, width)):
        return winograd.kernel_gradient(x, dy, padding)
    (top, bottom), (left, right) = padding

    def taps(x: jax.Array, dy: jax.Array) -> jax.Array:
        padded = jnp.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)))
        down, across = strides
        shifted = [
            padded[:, i : i + (height - 1) * down + 1 : down, j : j + (width - 1) * across + 1 : across]
            for i in range(rows)
            for j in range(columns)
        ]
        return _product(jnp.concatenate(shifted, axis=-1), dy)

    def shifts(x: jax.Array, dy: jax.Array) -> jax.Array:
        # dW[i, j] = sum x[h + i - top, w + j - left] dy[h, w] = sum x[h, w + j - left] dy[h - i + top, w]
        padded_x = jnp.pad(x, ((0, 0), (0, 0), (left, right), (0, 0)))
        padded_dy = jnp.pad(dy, ((0, 0), (rows - 1, rows - 1), (0, 0), (0, 0)))
        begins = [rows - 1 - i + top for i in range(rows)]
        return _product(
            jnp.concatenate([padded_x[:, :, j : j + width] for j in range(columns)], axis=-1),
            jnp.concatenate([padded_dy[:, b : b + x.shape[1]] for b in begins], axis=-1),
        )

    if strides == (1, 1):
        size = x.dtype.itemsize * width * (columns * x.shape[1] * channels + rows * x.shape[1] * outputs)
        found = sum_blocks(shifts, (x, dy), _CACHE // size).reshape(columns, channels, rows, outputs)
        return found.transpose(2, 0, 1, 3)
    size = x.dtype.itemsize * height * width * (rows * columns * channels + outputs)
    return sum_blocks(taps, (x, dy), _CACHE // size).reshape(shape)


def _product(a: jax.Array, b: jax.Array) -> jax.Array:
    """The product [M, N] of [..., M] and [..., N] over all pixels."""
    a, b = a.reshape(-1, a.shape[-1]), b.reshape(-1, b.shape[-1])
    return lax.dot_general(a, b, (((0,), (0,)), ((), ())), preferred_element_type=sum_dtype(a))
