"""Data of other kinds than one class per image is refused in one line that says what is supported."""

import numpy as np
import pytest
from helpers.layouts import picture, write

from lt_noisy.data.sources import SOURCES
from lt_noisy.data.sources.one_label import SUPPORTED, refuse_texts
from lt_noisy.errors import UserError


def refused(load):
    with pytest.raises(UserError) as error:
        load()
    assert "\n" not in str(error.value)
    return str(error.value)


ARRAYS = {
    "several": (np.array([[1, 0, 1], [0, 1, 1], [0, 0, 0], [1, 1, 1]]), SUPPORTED),
    "one-hot": (np.eye(4, dtype=np.float32), "give the classes: labels.argmax(1)"),
    "numbers": (np.array([0.5, 2, 3, 4]), f"holds numbers such as 0.5: {SUPPORTED}"),
    "boxes": (np.zeros((4, 5, 4)), "it must be integer [4]"),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_arrays(name, tmp_path):
    labels, expected = ARRAYS[name]
    images = np.zeros((4, 2, 2), np.uint8)
    path = tmp_path / "data.npz"
    np.savez(path, train_images=images, test_images=images, train_labels=labels, test_labels=labels)
    assert expected in refused(SOURCES["npz"](path=str(path)))


TABLES = {
    "joined": (["image,label", "0.jpg,cat|dog", "1.jpg,dog", "2.jpg,cat", "3.jpg,cat|dog"], "such as 'cat|dog'"),
    "lists": (["image,label", '0.jpg,"[1, 2]"', "1.jpg,[2]", "2.jpg,[1]", "3.jpg,[]"], "holds lists such as '["),
    "numbers in a row": (
        ["image,label", '0.jpg,"1,2"', "1.jpg,2", "2.jpg,1", "3.jpg,1"],
        "holds several classes in one, such as '1,2'",
    ),
    "fractions": (["image,label", "0.jpg,1.5", "1.jpg,2", "2.jpg,-3", "3.jpg,4e0"], "holds numbers such as '1.5'"),
    "columns": (
        ["image,cat,dog", "0.jpg,1,0", "1.jpg,1,1", "2.jpg,0,1", "3.jpg,0,0"],
        "but marks classes (cat, dog, ...)",
    ),
}


@pytest.mark.parametrize("name", TABLES)
def test_tables(name, tmp_path):
    lines, expected = TABLES[name]
    write(tmp_path / "labels.csv", lines)
    said = refused(SOURCES["table"](path=str(tmp_path / "labels.csv"), size=4))
    assert expected in said and said.endswith(SUPPORTED)


@pytest.mark.parametrize("ending", ["string", "list"])
def test_parquet(ending, tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    labels = ["a;b", "a", "b", "b;a"] if ending == "string" else [[0, 1], [0], [1], []]
    (tmp_path / "data").mkdir()
    for split in ("train", "test"):
        table = pyarrow.table({"image": [b"x"] * 4, "label": labels})
        parquet.write_table(table, tmp_path / "data" / f"{split}.parquet")
    assert SUPPORTED in refused(SOURCES["parquet"](path=str(tmp_path / "data" / "*.parquet"), size=4))


@pytest.mark.parametrize("second", ["labels", "annotations", "Annotations"])
def test_folders_of_boxes(second, tmp_path):
    picture(tmp_path / "images" / "1.jpg", 0, 1)
    write(tmp_path / second / "1.txt", ["0 0.5 0.5 0.1 0.1"])
    said = refused(SOURCES["folder"](path=str(tmp_path), size=4))
    assert "is laid out as a data set of boxes" in said and said.endswith(SUPPORTED)


ONE_CLASS_EACH = [
    ["a|b", "c|d", "e"],  # names that hold a bar
    ["salt; coarse", "pepper; black", "salt"],
    ["(unknown)", "[other]", "cat, big", "dog, big"],
    ["1", "2", "10"],
    ["1.0", "2.0"],
    ["0.5 mm", "1.5 mm"],
    ["nan", "inf", "1.5"],
    [*["1.4"] * 5, *["1.6"] * 5, *["2.0"] * 5],  # engines
    ["10,000", "20,000", "50"],  # banknotes
]


@pytest.mark.parametrize("names", ONE_CLASS_EACH, ids=str)
def test_names_of_classes_are_left_alone(names):
    refuse_texts("labels", names)
