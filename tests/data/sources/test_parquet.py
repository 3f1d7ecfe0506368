"""Pictures in Parquet files: what is read, in which order, and that it is the same data whichever way."""

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from helpers import layouts
from helpers.parquet_files import load, png, tables, write

from lt_noisy.data import cache, feed
from lt_noisy.data.batches import batches
from lt_noisy.data.boxes import random_area
from lt_noisy.data.dataset import whole
from lt_noisy.data.sources import parquet_files, pictures

ALL = "parquet(path='{tmp}/data', size=8)"
FOLDER = "folder(path='{tmp}/photos', size=8, resize=9)"


def by_file(split):
    return dict(zip(split.files, split.labels.tolist(), strict=True))


def test_what_the_hub_has_is_read(tmp_path):
    layouts.parquet(tmp_path)
    source = load(ALL, tmp_path)
    assert source.class_names == ("ant", "bee", "cat")
    assert by_file(source.test) == {f"test-00000-of-00001.parquet, row {i}": i % 3 for i in range(18)}
    parts = ("train-00000-of-00002.parquet", "train-00001-of-00002.parquet")
    assert by_file(source.train) == {f"{part}, row {i}": i % 3 for part in parts for i in range(18)}
    assert source.test.ids.min() >= 0 and source.train.clean is None
    data = pyarrow.parquet.read_table(tmp_path / "data" / parts[1]).column("image").to_pylist()
    (tmp_path / "same").mkdir()
    for row in (0, 7, 17):  # of a first, a middle and a last row group
        file = tmp_path / "same" / "one.jpg"
        file.write_bytes(data[row]["bytes"])
        at = source.train.files.index(f"{parts[1]}, row {row}")
        np.testing.assert_array_equal(source.train.images(np.array([at]))[0], pictures.decode(file, 8, 3))


@pytest.mark.parametrize("options", [{"plain": True}, {"group": 1}, {"group": 1000}])
def test_bytes_without_a_struct_and_row_groups_of_any_size_are_the_same_data(tmp_path, options):
    layouts.parquet(tmp_path / "a")
    layouts.parquet(tmp_path / "b", **options)
    ours, theirs = (load(ALL, tmp_path / name) for name in "ab")
    for split, other in ((ours.train, theirs.train), (ours.test, theirs.test)):
        every = np.arange(len(split.ids))
        assert split.ids.tolist() == other.ids.tolist() and split.files == other.files
        assert split.content(every) == other.content(every)
        np.testing.assert_array_equal(split.images(every), other.images(every))


def test_a_file_has_the_id_that_a_folder_gives_it(tmp_path):
    layouts.folder(tmp_path / "photos")
    folder = load("folder(path='{tmp}/photos', size=8)", tmp_path)
    files = sorted((tmp_path / "photos").rglob("*.jpg"))
    labels = [file.parent.name for file in files]
    write(tmp_path / "data.parquet", [file.read_bytes() for file in files], labels)
    table = load("parquet(path='{tmp}/data.parquet', size=8)", tmp_path)
    assert table.class_names == folder.class_names == ("class 0", "class 1", "class 2")
    for ours, theirs in ((table.train, folder.train), (table.test, folder.test)):  # held out by content, too
        assert ours.ids.tolist() == theirs.ids.tolist() and ours.labels.tolist() == theirs.labels.tolist()
        every = np.arange(len(ours.ids))
        np.testing.assert_array_equal(ours.images(every), theirs.images(every))


@pytest.mark.parametrize(
    ("labels", "metadata", "names"),
    [
        (["10", "9", "10", "9"] * 3, None, ("9", "10")),
        (pyarrow.array(["b", "a"] * 6).dictionary_encode(), None, ("a", "b")),
        (pyarrow.array([0, 1] * 6, pyarrow.uint8()), None, ("0", "1")),
        ([0, 1] * 6, {"huggingface": "no JSON"}, ("0", "1")),
        ([0, 1] * 6, {"huggingface": '{"info": {"features": {"label": {"dtype": "int64"}}}}'}, ("0", "1")),
        ([0, 1] * 6, {"huggingface": '{"info": {"features": {"label": {"names": ["x", "y"]}}}}'}, ("x", "y")),
    ],
)
def test_names_of_classes(tmp_path, labels, metadata, names):
    write(tmp_path / "a.parquet", [png(i) for i in range(12)], labels, metadata)
    source = load("parquet(path='{tmp}/a.parquet', size=8, test_percent=40)", tmp_path)
    assert source.class_names == names
    texts = labels.to_pylist() if isinstance(labels, pyarrow.Array) else labels
    wanted = {f"a.parquet, row {row}": text for row, text in enumerate(texts)}
    for split in (source.train, source.test):
        for file, label in by_file(split).items():
            assert names[label] == (wanted[file] if isinstance(wanted[file], str) else names[wanted[file]])


def test_columns_of_other_names(tmp_path):
    images = [{"bytes": png(i), "path": None} for i in range(12)]
    found = pyarrow.table({"img": images, "fine": [0, 1] * 6, "label": [7] * 12})
    pyarrow.parquet.write_table(found, tmp_path / "a.parquet")
    source = load("parquet(path='{tmp}/a.parquet', image=img, label=fine, size=8)", tmp_path)
    assert source.class_names == ("0", "1")


@pytest.mark.parametrize(
    ("path", "files", "train", "test"),
    [
        ("{tmp}", {"train": 6, "test": 3}, {"train"}, {"test"}),
        ("{tmp}", {"default/train/0000": 6, "default/test/0000": 3}, {"default/train/0000"}, {"default/test/0000"}),
        (
            "{tmp}",
            {"my-training-0": 6, "other": 3, "the_validation": 3},
            {"my-training-0", "other"},
            {"the_validation"},
        ),
        ("{tmp}/train*.parquet", {"train": 12, "test": 3}, {"train"}, {"train"}),
        ("{tmp}/**/*.parquet", {"a/train": 6, "b/val": 3}, {"a/train"}, {"b/val"}),
        ("{tmp}", {"contest": 12, ".cache/test": 3}, {"contest"}, {"contest"}),
    ],
)
def test_the_split_is_a_word_of_the_name_of_a_file_or_a_folder(tmp_path, path, files, train, test):
    tables(tmp_path, **files)
    source = load(f"parquet(path='{path}', size=8)", tmp_path)
    for split, wanted in ((source.train, train), (source.test, test)):
        assert {file.rpartition(", row")[0].removesuffix(".parquet") for file in split.files} == wanted


def test_a_second_test_set_is_left_out_and_said(tmp_path, capsys):
    tables(tmp_path, train=6, test=3, validation=3)
    source = load("parquet(path='{tmp}', size=8)", tmp_path)
    assert {file.partition(".")[0] for file in source.test.files} == {"test"}
    assert "files called validation are not read: the test set is test" in capsys.readouterr().out


def test_streamed_and_resident_are_the_same_bits(tmp_path, monkeypatch):
    """With pixels kept, and read from the row groups for every batch by several threads."""
    layouts.parquet(tmp_path)
    resident = whole(load(ALL, tmp_path))
    monkeypatch.setattr(pictures, "_WHOLE", 0)
    stored = whole(load(ALL, tmp_path), stored=True)
    assert stored.hashes() == resident.hashes()
    np.testing.assert_array_equal(stored.train_images[:], resident.train_images)
    rows_of = batches(36, 8, None, 0, "order")
    _, stream = feed.fed(stored.train_images, stored.observed, rows_of, 12, 4)
    try:
        for step in range(12):
            np.testing.assert_array_equal(stream(step)["images"], resident.train_images[rows_of(step)["rows"]])
    finally:
        stream.close()


@pytest.fixture
def reads(monkeypatch):
    """The row groups that are read, of each file."""
    found, read = [], parquet_files.Table.read_pictures

    def reading(table, group):
        found.append((table.file.name, group))
        return read(table, group)

    monkeypatch.setattr(parquet_files.Table, "read_pictures", reading)
    return found


def test_what_lies_together_is_read_together_and_nothing_else(tmp_path, monkeypatch, reads):
    write(tmp_path / "a.parquet", [png(i) for i in range(40)], np.arange(40) % 2)  # ten row groups
    monkeypatch.setattr(pictures, "_WHOLE", 0)
    source = load("parquet(path='{tmp}/a.parquet', size=8, test_percent=1)", tmp_path)
    assert sorted(set(reads)) == [("a.parquet", group) for group in range(10)]
    reads.clear()
    parquet_files._pictures.cache_clear()  # whichever groups the looks of several threads have left there
    rows = {file: at for at, file in enumerate(source.train.files)}
    asked = [f"a.parquet, row {4 * group + row}" for row in range(3) for group in range(6)]  # more than are kept
    source.train.images(np.array([rows[name] for name in asked if name in rows]))
    assert sorted(reads) == [("a.parquet", group) for group in range(6)]


def test_a_later_start_looks_at_what_has_changed_alone(tmp_path, monkeypatch, reads):
    monkeypatch.setenv(cache.DIRECTORY, str(tmp_path / "cache"))
    monkeypatch.setattr(cache, "WORTH_SECONDS", 0.0)
    tables(tmp_path / "data", train=9, more=9, test=3)
    first = load(ALL, tmp_path)
    assert {file for file, _ in reads} == {"train.parquet", "more.parquet", "test.parquet"}
    reads.clear()
    again = load(ALL, tmp_path)
    assert reads == [] and again.train.files == first.train.files
    write(tmp_path / "data" / "more.parquet", [png(i, 7) for i in range(6)], np.arange(6) % 3)
    changed = load(ALL, tmp_path)
    assert {file for file, _ in reads} == {"more.parquet"} and len(changed.train.ids) == 15


def test_parts_of_whole_pictures_are_those_of_a_folder(tmp_path, monkeypatch, reads):
    layouts.folder(tmp_path / "photos")
    photos = sorted((tmp_path / "photos").rglob("*.jpg"))
    write(tmp_path / "a.parquet", [file.read_bytes() for file in photos], [file.parent.name for file in photos])
    monkeypatch.setattr(pictures, "_WHOLE", 0)
    table, folder = (load(text, tmp_path) for text in ("parquet(path='{tmp}/a.parquet', size=8, resize=9)", FOLDER))
    rows, draws = np.random.default_rng(0).permutation(len(table.train.ids)), np.random.default_rng(1).random((9, 22))
    np.testing.assert_array_equal(table.train.images(rows), folder.train.images(rows))
    assert table.train.content(rows) == folder.train.content(rows)
    reads.clear()
    cut = random_area((0.2, 0.8), (3 / 4, 4 / 3))
    found = table.train.read_cut(rows, cut, draws[: len(rows)])
    np.testing.assert_array_equal(found, folder.train.read_cut(rows, cut, draws[: len(rows)]))
    assert (found != table.train.images(rows)).any() and len(reads) <= 3 * 2  # each group once at a time


def test_of_equal_pictures_one_is_kept(tmp_path):
    tables(tmp_path, train=9, test=3)
    write(tmp_path / "train-more.parquet", [png(0, 0)] * 3, [0, 0, 1])  # that of row 0, twice, and in another class
    plain, deduped = (load(f"parquet(path='{{tmp}}', size=8, dedupe={flag})", tmp_path) for flag in (False, True))
    assert len(plain.train.ids) == len(set(plain.train.ids.tolist())) == 12 and len(deduped.train.ids) == 8


def test_another_column_of_pictures_is_other_pictures(tmp_path, monkeypatch):
    monkeypatch.setenv(cache.DIRECTORY, str(tmp_path / "cache"))
    monkeypatch.setattr(cache, "WORTH_SECONDS", 0.0)
    columns = {name: [{"bytes": png(i + start)} for i in range(12)] for name, start in (("image", 0), ("other", 50))}
    pyarrow.parquet.write_table(pyarrow.table({**columns, "label": [0, 1] * 6}), tmp_path / "a.parquet")
    first, second = (
        load(f"parquet(path='{{tmp}}/a.parquet', image={name}, size=8)", tmp_path).train for name in columns
    )
    assert first.content(np.arange(4)) != second.content(np.arange(4)) and not set(first.ids) & set(second.ids)
    assert (first.images(np.arange(4)) != second.images(np.arange(4))).any()
