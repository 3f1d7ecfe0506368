"""The unlabelled images that a `pseudo_label` stage labels, and what they add to a training set once it has.

Apart from the stage, because `supervised` reads these and the stage reads `supervised`.
"""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from lt_noisy import files
from lt_noisy.config.fields import plain, spec
from lt_noisy.data.by_class import one_hot
from lt_noisy.data.images import Images, Stored, joined
from lt_noisy.data.pools import IRRELEVANT, POOLS, Own, Unlabelled, draw
from lt_noisy.data.sources.base import Load, Split, split_images
from lt_noisy.errors import UserError, prefixed
from lt_noisy.stages.base import Input, Job


@dataclasses.dataclass(frozen=True)
class Pool:
    """Which images are labelled."""

    pool: Own | Unlabelled | Load = spec("left_out()", POOLS)
    times: float = plain(5.0)  # |D_U| = times * |D_L|; 0.0 for all of the pool
    ratio: float = plain(1.0)  # of the pool's own long tail, by its true labels
    irrelevant: float = plain(0.0)  # share of the pool that is of another source
    irrelevant_source: Load | None = spec("none()", IRRELEVANT)


class PseudoLabels(NamedTuple):
    """What a classifier says of a pool.

    Attributes:
      targets: int32 [M], or float32 [M, C] where soft.
      kept: bool [M], whether the image is to be trained on.
      confidence: float32 [M], the largest probability.
    """

    targets: np.ndarray
    kept: np.ndarray
    confidence: np.ndarray


class Examples(NamedTuple):
    """What a stage trains on: the run's examples, then those of a `pseudo_label` stage.

    Attributes:
      images: uint8 [N, H, W, C].
      targets: int32 [N], or float32 [N, C] where pseudo-labels are soft.
      kept: bool [N], False for pseudo-labels that were not kept: they are never in a batch.
    """

    images: Images
    targets: np.ndarray
    kept: np.ndarray

    @property
    def labels(self) -> np.ndarray:
        """int [N]: the targets, or their largest entry."""
        return self.targets if self.targets.ndim == 1 else self.targets.argmax(-1)

    def counts(self, num_classes: int) -> np.ndarray:
        """int [C]: examples per class as observed or pseudo-labelled, of those kept; soft labels to the nearest."""
        if self.targets.ndim == 1:
            return np.bincount(self.targets[self.kept], minlength=num_classes)
        return np.rint(self.targets[self.kept].sum(0, dtype=np.float64)).astype(np.int64)


def pool(job: Job, section: Pool, name: str) -> Split:
    """The pool of the `pseudo_label` stage `name`: a function of its section, the run's training set and the seed."""
    with prefixed(f"config.{name}"):
        return draw(
            section.pool,
            job.training_set,
            section.times,
            section.ratio,
            section.irrelevant,
            section.irrelevant_source,
            job.seed,
        )


def images(job: Job, drawn: Split) -> Images:
    """All images of a pool, uint8 [M, H, W, C]; they stay on the disk where those of the run do."""
    every = np.arange(len(drawn.ids))
    return split_images(drawn, every, isinstance(job.training_set.train_images, Stored))


def size(job: Job, stage: Input) -> int:
    """How many images the pool of a `pseudo_label` stage has, kept or not; known before the stage has run."""
    return len(pool(job, stage.section, stage.directory.name).ids)


def has_pictures(job: Job, stage: Input) -> bool:
    """Whether the images of that pool are made of whole pictures, parts of which can be read."""
    return pool(job, stage.section, stage.directory.name).read_cut is not None


def write(directory: pathlib.Path, drawn: Split, assigned: PseudoLabels, class_names: Sequence[str]) -> None:
    """Writes `pseudo_labels.npz` (ids [M], targets, kept, confidence), and a `pseudo_labels.csv` of images in files.

    That has a line for each: file, class, probability of the class, and whether the image is kept (1 or 0).
    """
    files.write_arrays(directory / "pseudo_labels.npz", ids=drawn.ids, **assigned._asdict())
    if not drawn.files:
        return
    hard = assigned.targets if assigned.targets.ndim == 1 else assigned.targets.argmax(-1)
    rows = zip(drawn.files, hard, assigned.confidence, assigned.kept, strict=True)
    files.write_table(
        directory / "pseudo_labels.csv",
        ("file", "class", "probability", "kept"),
        ((file, class_names[label], f"{probability:.4f}", int(kept)) for file, label, probability, kept in rows),
    )


def read(job: Job, stage: Input) -> Examples:
    """The pool of a finished `pseudo_label` stage and its targets, in the order of the pool.

    Raises:
      UserError: `pseudo_labels.npz` is missing or damaged, or was written for another pool.
    """
    drawn, path = pool(job, stage.section, stage.directory.name), stage.directory / "pseudo_labels.npz"
    ids, targets, kept = files.load_arrays(path, "ids", "targets", "kept")
    if not np.array_equal(ids, drawn.ids):
        raise UserError(f"config.{job.name}: {path} is of another pool")
    return Examples(images(job, drawn), targets, kept)


def examples(job: Job) -> Examples:
    """The job's training set, and the pool of its `pseudo` stage where there is one."""
    dataset = job.dataset
    every = np.ones(len(dataset.ids), bool)
    if "pseudo" not in job.inputs:
        return Examples(dataset.train_images, dataset.observed, every)
    extra = read(job, job.inputs["pseudo"])
    observed = dataset.observed
    if extra.targets.ndim == 2:
        observed = one_hot(observed, dataset.num_classes)
    return Examples(
        joined(dataset.train_images, extra.images),
        np.concatenate([observed, extra.targets]),
        np.concatenate([every, extra.kept]),
    )
