"""What a source is: two splits and the names of the classes.

A factory of a source checks its arguments and returns `load() -> Source`; nothing is read before `load` is called.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from lt_noisy.data.images import Images, ReadCut, Stored, identity, kind_of
from lt_noisy.data.memory import check_fits
from lt_noisy.data.sources.findings import Finding, settle

HOLD_OUT_SEED = 0  # the test split is the same in every run, whatever the run's seed


class Split(NamedTuple):
    """One split.

    Attributes:
      ids: int64 [N], unique; an image keeps its id whatever order it is stored in.
      labels: int32 [N], as the source gives them.
      images: `images(rows int [n]) -> uint8 [n, H, W, 3 or 1]`, or float32 [n, D] of vectors (`data.images`).
      files: where images are files the path of each, from the folder on; else empty.
      content: `content(rows int [n]) -> str` identifies what `images(rows)` returns without reading it; None where
        nothing does.
      clean: int32 [N], the true labels where `labels` are known to be noisy, for metrics alone; None where `labels` are
        the best that is known.
      read_cut: reads parts of the whole pictures, where images are made of some (`data.images.ReadCut`).
      flags: int8 [N], what the publisher says of each label, for metrics alone: 1 it is wrong (and not what would be
        right), 0 it is right, -1 nothing; None where nothing is said of any.
      shape: of features that are computed when they are asked for (`stages.features`), [D]; else None.
      original: `original(row) -> bytes`, the encoded picture that an image is made of; None where there is none.
    """

    ids: np.ndarray
    labels: np.ndarray
    images: Callable[[np.ndarray], np.ndarray]
    files: tuple[str, ...] = ()
    content: Callable[[np.ndarray], str] | None = None
    clean: np.ndarray | None = None
    read_cut: ReadCut | None = None
    flags: np.ndarray | None = None
    shape: tuple[int, ...] | None = None
    original: Callable[[int], bytes] | None = None

    @property
    def best_labels(self) -> np.ndarray:
        """int32 [N], the true labels where they are known beside `labels`."""
        return self.labels if self.clean is None else self.clean


class Source(NamedTuple):
    """A data set: train and test split (ids are unique within each) and one name per class.

    `skipped`: (file, why it cannot be read) of the files that were left out.
    """

    train: Split
    test: Split
    class_names: tuple[str, ...]
    skipped: tuple[tuple[str, str], ...] = ()

    @property
    def num_classes(self) -> int:
        return len(self.class_names)


Load = Callable[[], Source]


class FromArrays(NamedTuple):
    """A `Load` of arrays: `read` gives them, and finds all that is wrong with them."""

    read: Callable[[], tuple[Source, Sequence[Finding]]]

    def __call__(self) -> Source:
        """The source; `UserError` for the first thing that is wrong."""
        source, findings = self.read()
        settle(findings)
        return source


def split_images(split: Split, rows: np.ndarray, stored: bool) -> Images:
    """The images of these rows: on the disk, or read now."""
    if not stored:
        return split.images(rows)
    shape = split.shape or split.images(rows[:1]).shape[1:]
    return Stored(split.images, rows, shape, split.read_cut)


def numbered(class_names: Sequence[str]) -> tuple[str, ...]:
    """The names, those of several classes (ImageNet's `crane`, `maillot`) with the number of theirs."""
    counts = Counter(class_names)
    return tuple(f"{name} ({at})" if counts[name] > 1 else name for at, name in enumerate(class_names))


def listed(names: Sequence[object] | np.ndarray) -> str:
    """The first eight names, for an error message."""
    return ", ".join(map(str, names[:8])) + (", ..." if len(names) > 8 else "")


def identity_of(split: Split, rows: np.ndarray | None, images: Images) -> str:
    """Identifies the images of these rows, by `Split.content` where there is one, in memory and streamed alike."""
    if split.content is None or rows is None:
        return identity(images)
    return split.content(rows)


def selected(split: Split, rows: np.ndarray) -> Split:
    """These rows (int [n]) of a split alone; nothing is read."""
    content, read_cut, original = split.content, split.read_cut, split.original
    return Split(
        ids=split.ids[rows],
        labels=split.labels[rows],
        images=lambda positions: split.images(rows[positions]),
        files=tuple(split.files[row] for row in rows) if split.files else (),
        content=content and (lambda positions: content(rows[positions])),
        clean=None if split.clean is None else split.clean[rows],
        read_cut=read_cut and (lambda positions, cut, draws: read_cut(rows[positions], cut, draws)),
        flags=None if split.flags is None else split.flags[rows],
        shape=split.shape,
        original=original and (lambda position: original(int(rows[position]))),
    )


def in_memory(ids: np.ndarray, labels: np.ndarray, images: np.ndarray) -> Split:
    """A split of arrays: ids and labels integer [N], images uint8 [N, H, W] or [N, H, W, 1 or 3], or
    float32 [N, D]. Whoever calls has checked that int64 holds the ids and int32 the labels.

    All images in order are the array itself, not a copy.
    """
    images = images[..., None] if images.ndim == 3 else images
    every = np.arange(len(images))

    def read(rows: np.ndarray) -> np.ndarray:
        if np.array_equal(rows, every):
            return images
        what = f"the {kind_of(images.shape[1:])} of one split, copied from those of the data set"
        check_fits(len(rows), images.shape[1:], what)
        return images[rows]

    return Split(ids.astype(np.int64), labels.astype(np.int32), read)
