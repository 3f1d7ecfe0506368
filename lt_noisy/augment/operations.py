"""Random image operations, each an `Augment` of its own: what draws the parameters of `image_ops`."""

import math
from typing import Literal

import jax
import jax.numpy as jnp

from lt_noisy.augment import image_ops
from lt_noisy.augment.base import Augment, check_image, images_only, random_only
from lt_noisy.data import boxes
from lt_noisy.data.boxes import Cut, draw_box
from lt_noisy.errors import UserError, check_not_negative, check_proportion
from lt_noisy.precision import to_float


def normalise(mean: tuple, std: tuple) -> Augment:
    """``(image - mean) / std`` per channel, in training and evaluation alike.

    Of images in colour one number serves all channels; of grey ones three numbers are weighted as their luma is, which
    takes colours for equal. Of vectors one number serves all entries, and three are refused.

    Args:
      mean: one number, or three, of the pixels in [0, 1].
      std: as many, above 0.
    """
    numbers = all(isinstance(x, (int, float)) and math.isfinite(x) for x in (*mean, *std))
    if not numbers or len(mean) != len(std) or len(mean) not in (1, 3) or min(std) <= 0:
        raise UserError(f"mean={mean} and std={std} must be one number each, or one per colour channel, std above 0")

    def apply(image: jax.Array) -> jax.Array:
        if len(mean) == 3:
            check_image(image)
        mean_here, std_here = (to_float(per_channel(numbers, image.shape[-1])) for numbers in (mean, std))
        leading = (None,) * (image.ndim - 1)
        return (image - mean_here[leading]) / std_here[leading]

    return Augment(lambda key, image: apply(image), apply, leaves=True)


def per_channel(numbers: tuple[float, ...], channels: int) -> tuple[float, ...]:
    """One or three numbers as those of so many channels: see `normalise`."""
    if len(numbers) == channels:
        return numbers
    if channels == 1:
        return (sum(weight * number for weight, number in zip(image_ops.GREY_WEIGHTS, numbers, strict=True)),)
    return numbers * channels


def crop(pad: int = 4) -> Augment:
    """Pads `pad` pixels of 0 on every side and crops at random to the original size.

    The same thing as a shift by up to `pad` pixels each way, uniform over the whole pixels.
    """
    if pad < 0:
        raise UserError(f"pad={pad} must be a number of pixels, 0 or more")

    def train(key: jax.Array, image: jax.Array) -> jax.Array:
        if pad >= min(image.shape[:2]):
            raise UserError(f"pad={pad} shifts images of {image.shape[0]}x{image.shape[1]} pixels out of sight")
        down, right = jax.random.randint(key, (2,), -pad, pad + 1)
        return image_ops.translate(image, down, right)

    return images_only(train)


def resize(size: int, interpolation: Literal["bilinear", "bicubic"] = "bilinear") -> Augment:
    """Brings a square image to `size` pixels, in training and evaluation alike: what a pretrained encoder was made for.

    Half-pixel centres, anti-aliased where it shrinks, as PIL and torchvision with ``antialias=True`` do it; what
    `bicubic` carries beyond [0, 1] is clipped, as by PIL. An image of that size stays as it is.
    """
    if size < 1:
        raise UserError(f"size={size} is a number of pixels, 1 or more")

    def apply(image: jax.Array) -> jax.Array:
        check_image(image)
        if image.shape[0] != image.shape[1]:
            raise UserError(f"it takes square images, not {image.shape[0]} x {image.shape[1]}")
        if len(image) == size:
            return image
        matrix = image_ops.resizing(len(image), size, interpolation)
        resized = image_ops.separable(image, matrix, matrix)
        return jnp.clip(resized, 0, 1) if interpolation == "bicubic" else resized

    return Augment(lambda key, image: apply(image), apply, unit=interpolation == "bicubic")


def colour() -> Augment:
    """A grey image as three equal channels, in training and evaluation alike; one in colour stays as it is."""

    def apply(image: jax.Array) -> jax.Array:
        check_image(image)
        return jnp.broadcast_to(image, (*image.shape[:2], 3))

    return Augment(lambda key, image: apply(image), apply)


def flip(p: float = 0.5) -> Augment:
    """Mirrors left and right with probability `p`."""
    check_proportion(p=p)
    return images_only(lambda key, image: jnp.where(jax.random.bernoulli(key, p), image_ops.flip(image), image))


def resized_crop(
    min_area: float = 0.2,
    max_area: float = 1.0,
    min_aspect: float = 3 / 4,
    max_aspect: float = 4 / 3,
    interpolation: Literal["bilinear", "bicubic"] = "bilinear",
) -> Augment:
    """A random box of the image, resized to the image's own size.

    Area (a share of the image) and aspect ratio (width / height) are drawn as in torchvision (`data.boxes.draw_box`).
    What `bicubic` interpolation (`image_ops.resized_box`) carries beyond [0, 1] is clipped, as by PIL.
    """
    _check_boxes(min_area, max_area, min_aspect, max_aspect)

    def train(key: jax.Array, image: jax.Array) -> jax.Array:
        draws = jax.random.uniform(key, (11, 2))
        size, area, aspect = image.shape[:2], (min_area, max_area), (min_aspect, max_aspect)
        box = draw_box(draws[:10], draws[10], (size[0], size[1]), area, aspect, jnp)
        resized = image_ops.resized_box(image, *box, interpolation)
        return jnp.clip(resized, 0, 1) if interpolation == "bicubic" else resized

    return images_only(train)._replace(unit=interpolation == "bicubic")


def _check_boxes(min_area: float, max_area: float, min_aspect: float, max_aspect: float) -> None:
    if not 0 < min_area <= max_area <= 1:
        raise UserError(f"min_area={min_area}, max_area={max_area} must satisfy 0 < min_area <= max_area <= 1")
    if not 0 < min_aspect <= max_aspect < math.inf:
        raise UserError(f"min_aspect={min_aspect}, max_aspect={max_aspect} must satisfy 0 < min_aspect <= max_aspect")


def whole_crop(
    min_area: float = 0.08, max_area: float = 1.0, min_aspect: float = 3 / 4, max_aspect: float = 4 / 3
) -> Augment:
    """A random box of the whole picture, cut out of its file as it is read and resized (bilinear) to the image's size.

    What `resized_crop` is to an image that is square and small already: torchvision's `RandomResizedCrop` as ImageNet's
    recipes have it, drawn afresh for each step, position and view. It comes first, and takes streamed picture files.
    Deviation: a box of more than twice the size is decoded at a smaller scale where the file is a JPEG.
    """
    _check_boxes(min_area, max_area, min_aspect, max_aspect)
    return _on_the_host(boxes.random_area((min_area, max_area), (min_aspect, max_aspect)))


def whole_window(resize: int = 256) -> Augment:
    """A window at a random place of the whole picture, whose shorter side is resized to `resize` pixels.

    torchvision's `Resize` and `RandomCrop`, as the programs for Clothing1M have them (256, windows of 224). It comes
    first, and takes streamed picture files.
    """
    if resize < 1:
        raise UserError(f"resize={resize} must be a number of pixels, 1 or more")
    return _on_the_host(boxes.random_window(resize))


def _on_the_host(cut: Cut) -> Augment:
    return images_only(lambda key, image: image)._replace(cut=cut)


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
    check_proportion(p=p)
    check_not_negative(brightness=brightness, contrast=contrast, saturation=saturation)
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

    return images_only(train)._replace(unit=True)


def grey(p: float = 0.2) -> Augment:
    """Replaces colour by luma (0.299, 0.587, 0.114) with probability `p`; identity on one channel."""
    check_proportion(p=p)
    return images_only(lambda key, image: jnp.where(jax.random.bernoulli(key, p), image_ops.grey(image), image))


def blur(sigma_min: float = 0.1, sigma_max: float = 2.0, p: float = 0.5, kernel: int = 23) -> Augment:
    """Gaussian blur with probability `p`, sigma uniform in pixels; SimCLR's 23 taps are for 224 pixels."""
    check_proportion(p=p)
    if not 0 < sigma_min <= sigma_max < math.inf:
        raise UserError(f"sigma_min={sigma_min}, sigma_max={sigma_max} must satisfy 0 < sigma_min <= sigma_max")
    if kernel < 1 or kernel % 2 == 0:
        raise UserError(f"kernel={kernel} must be an odd number of taps, 1 or more")

    def train(key: jax.Array, image: jax.Array) -> jax.Array:
        apply, position = jax.random.uniform(key, (2,))
        sigma = sigma_min + (sigma_max - sigma_min) * position
        return jnp.where(apply < p, image_ops.gaussian_blur(image, sigma, kernel), image)

    return images_only(train)


def rotate90() -> Augment:
    """Rotates a square image by 0, 90, 180 or 270 degrees, equally likely."""
    return images_only(lambda key, image: image_ops.rot90(image, jax.random.randint(key, (), 0, 4)))


def cutout(size: int) -> Augment:
    """Fills with 0 a square of `size` pixels whose centre is uniform over the image, clipped at the border.

    In the paper it comes after normalisation, so that 0 is the mean colour: put it there.
    Their code rounds an odd size down to an even one; here it is exact.

    References:
      DeVries & Taylor (2017).
    """
    if size < 1:
        raise UserError(f"size={size} must be a number of pixels, 1 or more")

    def train(key: jax.Array, image: jax.Array) -> jax.Array:
        row, column = jax.random.randint(key, (2,), 0, jnp.array(image.shape[:2]))
        return image_ops.hole(image, row, column, size)

    return images_only(train)


def noise(sigma: float = 0.1) -> Augment:
    """Adds N(0, sigma^2) to every number, of a vector or of an image in [0, 1]."""
    check_not_negative(sigma=sigma)
    added = random_only(lambda key, x: x + sigma * jax.random.normal(key, x.shape, x.dtype))
    return added._replace(leaves=True)


def dropout(p: float = 0.2) -> Augment:
    """Sets each number to 0 with probability `p`, of a vector or of an image; the others stay as they are."""
    check_proportion(p=p)
    return random_only(lambda key, x: jnp.where(jax.random.bernoulli(key, p, x.shape), 0, x))
