"""A test set for choosing settings, so that the one that is reported chooses nothing."""

import numpy as np

from lt_noisy.data.by_class import held_out_of, shuffled_by_class
from lt_noisy.data.sources.base import HOLD_OUT_SEED, Load, Source, selected
from lt_noisy.errors import UserError


def development(inner: Load, percent: int = 20) -> Load:
    """Another source without its test images; in their place a share of the training images of each class.

    Their labels are as clean as the source's own, before the run's noise; but what is chosen on them is not chosen on
    the images that results are then reported on. For what is tuned within a run see the run's `validation`.

    Args:
      inner: the source that is divided.
      percent: of each class, at least one image; in 1..99.

    Raises:
      UserError: percent out of range; at load, a class of fewer than 2 images.
    """
    if not 1 <= percent <= 99:
        raise UserError(f"development: percent={percent} must lie in 1..99")

    def load() -> Source:
        source = inner()
        labels, ids = source.train.labels, source.train.ids
        shuffled = shuffled_by_class(labels, ids, source.num_classes, HOLD_OUT_SEED, "development split")
        held_out = np.zeros(len(ids), bool)
        for name, rows in zip(source.class_names, shuffled, strict=True):
            if len(rows) < 2:
                raise UserError(f"development: class {name} has {len(rows)} training images; at least 2 are needed")
            held_out[rows[: held_out_of(len(rows), percent)]] = True
        train, test = (selected(source.train, np.flatnonzero(mask)) for mask in (~held_out, held_out))
        # The held-out ones are tested on, by the best labels there are.
        return source._replace(train=train, test=test._replace(labels=test.best_labels, clean=None))

    return load
