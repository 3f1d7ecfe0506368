"""The contract of a source, for every entry of the table."""

import inspect

import numpy as np
import pytest
from helpers import layouts
from helpers.tfds_files import examples, pictures, write_tfds

from lt_noisy.config.spec import bind
from lt_noisy.data.sources import SOURCES

EXAMPLES = {  # of those that need an argument; `tmp` is a directory with the files that `files` writes
    "tfds": "tfds(tiny_set)",
    "npz": "npz(path='{tmp}/a.npz')",
    **{name: text.replace("{tmp}", f"{{tmp}}/{name}") for name, (_, text) in layouts.SPECS.items()},
}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """One small set in each of the forms that are read from disk."""
    directory = tmp_path_factory.mktemp("sources")
    write_tfds(directory, "tiny_set", {s: examples(pictures(9), s.encode() + b"_") for s in ("train", "test")})
    labels = np.arange(9) % 3
    arrays = {"train_images": pictures(9), "train_labels": labels, "test_images": pictures(9), "test_labels": labels}
    np.savez(directory / "a.npz", **arrays)
    for name, (write, _) in layouts.SPECS.items():
        write(directory / name)
    return directory


def example(name):
    """A spec of the entry; the source inside of another one is the digits."""
    inner = "digits()" if "inner" in inspect.signature(SOURCES[name]).parameters else ""
    return EXAMPLES.get(name, f"{name}({inner})")


@pytest.mark.parametrize("name", SOURCES)
def test_the_contract_of_a_source(name, files, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(files))
    load = bind(example(name).format(tmp=files), SOURCES, "dataset")
    source, again = load(), load()
    assert all(isinstance(name, str) for name in source.class_names) and source.num_classes >= 2
    for split, same in ((source.train, again.train), (source.test, again.test)):
        n = len(split.ids)
        assert n and (split.ids.dtype, split.labels.dtype) == (np.int64, np.int32)
        assert split.ids.shape == split.labels.shape == (n,) and len(set(split.ids.tolist())) == n
        assert split.labels.min() >= 0 and split.labels.max() < source.num_classes
        assert len(split.files) in (0, n)
        rows = np.array([n - 1, 0, n // 2, 0])  # in any order, and more than once
        images = split.images(rows)
        if name == "features":
            assert images.dtype == np.float32 and images.ndim == 2 and np.isfinite(images).all()
        else:
            assert images.dtype == np.uint8 and images.ndim == 4 and images.shape[-1] in (1, 3)
        assert len(images) == 4
        np.testing.assert_array_equal(images[[1, 1, 0]], split.images(rows[[1, 3, 0]]))
        assert split.images(rows[:0]).shape == (0, *images.shape[1:])
        for ours, theirs in zip(split[:2], same[:2], strict=True):
            np.testing.assert_array_equal(ours, theirs)
        np.testing.assert_array_equal(images, same.images(rows))
    assert set(source.train.labels.tolist()) == set(range(source.num_classes))
    assert source.train.images(np.array([0])).shape == source.test.images(np.array([0])).shape
