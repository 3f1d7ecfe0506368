"""A function of a batch of images, a few at a time, so that what it makes on the way stays in the core's cache."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax


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
