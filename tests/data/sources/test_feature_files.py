"""Vectors from an `.npz` file: what is read, and one line for whatever is wrong."""

import numpy as np
import pytest
from helpers import layouts

from lt_noisy import system
from lt_noisy.config.spec import bind
from lt_noisy.data.dataset import choose, whole
from lt_noisy.data.images import Stored, identity, joined, subset
from lt_noisy.data.pools import draw
from lt_noisy.data.sources import SOURCES
from lt_noisy.data.sources.base import selected
from lt_noisy.errors import UserError


def load(text, root):
    return bind(text.format(tmp=root), SOURCES, "dataset")()


@pytest.fixture
def arrays(tmp_path):
    layouts.features(tmp_path)
    with np.load(tmp_path / "features.npz") as file:
        return dict(file)


def test_what_is_written_is_read(tmp_path, arrays):
    source = load("features(path='{tmp}/features.npz')", tmp_path)
    assert source.class_names == ("class 0", "class 1", "class 2")
    every = np.arange(30)
    np.testing.assert_array_equal(source.train.images(every), arrays["train_features"])
    np.testing.assert_array_equal(source.train.images(every[[4, 2, 4]]), arrays["train_features"][[4, 2, 4]])
    np.testing.assert_array_equal(source.train.labels, arrays["train_labels"])
    np.testing.assert_array_equal(source.train.clean, arrays["clean_labels"])
    assert np.flatnonzero(source.train.clean != source.train.labels).tolist() == [0, 3]
    assert source.train.ids.tolist() == list(range(900, 870, -1)) and source.test.ids.tolist() == every.tolist()
    assert source.test.clean is None and source.train.clean.dtype == np.int32


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_of_any_precision_and_with_what_is_needed_alone(tmp_path, arrays, dtype):
    needed = {key: arrays[key] for key in ("train_labels", "test_labels")}
    needed |= {key: arrays[key].astype(dtype) for key in ("train_features", "test_features")}
    np.savez(tmp_path / "few.npz", **needed)
    source = load("features(path='{tmp}/few.npz')", tmp_path)
    assert source.class_names == ("0", "1", "2") and source.train.clean is None
    assert source.train.ids.tolist() == list(range(30))
    found = source.train.images(np.arange(30))
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, needed["train_features"].astype(np.float32))


def spoilt(array, row, value):
    array = array.astype(np.float64)
    array[row, 2] = value
    return array


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"test_labels": None}, "no array 'test_labels'"),
        ({"train_features": None}, "no array 'train_features'"),
        ({"train_features": lambda a: a.astype(int)}, "train_features is int64 .* must be float16, 32 or 64"),
        ({"train_features": lambda a: a[:, None]}, r"train_features is float32 \[30, 1, 6\]; it must be .* \[N, D\]"),
        ({"train_features": lambda a: a[:, 0]}, r"train_features is float32 \[30\]"),
        ({"train_features": lambda a: a[:, :0]}, r"train_features is float32 \[30, 0\]"),
        ({"test_features": lambda a: a[:0]}, "test_features is empty"),
        ({"test_features": lambda a: a[:, :4]}, "train_features are vectors of 6, test_features of 4"),
        ({"train_features": lambda a: spoilt(a, 7, np.nan)}, "train_features: a number in row 7 is not finite"),
        ({"train_features": lambda a: spoilt(a, [7, 9], np.inf)}, "row 7, and of 1 more is not finite"),
        ({"test_features": lambda a: spoilt(a, 3, 1e300)}, "test_features: a number in row 3 is not finite as float32"),
        ({"train_labels": lambda a: a[:-1]}, r"train_labels is int64 \[29\]; it must be integer \[30\]"),
        ({"train_labels": lambda a: a.astype(float)}, "train_labels is float64"),
        ({"train_labels": lambda a: a - 1}, "train_labels holds -1; labels count from 0"),
        ({"train_labels": lambda a: 2 * a, "class_names": None, "clean_labels": None}, "no vector of 2 of the 5 class"),
        ({"train_labels": lambda a: a + 1}, r"train_labels holds class 3, class_names only 0\.\.2"),
        ({"train_labels": lambda a: a + 2**32}, r"train_labels holds class 4294967297, class_names only 0\.\.2"),
        ({"clean_labels": lambda a: a + 2**32}, r"clean_labels holds class 4294967296, class_names only 0\.\.2"),
        ({"test_labels": lambda a: a + 10**9, "class_names": None}, r"class 1000000000, 30 training vectors can have"),
        ({"class_names": lambda a: np.append(a, "d")}, r"no vector of 1 of the 4 classes \(3\)"),
        ({"class_names": lambda a: np.arange(3)}, r"class_names is int64 \[3\]; it must be texts"),
        ({"test_labels": lambda a: a + 1}, r"test_labels holds class 3, class_names only 0\.\.2"),
        ({"clean_labels": lambda a: a + 1}, r"clean_labels holds class 3, class_names only 0\.\.2"),
        (
            {"clean_labels": lambda a: a + 1, "class_names": None},
            r"clean_labels holds class 3, train_labels only 0\.\.2",
        ),
        ({"clean_labels": lambda a: a - 1}, "clean_labels holds -1; labels count from 0"),
        ({"test_labels": lambda a: a + 1, "class_names": None}, r"test_labels holds class 3, train_labels only 0\.\.2"),
        ({"clean_labels": lambda a: a[1:]}, r"clean_labels is int64 \[29\]; it must be integer \[30\]"),
        ({"train_ids": lambda a: a // 2}, "train_ids holds duplicates"),
        ({"train_ids": lambda a: a[1:]}, r"train_ids is int64 \[29\]"),
    ],
)
def test_what_is_wrong_is_one_line(tmp_path, arrays, change, message):
    changed = arrays | {key: make and make(arrays[key]) for key, make in change.items()}
    np.savez(tmp_path / "bad.npz", **{key: array for key, array in changed.items() if array is not None})
    with pytest.raises(UserError, match=rf"bad\.npz:? .*{message}|bad\.npz has {message}") as error:
        load("features(path='{tmp}/bad.npz')", tmp_path)
    assert "\n" not in str(error.value)


def test_files_that_cannot_be_read(tmp_path, arrays, monkeypatch):
    with pytest.raises(UserError, match=r"none\.npz does not exist"):
        load("features(path='{tmp}/none.npz')", tmp_path)
    (tmp_path / "bad.npz").write_bytes(b"text")
    with pytest.raises(UserError, match=r"bad\.npz is not a readable \.npz file"):
        load("features(path='{tmp}/bad.npz')", tmp_path)
    wide = np.zeros((30, 2**18), np.float32)
    np.savez_compressed(tmp_path / "wide.npz", **arrays | {"train_features": wide, "test_features": wide[:, :1]})
    monkeypatch.setattr(system, "available_bytes", lambda: 2**20)
    with pytest.raises(UserError, match=r"wide\.npz takes .* are free"):
        load("features(path='{tmp}/wide.npz')", tmp_path)


def test_a_part_of_the_vectors_must_fit_with_four_bytes_a_number(tmp_path, arrays, monkeypatch):
    wide = np.zeros((30, 2**18), np.float32)
    np.savez_compressed(tmp_path / "wide.npz", **arrays | {"train_features": wide, "test_features": wide})
    source = load("features(path='{tmp}/wide.npz')", tmp_path)
    monkeypatch.setattr(system, "available_bytes", lambda: 19 * 2**20)
    with pytest.raises(
        UserError,
        match=r"the vectors of one split.*: 20 vectors of 262144 take .*: give fewer vectors, or shorter ones$",
    ):
        source.train.images(np.arange(20))
    assert source.train.images(np.arange(19)).shape == (19, 2**18)


def test_stored_they_are_the_same(tmp_path, arrays):
    source = load("features(path='{tmp}/features.npz')", tmp_path)
    resident, stored = whole(source), whole(source, stored=True)
    images = stored.train_images
    assert isinstance(images, Stored) and (images.dtype, images.ndim, images.shape) == (np.float32, 2, (30, 6))
    assert images.nbytes == resident.train_images.nbytes == 30 * 6 * 4
    assert stored.hashes() == resident.hashes() and identity(images) == identity(arrays["train_features"])
    both = joined(subset(images, np.arange(4)), resident.train_images[9:])
    expected = np.concatenate([arrays["train_features"][:4], arrays["train_features"][9:]])
    np.testing.assert_array_equal(both[np.arange(len(both))], expected)
    assert both[np.arange(3)].dtype == np.float32


def test_beside_images_or_other_vectors_they_are_refused(tmp_path, arrays):
    layouts.features(tmp_path / "wide", width=7)
    vectors = whole(load("features(path='{tmp}/features.npz')", tmp_path))
    images = whole(load("digits(test_per_class=20)", tmp_path))
    other = bind(f"features(path='{tmp_path}/wide/features.npz')", SOURCES, "dataset")
    digits = bind("digits(test_per_class=20)", SOURCES, "dataset")
    for data, dataset, message in (
        (other, vectors, "vectors of 7 cannot stand beside the run's vectors of 6"),
        (digits, vectors, "images of 8x8x1 cannot stand beside the run's vectors of 6"),
        (other, images, "vectors of 7 cannot stand beside the run's images of 8x8x1"),
    ):
        with pytest.raises(UserError, match=message):
            choose(data, dataset)
    with pytest.raises(UserError, match=r"images of 8x8x1 cannot stand beside the run's vectors of 6"):
        draw(bind(f"features(path='{tmp_path}/features.npz')", SOURCES, "pool"), vectors, 0.5, 1.0, 0.5, digits, 0)


def test_other_sources_around_them(tmp_path, arrays):
    source = load("development(features(path='{tmp}/features.npz'), percent=20)", tmp_path)
    assert len(source.train.ids) + len(source.test.ids) == 30 and source.test.images(np.arange(2)).shape == (2, 6)
    assert source.train.clean is not None and len(source.train.clean) == len(source.train.ids)
    few = selected(source.train, np.array([5, 2]))
    np.testing.assert_array_equal(few.images(np.array([1, 0])), source.train.images(np.array([2, 5])))
    assert few.clean.tolist() == source.train.clean[[5, 2]].tolist() and few.read_cut is None
    with pytest.raises(UserError, match="halves: the source has vectors"):
        load("halves(features(path='{tmp}/features.npz'), frequent=1)", tmp_path).train.images(np.arange(1))
