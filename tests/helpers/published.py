"""What tests share with `tests/published/with_torch.py`: the inputs of both, and the arrays that PyTorch made of them.

NumPy alone: the script runs where there is PyTorch and no JAX.
"""

import pathlib
from collections.abc import Iterable, Mapping

import numpy as np

ARRAYS = pathlib.Path(__file__).parent.parent / "published" / "torch.npz"


def load(prefix: str) -> dict[str, np.ndarray]:
    """The arrays of `<prefix>/<name>` that PyTorch made, by name; float64."""
    with np.load(ARRAYS) as arrays:
        return {name.removeprefix(f"{prefix}/"): arrays[name] for name in arrays if name.startswith(f"{prefix}/")}


def normal(seed: int, *shape: int) -> np.ndarray:
    """Standard normal float64, from NumPy's legacy stream, which never changes."""
    return np.random.RandomState(seed).standard_normal(shape)


def images(seed: int, count: int, size: int, channels: int = 3) -> np.ndarray:
    """uint8 [count, size, size, channels]."""
    return np.random.RandomState(seed).randint(0, 256, (count, size, size, channels)).astype(np.uint8)


def weights(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """float64 parameters of these shapes, named as in Flax (`a/b/kernel`): every scale and offset away from 1 and 0."""
    made = {}
    for i, (name, shape) in enumerate(sorted(shapes.items())):
        values = normal(i + 1, *shape)
        if name.endswith("kernel"):
            made[name] = values / np.sqrt(np.prod(shape[:-1]))
        else:
            made[name] = 0.1 * values + name.endswith("scale")
    return made


def summary(tree: Mapping[str, np.ndarray]) -> np.ndarray:
    """Two numbers for every array, in the order of their names: float64 [arrays, 2], linear in the array.

    Two random projections see any change of an array of thousands of numbers, and are small enough to keep.
    """
    rows: Iterable[np.ndarray] = (normal(1000 + i, 2, tree[name].size) for i, name in enumerate(sorted(tree)))
    return np.array([row @ np.ravel(tree[name]) for row, name in zip(rows, sorted(tree), strict=True)])


SGD_STEPS = 60


def rate(step: int) -> float:
    """A learning rate that moves."""
    return 0.05 * (1 + np.cos(np.pi * step / SGD_STEPS))


# Counts of a long tail of ten classes, and the batches of five steps: images and labels.
COUNTS = np.array([5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50])
LDAM_STEPS, LDAM_BATCH = 5, 8
LDAM_LABELS = np.random.RandomState(5).randint(0, 10, LDAM_STEPS * LDAM_BATCH).astype(np.int32)

MOCO_STEPS, MOCO_BATCH, MOCO_QUEUE = 7, 4, 12

# Factors of brightness, contrast and saturation, turns of hue, and the orders of the four (0, 1, 2; where hue stands).
JITTER = (1.3, 0.6, 1.5, 0.08)
JITTER_ORDERS = [((0, 1, 2), 0), ((2, 0, 1), 1), ((1, 2, 0), 2), ((2, 1, 0), 3), ((0, 2, 1), 1), ((1, 0, 2), 2)]
BOXES = [(0, 0, 7, 7), (1, 2, 3, 4), (5, 6, 1, 1), (2, 0, 4, 7)]
BLURS = [(3, 0.5), (5, 1.3), (11, 2.0)]
