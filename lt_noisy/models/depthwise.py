"""Depthwise convolutions on a CPU, each channel by its own kernel: sums of shifted products, with their gradients.

XLA's CPU backend has no fast form of a convolution in groups: for the layers of an EfficientNet-Lite0 it takes about
twenty times as long as k * k products of shifted images and a row of the kernel, which it makes one loop over pixels
and channels, and for their gradients fifty times. `convolution` takes this form; the sums are the same, their order
and rounding are not. All are in float32 at least.
"""

import jax
import jax.numpy as jnp
from jax import lax

from lt_noisy.models.image_blocks import Padding, input_padding
from lt_noisy.precision import sum_dtype


def forward(x: jax.Array, kernel: jax.Array, strides: tuple[int, int], padding: Padding) -> jax.Array:
    """The convolution [B, H', W', C] of x [B, H, W, C] with a kernel [k, k, 1, C].

    Args:
      x: images.
      kernel: of every channel.
      strides: down and across.
      padding: two pairs (before, after), in pixels.
    """
    sides = [
        (side + sum(pads) - size) // stride + 1
        for side, pads, size, stride in zip(x.shape[1:3], padding, kernel.shape[:2], strides, strict=True)
    ]
    return _sum(_padded(x, padding), kernel, strides, (sides[0], sides[1]))


def input_gradient(
    dy: jax.Array, kernel: jax.Array, strides: tuple[int, int], padding: Padding, shape: tuple[int, ...]
) -> jax.Array:
    """The gradient [B, H, W, C] of the input, of `shape`: dy, spread by the strides, with the kernel turned round."""
    pads = input_padding(kernel.shape, strides, padding, dy.shape, shape)
    return _sum(_padded(dy, pads, strides), jnp.flip(kernel, (0, 1)), (1, 1), (shape[1], shape[2]))


def kernel_gradient(
    x: jax.Array, dy: jax.Array, shape: tuple[int, ...], strides: tuple[int, int], padding: Padding
) -> jax.Array:
    """The gradient [k, k, 1, C] of the kernel, of `shape`, float32 at least.

    Images are added one after the other into k * k images of products, and pixels at the end: adding up pixels at once
    takes three times as long, as XLA's loops for it do not run along the channels.
    """
    height, width, channels = dy.shape[1:]
    wide, taps = sum_dtype(x), [(i, j) for i in range(shape[0]) for j in range(shape[1])]

    def add(totals: list[jax.Array], pair: tuple[jax.Array, jax.Array]) -> tuple[list[jax.Array], None]:
        image, gradient = pair[0][None].astype(wide), pair[1].astype(wide)
        shifted = (_shifted(image, tap, strides, (height, width))[0] for tap in taps)
        return [total + part * gradient for total, part in zip(totals, shifted, strict=True)], None

    zeros = [jnp.zeros((height, width, channels), wide) for _ in taps]
    totals, _ = lax.scan(add, zeros, (_padded(x, padding), dy))
    return jnp.stack([total.sum((0, 1)) for total in totals]).reshape(shape)


def _sum(padded: jax.Array, kernel: jax.Array, strides: tuple[int, int], sides: tuple[int, int]) -> jax.Array:
    """The sum over a kernel's pixels of the padded images, shifted, times the kernel there; of `sides`."""
    wide = sum_dtype(padded)
    total = jnp.zeros((), wide)
    for i in range(kernel.shape[0]):
        for j in range(kernel.shape[1]):
            here = kernel[i : i + 1, j : j + 1].astype(wide)
            total = total + _shifted(padded, (i, j), strides, sides).astype(wide) * here
    return total.astype(padded.dtype)


def _shifted(padded: jax.Array, tap: tuple[int, int], strides: tuple[int, int], sides: tuple[int, int]) -> jax.Array:
    """What one pixel of the kernel meets, for all pixels of the output."""
    rows, columns = (
        slice(first, first + (side - 1) * stride + 1, stride)
        for first, side, stride in zip(tap, sides, strides, strict=True)
    )
    return padded[:, rows, columns]


def _padded(x: jax.Array, padding: Padding, spread: tuple[int, int] = (1, 1)) -> jax.Array:
    """x with zeros around it and `spread` - 1 of them between its pixels, written to memory before it is read.

    As part of the loop that reads them the zeros are a condition for every number, and it runs at half the speed.
    """
    (top, bottom), (left, right) = padding
    sizes = [(0, 0, 0), (top, bottom, spread[0] - 1), (left, right, spread[1] - 1), (0, 0, 0)]
    return lax.optimization_barrier(lax.pad(x, jnp.zeros((), x.dtype), sizes))
