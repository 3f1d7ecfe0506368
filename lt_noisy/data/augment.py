"""Augmentation on the device: random per-example image operations, recipes and batches, in pure JAX.

An `Augment` is a pair: `train(key, image)` for one example, and `evaluate(image)`, its deterministic part
(normalisation; the identity for everything random), so that test images are always prepared as the training
images were. Images are float32 [H, W, C] with C = 3 or 1; colour operations expect values in [0, 1]. An
example's key depends on its position in the global batch only: batch splits and device counts change no draw.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from lt_noisy import rng
from lt_noisy.data import image_ops
from lt_noisy.errors import UserError

CIFAR_MEAN = (0.4914, 0.4822, 0.4465)
CIFAR_STD = (0.2023, 0.1994, 0.2010)
DIGITS_MEAN = (0.305,)  # of scikit-learn's 8x8 digits, scaled to [0, 1]
DIGITS_STD = (0.376,)


class Augment(NamedTuple):
    """`train(key, image) -> image` and its deterministic part `evaluate(image) -> image`, both [H, W, C]."""

    train: Callable[[jax.Array, jax.Array], jax.Array]
    evaluate: Callable[[jax.Array], jax.Array]


def _random(train: Callable[[jax.Array, jax.Array], jax.Array]) -> Augment:
    return Augment(train, lambda image: image)


def _check_probability(p: float) -> None:
    if not 0 <= p <= 1:
        raise UserError(f"p={p} must be a probability, in [0, 1]")


def none() -> Augment:
    """No augmentation: pixels in [0, 1] as they are."""
    return _random(lambda key, image: image)


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


def normalise(mean: tuple, std: tuple) -> Augment:
    """``(image - mean) / std`` per channel, in training and evaluation alike; one number per channel."""
    numbers = all(isinstance(x, (int, float)) and math.isfinite(x) for x in (*mean, *std))
    if not numbers or len(mean) != len(std) or not mean or min(std) <= 0:
        raise UserError(f"mean={mean} and std={std} must be as many numbers as the image has channels, std above 0")

    def apply(image: jax.Array) -> jax.Array:
        if image.shape[-1] != len(mean):
            raise UserError(f"normalise has {len(mean)} means, but the images have {image.shape[-1]} channels")
        return (image - jnp.array(mean, jnp.float32)) / jnp.array(std, jnp.float32)

    return Augment(lambda key, image: apply(image), apply)


def crop(pad: int = 4) -> Augment:
    """Pads `pad` pixels of 0 on every side and crops at random to the original size.

    The same thing as a shift by up to `pad` pixels each way, uniform over the whole pixels.
    """
    if pad < 0:
        raise UserError(f"pad={pad} must be a number of pixels, 0 or more")

    def train(key: jax.Array, image: jax.Array) -> jax.Array:
        down, right = jax.random.randint(key, (2,), -pad, pad + 1)
        return image_ops.translate(image, down, right)

    return _random(train)


def flip(p: float = 0.5) -> Augment:
    """Mirrors left and right with probability `p`."""
    _check_probability(p)
    return _random(lambda key, image: jnp.where(jax.random.bernoulli(key, p), image_ops.flip(image), image))


def _draw_box(
    shapes: jax.Array,
    place: jax.Array,
    size: tuple[int, int],
    area: tuple[float, float],
    aspect: tuple[float, float],
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """(top, left, height, width) from uniform draws: shapes [10, 2] (area, aspect), place [2] (top, left).

    torchvision's `RandomResizedCrop.get_params`: area uniform, aspect (width / height) log-uniform, the first
    of ten candidates that fits, else the largest centred box whose aspect is allowed.
    """
    full_height, full_width = size
    areas = (area[0] + (area[1] - area[0]) * shapes[:, 0]) * (full_height * full_width)
    ratios = jnp.exp(math.log(aspect[0]) + (math.log(aspect[1]) - math.log(aspect[0])) * shapes[:, 1])
    widths, heights = jnp.round(jnp.sqrt(areas * ratios)), jnp.round(jnp.sqrt(areas / ratios))
    fits = (widths > 0) & (widths <= full_width) & (heights > 0) & (heights <= full_height)
    first, any_fits = jnp.argmax(fits), fits.any()

    centred_width = min(full_width, max(1, round(full_height * aspect[1])))
    centred_height = min(full_height, max(1, round(full_width / aspect[0])))
    height = jnp.where(any_fits, heights[first], centred_height)
    width = jnp.where(any_fits, widths[first], centred_width)
    top = jnp.where(any_fits, jnp.floor(place[0] * (full_height - height + 1)), (full_height - centred_height) // 2)
    left = jnp.where(any_fits, jnp.floor(place[1] * (full_width - width + 1)), (full_width - centred_width) // 2)
    return top, left, height, width


def resized_crop(
    min_area: float = 0.2, max_area: float = 1.0, min_aspect: float = 3 / 4, max_aspect: float = 4 / 3
) -> Augment:
    """A random box of the image, resized to the image's own size (bilinear: `image_ops.resized_box`).

    Area (a share of the image) and aspect ratio (width / height) are drawn as in torchvision: `_draw_box`.
    """
    if not 0 < min_area <= max_area <= 1:
        raise UserError(f"min_area={min_area}, max_area={max_area} must satisfy 0 < min_area <= max_area <= 1")
    if not 0 < min_aspect <= max_aspect < math.inf:
        raise UserError(f"min_aspect={min_aspect}, max_aspect={max_aspect} must satisfy 0 < min_aspect <= max_aspect")

    def train(key: jax.Array, image: jax.Array) -> jax.Array:
        draws = jax.random.uniform(key, (11, 2))
        box = _draw_box(draws[:10], draws[10], image.shape[:2], (min_area, max_area), (min_aspect, max_aspect))
        return image_ops.resized_box(image, *box)

    return _random(train)


def _jitter(
    image: jax.Array, factors: jax.Array, order: jax.Array, turns: jax.Array, hue_place: jax.Array
) -> jax.Array:
    """Brightness, contrast, saturation (0, 1, 2; `factors` [3]) in `order` [3]; hue after `hue_place` of it.

    Each of the three blends the image with a reference (black, its mean luma, its greys), so that one blend
    with a selected reference serves any of them, and a factor of 1 leaves the image as it is: both loops run
    over all three, the first acting before the hue, the second after it. So the hue, the dearest part, is
    rotated once whatever the order.
    """

    def adjust(image: jax.Array, slot: int, active: jax.Array) -> jax.Array:
        luma = image_ops.grey(image)
        reference = jnp.where(order[slot] == 1, luma.mean(), jnp.where(order[slot] == 2, luma, 0.0))
        return image_ops.blend(image, reference, jnp.where(active, factors[order[slot]], 1.0))

    for slot in range(3):
        image = adjust(image, slot, slot < hue_place)
    image = image_ops.adjust_hue(image, turns)
    for slot in range(3):
        image = adjust(image, slot, slot >= hue_place)
    return image


def jitter(brightness: float, contrast: float, saturation: float, hue: float, p: float = 0.8) -> Augment:
    """torchvision's ColorJitter with probability `p`: four adjustments, in a new random order per example.

    Brightness, contrast and saturation factors are uniform in [max(0, 1 - x), 1 + x]; hue turns are uniform
    in [-hue, hue] of the HSV circle. On one channel saturation and hue change nothing.
    """
    _check_probability(p)
    for name, value in (("brightness", brightness), ("contrast", contrast), ("saturation", saturation)):
        if not 0 <= value < math.inf:
            raise UserError(f"{name}={value} must be 0 or more")
    if not 0 <= hue <= 0.5:
        raise UserError(f"hue={hue} must be in [0, 0.5], a share of the colour circle")

    def train(key: jax.Array, image: jax.Array) -> jax.Array:
        draws = jax.random.uniform(key, (9,))
        spread = jnp.array([brightness, contrast, saturation])
        low, high = jnp.maximum(0, 1 - spread), 1 + spread
        # An example left out gets neutral parameters: a selection between two images at the end would make
        # XLA compute them again and again, two to three times slower on CPU.
        chosen = draws[8] < p
        factors = jnp.where(chosen, low + (high - low) * draws[:3], 1.0)
        turns = jnp.where(chosen, hue * (2 * draws[3] - 1), 0.0)
        return _jitter(image, factors, jnp.argsort(draws[4:7]), turns, jnp.floor(4 * draws[7]))

    return _random(train)


def grey(p: float = 0.2) -> Augment:
    """Replaces colour by luma (0.299, 0.587, 0.114) with probability `p`; identity on one channel."""
    _check_probability(p)
    return _random(lambda key, image: jnp.where(jax.random.bernoulli(key, p), image_ops.grey(image), image))


def blur(sigma_min: float = 0.1, sigma_max: float = 2.0, p: float = 0.5, kernel: int = 23) -> Augment:
    """Gaussian blur with probability `p`, sigma uniform in pixels; SimCLR's 23 taps are for 224 pixels."""
    _check_probability(p)
    if not 0 < sigma_min <= sigma_max < math.inf:
        raise UserError(f"sigma_min={sigma_min}, sigma_max={sigma_max} must satisfy 0 < sigma_min <= sigma_max")
    if kernel < 1 or kernel % 2 == 0:
        raise UserError(f"kernel={kernel} must be an odd number of taps, 1 or more")

    def train(key: jax.Array, image: jax.Array) -> jax.Array:
        apply, position = jax.random.uniform(key, (2,))
        sigma = sigma_min + (sigma_max - sigma_min) * position
        return jnp.where(apply < p, image_ops.gaussian_blur(image, sigma, kernel), image)

    return _random(train)


def rotate90() -> Augment:
    """Rotates a square image by 0, 90, 180 or 270 degrees, equally likely."""
    return _random(lambda key, image: image_ops.rot90(image, jax.random.randint(key, (), 0, 4)))


def cutout(size: int) -> Augment:
    """Fills with 0 a square of `size` pixels whose centre is uniform over the image, clipped at the border.

    DeVries & Taylor (2017). There it comes after normalisation, so that 0 is the mean colour: put it there.
    Their code rounds an odd size down to an even one; here it is exact.
    """
    if size < 1:
        raise UserError(f"size={size} must be a number of pixels, 1 or more")

    def train(key: jax.Array, image: jax.Array) -> jax.Array:
        row, column = jax.random.randint(key, (2,), 0, jnp.array(image.shape[:2]))
        return image_ops.hole(image, row, column, size)

    return _random(train)


def cifar() -> Augment:
    """The supervised CIFAR recipe: pad-4 crop, flip, normalise.

    CIFAR-10's usual constants, for CIFAR-100 too, as in the code of LDAM and of the papers that build on it.
    """
    return compose(crop(4), flip(), normalise(CIFAR_MEAN, CIFAR_STD))


def simclr_cifar() -> Augment:
    """Self-supervised views at 32 pixels: SimCLR's for CIFAR (Chen et al. 2020, B.9), which has no blur.

    Boxes cover at least 0.2 of the image, as SimSiam and later work have it on CIFAR (SimCLR: 0.08).
    """
    return compose(
        resized_crop(0.2, 1.0),
        flip(),
        jitter(0.4, 0.4, 0.4, 0.1, p=0.8),
        grey(0.2),
        normalise(CIFAR_MEAN, CIFAR_STD),
    )


def digits() -> Augment:
    """8x8 digits, one channel, mild: a shift by one pixel, a little light. No flip: it would break labels."""
    return compose(crop(1), jitter(0.2, 0.2, 0.0, 0.0), normalise(DIGITS_MEAN, DIGITS_STD))


def simclr_digits() -> Augment:
    """8x8 digits, one channel, as self-supervised views: gentle box, shift, light, small hole; no flip."""
    return compose(
        resized_crop(0.5, 1.0),
        crop(1),
        jitter(0.4, 0.4, 0.0, 0.0),
        normalise(DIGITS_MEAN, DIGITS_STD),
        cutout(2),
    )


AUGMENTS: dict[str, Callable[..., Augment]] = {
    "none": none,
    "compose": compose,
    "normalise": normalise,
    "crop": crop,
    "flip": flip,
    "resized_crop": resized_crop,
    "jitter": jitter,
    "grey": grey,
    "blur": blur,
    "rotate90": rotate90,
    "cutout": cutout,
    "cifar": cifar,
    "simclr_cifar": simclr_cifar,
    "digits": digits,
    "simclr_digits": simclr_digits,
}


def _unit(images: jax.Array) -> jax.Array:
    """uint8 -> float32 in [0, 1]; anything else would be scaled wrongly without a sound."""
    if images.dtype != jnp.uint8:
        raise TypeError(f"images must be uint8, not {images.dtype}")
    return images.astype(jnp.float32) / 255


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
