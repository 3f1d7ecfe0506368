"""The split that settings are chosen on: apart from training and test images, the same in every order of storage."""

import numpy as np
import pytest

from lt_noisy.config.spec import bind
from lt_noisy.data.sources import SOURCES
from lt_noisy.data.sources.base import Source, Split
from lt_noisy.errors import UserError


def source(order=slice(None), counts=(10, 5, 2)):
    """Ids from 100; an image's pixels are its id; files are named by it."""
    labels = np.repeat(np.arange(len(counts)), counts).astype(np.int32)[order]
    ids = np.arange(100, 100 + sum(counts))[order]
    images = np.broadcast_to(ids[:, None, None, None], (len(ids), 2, 2, 1)).astype(np.uint8)
    train = Split(ids, labels, lambda rows: images[rows], tuple(f"{key}.png" for key in ids))
    return Source(train, Split(ids[:1], labels[:1], lambda rows: images[rows]), tuple("abc"))


def test_a_share_of_each_class_and_nothing_twice():
    inner = source()
    found = SOURCES["development"](lambda: inner, percent=40)()
    assert np.bincount(found.test.labels).tolist() == [4, 2, 1] and np.bincount(found.train.labels).tolist() == [
        6,
        3,
        1,
    ]
    assert sorted([*found.train.ids, *found.test.ids]) == inner.train.ids.tolist()
    for split in (found.train, found.test):
        rows = np.arange(len(split.ids))[::-1]
        np.testing.assert_array_equal(split.images(rows)[:, 0, 0, 0], split.ids[rows])
        assert split.files == tuple(f"{key}.png" for key in split.ids)
    other = SOURCES["development"](lambda: source(np.random.default_rng(0).permutation(17)), percent=40)()
    assert set(other.test.ids) == set(found.test.ids)  # by id, whatever the order of storage


def test_the_images_that_results_are_reported_on_are_in_neither_split():
    digits, divided = bind("digits()", SOURCES, "x")(), bind("development(digits(), percent=25)", SOURCES, "x")()
    seen = {*divided.train.ids, *divided.test.ids}
    assert seen == set(digits.train.ids) and not seen & set(digits.test.ids)


def test_bad_input():
    for percent in (0, 100):
        with pytest.raises(UserError, match=f"percent={percent} must lie in 1..99"):
            SOURCES["development"](source, percent=percent)
    with pytest.raises(UserError, match="class c has 1 training images; at least 2"):
        SOURCES["development"](lambda: source(counts=(3, 3, 1)))()


def test_what_is_held_out_is_tested_by_the_best_labels():
    inner = source()
    noisy = inner._replace(train=inner.train._replace(labels=np.roll(inner.train.labels, 1), clean=inner.train.labels))
    found = SOURCES["development"](lambda: noisy, percent=40)()
    true = dict(zip(inner.train.ids.tolist(), inner.train.labels.tolist(), strict=True))
    assert found.test.clean is None and found.test.labels.tolist() == [true[key] for key in found.test.ids.tolist()]
    assert found.train.clean.tolist() == [true[key] for key in found.train.ids.tolist()]
