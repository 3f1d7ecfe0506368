"""Augmentation on the device: random per-example image operations, recipes and batches, in pure JAX.

An `Augment` is a pair: `train(key, image)` for one example, and `evaluate(image)`, its deterministic part
(normalisation; the identity for everything random), so that test images are always prepared as the training
images were. Images are float32 [H, W, C] with C = 3 or 1; colour operations expect values in [0, 1]. An
example's key depends on its position in the global batch only: batch splits and device counts change no draw.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from lt_noisy import rng
from lt_noisy.errors import UserError
from lt_noisy.precision import to_float


class Augment(NamedTuple):
    """`train(key, image) -> image` and its deterministic part `evaluate(image) -> image`, both [H, W, C]."""

    train: Callable[[jax.Array, jax.Array], jax.Array]
    evaluate: Callable[[jax.Array], jax.Array]


def random_only(train: Callable[[jax.Array, jax.Array], jax.Array]) -> Augment:
    """A random operation `train(key, image [H, W, C]) -> image`, which evaluation leaves out."""
    return Augment(train, lambda image: image)


def none() -> Augment:
    """No augmentation: pixels in [0, 1] as they are."""
    return random_only(lambda key, image: image)


def compose(*ops: Augment) -> Augment:
    """Applies `ops` from left to right, each with a key of its own."""
    if not ops:
        raise UserError("compose() needs at least one operation; for no augmentation write none()")

    def train(key: jax.Array, image: jax.Array) -> jax.Array:
        for i, op in enumerate(ops):
            image = op.train(jax.random.fold_in(key, i), image)
        return image

    def evaluate(image: jax.Array) -> jax.Array:
        for op in ops:
            image = op.evaluate(image)
        return image

    return Augment(train, evaluate)


def _unit(images: jax.Array) -> jax.Array:
    """uint8 -> float32 in [0, 1]; anything else would be scaled wrongly without a sound."""
    if images.dtype != jnp.uint8:
        raise TypeError(f"images must be uint8, not {images.dtype}")
    return to_float(images) / 255


def augment_batch(augment: Augment, key: jax.Array, images: Any, positions: jax.Array) -> jax.Array:
    """Augments uint8 [B, H, W, C] at `positions` int [B] of the global batch -> float32 [B, H, W, C].

    Raises TypeError if the images are not uint8.
    """
    return jax.vmap(augment.train)(rng.per_example(key, positions), _unit(images))


def views(augment: Augment, key: jax.Array, images: Any, positions: jax.Array, count: int = 2) -> tuple[jax.Array, ...]:
    """`count` independent augmentations of uint8 [B, H, W, C]: a tuple of float32 [B, H, W, C]."""
    return tuple(augment_batch(augment, jax.random.fold_in(key, i), images, positions) for i in range(count))


def evaluate_batch(augment: Augment, images: Any) -> jax.Array:
    """The deterministic part of `augment` on uint8 [B, H, W, C] -> float32 [B, H, W, C]."""
    return jax.vmap(augment.evaluate)(_unit(images))
