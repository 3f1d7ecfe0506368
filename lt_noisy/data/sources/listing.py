"""From listed picture files, or what stands for them, to a source: which are read, in what split and order.

What is wrong is a `Finding`: a source refuses the first, and `lt_noisy.data.doctor` reports them all.
"""

import os
from collections.abc import Callable, Container, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lt_noisy.data.sources.base import Source, Split, listed
from lt_noisy.data.sources.content import copies, held_out, ids_of
from lt_noisy.data.sources.decoding import File
from lt_noisy.data.sources.findings import Finding, settle
from lt_noisy.data.sources.pictures import Pictures, Seen, look
from lt_noisy.errors import UserError, say

BROKEN = ("refuse", "skip")
TESTS = ("test", "val", "valid", "validation")  # the first that there is becomes the test set


class Listed(NamedTuple):
    """Picture files and what is known of them before any is opened.

    Attributes:
      root: what lists and files lie below: for messages, and for the names of files.
      class_names: C names.
      files: N paths, or what stands for them.
      labels: int [N], as given; one outside [0, C) is a finding (`strange_labels`).
      is_test: bool [N]; None where nothing says it, and files are held out by what is in them.
      clean: int [N], the true labels, for metrics; None where nobody knows them.
      ids: int [N], at least 0, unique; None for those of what is in the files (`content.ids_of`).
      flags: int8 [N], see `Split.flags`; None where there are none.
      findings: what is wrong in the lists or folders; what they make impossible to place is left out of `files`.
    """

    root: Path
    class_names: Sequence[str]
    files: Sequence[File]
    labels: np.ndarray
    is_test: np.ndarray | None = None
    clean: np.ndarray | None = None
    ids: np.ndarray | None = None
    flags: np.ndarray | None = None
    findings: Sequence[Finding] = ()

    def name(self, row: int) -> str:
        """How a file is called below the root."""
        return shown(self.root, self.files[row])


class Reading(NamedTuple):
    """How listed pictures are read: as the arguments of `folder`; `dedupe` is None where a source has no such one."""

    size: int
    broken: str = "refuse"
    test_percent: int = 20
    dedupe: bool | None = None
    resize: int = 0


class FromFiles(NamedTuple):
    """A `Load` of listed pictures: `list_files` says what there is, and finds all that is wrong with it."""

    list_files: Callable[[], Listed]
    how: Reading

    def __call__(self) -> Source:
        """The source; `UserError` for the first thing that is wrong."""
        whole = self.list_files()
        settle(whole.findings)
        return source_of(whole, self.how)


def reading(
    size: int, broken: str = "refuse", test_percent: int = 20, dedupe: bool | None = None, resize: int = 0
) -> Reading:
    """The arguments, checked."""
    if size < 1:
        raise UserError(f"size={size} must be a positive number of pixels")
    if resize and resize < size:
        raise UserError(f"resize={resize} is less than size={size}; 0 resizes the shorter side to size")
    if not 1 <= test_percent <= 99:
        raise UserError(f"test_percent={test_percent} must lie in 1..99")
    if broken not in BROKEN:
        raise UserError(f"broken={broken!r} is one of {', '.join(BROKEN)}")
    return Reading(size, broken, test_percent, dedupe, resize)


def source_of(whole: Listed, how: Reading) -> Source:
    """The source of listed pictures; each split is in the order of its ids.

    Raises:
      UserError: a label without a class, a class without training images, no test image, or (`refuse`) files that
        cannot be read.
    """
    root, files = whole.root, whole.files
    settle([strange_labels(whole)])
    seen = look(root, files)
    settle([unreadable(root, files, seen, how.broken)])
    rows = readable(seen)
    contents, labels = [one.content for one in seen], np.asarray(whole.labels, np.int32)
    if whole.is_test is None:
        settle([small_classes(root, whole.class_names, labels[rows], 2)])
    is_test = divided(whole, contents, rows, how.test_percent)
    if how.dedupe:
        kept = deduplicated(contents, labels, is_test, rows)
        if len(kept) < len(rows):
            say(f"note: {root}: {len(rows) - len(kept)} of {len(rows)} images are left out, which are there twice")
        rows = kept
    else:
        _note_copies(whole, contents, is_test, rows, advice=how.dedupe is not None)
    train = labels[rows][~is_test[rows]]
    settle([small_classes(root, whole.class_names, train, 1), no_test(root, is_test[rows])])
    pictures = Pictures(root, [files[row] for row in rows], [seen[row] for row in rows], how.size, how.resize)
    splits = []
    for positions in (np.flatnonzero(~is_test[rows]), np.flatnonzero(is_test[rows])):
        own = rows[positions]
        ids = ids_of([contents[row] for row in own]) if whole.ids is None else np.asarray(whole.ids, np.int64)[own]
        clean = None if whole.clean is None else np.asarray(whole.clean, np.int32)[own]
        flags = None if whole.flags is None else np.asarray(whole.flags, np.int8)[own]
        names = [files[row] for row in own]
        splits.append(split_of(root, names, ids, labels[own], pictures, positions, clean=clean, flags=flags))
    skipped = tuple((str(file), one.fault) for file, one in zip(files, seen, strict=True) if one.fault)
    return Source(*splits, class_names=tuple(whole.class_names), skipped=skipped)


def readable(seen: Sequence[Seen]) -> np.ndarray:
    """Rows int [n] of the files that can be read."""
    return np.array([row for row, one in enumerate(seen) if not one.fault], np.int64)


def unreadable(root: Path, files: Sequence[File], seen: Sequence[Seen], broken: str) -> Finding | None:
    """Files that cannot be read: an error, or a note where `broken` says to leave them out.

    Args:
      broken: one of `BROKEN`; the empty string refuses them too, where no argument could leave them out.
    """
    faulty = [row for row, one in enumerate(seen) if one.fault]
    if not faulty:
        return None
    first, *rest = [files[row] for row in faulty]
    if broken != "skip":
        more = f"; {len(rest)} more cannot be read either: {listed(rest)}" if rest else ""
        skip = f"; broken='skip' leaves {'them' if rest else 'it'} out" if broken else ""
        text = f"{first} cannot be read as an image: {seen[faulty[0]].fault}{more}{skip}"
    else:
        text = f"{root}: {len(faulty)} of {len(seen)} files cannot be read and are left out ({first}, ...)"
    entries = tuple({"files": [shown(root, files[row])], "why": seen[row].fault} for row in faulty)
    return Finding("unreadable file", broken != "skip", text, entries)


def strange_labels(whole: Listed) -> Finding | None:
    """Files whose label is not in [0, C)."""
    outside = placeless(whole)
    if not outside.any():
        return None
    rows = np.flatnonzero(outside).tolist()
    entries = tuple({"files": [whole.name(row)], "label": int(whole.labels[row])} for row in rows)
    given = f"label {whole.labels[rows[0]]} is not one of the {len(whole.class_names)} classes"
    text = f"{whole.root}: {given} ({whole.name(rows[0])})"
    return Finding("label without a class", True, text, entries)


def numbers(labels: np.ndarray) -> list[str]:
    """Classes that are called by their numbers, up to the largest of these labels, int [n].

    But for labels that are not below n: some class would have no image, and names up to any number fill the memory.
    Such a label is then none of the classes (`strange_labels`).
    """
    return [str(c) for c in range(int(labels[labels < len(labels)].max(initial=-1)) + 1)]


def placeless(whole: Listed) -> np.ndarray:
    """bool [N]: which labels are no class's."""
    return (whole.labels < 0) | (whole.labels >= len(whole.class_names))


def small_classes(
    where: object, class_names: Sequence[str], labels: np.ndarray, least: int, known: Container[str] = ()
) -> Finding | None:
    """Classes of which `labels` has less than `least`, 1 or 2 (of which one is for the test), but for those `known`."""
    counts = np.bincount(labels, minlength=len(class_names))
    few = [c for c, count in zip(class_names, counts, strict=True) if count < least and c not in known]
    if not few:
        return None
    images = "2 images that can be read, one of them for the test,"
    what = "a training image that can be read" if least == 1 else images
    entries = tuple({"class": name, "files": []} for name in few)
    return Finding("class without images", True, f"{where}: less than {what} of {listed(few)}", entries)


def no_test(where: object, is_test: np.ndarray) -> Finding | None:
    """That none of the images is a test image."""
    return None if is_test.any() else Finding("no test image", True, f"{where}: no test image")


def divided(whole: Listed, contents: Sequence[bytes], rows: np.ndarray, percent: int) -> np.ndarray:
    """Which files are test images, bool [N]: as listed, else `content.held_out` of those that can be read (`rows`)."""
    if whole.is_test is not None:
        return whole.is_test
    is_test = np.zeros(len(contents), bool)
    own = [contents[row] for row in rows]
    is_test[rows] = held_out(own, whole.labels[rows], len(whole.class_names), percent)
    return is_test


def split_of(
    root: Path,
    files: Sequence[File],
    ids: np.ndarray,
    labels: np.ndarray,
    pictures: Pictures,
    rows: np.ndarray,
    clean: np.ndarray | None = None,
    flags: np.ndarray | None = None,
) -> Split:
    """A split of n files in the order of their ids; `rows` int [n] are theirs among the `pictures`."""
    order = np.argsort(ids)
    rows = rows[order]
    names = tuple(shown(root, files[row]) for row in order)
    return Split(
        ids=ids[order],
        labels=labels[order].astype(np.int32),
        images=lambda positions: pictures(rows[positions]),
        files=names,
        content=lambda positions: pictures.content(rows[positions]),
        clean=None if clean is None else clean[order],
        read_cut=lambda positions, cut, draws: pictures.cut(rows[positions], cut, draws),
        flags=None if flags is None else flags[order],
        original=lambda position: pictures.original(int(rows[position])),
    )


def in_order(names: Sequence[str]) -> list[str]:
    """Class names sorted, as numbers where all are: 2 before 10."""
    numbers = all(name.isascii() and name.isdecimal() for name in names)
    return sorted(names, key=lambda name: (int(name) if numbers else 0, name))


def shown(root: Path, file: File) -> str:
    """The name of a file, from `root` on where it lies there."""
    return str(file).removeprefix(os.path.join(root, ""))


def deduplicated(contents: Sequence[bytes], labels: np.ndarray, is_test: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Of `rows` those that are left where equal files count once, of test and training image the former.

    Of equal files in several classes none is left.
    """
    gone = set()
    for group in copies(contents, rows):
        torn = len(set(labels[group].tolist())) > 1
        first = min(group, key=lambda row: (not is_test[row], row))
        gone.update(int(row) for row in group if torn or row != first)
    return np.array([row for row in sorted(rows) if row not in gone], np.int64)


def _note_copies(whole: Listed, contents: Sequence[bytes], is_test: np.ndarray, rows: np.ndarray, advice: bool) -> None:
    """Says how many files are in both splits or in several classes; `advice`: and that `dedupe` leaves them out."""
    crossed, torn = [], []
    for group in copies(contents, rows):
        if is_test[group].any():
            crossed += group[~is_test[group]].tolist()
        if len(set(whole.labels[group].tolist())) > 1:
            torn += group.tolist()
    for what, found in (("training images are test images too", crossed), ("images are in several classes", torn)):
        if found:
            left_out = "; dedupe=True leaves them out" if advice else ""
            say(f"note: {whole.root}: {len(found)} {what} ({whole.files[min(found)]}, ...){left_out}")
