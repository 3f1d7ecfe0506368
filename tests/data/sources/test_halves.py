"""Half-replaced images: which half of which image, always the same, and read only when asked for."""

import numpy as np
import pytest

from lt_noisy.config import spec
from lt_noisy.data.sources import SOURCES
from lt_noisy.data.sources.base import Source, Split
from lt_noisy.data.sources.digits import digits
from lt_noisy.data.sources.halves import halves
from lt_noisy.errors import UserError

LABELS = np.array([2, 0, 1, 3, 0, 2, 1, 0], np.int32)
IDS = np.array([70, 11, 32, 53, 24, 65, 6, 47])


def make(width=4, labels=LABELS, offset=0):
    """A source whose pixels name their image and column, and the list of rows it was asked for."""
    asked = []

    def images(rows):
        asked.append(np.asarray(rows).tolist())
        pixels = offset + 10 * (1 + np.asarray(rows))[:, None, None, None] + np.arange(width)[:, None]
        return np.broadcast_to(pixels, (len(rows), 3, width, 1)).astype(np.uint8)

    split = Split(IDS[: len(labels)], labels, images)
    return (lambda: Source(split, split, ("a", "b", "c", "d"))), asked


def origin(images):
    """Which row each image's right half comes from."""
    return images[:, 0, -1, 0].astype(int) // 10 - 1


@pytest.mark.parametrize(("width", "middle"), [(4, 2), (5, 2)])
@pytest.mark.parametrize("name", ["train", "test"])
def test_each_half_by_hand(width, middle, name):
    split = getattr(halves(make(width)[0], frequent=2)(), name)
    images = split.images(np.arange(8))
    own = make(width)[0]().train.images(np.arange(8))
    rare = LABELS >= 2
    assert images.dtype == np.uint8 and images.shape == (8, 3, width, 1)
    assert (images[rare, :, :middle] == 0).all()
    assert (images[rare, :, middle:] == own[rare, :, middle:]).all()
    assert (images[~rare, :, :middle] == own[~rare, :, :middle]).all()
    partners = origin(images)[~rare]
    assert (partners != np.flatnonzero(~rare)).all()  # another image
    assert (images[~rare, :, middle:] == own[partners, :, middle:]).all()  # and its right half, all of it


def test_labels_ids_and_names_stay():
    source = halves(make()[0], frequent=2)()
    assert source.class_names == ("a", "b", "c", "d")
    assert source.train.labels.tolist() == LABELS.tolist() and source.test.ids.tolist() == IDS.tolist()


def test_images_are_the_same_in_every_load_and_order():
    first, second = halves(make()[0], frequent=2)().train, halves(make()[0], frequent=2)().train
    whole = first.images(np.arange(8))
    rows = np.array([5, 1, 1, 7, 0])
    assert (second.images(rows) == whole[rows]).all()
    assert (np.concatenate([second.images(np.array([row])) for row in range(8)]) == whole).all()


def test_partners_are_of_the_same_split_and_drawn_for_each_split():
    train, test = make(offset=0)[0]().train, make(offset=100)[0]().train
    source = halves(lambda: Source(train, test, ("a", "b", "c", "d")), frequent=3)()
    frequent = np.flatnonzero(LABELS < 3)
    from_train = origin(source.train.images(frequent))
    from_test = origin(source.test.images(frequent)) - 10
    assert set(from_train) <= set(range(8)) and set(from_test) <= set(range(8))
    assert from_train.tolist() != from_test.tolist()


def test_partners_are_uniform_over_all_other_images():
    """Of 3000 images, a third frequent: chi-square of the partners' step in 10 bins, and of their class."""
    labels = np.tile(np.array([0, 1, 2], np.int32), 1000)
    pixels = np.arange(3000)  # 16 bits in two columns of the right half
    content = np.stack([0 * pixels, 0 * pixels, pixels // 256, pixels % 256], 1).astype(np.uint8)[:, None, :, None]
    split = Split(np.arange(3000), labels, lambda rows: content[rows])
    images = halves(lambda: Source(split, split, ("a", "b", "c")), frequent=1)().train.images(np.arange(0, 3000, 3))
    partners = images[:, 0, 2, 0].astype(int) * 256 + images[:, 0, 3, 0]
    steps = (partners - np.arange(0, 3000, 3)) % 3000
    assert steps.min() >= 1
    for counts, critical in ((np.bincount(steps // 300, minlength=10), 27.9), (np.bincount(partners % 3), 13.8)):
        expected = 1000 / len(counts)
        assert ((counts - expected) ** 2 / expected).sum() < critical  # p = .001; the seed is fixed


def test_only_the_rows_asked_for_and_their_partners_are_read():
    load, asked = make()
    split = halves(load, frequent=2)().train
    assert asked == []
    split.images(np.array([0, 3]))  # both rare
    assert asked == [[0, 3]]
    images = split.images(np.array([3, 4, 0]))  # one frequent
    assert asked[1:] == [[3, 4, 0], [origin(images)[1]]]


def test_the_source_s_own_memory_is_not_written():
    stored = np.full((8, 2, 4, 3), 9, np.uint8)
    split = Split(IDS, LABELS, lambda rows: stored[: len(rows)])
    images = halves(lambda: Source(split, split, ("a", "b", "c", "d")), frequent=2)().train.images(np.arange(8))
    assert (images[0, :, :2] == 0).all() and (stored == 9).all()


def test_spec_binds_a_nested_source():
    changed = spec.bind("halves(digits(test_per_class=20), frequent=3)", SOURCES, "dataset")().test
    original = digits(test_per_class=20)().test
    rows = np.random.RandomState(0).permutation(200)
    images, own, rare = changed.images(rows), original.images(rows), original.labels[rows] >= 3
    assert changed.ids.tolist() == original.ids.tolist() and own.shape == (200, 8, 8, 1)
    assert (images[rare, :, :4] == 0).all() and (images[rare, :, 4:] == own[rare, :, 4:]).all()
    assert (images[~rare, :, :4] == own[~rare, :, :4]).all()
    assert (images[~rare, :, 4:] != own[~rare, :, 4:]).any(axis=(1, 2, 3)).all()
    inner = "digits(test_per_class=50, canvas=0)"
    assert spec.read("halves(digits())", SOURCES, "dataset").text == f"halves(inner={inner}, frequent=5)"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("halves(digits(), frequent=0)", r"frequent=0 must lie in 1\.\.9"),
        ("halves(digits(), frequent=10)", r"frequent=10 must lie in 1\.\.9"),
        ("halves(digits(), frequent=2.5)", "takes int"),
        ("halves(3)", "takes a spec"),
        ("halves()", "missing a required argument: 'inner'"),
        ("halves(digit())", "did you mean 'digits'"),
    ],
)
def test_refusals(text, message):
    with pytest.raises(UserError, match=message) as caught:
        spec.bind(text, SOURCES, "dataset")()
    assert "\n" not in str(caught.value)


def test_a_split_of_one_image_is_refused():
    with pytest.raises(UserError, match="the train split has 1 image"):
        halves(make(labels=LABELS[:1])[0], frequent=2)()
