"""The data of one run in host memory: what a manifest selects from a source, and the test set."""

import enum
import hashlib
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from lt_noisy.config.spec import table
from lt_noisy.data.by_class import shuffled_by_class
from lt_noisy.data.images import Images, Stored, subset
from lt_noisy.data.sources import SOURCES
from lt_noisy.data.sources.base import Load, Source, Split, identity_of, split_images
from lt_noisy.data.sources.channels import source_like
from lt_noisy.errors import UserError
from lt_noisy.hashing import array_sha256


class Validation(NamedTuple):
    """Examples held out of the manifest, as noisy as the rest: what may select, unlike the test set.

    Attributes:
      images: uint8 [V, H, W, C], in memory or stored, as are all images of a run.
      observed: int32 [V].
      clean: int32 [V], for metrics only.
      ids: int64 [V].
      source_rows: int [V], as those of `Dataset`.
    """

    images: Images
    observed: np.ndarray
    clean: np.ndarray
    ids: np.ndarray
    source_rows: np.ndarray | None = None


class Dataset(NamedTuple):
    """Training images in manifest order, and everything to evaluate against.

    Attributes:
      train_images: uint8 [N, H, W, C], or float32 [N, D] where the source has vectors (`images.kind_of`).
      observed: int32 [N], the labels that training sees.
      clean: int32 [N], for metrics only.
      ids: int64 [N].
      test_images: uint8 [M, H, W, C].
      test_labels: int32 [M].
      class_names: C names.
      source: where it came from, for banks drawn from the full training split.
      validation: what `hold_out` took from the manifest; None without.
      source_rows: int [N], the row in the source's training split of each; None where it is not known.
      flags: int8 [N], the source's (`Split.flags`), for metrics only; None where it has none.
    """

    train_images: Images
    observed: np.ndarray
    clean: np.ndarray
    ids: np.ndarray
    test_images: Images
    test_labels: np.ndarray
    class_names: tuple[str, ...]
    source: Source
    validation: Validation | None = None
    source_rows: np.ndarray | None = None
    flags: np.ndarray | None = None

    @property
    def num_classes(self) -> int:
        """C."""
        return len(self.class_names)

    def hashes(self) -> dict[str, str]:
        """Hashes of all that a stage may read: images, ids, both kinds of labels, test set, held-out split."""
        train, test = self.source.train, self.source.test
        test_images = identity_of(test, np.arange(len(self.test_labels)), self.test_images)
        clean = array_sha256(self.clean)
        content = {
            "images": identity_of(train, self.source_rows, self.train_images),
            "ids": array_sha256(self.ids),
            "test": _joined_sha256(test_images, array_sha256(self.test_labels)),
            "observed_labels": array_sha256(self.observed),
            "clean_labels": clean if self.flags is None else _joined_sha256(clean, array_sha256(self.flags)),
            "class_names": hashlib.sha256(repr(self.class_names).encode()).hexdigest(),
        }
        if self.source.train.files:  # which people rename, and sort anew between runs
            content["test_images"] = test_images
        if (held := self.validation) is not None:
            images = identity_of(train, held.source_rows, held.images)
            content["validation"] = _joined_sha256(images, *map(array_sha256, (held.ids, held.observed)))
        return content

    def rows(self, rows: np.ndarray) -> "Dataset":
        """The same with only these rows (int [n]) of the training set."""
        selected = {name: getattr(self, name)[rows] for name in ("observed", "clean", "ids")}
        source_rows = None if self.source_rows is None else self.source_rows[rows]
        flags = None if self.flags is None else self.flags[rows]
        return self._replace(
            train_images=subset(self.train_images, rows), source_rows=source_rows, flags=flags, **selected
        )


def read_by(hashes: Mapping[str, str], labels: tuple[str, ...]) -> dict[str, str]:
    """Of the hashes of a data set those of what a stage reads: images, ids, the test set, and of its `labels`, if any.

    Whatever reads labels reports on the clean ones too, as it does on the test set; the held-out split is read for its
    observed ones, and names the classes. Where images are files what reads no labels is the same whatever those of
    the test images are, though it reports on them: labels of files are corrected between runs.
    """
    test = "test_images" if "test_images" in hashes and not labels else "test"
    names = ["images", "ids", test, *(f"{name}_labels" for name in dict.fromkeys([*labels, "clean"]) if labels)]
    if "observed" in labels and "validation" in hashes:
        names.append("validation")
    if labels:
        names.append("class_names")
    return {name: hashes[name] for name in names}


def _joined_sha256(*hashes: str) -> str:
    return hashlib.sha256("".join(hashes).encode()).hexdigest()


def select(source: Source, rows: np.ndarray, observed: np.ndarray, clean: np.ndarray, stored: bool = False) -> Dataset:
    """These rows (int [n]) of a source's training split with these labels (int32 [n]), and its test set.

    Args:
      stored: whether images stay on the disk; else they are all read now.
    """
    test = source.test
    return Dataset(
        train_images=split_images(source.train, rows, stored),
        observed=observed,
        clean=clean,
        ids=source.train.ids[rows],
        test_images=split_images(test, np.arange(len(test.labels)), stored),
        test_labels=test.labels,
        class_names=source.class_names,
        source=source,
        source_rows=rows,
        flags=_flags_of(source.train, rows, observed),
    )


def _flags_of(train: Split, rows: np.ndarray, observed: np.ndarray) -> np.ndarray | None:
    """The split's flags of these rows as they are of the observed labels: int8 [n], or None.

    Another label in the place of a right one is wrong; in the place of a wrong one, nobody knows.
    """
    if train.flags is None:
        return None
    flags, changed = train.flags[rows], observed != train.labels[rows]
    return np.where(changed & (flags == 0), 1, np.where(changed & (flags == 1), -1, flags)).astype(np.int8)


def hold_out(dataset: Dataset, share: float, seed: int) -> Dataset:
    """`dataset` with this share of every observed class moved to its `validation`; 0 leaves it as it is.

    At least one example of each class that has two or more, drawn by id, whatever the storage order. The labels are the
    observed ones: a split for early stopping or tuning must be as noisy as what it stands in for.
    """
    if share == 0:
        return dataset
    if np.bincount(dataset.observed).max() < 2:
        raise UserError("config.validation: every class has one example, so that none can be held out; set 0.0")
    shuffled = shuffled_by_class(dataset.observed, dataset.ids, dataset.num_classes, seed, "validation")
    drawn = [rows[: min(max(round(share * len(rows)), 1), len(rows) - 1)] for rows in shuffled if len(rows)]
    rows = np.sort(np.concatenate(drawn))
    held_out = dataset.rows(rows)
    training = dataset.rows(np.setdiff1d(np.arange(len(dataset.ids)), rows))
    validation = Validation(
        held_out.train_images, held_out.observed, held_out.clean, held_out.ids, held_out.source_rows
    )
    return training._replace(validation=validation)


def whole(source: Source, stored: bool = False) -> Dataset:
    """All of a source with the best labels that are known of it: no long tail, no noise. `stored`: as of `select`."""
    labels = source.train.best_labels
    return select(source, np.arange(len(labels)), labels, labels, stored)


class Part(enum.Enum):
    """What of the run's own source a stage works on."""

    MANIFEST = enum.auto()
    FULL = enum.auto()


def manifest() -> Part:
    """The run's training set: long-tailed, with the observed labels."""
    return Part.MANIFEST


def full() -> Part:
    """The full training split that the manifest selects from, with its clean labels."""
    return Part.FULL


DATA = table({"manifest": manifest, "full": full, **SOURCES})


def choose(data: Part | Load, dataset: Dataset) -> Dataset:
    """What `data` (bound against `DATA`) means in a run on `dataset`; another source is whole, in its channels.

    Its images are stored where the run's are.
    """
    if data is Part.MANIFEST:
        return dataset
    stored = isinstance(dataset.train_images, Stored)
    if data is Part.FULL:
        return whole(dataset.source, stored)
    return whole(source_like(data(), dataset.train_images.shape[1:]), stored)
