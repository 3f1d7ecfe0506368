"""What forms of a convolution on a CPU share: a few images at a time, and the paddings of the gradient.

Taken by blocks, what a function of a batch makes on the way stays in the core's cache.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

Padding = tuple[tuple[int, int], tuple[int, int]]


def input_padding(
    kernel: tuple[int, ...], strides: tuple[int, int], padding: Padding, dy: tuple[int, ...], x: tuple[int, ...]
) -> Padding:
    """The padding with which a kernel turned round, over dy spread by the strides, gives the gradient of x.

    Args:
      kernel: shape [k, k, C, O].
      strides: of the convolution.
      padding: of the convolution.
      dy: shape [B, H', W', O] of the gradient of its output.
      x: shape [B, H, W, C] of its input.
    """
    pads: list[tuple[int, int]] = []
    for axis in (0, 1):
        before = kernel[axis] - 1 - padding[axis][0]
        spread = (dy[1 + axis] - 1) * strides[axis] + 1
        pads.append((before, x[1 + axis] + kernel[axis] - 1 - spread - before))
    return pads[0], pads[1]


def map_blocks(fn: Callable[[jax.Array], jax.Array], x: jax.Array, most: int) -> jax.Array:
    """`fn(x)` for a `fn` of each image alone, [B, ...] -> [B, ...], on blocks of at most `most` images."""
    size = _block(len(x), most)
    if size == len(x):
        return fn(x)
    found = lax.map(fn, _blocks(x, size))
    return found.reshape(len(x), *found.shape[2:])


def sum_blocks(fn: Callable[..., jax.Array], arrays: tuple[jax.Array, ...], most: int) -> jax.Array:
    """`fn(*arrays)` for a `fn` that sums over images, on blocks of at most `most` of them."""
    images = len(arrays[0])
    size = _block(images, most)
    if size == images:
        return fn(*arrays)
    zero = jax.eval_shape(fn, *(array[:size] for array in arrays))

    def add(total: jax.Array, block: list[jax.Array]) -> tuple[jax.Array, None]:
        return total + fn(*block), None

    return lax.scan(add, jnp.zeros(zero.shape, zero.dtype), [_blocks(array, size) for array in arrays])[0]


def _block(images: int, most: int) -> int:
    """The largest divisor of `images` that is at most `most`, and at least 1."""
    return max(size for size in range(1, max(1, min(most, images)) + 1) if images % size == 0)


def _blocks(x: jax.Array, size: int) -> jax.Array:
    return x.reshape(len(x) // size, size, *x.shape[1:])
