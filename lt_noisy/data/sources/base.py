"""What a source is: two splits and the names of the classes.

A factory of a source checks its arguments and returns `load() -> Source`; nothing is read before `load` is called.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from lt_noisy.data.memory import check_fits

HOLD_OUT_SEED = 0  # the test split is the same in every run, whatever the run's seed


class Split(NamedTuple):
    """One split.

    Attributes:
      ids: int64 [N], unique; an image keeps its id whatever order it is stored in.
      labels: int32 [N], as the source gives them.
      images: `images(rows int [n]) -> uint8 [n, H, W, 3 or 1]`.
      files: where images are files the path of each, from the folder on; else empty.
    """

    ids: np.ndarray
    labels: np.ndarray
    images: Callable[[np.ndarray], np.ndarray]
    files: tuple[str, ...] = ()


class Source(NamedTuple):
    """A data set: train and test split (ids are unique within each) and one name per class."""

    train: Split
    test: Split
    class_names: tuple[str, ...]

    @property
    def num_classes(self) -> int:
        return len(self.class_names)


Load = Callable[[], Source]


def listed(names: Sequence[object] | np.ndarray) -> str:
    """The first eight names, for an error message."""
    return ", ".join(map(str, names[:8])) + (", ..." if len(names) > 8 else "")


def in_memory(ids: np.ndarray, labels: np.ndarray, images: np.ndarray) -> Split:
    """A split of arrays: ids and labels integer [N], images uint8 [N, H, W] or [N, H, W, 1 or 3].

    All images in order are the array itself, not a copy.
    """
    images = images[..., None] if images.ndim == 3 else images
    every = np.arange(len(images))

    def read(rows: np.ndarray) -> np.ndarray:
        if np.array_equal(rows, every):
            return images
        check_fits(len(rows), images.shape[1:], "the images of one split, copied from those of the data set")
        return images[rows]

    return Split(ids.astype(np.int64), labels.astype(np.int32), read)
