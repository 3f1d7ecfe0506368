"""The draws themselves: arrays as they have always been. Every record and manifest hangs on them."""

import hashlib

import numpy as np
import pytest

from lt_noisy.config.spec import bind
from lt_noisy.data.by_class import rows_of
from lt_noisy.data.dataset import Dataset, hold_out
from lt_noisy.data.longtail import LONGTAILS
from lt_noisy.data.noise import NOISES
from lt_noisy.data.pools import draw
from lt_noisy.data.sources import SOURCES
from lt_noisy.data.sources.base import Source, Split
from lt_noisy.data.sources.content import held_out, ids_of
from lt_noisy.stages.cross_fit import assign_folds

LABELS = np.array([1, 0, 2, 0, 1, 0, 2, 0, 1, 0, 0, 2, 1, 0, 0, 2], np.int32)
IDS = np.array([105, 3, 110, 8, 12, 101, 7, 6, 11, 1, 112, 4, 109, 2, 13, 102])
IMAGES = np.zeros((16, 2, 2, 1), np.uint8)
SEED = 5


def source():
    train, test = (Split(IDS[:n], LABELS[:n], lambda rows: IMAGES[rows]) for n in (16, 1))
    return Source(train, test, ("a", "b", "c"))


def test_rows_of_ids():
    wanted = np.array([13, 3, 0, 105, 999, 13])
    assert rows_of(wanted, IDS).tolist() == [14, 1, -1, 0, -1, 14]
    assert rows_of(wanted, IDS[:0]).tolist() == [-1] * 6 and rows_of(wanted[:0], IDS).dtype == np.int64


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("explicit((4, 2, 3))", [3, 7, 8, 11, 101, 102, 109, 110, 112]),
        ("explicit((4, 2, 3), subset=conventional)", [101, 3, 2, 112, 109, 11, 7, 4, 102]),
    ],
)
def test_long_tail(text, ids):
    assert IDS[bind(text, LONGTAILS, "longtail")(LABELS, IDS, 3, SEED)].tolist() == ids


def test_exact_transitions():
    noise = bind("transition(((0.5, 0.25, 0.25), (0, 0.5, 0.5), (0.4, 0.3, 0.3)), draw=exact)", NOISES, "noise")
    assert noise.corrupt(LABELS, IDS, 3, SEED).tolist() == [1, 0, 2, 0, 2, 2, 0, 2, 2, 1, 0, 1, 1, 0, 1, 0]


def test_validation():
    dataset = Dataset(IMAGES, LABELS, LABELS, IDS, IMAGES[:1], LABELS[:1], ("a", "b", "c"), source())
    assert hold_out(dataset, 0.4, SEED).validation.ids.tolist() == [3, 12, 7, 6, 109, 13, 102]


def test_test_splits():
    assert SOURCES["development"](source, percent=40)().test.ids.tolist() == [110, 6, 1, 112, 109]
    found = bind("digits(test_per_class=1)", SOURCES, "dataset")().test
    assert found.ids.tolist() == [5, 49, 89, 542, 844, 916, 1238, 1403, 1542, 1759]
    contents = [hashlib.sha256(bytes([number])).digest() for number in range(9)]  # as of files, two classes in turn
    assert np.flatnonzero(held_out(contents, np.arange(9) % 2, 2, 40)).tolist() == [1, 2, 5]
    assert ids_of([*contents[:2], contents[0]]).tolist() == [
        5907217581846130709,
        2936650500528407930,
        2242479095395439972,
    ]


def test_pool():
    one = Dataset(IMAGES[:0], LABELS[:0], LABELS[:0], IDS[:0], IMAGES[:1], LABELS[:1], ("a", "b", "c"), source())
    dataset = one._replace(ids=np.arange(1000, 1006), train_images=IMAGES[:6], clean=np.array([0, 0, 0, 1, 1, 2]))
    assert draw(source, dataset, 1.0, 4.0, 0.0, None, SEED).ids.tolist() == [1, 2, 8, 12, 13, 109]


def test_folds():
    folds = assign_folds(LABELS, IDS, 4, SEED, "judge/folds")
    assert folds.dtype == np.int32 and folds.tolist() == [2, 1, 1, 0, 3, 3, 0, 0, 0, 2, 2, 3, 1, 1, 3, 2]
