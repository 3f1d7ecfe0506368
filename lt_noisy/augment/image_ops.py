"""Deterministic image operations with explicit parameters: what `augment` draws the parameters for.

Every function takes one image float32 [H, W, C] with C = 3 or 1 (values in [0, 1] unless said otherwise), is
written to be vmapped and jitted, and accepts traced parameters. Geometry is expressed as small matrix
products, ``rows @ image @ columns^T``, which every backend batches well. A shift by slices would be faster on
CPU (2,000,000 images of 32 x 32 a second against 100,000; a network sees thousands), but is a batched
gather, which TPUs do slowly.
"""

from typing import Literal

import jax
import jax.numpy as jnp

from lt_noisy.errors import UserError
from lt_noisy.precision import to_float

GREY_WEIGHTS = (0.299, 0.587, 0.114)  # ITU-R 601 luma, as in PIL


def separable(image: jax.Array, rows: jax.Array, columns: jax.Array) -> jax.Array:
    """Linear map over each spatial axis: image [H, W, C], rows [H', H], columns [W', W] -> [H', W', C].

    At the highest precision: accelerators would otherwise round the pixels, even of a pure shift, to bfloat16
    or TF32.
    """
    image = jnp.einsum("ph,hwc->pwc", rows, image, precision=jax.lax.Precision.HIGHEST)
    return jnp.einsum("qw,pwc->pqc", columns, image, precision=jax.lax.Precision.HIGHEST)


def translate(image: jax.Array, down: jax.Array, right: jax.Array) -> jax.Array:
    """Moves the content by whole pixels `down` and `right` (int []), filling with 0.

    Padding by p with zeros and cropping at (top, left) back to the original size is
    ``translate(image, p - top, p - left)``.
    """
    height, width, _ = image.shape
    return separable(image, jnp.eye(height, k=-down), jnp.eye(width, k=-right))


def flip(image: jax.Array) -> jax.Array:
    """Mirrors left and right."""
    return image[:, ::-1]


def rot90(image: jax.Array, k: jax.Array | int) -> jax.Array:
    """Rotates a square image by `k` (int [], may be traced) quarter turns, anti-clockwise as `np.rot90`."""
    if image.ndim != 3 or image.shape[0] != image.shape[1]:
        raise UserError(f"rotation by 90 degrees needs square images, not {' x '.join(map(str, image.shape[:2]))}")
    k = k % 4
    image = jnp.where(k % 2 == 1, image.swapaxes(0, 1), image)
    image = jnp.where((k == 1) | (k == 2), image[::-1], image)
    return jnp.where(k >= 2, image[:, ::-1], image)


def _interpolation(size: int, start: jax.Array, length: jax.Array, method: str) -> jax.Array:
    """Weights [size, size] that stretch the pixels [start, start + length) of an axis to the whole axis."""
    pixels = to_float(jnp.arange(size))
    centres = (pixels + 0.5) * (length / size) - 0.5  # half-pixel centres (align_corners=False)
    if method == "bilinear":
        sources = start + jnp.clip(centres, 0, length - 1)  # never looks outside the box
        return jnp.maximum(0, 1 - jnp.abs(sources[:, None] - pixels[None]))
    x = jnp.abs((start + centres)[:, None] - pixels[None])
    near, far = ((1.5 * x - 2.5) * x) * x + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2  # Keys (1981), a = -1/2
    weights = jnp.where(x < 1, near, jnp.where(x < 2, far, 0.0))
    weights = jnp.where((pixels >= start) & (pixels < start + length), weights, 0.0)
    return weights / weights.sum(-1, keepdims=True)


def resizing(before: int, after: int, method: Literal["bilinear", "bicubic"]) -> jax.Array:
    """The matrix [after, before] that brings an axis to another size as PIL does: half-pixel centres, anti-aliased."""
    # Of each pixel of the identity, an axis alone: jax.image has PIL's kernels (Keys' with a = -1/2 for bicubic).
    return jax.image.resize(jnp.eye(before), (after, before), {"bicubic": "cubic"}.get(method, method), antialias=True)


def resized_box(
    image: jax.Array,
    top: jax.Array,
    left: jax.Array,
    height: jax.Array,
    width: jax.Array,
    method: Literal["bilinear", "bicubic"] = "bilinear",
) -> jax.Array:
    """Crops the box (whole pixels, [] each) and resizes it to the image's own size: `bilinear` or `bicubic`.

    Half-pixel centres; at the edges of the box `bilinear` repeats them and `bicubic` weighs what is inside. A box is
    never larger than the image, so it is only ever enlarged, where anti-aliasing changes nothing: the result is that
    of PIL, and of torchvision with ``antialias=True``; `bilinear` with either setting. `bicubic` leaves [0, 1] at
    sharp edges: who wants PIL's pixels clips.
    """
    rows = _interpolation(image.shape[0], top, height, method)
    columns = _interpolation(image.shape[1], left, width, method)
    return separable(image, rows, columns)


def blend(image: jax.Array, reference: jax.Array, factor: jax.Array) -> jax.Array:
    """``factor * image + (1 - factor) * reference``, clipped to [0, 1], as in PIL and torchvision."""
    return jnp.clip(factor * image + (1 - factor) * reference, 0, 1)


def grey(image: jax.Array) -> jax.Array:
    """Luma in every channel, same shape; a one-channel image is returned as it is."""
    if image.shape[-1] == 1:
        return image
    red, green, blue = (weight * image[..., i] for i, weight in enumerate(GREY_WEIGHTS))
    return jnp.broadcast_to((red + green + blue)[..., None], image.shape)


def adjust_hue(image: jax.Array, turns: jax.Array) -> jax.Array:
    """Adds `turns` of a full circle to the HSV hue (as `colorsys` defines it). Identity on one channel.

    Only V, the chroma S * V and the hue are needed: a channel is V - chroma * clip(min(k, 4 - k), 0, 1) with
    k = (n + 6 hue) mod 6 and n = 5, 3, 1 for red, green, blue. Written with one broadcast, not a stack of
    three channels, which XLA's CPU backend fuses badly (three times slower within `jitter`).
    """
    if image.shape[-1] == 1:
        return image
    red, green, blue = image[..., 0:1], image[..., 1:2], image[..., 2:3]
    value = jnp.maximum(jnp.maximum(red, green), blue)
    chroma = value - jnp.minimum(jnp.minimum(red, green), blue)
    scale = 1 / jnp.where(chroma > 0, chroma, 1)
    sixths = jnp.where(
        value == red,
        (green - blue) * scale,
        jnp.where(value == green, 2 + (blue - red) * scale, 4 + (red - green) * scale),
    )
    k = to_float([5.0, 3.0, 1.0])[None, None] + sixths + 6 * turns
    k = k - 6 * jnp.floor(k / 6)
    return value - chroma * jnp.clip(jnp.minimum(k, 4 - k), 0, 1)


def gaussian_blur(image: jax.Array, sigma: jax.Array, kernel: int) -> jax.Array:
    """Separable Gaussian of `kernel` taps (odd) and standard deviation `sigma` pixels, borders reflected.

    As torchvision: taps sampled at whole pixels and normalised; reflection does not repeat the border pixel,
    so that half the kernel must be smaller than the image.
    """
    half = kernel // 2
    if half >= min(image.shape[:2]):
        raise UserError(
            f"blur(kernel={kernel}) is too wide for {image.shape[0]} x {image.shape[1]} images:"
            f" use at most {2 * min(image.shape[:2]) - 1}"
        )
    total = jnp.exp(-0.5 * (to_float(jnp.arange(-half, half + 1)) / sigma) ** 2).sum()

    def weights(size: int) -> jax.Array:
        i, j = jnp.arange(size)[:, None], jnp.arange(size)[None, :]

        def tap(distance: jax.Array) -> jax.Array:
            return jnp.where(jnp.abs(distance) <= half, jnp.exp(-0.5 * (to_float(distance) / sigma) ** 2), 0)

        before = jnp.where(j > 0, tap(i + j), 0)  # pixel j seen mirrored at -j
        after = jnp.where(j < size - 1, tap(2 * (size - 1) - j - i), 0)  # and beyond the far border
        return (tap(i - j) + before + after) / total

    return separable(image, weights(image.shape[0]), weights(image.shape[1]))


def hole(image: jax.Array, row: jax.Array, column: jax.Array, size: int) -> jax.Array:
    """Fills with 0 the square of `size` pixels around (`row`, `column`), clipped at the border."""

    def inside(length: int, centre: jax.Array) -> jax.Array:
        first = centre - size // 2
        return (jnp.arange(length) >= first) & (jnp.arange(length) < first + size)

    mask = inside(image.shape[0], row)[:, None] & inside(image.shape[1], column)[None, :]
    return jnp.where(mask[..., None], 0.0, image)
