"""How class token, registers and positions of a Vision Transformer lie in a file.

Published networks keep a position for the class token (the original, timm's, DINOv2's), or do not (big_vision's, timm's
with registers). The number of positions tells which: one more than a square, or a square. Here the class token has
taken its position in. In a file that must have one it is 0: a network of the same function.
"""

import math
from collections.abc import Sequence

import jax
import numpy as np

from lt_noisy.errors import UserError
from lt_noisy.weights.pairs import Form


def _read(tensor: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positions [1, T, D] of a file: that of the class token [D], 0 if there is none, and of the grid [S, S, D]."""
    rows = np.asarray(tensor, np.float32).reshape(tensor.shape[-2:])
    with_class = math.isqrt(len(rows)) ** 2 != len(rows)
    side = math.isqrt(len(rows) - with_class)
    if side**2 + with_class != len(rows):
        raise UserError(f"its {len(rows)} positions are no square grid, with one for a class token or without")
    return (rows[0] if with_class else np.zeros_like(rows[0])), rows[with_class:].reshape(side, side, -1)


def _load_class(tensors: Sequence[np.ndarray], shape: tuple[int, ...]) -> np.ndarray:
    token, positions = tensors
    return np.asarray(token, np.float32).reshape(shape) + _read(positions)[0]


def _load_grid(tensors: Sequence[np.ndarray], shape: tuple[int, ...]) -> np.ndarray:
    grid = _read(tensors[0])[1]
    if grid.shape[:2] == shape[:2]:
        return grid
    return np.asarray(jax.image.resize(grid, (*shape[:2], grid.shape[-1]), "bicubic", antialias=True))


def _save_grid(grid: np.ndarray) -> list[np.ndarray]:
    height, width, features = grid.shape
    if height != width:
        raise UserError(f"a file has positions of a square grid, and these are {height}x{width}")
    return [grid.reshape(1, -1, features)]


def _save_with_class(grid: np.ndarray) -> list[np.ndarray]:
    return [np.pad(tensor, ((0, 0), (1, 0), (0, 0))) for tensor in _save_grid(grid)]


# [1, 1, D], and the positions beside it; ours is [D].
CLASS = Form(_load_class, lambda array: [array[None, None]])
# [1, R, D]; ours is [R, D].
REGISTERS = Form(lambda tensors, shape: tensors[0].reshape(tensors[0].shape[-2:]), lambda array: [array[None]])
# [1, S * S, D] or [1, 1 + S * S, D]; ours is [H, W, D]. They differ in what is written. Another grid is resized as by
# timm (bicubic, smoothed where it shrinks); DINOv2's own program does not smooth.
GRID = Form(_load_grid, _save_grid)
GRID_WITH_CLASS = Form(_load_grid, _save_with_class)
