"""From an encoded picture to its pixels, whatever its kind: a file, a cell of a table, bytes."""

import io
import math
import os
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import ExifTags, Image, ImageOps

from lt_noisy.data.boxes import Cut

Image.init()  # all of Pillow's decoders: it registers some of them late
FORMATS = [
    name for name in ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP") if name in Image.OPEN
]
_SIXTEEN_BIT = ("I;16", "I;16B", "I;16L", "I;16N")
_REDUCED = ("JPEG", "MPO")  # decoded at 1/2, 1/4 or 1/8 where that is enough
GREY = ("1", "L", "LA", "La", *_SIXTEEN_BIT)


class File(Protocol):
    """An encoded picture: a path, or a cell of a table. Its text is its name."""

    def read_bytes(self) -> bytes: ...

    def stat(self) -> os.stat_result: ...


def is_image(file: Path) -> bool:
    """Whether its first bytes are those of an image that is read, whatever the file is called."""
    try:
        with Image.open(file, formats=FORMATS):
            return True
    except Exception:  # Pillow's decoders raise errors of many kinds
        return False


def opened(file: File | io.BytesIO) -> Image.Image:
    """The first picture in a file, of which no pixel is decoded yet."""
    return Image.open(file if isinstance(file, io.BytesIO) else io.BytesIO(file.read_bytes()), formats=FORMATS)


def scaled(image: Image.Image, size: int) -> Image.Image:
    """An opened picture, a JPEG at a scale that leaves at least `size` pixels each way."""
    if image.format in _REDUCED:
        image.draft(None, (size, size))
    return image


def upright_size(image: Image.Image) -> tuple[int, int]:
    """Width and height of an opened picture once it is turned by EXIF."""
    if image.format not in _REDUCED:
        image.load()  # what turns a PNG may stand at its end
    turned = image.getexif().get(ExifTags.Base.Orientation, 1) >= 5
    return (image.height, image.width) if turned else (image.width, image.height)


def rgb(image: Image.Image) -> Image.Image:
    """The picture in 8-bit colour, upright, over white where it is transparent; the upper byte of 16-bit greys."""
    image.load()
    if image.getexif().get(ExifTags.Base.Orientation, 1) != 1:
        image = ImageOps.exif_transpose(image)
    if image.mode in _SIXTEEN_BIT:
        image = Image.fromarray((np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8))
    elif image.mode in ("I", "F"):
        raise ValueError(f"its pixels are neither 8-bit nor 16-bit but {image.mode!r}")
    if "transparency" in image.info or image.mode in ("RGBA", "RGBa", "LA", "La", "PA"):
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image if image.mode == "RGB" else image.convert("RGB")


def grey(pixels: np.ndarray) -> np.ndarray:
    """uint8 [H, W, 1], the luminance (ITU-R 601) of colours [H, W, 3]: of a grey picture its own values."""
    return np.asarray(Image.fromarray(pixels).convert("L"))[..., None]


def decode(file: File | io.BytesIO, size: int, channels: int, resize: int = 0) -> np.ndarray:
    """uint8 [size, size, channels]: the shorter side resized to `resize` (bilinear), the centre cut out.

    A JPEG is decoded at the smallest scale that has twice as many pixels each way.

    Args:
      resize: at least `size`; 0 for `size`.
    """
    with opened(file) as image:
        whole = rgb(scaled(image, 2 * (resize or size)))
        if resize:
            fitted = _centre(whole, size, resize)
        else:
            fitted = ImageOps.fit(whole, (size, size), Image.Resampling.BILINEAR)
    return np.asarray(fitted)[..., :channels]


def _centre(image: Image.Image, size: int, resize: int) -> Image.Image:
    """torchvision's `Resize(resize)` and `CenterCrop(size)`, of which only the centre is computed."""
    width, height = (int(resize * side / min(image.size)) for side in image.size)
    left, top = (round((side - size) / 2) for side in (width, height))
    across, down = image.width / width, image.height / height
    box = left * across, top * down, (left + size) * across, (top + size) * down
    return image.resize((size, size), Image.Resampling.BILINEAR, box)


def decode_stretched(file: File | io.BytesIO, size: int, channels: int) -> np.ndarray:
    """uint8 [size, size, channels]: the whole picture resized (bilinear), whatever its aspect."""
    with opened(file) as image:
        fitted = rgb(image).resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(fitted)[..., :channels]


def decode_cut(file: File | io.BytesIO, size: int, channels: int, cut: Cut, draws: np.ndarray) -> np.ndarray:
    """uint8 [size, size, channels]: the box that `cut` draws, resized (bilinear).

    A JPEG is decoded at the smallest scale at which the box has twice as many pixels each way.
    """
    with opened(file) as image:
        width, height = upright_size(image)
        left, top, box_width, box_height = cut(draws, width, height, size)
        needed = 2 * size * min(width, height) / min(box_width, box_height)
        whole = rgb(scaled(image, math.ceil(needed)))
        scale = whole.width / width, whole.height / height
        right, bottom = (left + box_width) * scale[0], (top + box_height) * scale[1]
        # Cut first, so that no pixel outside of the box comes in at its border.
        part = whole.crop((round(left * scale[0]), round(top * scale[1]), round(right), round(bottom)))
        fitted = part.resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(fitted)[..., :channels]
