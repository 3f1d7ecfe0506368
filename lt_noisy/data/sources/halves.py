"""Images whose two halves tell different things: the semi-synthetic experiment on what long tails teach."""

import numpy as np

from lt_noisy import rng
from lt_noisy.data.sources.base import Load, Source, Split
from lt_noisy.errors import UserError

_PARTNER_SEED = 0  # every run sees the same images, whatever its seed


def halves(inner: Load, frequent: int = 5) -> Load:
    """Another source with half of each image replaced: a semi-synthetic experiment.

    Images of classes below `frequent` keep their left half, and their right half is that of a random other
    image: the right half says nothing about the label, yet looks like any image's. Images of the other, rare
    classes have a blank (0) left half and keep their right half. So a model of the frequent labels can ignore
    what the rare classes are known by. Training and test split are treated alike; ids, labels and class names
    stay. The middle column of an odd width belongs to the right half. Class sizes are the long tail's business
    (the paper: 5000 and 10 images per class), and flips, which would swap the halves, the augmentation's.

    Ours, because we could not find how the paper does it: halves are cut from one image, which keeps its size;
    the random image is any other of the same split, drawn uniformly, whatever its class and whether or not the
    long tail keeps it, once and for all for each row; the test images are made in the same way.

    Args:
      inner: the source whose images are changed.
      frequent: how many classes, the first ones, are frequent; in 1..C-1.

    Raises:
      UserError: at load, `frequent` out of range, or a split of one image, which has no other; when an image is read,
        vectors in their place.

    References:
      Liu et al., "Self-supervised Learning is More Robust to Dataset Imbalance" (2022).
    """

    def load() -> Source:
        source = inner()
        if not 1 <= frequent < source.num_classes:
            raise UserError(
                f"halves: frequent={frequent} must lie in 1..{source.num_classes - 1}, "
                f"for the source has {source.num_classes} classes"
            )
        return source._replace(
            train=_halved(source.train, "train", frequent), test=_halved(source.test, "test", frequent)
        )

    return load


def _halved(split: Split, name: str, frequent: int) -> Split:
    count = len(split.labels)
    if count < 2:
        raise UserError(f"halves: the {name} split has {count} image; a random other one takes at least 2")
    # A step of 1..count-1 round the rows reaches every row but the own one, each with equal probability.
    steps = rng.generator(_PARTNER_SEED, f"halves, {name} split").integers(1, count, count)
    partners = (np.arange(count) + steps) % count

    def images(rows: np.ndarray) -> np.ndarray:
        out = np.array(split.images(rows))  # a copy: the source may hand out its own memory
        if out.ndim == 2:
            raise UserError("halves: the source has vectors, which have no left and right half")
        middle = out.shape[2] // 2
        is_frequent = split.labels[rows] < frequent
        out[~is_frequent, :, :middle] = 0
        if is_frequent.any():
            out[is_frequent, :, middle:] = split.images(partners[rows[is_frequent]])[:, :, middle:]
        return out

    return split._replace(images=images, content=None, read_cut=None, original=None)
