"""Augmentation on the device: random per-example image operations, recipes and batches, in pure JAX.

An `Augment` is a pair: `train(key, image)` for one example, and `evaluate(image)`, its deterministic part
(normalisation; the identity for everything random), so that test images are always prepared as the training
images were. Images are float32 [H, W, C] with C = 3 or 1; colour operations expect values in [0, 1]. Vectors float32
[D] in their place go through `none`, `normalise`, `noise` and `dropout`; every other operation refuses them. An
example's key depends on its position in the global batch only: batch splits and device counts change no draw.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from lt_noisy import rng
from lt_noisy.data.boxes import Cut
from lt_noisy.errors import UserError
from lt_noisy.precision import to_float


class Augment(NamedTuple):
    """`train(key, image) -> image` and its deterministic part `evaluate(image) -> image`, both [H, W, C].

    `cut`: what of a picture the host reads in training; None: the image that the source gives. `unit`: whether it
    takes pixels in [0, 1] alone, as what clips to them does; `leaves`: whether it gives pixels outside of [0, 1].
    """

    train: Callable[[jax.Array, jax.Array], jax.Array]
    evaluate: Callable[[jax.Array], jax.Array]
    cut: Cut | None = None
    unit: bool = False
    leaves: bool = False


def random_only(train: Callable[[jax.Array, jax.Array], jax.Array]) -> Augment:
    """A random operation `train(key, image) -> image`, which evaluation leaves out."""
    return Augment(train, lambda image: image)


def images_only(train: Callable[[jax.Array, jax.Array], jax.Array]) -> Augment:
    """The same on images [H, W, C]; refuses vectors [D]."""

    def checked(key: jax.Array, image: jax.Array) -> jax.Array:
        check_image(image)
        return train(key, image)

    return random_only(checked)


def check_image(image: jax.Array) -> None:
    """Refuses a vector [D] in place of an image."""
    if image.ndim == 1:
        raise UserError(f"it changes images, and the data are vectors of {len(image)}; write none(), or noise(...)")


def none() -> Augment:
    """No augmentation: pixels in [0, 1], or vectors, as they are."""
    return random_only(lambda key, image: image)


def compose(*ops: Augment) -> Augment:
    """Applies `ops` from left to right, each with a key of its own."""
    if not ops:
        raise UserError("compose() needs at least one operation; for no augmentation write none()")
    if any(op.cut is not None for op in ops[1:]):
        raise UserError("whole_crop() and whole_window() cut what is read: either comes first in compose(), and once")
    left = next((i for i, op in enumerate(ops) if op.leaves), len(ops))
    if any(op.unit for op in ops[left + 1 :]):
        raise UserError(
            "jitter(), and resizing by bicubic, take pixels in [0, 1] and clip to them: they come before noise() "
            "and normalise(), with which recipes such as cifar() end"
        )

    def train(key: jax.Array, image: jax.Array) -> jax.Array:
        for i, op in enumerate(ops):
            image = op.train(jax.random.fold_in(key, i), image)
        return image

    def evaluate(image: jax.Array) -> jax.Array:
        for op in ops:
            image = op.evaluate(image)
        return image

    return Augment(train, evaluate, ops[0].cut, any(op.unit for op in ops[: left + 1]), left < len(ops))


def _unit(images: jax.Array) -> jax.Array:
    """uint8 -> float32 in [0, 1], and vectors float32 [B, D] as they are; of others nobody knows the scale."""
    vectors = images.ndim == 2
    if images.dtype != (jnp.float32 if vectors else jnp.uint8):
        raise TypeError(f"images must be uint8, and vectors float32 [B, D], not {images.dtype} {list(images.shape)}")
    return to_float(images) if vectors else to_float(images) / 255


def augment_batch(augment: Augment, key: jax.Array, images: Any, positions: jax.Array) -> jax.Array:
    """Augments uint8 [B, H, W, C] at `positions` int [B] of the global batch -> float32 [B, H, W, C].

    Vectors are float32 [B, D] before and after. Raises TypeError for what is neither.
    """
    return jax.vmap(augment.train)(rng.per_example(key, positions), _unit(images))


def views(augment: Augment, key: jax.Array, images: Any, positions: jax.Array, count: int = 2) -> tuple[jax.Array, ...]:
    """`count` independent augmentations of uint8 [B, H, W, C]: a tuple of float32 [B, H, W, C].

    Of images [B, count, H, W, C], which were cut for each view, the i-th gives the i-th.
    """
    own = [images[:, i] for i in range(count)] if images.ndim == 5 else [images] * count
    return tuple(augment_batch(augment, jax.random.fold_in(key, i), own[i], positions) for i in range(count))


def evaluate_batch(augment: Augment, images: Any) -> jax.Array:
    """The deterministic part of `augment` on uint8 [B, H, W, C] -> float32 [B, H, W, C]."""
    return jax.vmap(augment.evaluate)(_unit(images))
