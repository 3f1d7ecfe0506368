"""Rows: of ids; of every class, in id order or shuffled, as stratified draws start from; and pairs of classes."""

import numpy as np

from lt_noisy import rng


def rows_of(wanted: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """The row of each wanted id among unique ids int64 [N], -1 where it is not among them: int64 [n]."""
    order = np.argsort(ids)
    if not len(order):
        return np.full(len(wanted), -1, np.int64)
    rows = order[np.searchsorted(ids, wanted, sorter=order).clip(max=len(order) - 1)]
    return np.where(ids[rows] == wanted, rows, -1).astype(np.int64)


def rows_by_class(labels: np.ndarray, ids: np.ndarray, num_classes: int) -> list[np.ndarray]:
    """The rows int64 [n_c] of each class, in id order, of labels int [N] in [0, num_classes) and unique ids int [N]."""
    counts = np.bincount(labels, minlength=num_classes)
    return np.split(np.lexsort((ids, labels)), np.cumsum(counts)[:-1])


def shuffled_by_class(
    labels: np.ndarray, ids: np.ndarray, num_classes: int, seed: int, purpose: str
) -> list[np.ndarray]:
    """The same, shuffled; the first n of a class are a draw without replacement, and part of every larger one.

    A class is shuffled from id order by a random stream of its own (`purpose` names the streams): neither the order of
    storage nor another class moves its draw.
    """
    by_class = rows_by_class(labels, ids, num_classes)
    return [rng.generator(seed, f"{purpose}, class {c}").permutation(rows) for c, rows in enumerate(by_class)]


def pair_counts(true: np.ndarray, given: np.ndarray, num_classes: int) -> list[list[int]]:
    """[true class, given class, number] of every pair that comes, in order: JSON-ready, at most N of the C x C.

    Args:
      true: int [N] in [0, num_classes).
      given: as `true`.
    """
    pairs, numbers = np.unique(true.astype(np.int64) * num_classes + given, return_counts=True)
    return np.stack([pairs // num_classes, pairs % num_classes, numbers], axis=1).tolist()


def votes(labels: np.ndarray, weights: np.ndarray, num_classes: int) -> np.ndarray:
    """float64 [n, C], the sum of the weights [n, k] of each label int [n, k]."""
    cells = np.arange(len(labels))[:, None] * num_classes + labels
    return np.bincount(cells.ravel(), weights.ravel(), len(labels) * num_classes).reshape(len(labels), num_classes)


def one_hot(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """float32 [N, C] of labels int [N], without an identity matrix [C, C]."""
    rows = np.zeros((len(labels), num_classes), np.float32)
    rows[np.arange(len(labels)), labels] = 1
    return rows


def held_out_of(count: int, percent: int) -> int:
    """How many of `count` examples of a class, 2 or more, are test images: `percent` %, at least 1, never all."""
    return min(count - 1, max(1, count * percent // 100))
