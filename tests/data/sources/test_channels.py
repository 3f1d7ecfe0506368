"""One number of channels for a run: what it reads beside its own data set is brought to that."""

import numpy as np
import pytest
from PIL import Image

from lt_noisy.data.dataset import DATA, choose, whole
from lt_noisy.data.pools import POOLS, draw
from lt_noisy.data.sources.base import Source, in_memory
from lt_noisy.data.sources.channels import channels_of, source_in, split_in, to_channels, unified

GENERATOR = np.random.default_rng(0)
COLOUR = GENERATOR.integers(0, 256, (12, 4, 4, 3)).astype(np.uint8)
GREY = GENERATOR.integers(0, 256, (12, 4, 4, 1)).astype(np.uint8)
LABELS = np.arange(12) % 2


def source(train, test):
    return Source(*(in_memory(np.arange(12), LABELS, images) for images in (train, test)), class_names=("0", "1"))


def test_luma_is_pillows_and_grey_is_three_times_itself(monkeypatch):
    luma = [np.asarray(Image.fromarray(image).convert("L")) for image in COLOUR]
    for block in (2**22, 40):  # all at once, two images at a time
        monkeypatch.setattr("lt_noisy.data.sources.channels._BLOCK", block)
        np.testing.assert_array_equal(to_channels(COLOUR, 1)[..., 0], luma)
    np.testing.assert_array_equal(to_channels(GREY, 3), np.concatenate([GREY] * 3, axis=-1))
    np.testing.assert_array_equal(to_channels(to_channels(GREY, 3), 1), GREY)
    assert to_channels(GREY, 1) is GREY and to_channels(COLOUR, 3) is COLOUR


@pytest.mark.parametrize(("train", "test", "expected"), [(GREY, GREY, 1), (GREY, COLOUR, 3), (COLOUR, GREY, 3)])
def test_a_source_is_in_colour_where_either_split_is(train, test, expected):
    found = unified(source(train, test))
    assert channels_of(found.train) == channels_of(found.test) == expected
    np.testing.assert_array_equal(found.train.images(np.array([3, 1])), to_channels(train[[3, 1]], expected))


def test_a_shape_that_is_known_has_the_channels_too():
    grey = source(GREY, GREY).train._replace(shape=(4, 4, 1))
    assert channels_of(split_in(grey, 3)) == 3 and split_in(grey, 3).shape == (4, 4, 3)


def in_any_order(images):
    """The pools of files come in the order of their contents' hashes."""
    return sorted(image.tobytes() for image in images)


@pytest.mark.parametrize(("own", "other"), [(GREY, COLOUR), (COLOUR, GREY)])
def test_other_data_and_pools_come_in_the_channels_of_the_run(own, other, tmp_path):
    dataset, channels = whole(source(own, own)), own.shape[-1]
    splits = {
        f"{split}_{what}": array
        for split in ("train", "test")
        for what, array in (("images", other), ("labels", LABELS))
    }
    np.savez(tmp_path / "other.npz", **splits)
    load = DATA["npz"](str(tmp_path / "other.npz"))
    chosen = choose(load, dataset)
    np.testing.assert_array_equal(chosen.train_images, to_channels(other, channels))
    np.testing.assert_array_equal(chosen.test_images, to_channels(other, channels))

    for at, image in enumerate(other):
        (tmp_path / "unsorted").mkdir(exist_ok=True)
        Image.fromarray(image.squeeze()).save(tmp_path / "unsorted" / f"{at:02d}.png")
    for pool in (load, POOLS["images"](str(tmp_path / "unsorted"), size=4)):
        drawn = draw(pool, dataset, 0.0, 1.0, 0.0, None, 0)
        assert in_any_order(drawn.images(np.arange(12))) == in_any_order(to_channels(other, channels))
    mixed = draw(POOLS["images"](str(tmp_path / "unsorted"), size=4), dataset, 1.0, 1.0, 0.5, load, 0)
    images = mixed.images(np.arange(12))
    irrelevant = -1 - mixed.ids[mixed.ids < 0]
    np.testing.assert_array_equal(images[mixed.ids < 0], to_channels(other[irrelevant], channels))
    assert {*in_any_order(images[mixed.ids >= 0])} < {*in_any_order(to_channels(other, channels))}
    assert len(irrelevant) == 6 and images.shape[-1] == channels


def test_a_source_that_is_right_is_left_alone():
    given = source(COLOUR, COLOUR)
    assert source_in(given, 3) == given
