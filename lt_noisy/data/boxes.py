"""Which part of a picture is looked at: drawn on the device of an image, or on the host of a picture yet to be read.

A `Cut` draws its box from numbers that the feed gives it, so that it is a function of (seed, step, position, view).
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from lt_noisy.errors import UserError

Box = tuple[int, int, int, int]  # left, top, width, height in pixels of the picture
Cut = Callable[[np.ndarray, int, int, int], Box]  # (uniform draws [DRAWS], width, height, size of the image) -> box
DRAWS = 22  # uniform numbers for one box: area and aspect of ten candidates, top and left


def draw_box(
    shapes: Any, place: Any, size: tuple[int, int], area: tuple[float, float], aspect: tuple[float, float], xp: Any
) -> tuple[Any, Any, Any, Any]:
    """(top, left, height, width) from uniform draws: shapes [10, 2] (area, aspect), place [2] (top, left).

    torchvision's `RandomResizedCrop.get_params`: area uniform, aspect (width / height) log-uniform, the first
    of ten candidates that fits, else the largest centred box whose aspect is allowed.

    Args:
      size: (height, width) of the picture.
      xp: `jax.numpy` or `numpy`, whichever the draws are of.
    """
    full_height, full_width = size
    areas = (area[0] + (area[1] - area[0]) * shapes[:, 0]) * (full_height * full_width)
    ratios = xp.exp(math.log(aspect[0]) + (math.log(aspect[1]) - math.log(aspect[0])) * shapes[:, 1])
    widths, heights = xp.round(xp.sqrt(areas * ratios)), xp.round(xp.sqrt(areas / ratios))
    fits = (widths > 0) & (widths <= full_width) & (heights > 0) & (heights <= full_height)
    first, any_fits = xp.argmax(fits), fits.any()

    centred_width = min(full_width, max(1, round(full_height * aspect[1])))
    centred_height = min(full_height, max(1, round(full_width / aspect[0])))
    height = xp.where(any_fits, heights[first], centred_height)
    width = xp.where(any_fits, widths[first], centred_width)
    top = xp.where(any_fits, xp.floor(place[0] * (full_height - height + 1)), (full_height - centred_height) // 2)
    left = xp.where(any_fits, xp.floor(place[1] * (full_width - width + 1)), (full_width - centred_width) // 2)
    return top, left, height, width


def random_area(area: tuple[float, float], aspect: tuple[float, float]) -> Cut:
    """Cuts a box of random area and aspect: see `draw_box`."""

    def cut(draws: np.ndarray, width: int, height: int, size: int) -> Box:
        top, left, box_height, box_width = draw_box(
            draws[:20].reshape(10, 2), draws[20:], (height, width), area, aspect, np
        )
        return int(left), int(top), int(box_width), int(box_height)

    return cut


def random_window(resize: int) -> Cut:
    """Cuts a square at a random place, which is `size` pixels wide once the picture's shorter side is `resize`."""

    def cut(draws: np.ndarray, width: int, height: int, size: int) -> Box:
        if size > resize:
            raise UserError(f"resize={resize} is less than the width of the images, {size} pixels")
        side = max(1, round(min(width, height) * size / resize))
        return int(draws[21] * (width - side + 1)), int(draws[20] * (height - side + 1)), side, side

    return cut
