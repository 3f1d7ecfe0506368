"""Pictures in Parquet files: one line for whatever is wrong."""

import sys

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from helpers.parquet_files import load, png, write

from lt_noisy.errors import UserError


def test_broken_rows_are_refused_by_name_or_left_out(tmp_path, capsys):
    images = [png(i) for i in range(18)]
    images[4], images[7], images[9] = b"no picture", None, images[9][:40]
    write(tmp_path / "a.parquet", images, np.arange(18) % 2)
    with pytest.raises(
        UserError, match=r"a\.parquet, row 4 cannot be read as an image: .*2 more .*row 7, .*row 9"
    ) as e:
        load("parquet(path='{tmp}/a.parquet', size=8)", tmp_path)
    assert "\n" not in str(e.value) and str(e.value).endswith("broken='skip' leaves them out")
    source = load("parquet(path='{tmp}/a.parquet', size=8, broken=skip)", tmp_path)
    assert len(source.train.ids) + len(source.test.ids) == 15
    assert [file.rpartition(" ")[2] for file, _ in source.skipped] == ["4", "7", "9"]
    assert dict(source.skipped)[f"{tmp_path}/a.parquet, row 7"] == "the row holds no bytes"
    assert "3 of 18 files cannot be read" in capsys.readouterr().out


IMAGES = [png(i) for i in range(6)]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"picture": IMAGES, "label": [0, 1] * 3}, r"has no column 'image' .it has picture, label"),
        ({"image": IMAGES, "class": [0, 1] * 3}, r"has no column 'label' .it has image, class"),
        ({"image": ["a.jpg"] * 6, "label": [0, 1] * 3}, "column 'image' is string; it must be the bytes of pictures"),
        ({"image": [{"path": "a"}] * 6, "label": [0, 1] * 3}, "column 'image' is struct<path: string>; it must be"),
        ({"image": IMAGES, "label": [0.0, 1.0] * 3}, "column 'label' is double; labels are integers or texts"),
        ({"image": IMAGES, "label": [0, 1, None, 0, 1, None]}, "column 'label' is empty in row 2, 5"),
        ({"image": IMAGES, "label": ["a", "b", "a", "", "a", "b"]}, "column 'label' is empty in row 3"),
        ({"image": IMAGES, "label": [0, 1, 0, -1, 0, 1]}, "row 3: label -1 is none of the 2 classes; files without"),
        ({"image": IMAGES, "label": [0, 1, 0, 10**9, 0, 1]}, "row 3: label 1000000000 is none of the 2 classes$"),
        ({"image": IMAGES, "label": [0] * 6}, "1 class in column 'label'; at least 2 are needed"),
        ({"image": IMAGES[:0], "label": [0][:0]}, "0 class in column 'label'"),
        ({"image": IMAGES, "label": [0, 0, 0, 2, 2, 2]}, "less than 2 images that can be read, .* of 1"),
    ],
)
def test_what_is_wrong_in_a_file_is_one_line(tmp_path, table, message):
    types = {"image": pyarrow.binary(), "label": pyarrow.int64()} if not len(next(iter(table.values()))) else {}
    arrays = {name: pyarrow.array(values, types.get(name)) for name, values in table.items()}
    pyarrow.parquet.write_table(pyarrow.table(arrays), tmp_path / "a.parquet")
    with pytest.raises(UserError, match=message) as error:
        load("parquet(path='{tmp}/a.parquet', size=8)", tmp_path)
    assert "\n" not in str(error.value) and str(tmp_path) in str(error.value)


def test_files_that_will_not_do(tmp_path, monkeypatch):
    known = {"huggingface": '{"info": {"features": {"label": {"names": ["x", "y"]}}}}'}
    write(tmp_path / "few" / "train.parquet", IMAGES, [0, 1, 2, 0, 1, 0], known)
    write(tmp_path / "two" / "a.parquet", IMAGES, [0, 1] * 3, known)
    write(tmp_path / "two" / "b.parquet", IMAGES, [0, 1] * 3)
    write(tmp_path / "tests" / "test.parquet", IMAGES, [0, 1] * 3)
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.parquet").write_bytes(b"PAR1 and no more")
    for path, message in (
        ("none", "none: there is no Parquet file"),
        ("few/*.csv", r"few/\*\.csv: there is no Parquet file"),
        ("bad", r"bad/a\.parquet cannot be read as Parquet: "),
        ("few", r"few/train\.parquet, row 2: label 2 is none of the 2 classes"),
        ("two", r"two/b\.parquet: column 'label' has other classes than that of .*a\.parquet"),
        ("tests", "tests: no file is for training: all are called test"),
    ):
        with pytest.raises(UserError, match=message):
            load(f"parquet(path='{tmp_path}/{path}', size=8)", tmp_path)
    for argument, message in (
        ("size=0", "size=0"),
        ("broken=keep", "broken='keep'"),
        ("test_percent=0", "=0 must lie"),
        ("resize=8", "resize=8 is less than size=64"),
    ):
        with pytest.raises(UserError, match=message):
            load(f"parquet(path='x', {argument})", tmp_path)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    for text in ("parquet(path='{tmp}/few')", "table(path='{tmp}/few/train.parquet')"):
        with pytest.raises(UserError, match=r"pip install 'lt_noisy\[parquet\]'"):
            load(text, tmp_path)


def test_a_damaged_page_is_of_its_rows_or_its_column(tmp_path):
    labels = [f"class {row % 2}" for row in range(18)]
    write(tmp_path / "a.parquet", [png(i) for i in range(18)], labels, group=6)
    data, footer = (
        bytearray((tmp_path / "a.parquet").read_bytes()),
        pyarrow.parquet.read_metadata(tmp_path / "a.parquet"),
    )

    def damaged(group, column):
        at = footer.row_group(group).column(column)
        begin = at.dictionary_page_offset or at.data_page_offset
        spoilt = data.copy()
        spoilt[begin : begin + at.total_compressed_size] = b"\xff" * at.total_compressed_size
        (tmp_path / "a.parquet").write_bytes(spoilt)

    damaged(1, 0)
    source = load("parquet(path='{tmp}/a.parquet', size=8, broken=skip)", tmp_path)
    assert [int(file.rpartition(" ")[2]) for file, _ in source.skipped] == list(range(6, 12))
    damaged(1, 1)
    with pytest.raises(UserError, match=r"a\.parquet: column 'label' cannot be read: "):
        load("parquet(path='{tmp}/a.parquet', size=8)", tmp_path)


def test_a_label_that_is_too_large_for_any_array(tmp_path):
    write(tmp_path / "a.parquet", [png(i) for i in range(4)], pyarrow.array([0, 1, 2**63, 1], pyarrow.uint64()))
    with pytest.raises(UserError, match="has a label that int64 does not hold"):
        load("parquet(path='{tmp}/a.parquet', size=8)", tmp_path)
