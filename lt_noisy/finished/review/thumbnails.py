"""Small pictures of training images, for a page: of the original where there is one, else of what the network saw."""

import io
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image

from lt_noisy import system
from lt_noisy.data.sources.base import Split
from lt_noisy.data.sources.decoding import opened, rgb, scaled
from lt_noisy.progress import Progress

_QUALITY = 80
_BLOCK = 256  # pictures that are read together


def thumbnails(split: Split, rows: Sequence[int], size: int) -> Iterator[bytes]:
    """JPEGs of these rows of a split, in order, none larger than `size` pixels a side."""
    progress = Progress("making thumbnails", len(rows))
    with ThreadPoolExecutor(system.cores()) as pool:
        for start in range(0, len(rows), _BLOCK):
            block = list(rows[start : start + _BLOCK])
            if split.original is None:
                pictures = pool.map(lambda pixels: _jpeg(_of_pixels(pixels), size), split.images(np.array(block)))
            else:
                pictures = pool.map(lambda row: _of_original(split, row, size), block)
            for picture in pictures:
                progress.add()
                yield picture


def _of_original(split: Split, row: int, size: int) -> bytes:
    assert split.original is not None
    try:
        with opened(io.BytesIO(split.original(row))) as image:
            return _jpeg(rgb(scaled(image, size)), size)
    except Exception:  # changed since the run, or gone: Pillow's decoders raise errors of many kinds
        return _jpeg(Image.new("RGB", (size, size), "white"), size)


def _of_pixels(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(pixels if pixels.shape[-1] == 3 else np.repeat(pixels, 3, axis=-1))


def _jpeg(image: Image.Image, size: int) -> bytes:
    image.thumbnail((size, size))
    out = io.BytesIO()
    image.save(out, "JPEG", quality=_QUALITY)
    return out.getvalue()
