"""Unlabelled pools: images beside the training set, for semi-supervised learning.

True labels, where they are known, go to two things only: to shape the pool's own long tail, as the experiment asks, and
to figures. Which images are drawn depends on the seed and on ids, not on the order in which they are stored.
"""

import enum
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from lt_noisy import rng
from lt_noisy.config.spec import table
from lt_noisy.data.by_class import shuffled_by_class
from lt_noisy.data.dataset import Dataset
from lt_noisy.data.images import Stored, joined
from lt_noisy.data.longtail import unlabelled_counts
from lt_noisy.data.sources import SOURCES
from lt_noisy.data.sources.base import Load, Source, Split, selected, split_images
from lt_noisy.data.sources.channels import shape_of, split_like
from lt_noisy.data.sources.folder import images_under
from lt_noisy.errors import UserError
from lt_noisy.files import user_path


class Own(enum.Enum):
    """What of the run's own source a pool is drawn from."""

    LEFT_OUT = enum.auto()


def left_out() -> Own:
    """The training images of the run's own source that neither its training set holds nor what is held out of it.

    Ours for CIFAR-10, whose pool in Yang & Xu (NeurIPS 2020) came from 80 Million Tiny Images, since withdrawn. The
    long tail's n_max must leave images of its largest class.

    References:
      Yang & Xu, "Rethinking the Value of Labels" (2020).
    """
    return Own.LEFT_OUT


class Unlabelled(NamedTuple):
    """A pool of which no true label is known.

    Attributes:
      load: () -> a split; its labels say nothing.
    """

    load: Callable[[], Split]


def images(path: str, size: int = 64) -> Unlabelled:
    """All images under a folder, whatever its sub-folders: nothing is known of what they show.

    Read as `folder` reads them, ids too: a hash of what is in the file, so a file's id is its own.
    """
    if size < 1:
        raise UserError(f"size={size} must be a positive number of pixels")
    root = user_path(path)
    return Unlabelled(lambda: images_under(root, size))


def none() -> None:
    """No images of another source."""
    return None


# Another source gives its training split: `tfds(svhn_cropped, train=extra)`. Its classes are the run's, by number.
POOLS = table({"left_out": left_out, "images": images, **SOURCES})
IRRELEVANT = table({"none": none, **SOURCES})

NOT_OF_ANY_CLASS, UNKNOWN = -1, -2  # in place of a true label


def draw(
    pool: Own | Unlabelled | Load,
    dataset: Dataset,
    times: float,
    ratio: float,
    irrelevant: float,
    irrelevant_source: Load | None,
    seed: int,
) -> Split:
    """The unlabelled pool D_U of a training set D_L; no image is read but one, for its shape.

    Yang & Xu, "Rethinking the Value of Labels for Improving Class-Imbalanced Learning" (NeurIPS 2020), sec. 3: |D_U|
    = times |D_L| images, of which the class that is j-th largest in D_L has `longtail.unlabelled_counts(C, total,
    ratio)[j]`, and a share of which may be irrelevant, that is of other classes. Ours: irrelevant images come from
    the training split of another source, each with equal chance whatever its class; the relevant rest has the
    profile.

    Args:
      pool: bound against `POOLS`. Of `images(...)`, whose labels nobody knows, each image has equal chance.
      dataset: the run's training set.
      times: above 0, or 0 for all of the pool as it is, whatever its profile.
      ratio: of the relevant images' own exponential profile, largest over smallest class, at least 1.
      irrelevant: share of irrelevant images in D_U, in [0, 1).
      irrelevant_source: bound against `IRRELEVANT`; loaded only where the share is above 0.
      seed: of the run. With one seed a smaller pool is part of a larger one.

    Returns:
      A split: ids int64 [M], unique, relevant images first and by rising id; labels int32 [M], the true ones (where
      the source knows its labels to be noisy the clean ones), NOT_OF_ANY_CLASS where irrelevant, UNKNOWN throughout
      `images(...)`; images, a function of positions in the
      pool, in the run's channels. The id of an irrelevant image is -1 - its own.

    Raises:
      UserError: an argument out of range; a pool without images, with fewer than classes, with other classes, or with
        too few images of one; images of another shape than the run's.
    """
    _check(times, ratio, irrelevant, irrelevant_source)
    if isinstance(pool, Unlabelled) and ratio != 1:
        raise UserError(f"ratio={ratio:g} shapes a pool by its true labels, and images(...) has none; set ratio=1.0")
    split, rows = _candidates(pool, dataset)
    split = split_like(split, dataset.train_images.shape[1:])
    total = round(times * len(dataset.ids))
    num_irrelevant = round(irrelevant * total) if times else round(len(rows) * irrelevant / (1 - irrelevant))
    if times and isinstance(pool, Unlabelled):
        rows = _any(rows, total - num_irrelevant, seed)
    elif times:
        # The most of the class that the training set has most of: SVHN's head, say, is class 1.
        by_size = np.argsort(-np.bincount(dataset.clean, minlength=dataset.num_classes), kind="stable")
        counts = np.empty(dataset.num_classes, np.int64)
        counts[by_size] = unlabelled_counts(dataset.num_classes, total - num_irrelevant, ratio)
        rows = _profiled(split, rows, counts, seed)
    if irrelevant and split.ids[rows].min() < 0:
        raise UserError("ids of the pool are below 0, which is for irrelevant images; number its images from 0")
    _check_shape(split, "pool", dataset)
    relevant = selected(split, rows)
    if irrelevant_source is None or not num_irrelevant:
        return relevant
    return _mixed(relevant, irrelevant_source, num_irrelevant, dataset, seed)


@functools.lru_cache(maxsize=2)  # a pool and the source of its irrelevant images
def _loaded(load: Callable[[], Any]) -> Any:
    """A source or a folder's images, read once however often a pool is drawn."""
    return load()


def _check(times: float, ratio: float, irrelevant: float, irrelevant_source: Load | None) -> None:
    if not times >= 0:
        raise UserError(f"times is 0.0 (all of the pool) or above, not {times}")
    if times == 0 and ratio != 1:
        raise UserError(f"ratio={ratio:g} shapes a pool of a given size: set times too, or ratio=1.0 for all as it is")
    if not 0 <= irrelevant < 1:
        raise UserError(f"irrelevant is a share of the pool in [0, 1), not {irrelevant}")
    if irrelevant and irrelevant_source is None:
        raise UserError(f"irrelevant={irrelevant:g} takes an irrelevant_source, such as 'tfds(cifar100)'")


def _candidates(pool: Own | Unlabelled | Load, dataset: Dataset) -> tuple[Split, np.ndarray]:
    """The split that the pool is drawn from, and the rows of it that may be drawn, in id order."""
    if pool is Own.LEFT_OUT:
        split = dataset.source.train
        used = dataset.ids if dataset.validation is None else np.append(dataset.ids, dataset.validation.ids)
        rows = np.flatnonzero(~np.isin(split.ids, used))
        if not len(rows):
            raise UserError("left_out(): the training set holds every image of its source; lower the long tail's n_max")
    elif isinstance(pool, Unlabelled):
        split = _loaded(pool.load)
        rows = np.arange(len(split.ids))
        split = split._replace(labels=np.full(len(rows), UNKNOWN, np.int32))
    else:
        source: Source = _loaded(pool)
        if source.num_classes != dataset.num_classes:
            raise UserError(f"the pool has {source.num_classes} classes, the run {dataset.num_classes}")
        ours, theirs = dataset.class_names, source.class_names
        if ours != theirs and not any(name.isdigit() for name in (*ours, *theirs)):
            raise UserError(
                f"the pool's classes are {', '.join(theirs[:3])}, ..., the run's {', '.join(ours[:3])}, ..."
            )
        split, rows = source.train, np.arange(len(source.train.ids))
    split = split._replace(labels=split.best_labels)
    return split, rows[np.argsort(split.ids[rows])]


def _profiled(split: Split, rows: np.ndarray, counts: np.ndarray, seed: int) -> np.ndarray:
    """`counts[c]` of the rows of each class c, in the order of `rows`; refuses a class that has too few."""
    shuffled, drawn = shuffled_by_class(split.labels[rows], split.ids[rows], len(counts), seed, "pool"), []
    for c, (members, wanted) in enumerate(zip(shuffled, counts, strict=True)):
        if len(members) < wanted:
            raise UserError(
                f"class {c}: {wanted} images wanted, the pool has {len(members)}; lower times or ratio, "
                "or for left_out() the long tail's n_max"
            )
        drawn.append(members[:wanted])
    return rows[np.sort(np.concatenate(drawn))]


def _any(rows: np.ndarray, wanted: int, seed: int) -> np.ndarray:
    """`wanted` of the rows, in their order."""
    if len(rows) < wanted:
        raise UserError(f"{wanted} images wanted, the pool has {len(rows)}; lower times, or 0.0 for all of them")
    return rows[np.sort(rng.generator(seed, "pool, any class").permutation(len(rows))[:wanted])]


def _mixed(relevant: Split, source: Load, number: int, dataset: Dataset, seed: int) -> Split:
    """The relevant images, then `number` irrelevant ones of another source."""
    other = split_like(_loaded(source).train, dataset.train_images.shape[1:])
    if len(other.ids) < number:
        raise UserError(
            f"{number} irrelevant images wanted, irrelevant_source has {len(other.ids)}; lower irrelevant or times"
        )
    _check_shape(other, "irrelevant_source", dataset)
    in_id_order = np.argsort(other.ids)
    rows = np.sort(rng.generator(seed, "pool, irrelevant").permutation(len(other.ids))[:number])
    rows = in_id_order[rows]
    if other.ids[rows].min() < 0:
        raise UserError("ids of irrelevant_source are below 0; number its images from 0")

    parts = split_images(relevant, np.arange(len(relevant.ids)), True), split_images(other, rows, True)
    both = joined(*parts)
    assert isinstance(both, Stored)  # as its parts are
    return Split(
        np.append(relevant.ids, -1 - other.ids[rows]),
        np.append(relevant.labels, np.full(number, NOT_OF_ANY_CLASS, np.int32)),
        both.__getitem__,
        read_cut=both.cut if both.read_cut else None,
    )


def _check_shape(split: Split, name: str, dataset: Dataset) -> None:
    found, own = shape_of(split), dataset.train_images.shape[1:]
    if found != own:
        shapes = " and ".join("x".join(map(str, shape)) for shape in (found, own))
        raise UserError(f"images of the {name} and of the run are {shapes}; give the source size=, e.g. size={own[0]}")
