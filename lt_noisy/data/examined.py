"""A look at all images of a source, for the doctor: names, labels, splits, and what tells equal images."""

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from lt_noisy.data.images import kind_of
from lt_noisy.data.sources.base import Source
from lt_noisy.data.sources.findings import Finding
from lt_noisy.data.sources.listing import (
    FromFiles,
    divided,
    placeless,
    readable,
    small_classes,
    strange_labels,
    unreadable,
)
from lt_noisy.data.sources.pictures import look
from lt_noisy.progress import Progress

_BLOCK = 512  # images hashed at a time


class Examined(NamedTuple):
    """What is known of N images, or vectors in their place, that can be read and have a class.

    Attributes:
      where: what messages begin with.
      names: the file of each, or where it is among the arrays.
      labels: int [N] in [0, C).
      is_test: bool [N].
      contents: equal where images are.
      sizes: int [N, 2], width and height; int [0, 2] of vectors.
      grey: bool [N]; [0] of vectors.
      class_names: C names.
      findings: what was wrong before any image was compared.
      size: to which images are resized; 0 where they are not.
      dedupe: whether the source leaves equal images out.
      kind: `images` or `vectors`.
    """

    where: str
    names: Sequence[str]
    labels: np.ndarray
    is_test: np.ndarray
    contents: Sequence[bytes]
    sizes: np.ndarray
    grey: np.ndarray
    class_names: Sequence[str]
    findings: Sequence[Finding | None]
    size: int = 0
    dedupe: bool = False
    kind: str = "images"


def of_files(load: FromFiles) -> Examined:
    """Every file that a source lists is looked at."""
    whole, how = load.list_files(), load.how
    seen = look(whole.root, whole.files)
    contents, labels = [one.content for one in seen], np.asarray(whole.labels, np.int64)
    findings = [*whole.findings, unreadable(whole.root, whole.files, seen, how.broken), strange_labels(whole)]
    rows = readable(seen)
    rows = rows[~placeless(whole)[rows]]
    is_test = divided(whole, contents, rows, how.test_percent)
    if whole.is_test is None:
        findings.append(small_classes(whole.root, whole.class_names, labels[rows], 2, classes_of(findings)))
    own = [seen[row] for row in rows]
    return Examined(
        where=str(whole.root),
        names=[whole.name(row) for row in rows.tolist()],
        labels=labels[rows],
        is_test=is_test[rows],
        contents=[one.content for one in own],
        sizes=np.array([one.size for one in own], np.int64).reshape(-1, 2),
        grey=np.array([one.grey for one in own], bool),
        class_names=whole.class_names,
        findings=findings,
        size=how.size,
        dedupe=bool(how.dedupe),
    )


def classes_of(findings: Sequence[Finding | None]) -> set[str]:
    """The classes that findings speak of."""
    found = [finding for finding in findings if finding is not None]
    return {str(entry["class"]) for finding in found for entry in finding.entries if "class" in entry}


def of_arrays(where: str, source: Source, findings: Sequence[Finding]) -> Examined:
    """Every image of a source that has a class is read, a block at a time."""
    names: list[str] = []
    contents: list[bytes] = []
    sizes: list[tuple[int, int]] = []
    grey: list[bool] = []
    splits = {"train": source.train, "test": source.test}
    placed = [np.flatnonzero((s.labels >= 0) & (s.labels < source.num_classes)) for s in splits.values()]
    kind = kind_of(source.train.images(np.arange(1)).shape[1:])
    progress = Progress(f"looking at the {kind}", sum(map(len, placed)))
    for (name, split), rows in zip(splits.items(), placed, strict=True):
        names += [split.files[row] if split.files else f"{name} id {split.ids[row]}" for row in rows.tolist()]
        for start in range(0, len(rows), _BLOCK):
            images = split.images(rows[start : start + _BLOCK])
            contents += [hashlib.sha256(np.ascontiguousarray(image).data).digest() for image in images]
            if kind == "images":
                sizes += [(images.shape[2], images.shape[1])] * len(images)
                grey += (images == images[..., :1]).all((1, 2, 3)).tolist()
            progress.add(len(images))
    labels = [split.labels[rows].astype(np.int64) for split, rows in zip(splits.values(), placed, strict=True)]
    return Examined(
        where=where,
        names=names,
        labels=np.concatenate(labels),
        is_test=np.arange(len(names)) >= len(placed[0]),
        contents=contents,
        sizes=np.array(sizes, np.int64).reshape(-1, 2),
        grey=np.array(grey, bool),
        class_names=source.class_names,
        findings=findings,
        kind=kind,
    )
