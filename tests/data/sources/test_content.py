"""A file's id and split hang on what is in it: neighbours, names and class folders move neither."""

import itertools
import shutil

import numpy as np
import pytest
from PIL import Image

from lt_noisy.data.noise import symmetric
from lt_noisy.data.sources import SOURCES
from lt_noisy.data.sources.content import held_out, ids_of


def contents(count, first=0):
    return [number.to_bytes(32, "big") for number in range(first, first + count)]


def test_ids_are_of_the_content_and_copies_are_told_apart():
    a, b, c = contents(3)
    ids = ids_of([a, b, a, c, a])
    assert ids.dtype == np.int64 and ids.min() >= 0 and len(set(ids)) == 5
    assert ids_of([c, a, b]).tolist() == ids[[3, 0, 1]].tolist()
    assert ids_of([a, a]).tolist() == ids[[0, 2]].tolist()
    assert len(set(ids_of(contents(5000)))) == 5000


def test_about_the_share_is_held_out_and_smaller_shares_are_part_of_larger_ones():
    files, labels = contents(4000), np.arange(4000) % 2
    by_percent = {percent: held_out(files, labels, 2, percent) for percent in (1, 20, 50, 99)}
    for percent, is_test in by_percent.items():
        assert abs(is_test.mean() - percent / 100) < 4 * (percent / 100 * (1 - percent / 100) / 4000) ** 0.5
    shares = list(by_percent.values())
    for small, large in itertools.pairwise(shares):
        assert (small <= large).all()


@pytest.mark.parametrize("percent", [1, 99])
def test_every_class_has_images_on_both_sides(percent):
    labels = np.repeat(np.arange(50), 3)
    is_test = held_out(contents(150), labels, 50, percent)
    by_class = np.bincount(labels[is_test], minlength=50)
    assert by_class.min() >= 1 and by_class.max() <= 2


def test_copies_are_on_one_side_save_where_a_class_is_nothing_else():
    files = contents(300)
    labels = np.repeat([0, 1], 300)
    is_test = held_out(files * 2, labels, 2, 20)  # every file in both classes
    assert (is_test[:300] == is_test[300:]).all() and 0 < is_test.sum() < 600
    for percent in (1, 99):
        assert held_out([*contents(1) * 4, *contents(4, 1)], np.repeat([0, 1], 4), 2, percent)[:4].sum() == 1
        # Two pictures, two copies of each: the copies stay together.
        pairs = held_out([*contents(2), *contents(2), *contents(4, 2)], np.repeat([0, 1], 4), 2, percent)[:4]
        assert pairs.sum() == 2 and (pairs[:2] == pairs[2:]).all()


# On the disk


def write(root, **counts):
    for at, (name, count) in enumerate(counts.items()):
        for i in range(count):
            picture(root / name / f"{i:02d}.png", 1000 * at + i)


def picture(path, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.RandomState(seed).randint(0, 256, (4, 4, 3)).astype(np.uint8)).save(path)


def read(root):
    """{file: (split, id)} of a folder, and the source."""
    source = SOURCES["folder"](str(root), size=4)()
    splits = {"train": source.train, "test": source.test}
    return {f: (name, int(i)) for name, s in splits.items() for f, i in zip(s.files, s.ids, strict=True)}, source


def test_one_file_more_moves_no_other(tmp_path):
    write(tmp_path, a=50, b=50)
    before, _ = read(tmp_path)
    picture(tmp_path / "a" / "0_first_in_the_listing.png", 7)
    (tmp_path / "c").mkdir()
    picture(tmp_path / "c" / "0.png", 8)
    picture(tmp_path / "c" / "1.png", 9)
    after, _ = read(tmp_path)
    assert len(after) == 103 and {file: after[file] for file in before} == before


def test_a_corrected_label_changes_that_label_alone(tmp_path):
    """Rows, ids and images of both splits stay: a stage that reads no labels is the same."""
    write(tmp_path, a=30, b=30)
    before, source = read(tmp_path)
    moved = next(file for file, (split, _) in before.items() if split == "train" and file.startswith("a/"))
    shutil.move(tmp_path / moved, tmp_path / "b" / "corrected.png")
    after, corrected = read(tmp_path)
    assert after["b/corrected.png"] == before[moved]
    for ours, theirs in ((corrected.train, source.train), (corrected.test, source.test)):
        np.testing.assert_array_equal(ours.ids, theirs.ids)
        rows = np.arange(len(ours.ids))
        np.testing.assert_array_equal(ours.images(rows), theirs.images(rows))
    changed = np.flatnonzero(corrected.train.labels != source.train.labels)
    assert [source.train.files[row] for row in changed] == [moved]
    assert [corrected.train.files[row] for row in changed] == ["b/corrected.png"]


def test_the_same_pictures_in_two_classes_and_in_both_splits(tmp_path):
    write(tmp_path / "train", a=10, b=10)
    for i in range(10):
        shutil.copy(tmp_path / "train" / "a" / f"{i:02d}.png", tmp_path / "train" / "b" / f"copy{i}.png")
    before, _ = read_with_test(tmp_path, ["00"])
    after, source = read_with_test(tmp_path, ["00", "01", "02"])
    train = {file: where for file, where in after.items() if file.startswith("train/")}
    assert train == {file: where for file, where in before.items() if file.startswith("train/")}
    assert len({i for _, i in train.values()}) == 30
    assert np.bincount(source.train.labels).tolist() == [10, 20]
    symmetric(0.4).corrupt(source.train.labels, source.train.ids, 2, 0)  # ids of 63 bits do for every draw


def read_with_test(root, names):
    for name in names:
        (root / "test" / "a").mkdir(parents=True, exist_ok=True)
        shutil.copy(root / "train" / "a" / f"{name}.png", root / "test" / "a" / f"{name}.png")
    return read(root)
