"""Unlabelled pools: which images, how many of each class, and one clear line for what cannot be drawn."""

import inspect

import numpy as np
import pytest
from helpers.tfds_files import examples, pictures, write_tfds
from PIL import Image

from lt_noisy.config.spec import bind
from lt_noisy.data.dataset import hold_out, select
from lt_noisy.data.pools import IRRELEVANT, NOT_OF_ANY_CLASS, POOLS, UNKNOWN, Own, draw
from lt_noisy.data.sources.base import Source, Split
from lt_noisy.errors import UserError

CLASSES, PER_CLASS = 3, 40
LEFT_OUT = bind("left_out()", POOLS, "pool")


def images_of(ids, shape=(2, 2, 1)):
    """An image tells its id: every pixel is it, modulo 251."""
    return np.broadcast_to((ids % 251)[:, None, None, None], (len(ids), *shape)).astype(np.uint8)


def make_source(order=slice(None), first=100, classes=CLASSES, shape=(2, 2, 1)):
    """`classes` classes of 40 images; the label is the id modulo their number, the ids start at `first`."""
    ids = np.arange(first, first + classes * PER_CLASS)[order]
    train = Split(ids, (ids % classes).astype(np.int32), lambda rows: images_of(ids[rows], shape))
    test = Split(ids[:3], train.labels[:3], lambda rows: images_of(ids[rows], shape))
    return Source(train, test, tuple("abcdef"[:classes]))


def make_dataset(source, counts=(4, 1, 1)):
    """The first `counts[c]` images of each class, by id, as a training set."""
    labels, ids = source.train.labels, source.train.ids
    by_id = np.argsort(ids)
    rows = np.concatenate([by_id[labels[by_id] == c][:n] for c, n in enumerate(counts)])
    return select(source, rows, labels[rows], labels[rows])


def drawn(pool=LEFT_OUT, source=None, dataset=None, seed=0, **fields):
    given = {"times": 5.0, "ratio": 1.0, "irrelevant": 0.0, "irrelevant_source": None, **fields}
    dataset = dataset or make_dataset(source or make_source())
    return draw(pool, dataset, seed=seed, **given)


def test_the_profile_by_hand():
    """30 images at ratio 4: floor(10 * 4^-(j/2)) = 10, 5, 2, times 30 / 17 = 17.6, 8.8, 3.5."""
    assert np.bincount(drawn(ratio=4.0).labels).tolist() == [18, 9, 3]
    assert np.bincount(drawn().labels).tolist() == [10, 10, 10]
    assert np.bincount(drawn(times=0.5).labels).tolist() == [1, 1, 1]
    mirrored = make_dataset(make_source(), counts=(1, 1, 4))  # its largest class is the pool's too
    assert np.bincount(drawn(dataset=mirrored, ratio=4.0).labels).tolist() == [9, 3, 18]


def test_left_out_is_all_that_the_run_does_not_hold():
    source = make_source()
    dataset = make_dataset(source)
    pool = drawn(dataset=dataset, times=0.0)
    assert sorted([*pool.ids, *dataset.ids]) == source.train.ids.tolist()  # disjoint and complete
    assert pool.ids.dtype == np.int64 and pool.labels.dtype == np.int32
    np.testing.assert_array_equal(pool.labels, pool.ids % CLASSES)
    np.testing.assert_array_equal(pool.images(np.arange(len(pool.ids))), images_of(pool.ids))
    np.testing.assert_array_equal(pool.images(np.array([5, 2])), images_of(pool.ids[[5, 2]]))

    held = hold_out(make_dataset(source, (8, 8, 8)), 0.25, seed=0)
    pool = drawn(dataset=held, times=0.0)
    assert len(held.validation.ids) == 6
    assert sorted([*pool.ids, *held.ids, *held.validation.ids]) == source.train.ids.tolist()


def test_a_pool_depends_on_seed_and_ids_not_on_storage():
    shuffled = make_source(np.random.default_rng(0).permutation(CLASSES * PER_CLASS))
    other, other_shuffled = (lambda: make_source(first=300)), (lambda: make_source(slice(None, None, -1), first=300))
    for fields in ({}, {"times": 0.0}, {"ratio": 3.0, "irrelevant": 0.3}):
        a = drawn(**fields, irrelevant_source=other)
        b = drawn(source=shuffled, **fields, irrelevant_source=other_shuffled)
        for one, two in zip(a[:2], b[:2], strict=True):
            np.testing.assert_array_equal(one, two)
        everything = np.arange(len(a.ids))
        np.testing.assert_array_equal(a.images(everything), b.images(everything))
    assert set(drawn().ids) != set(drawn(seed=1).ids)
    assert set(drawn(times=2.0).ids) < set(drawn().ids)


@pytest.mark.parametrize(("irrelevant", "times", "number", "total"), [(0.4, 5.0, 12, 30), (0.25, 0.0, 38, 152)])
def test_the_irrelevant_share_is_exact(irrelevant, times, number, total):
    """12 of 30; and of a pool of 114 as it is, 38 more make a quarter of 152."""
    other = lambda: make_source(first=0, classes=6)  # noqa: E731
    pool = drawn(times=times, irrelevant=irrelevant, irrelevant_source=other)
    strange = pool.labels < 0
    assert (strange.sum(), len(pool.ids)) == (number, total)
    assert len(np.unique(pool.ids)) == total and (pool.labels[strange] == -1).all()
    # An irrelevant image of id i is -1 - i, so that it never clashes with a relevant one; here ids overlap.
    assert ((pool.ids < 0) == strange).all()
    found = pool.images(np.arange(total)[::-1])[::-1]
    np.testing.assert_array_equal(found, images_of(np.where(strange, -1 - pool.ids, pool.ids)))
    assert len(np.unique((-1 - pool.ids[strange]) % 6)) > 3  # of all classes


def test_another_source_is_taken_whole(tmp_path, monkeypatch):
    loads = []

    def other():
        loads.append(1)
        return make_source(first=0)

    np.testing.assert_array_equal(drawn(other, times=0.0).ids, np.arange(120))
    assert np.bincount(drawn(other, ratio=4.0).labels).tolist() == [18, 9, 3]
    assert len(loads) == 1  # read once

    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    splits = {"train": examples(pictures(3)), "extra": examples(pictures(60, seed=1)), "test": examples(pictures(3))}
    write_tfds(tmp_path, "tiny_set", splits)
    extra = bind("tfds(tiny_set, train=extra)", POOLS, "pool")
    dataset = make_dataset(make_source(shape=(6, 6, 3)))
    with pytest.raises(UserError, match="the pool's classes are cat, dog, emu"):
        drawn(extra, dataset=dataset)
    pool = drawn(extra, dataset=dataset._replace(class_names=("cat", "dog", "emu")))
    stored = {int(name[-5:]): pixels for name, pixels, _ in splits["extra"]}
    np.testing.assert_array_equal(pool.images(np.arange(30)), np.stack([stored[i] for i in pool.ids]))


def refused(match, *args, **fields):
    with pytest.raises(UserError, match=match) as caught:
        drawn(*args, **fields)
    assert "\n" not in str(caught.value)


def test_what_cannot_be_drawn():
    refused(
        "class 0: 100 images wanted, the pool has 36; lower times or ratio, or for left_out.. the.* n_max", times=50.0
    )
    refused("class 2: 12 images wanted, the pool has 10", dataset=make_dataset(make_source(), (4, 1, 30)), times=1.0)
    refused("class 0: 61 .* the pool has 40;", lambda: make_source(first=0), times=30.5)
    refused(r"left_out\(\): the training set holds every image", dataset=make_dataset(make_source(), (40, 40, 40)))
    refused("times is 0.0 .* or above, not -1", times=-1.0)
    refused("pool of 1 images is too small for 3 classes", times=0.1)
    refused("ratio=0.5 must be at least 1", ratio=0.5)
    refused("ratio=10 shapes a pool of a given size: set times too", times=0.0, ratio=10.0)
    refused("the pool has 6 classes, the run 3", lambda: make_source(classes=6))
    refused("images of the pool and of the run are 3x2x1 and 2x2x1; give", lambda: make_source(shape=(3, 2, 1)))


def test_what_is_known_of_noisy_labels_counts_and_not_they():
    def noisy(first=0):
        source = make_source(first=first)
        train = source.train
        return source._replace(train=train._replace(labels=np.zeros_like(train.labels), clean=train.labels))

    own = make_dataset(make_source(first=100))
    for pool in (drawn(noisy, dataset=own, ratio=4.0), drawn(dataset=own._replace(source=noisy(100)), ratio=4.0)):
        assert np.bincount(pool.labels).tolist() == [18, 9, 3]
        np.testing.assert_array_equal(pool.labels, pool.ids % CLASSES)
        np.testing.assert_array_equal(pool.clean, pool.labels)


@pytest.fixture
def photos(tmp_path):
    """Eight grey pictures of 2x2 pixels, half of them in a sub-folder, and a file that is no image."""
    (tmp_path / "more").mkdir()
    for at in range(8):
        picture = Image.fromarray(np.full((2, 2), 10 * at, np.uint8))
        picture.save(tmp_path / ("more" if at % 2 else ".") / f"{at}.png")
    (tmp_path / "readme.txt").write_text("not an image")
    return str(tmp_path)


def test_images_of_a_folder_without_classes(photos):
    pool = drawn(POOLS["images"](photos, size=2), times=0.0)
    assert (np.diff(pool.ids) > 0).all() and pool.ids[0] >= 0 and set(pool.labels) == {UNKNOWN}
    values = pool.images(np.arange(8))[:, 0, 0, 0].tolist()
    assert sorted(values) == list(range(0, 80, 10))
    some = drawn(POOLS["images"](photos, size=2), times=0.5)  # of the 6 training images
    assert len(some.ids) == 3 and set(some.ids) < set(pool.ids)
    mixed = drawn(POOLS["images"](photos, size=2), times=1.0, irrelevant=0.5, irrelevant_source=make_source)
    assert sorted(mixed.labels) == [UNKNOWN] * 3 + [NOT_OF_ANY_CLASS] * 3


def test_an_id_of_a_folder_without_classes_is_its_picture(photos, tmp_path):
    """Another picture under the same name is another image; a new name and a new neighbour change nothing."""

    def pool():
        split = drawn(POOLS["images"](photos, size=2), dataset=make_dataset(make_source()), times=0.0)
        return dict(zip(split.ids.tolist(), split.images(np.arange(len(split.ids)))[:, 0, 0, 0].tolist(), strict=True))

    before = pool()
    (tmp_path / "0.png").rename(tmp_path / "more" / "renamed.png")
    Image.fromarray(np.full((2, 2), 200, np.uint8)).save(tmp_path / "new.png")
    after = pool()
    assert after.items() > before.items() and len(after) == 9
    Image.fromarray(np.full((2, 2), 201, np.uint8)).save(tmp_path / "2.png")
    assert len(pool().items() & after.items()) == 8 and 20 not in pool().values()


def test_what_a_folder_without_classes_cannot_do(photos, tmp_path):
    refused("ratio=2 shapes a pool by its true labels", POOLS["images"](photos, size=2), ratio=2.0)
    refused("12 images wanted, the pool has 8; lower times", POOLS["images"](photos, size=2), times=2.0)
    refused("are 4x4x1 and 2x2x1; give the source size=", POOLS["images"](photos, size=4), times=1.0)
    refused("nowhere is not a folder", POOLS["images"](str(tmp_path / "nowhere")))
    (tmp_path / "empty").mkdir()
    refused("empty holds no image", POOLS["images"](str(tmp_path / "empty")))
    with pytest.raises(UserError, match="size=0"):
        POOLS["images"](photos, size=0)


def test_a_pool_is_cut_where_both_its_parts_are():
    """Each picture by the source that it is from; a part that is no larger picture leaves nothing to cut."""

    def cuttable(source, sign):
        def read_cut(rows, cut, draws):
            return sign * np.ones((len(rows), 2, 2, 1), np.int8) * source.train.ids[rows][:, None, None, None]

        return source._replace(train=source.train._replace(read_cut=read_cut))

    own, other = cuttable(make_source(), 1), cuttable(make_source(first=50), -1)
    pool = drawn(source=own, times=1.0, irrelevant=0.5, irrelevant_source=lambda: other)
    assert pool.read_cut is not None
    found = pool.read_cut(np.arange(len(pool.ids))[::-1], None, np.zeros((len(pool.ids), 1)))[:, 0, 0, 0]
    irrelevant = pool.ids < 0
    assert 0 < irrelevant.sum() < len(irrelevant)
    np.testing.assert_array_equal(found[::-1], np.where(irrelevant, 1 + pool.ids, pool.ids).astype(np.uint8))
    assert drawn(source=own, times=1.0, irrelevant=0.5, irrelevant_source=make_source).read_cut is None


def test_what_cannot_be_irrelevant():
    other = lambda: make_source(first=0)  # noqa: E731
    for share in (-0.1, 1.0):
        refused("share of the pool in .0, 1., not", irrelevant=share, irrelevant_source=other)
    refused("irrelevant=0.5 takes an irrelevant_source", irrelevant=0.5)
    refused(
        "135 irrelevant images wanted, irrelevant_source has 120", times=25.0, irrelevant=0.9, irrelevant_source=other
    )
    refused("irrelevant_source and of the run", irrelevant=0.5, irrelevant_source=lambda: make_source(shape=(3, 2, 1)))
    negative = lambda: make_source(first=-200)  # noqa: E731
    refused("ids of irrelevant_source are below 0", irrelevant=0.5, irrelevant_source=negative)
    refused("ids of the pool are below 0", negative, irrelevant=0.5, irrelevant_source=other)
    assert drawn(negative, dataset=make_dataset(make_source())).ids.max() < 0  # without irrelevant ones any id will do


def test_what_users_write():
    assert LEFT_OUT is Own.LEFT_OUT and bind("none()", IRRELEVANT, "irrelevant_source") is None
    assert set(POOLS) - {"left_out", "images"} == set(IRRELEVANT) - {"none"}
    assert not inspect.signature(POOLS["left_out"]).parameters
    with pytest.raises(UserError, match="did you mean 'left_out'"):
        bind("leftout()", POOLS, "config.pseudo_label.pool")


def test_of_a_file_that_cannot_be_read_no_argument_is_advised_that_there_is_not(tmp_path):
    (tmp_path / "a.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"a\.png cannot be read as an image: [^;]*$"):
        drawn(bind(f"images(path='{tmp_path}')", POOLS, "pool"))
