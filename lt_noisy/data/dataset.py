"""The data of one run in host memory: what a manifest selects from a source, and the test set."""

import enum
import hashlib
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from lt_noisy.config.spec import table
from lt_noisy.data.by_class import shuffled_by_class
from lt_noisy.data.sources import SOURCES
from lt_noisy.data.sources.base import Load, Source
from lt_noisy.data.sources.channels import source_in
from lt_noisy.errors import UserError
from lt_noisy.hashing import array_sha256


class Validation(NamedTuple):
    """Examples held out of the manifest, as noisy as the rest: what may select, unlike the test set.

    Attributes:
      images: uint8 [V, H, W, C].
      observed: int32 [V].
      clean: int32 [V], for metrics only.
      ids: int64 [V].
    """

    images: np.ndarray
    observed: np.ndarray
    clean: np.ndarray
    ids: np.ndarray


class Dataset(NamedTuple):
    """Training images in manifest order, and everything to evaluate against.

    Attributes:
      train_images: uint8 [N, H, W, C].
      observed: int32 [N], the labels that training sees.
      clean: int32 [N], for metrics only.
      ids: int64 [N].
      test_images: uint8 [M, H, W, C].
      test_labels: int32 [M].
      class_names: C names.
      source: where it came from, for banks drawn from the full training split.
      validation: what `hold_out` took from the manifest; None without.
    """

    train_images: np.ndarray
    observed: np.ndarray
    clean: np.ndarray
    ids: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    class_names: tuple[str, ...]
    source: Source
    validation: Validation | None = None

    @property
    def num_classes(self) -> int:
        """C."""
        return len(self.class_names)

    def hashes(self) -> dict[str, str]:
        """Hashes of all that a stage may read: images, ids, both kinds of labels, test set, held-out split."""
        content = {
            "images": array_sha256(self.train_images),
            "ids": array_sha256(self.ids),
            "test": _joint_sha256(self.test_images, self.test_labels),
            "observed_labels": array_sha256(self.observed),
            "clean_labels": array_sha256(self.clean),
        }
        if self.source.train.files:  # which people rename, and sort anew between runs
            content["test_images"] = array_sha256(self.test_images)
            content["class_names"] = hashlib.sha256(repr(self.class_names).encode()).hexdigest()
        if self.validation is not None:
            content["validation"] = _joint_sha256(self.validation.ids, self.validation.observed)
        return content

    def rows(self, rows: np.ndarray) -> "Dataset":
        """The same with only these rows (int [n]) of the training set."""
        selected = {name: getattr(self, name)[rows] for name in ("train_images", "observed", "clean", "ids")}
        return self._replace(**selected)


def read_by(hashes: Mapping[str, str], labels: tuple[str, ...]) -> dict[str, str]:
    """Of the hashes of a data set those of what a stage reads: images, ids, the test set, and of its `labels`, if any.

    Whatever reads labels reports on the clean ones too, as it does on the test set; the held-out split is read for its
    observed ones. Where images are files it names their classes, and what reads no labels is the same whatever those of
    the test images are, though it reports on them: labels of files are corrected between runs.
    """
    test = "test_images" if "test_images" in hashes and not labels else "test"
    names = ["images", "ids", test, *(f"{name}_labels" for name in dict.fromkeys([*labels, "clean"]) if labels)]
    if "observed" in labels and "validation" in hashes:
        names.append("validation")
    if labels and "class_names" in hashes:
        names.append("class_names")
    return {name: hashes[name] for name in names}


def _joint_sha256(*arrays: np.ndarray) -> str:
    return hashlib.sha256("".join(map(array_sha256, arrays)).encode()).hexdigest()


def select(source: Source, rows: np.ndarray, observed: np.ndarray, clean: np.ndarray) -> Dataset:
    """These rows (int [n]) of a source's training split with these labels (int32 [n]), and its test set, in memory."""
    test = source.test
    return Dataset(
        train_images=source.train.images(rows),
        observed=observed,
        clean=clean,
        ids=source.train.ids[rows],
        test_images=test.images(np.arange(len(test.labels))),
        test_labels=test.labels,
        class_names=source.class_names,
        source=source,
    )


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
    validation = Validation(held_out.train_images, held_out.observed, held_out.clean, held_out.ids)
    return training._replace(validation=validation)


def whole(source: Source) -> Dataset:
    """All of a source, its labels taken as they are: no long tail, no noise."""
    labels = source.train.labels
    return select(source, np.arange(len(labels)), labels, labels)


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
    """What `data` (bound against `DATA`) means in a run on `dataset`; another source is whole, in its channels."""
    if data is Part.MANIFEST:
        return dataset
    if data is Part.FULL:
        return whole(dataset.source)
    return whole(source_in(data(), dataset.train_images.shape[-1]))
