"""The data doctor on pictures in Parquet files, which have no file of their own, and on vectors, which are none."""

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from helpers import layouts
from helpers.reports import files_of, found, report_of

from lt_noisy.data import doctor
from lt_noisy.runs import check

PARQUET, FEATURES = (layouts.SPECS[name][1] for name in ("parquet", "features"))
TRAIN = ["train-00000-of-00002.parquet", "train-00001-of-00002.parquet"]


def changed(file, **columns):
    """Rewrites cells of a Parquet file: `image={row: bytes}, label={row: number}`."""
    table = pyarrow.parquet.read_table(file)
    for name, cells in columns.items():
        values = table.column(name).to_pylist()
        for row, value in cells.items():
            values[row] = {"bytes": value, "path": None} if name == "image" else value
        table = table.set_column(table.schema.get_field_index(name), name, [values])
    pyarrow.parquet.write_table(table, file, row_group_size=4)


def images_in(file):
    return [cell["bytes"] for cell in pyarrow.parquet.read_table(file).column("image").to_pylist()]


def test_sound_parquet_files(tmp_path):
    layouts.parquet(tmp_path)
    report = report_of(PARQUET, tmp_path)
    assert report.findings == () and report.kind == "images"
    assert report.class_names == ("ant", "bee", "cat")
    assert report.train.tolist() == [12] * 3 and report.test.tolist() == [6] * 3
    assert report.sizes[0] == (16, 16) and report.sizes[-1] == (20, 16) and report.grey == 0


def test_all_faults_of_parquet_files_are_found_in_one_go_by_file_and_row(tmp_path, capsys):
    layouts.parquet(tmp_path)
    data = tmp_path / "data"
    first = images_in(data / TRAIN[0])
    again, torn, seen = first[3], first[4], first[5]  # of classes 0, 1, 2
    changed(data / TRAIN[0], image={0: first[0][:200], 1: None}, label={2: None, 6: 7})
    changed(data / TRAIN[1], image={0: again, 2: torn})
    changed(data / "test-00000-of-00001.parquet", image={2: seen})
    layouts.parquet(tmp_path / "more")
    (tmp_path / "more" / "data" / TRAIN[0]).rename(data / "validation.parquet")
    (data / "train-bad.parquet").write_bytes(b"PAR1 and no more")
    report = report_of(PARQUET, tmp_path)
    assert files_of(report, "unreadable file") == [
        [f"{TRAIN[0]}, row 0"],
        [f"{TRAIN[0]}, row 1"],
        ["train-bad.parquet"],
    ]
    whys = [entry["why"] for entry in found(report)["unreadable file"][1]]
    assert any(why.startswith("cannot be read as Parquet: ") for why in whys) and "the row holds no bytes" in whys
    assert files_of(report, "file without a label") == [[f"{TRAIN[0]}, row 2"]]
    assert found(report)["label without a class"] == (True, [{"files": [f"{TRAIN[0]}, row 6"], "label": 7}])
    assert files_of(report, "label conflict") == [[f"{TRAIN[0]}, row 4", f"{TRAIN[1]}, row 2"]]
    assert files_of(report, "training image in the test set") == [
        ["test-00000-of-00001.parquet, row 2", f"{TRAIN[0]}, row 5"]
    ]
    twins = {"files": [f"{TRAIN[0]}, row 3", f"{TRAIN[1]}, row 0"], "classes": ["ant"] * 2, "splits": ["train"] * 2}
    assert found(report)["duplicate in a class"] == (False, [twins])
    assert found(report)["second test set"] == (False, [{"files": ["validation.parquet"]}])
    assert report.train.sum() == 32 and report.test.sum() == 18
    said = "\n".join(check.lines(report))
    assert f"    {TRAIN[0]}, row 1: the row holds no bytes\n" in said and "32 training and 18 test images" in said
    assert check.check([PARQUET.format(tmp=tmp_path)]) == 1 and "the test set is test" in capsys.readouterr().out


def test_what_a_parquet_spec_leaves_out_is_a_note(tmp_path):
    layouts.parquet(tmp_path)
    first = images_in(tmp_path / "data" / TRAIN[0])
    changed(tmp_path / "data" / TRAIN[0], image={0: b"no picture", 3: first[4]})
    report = report_of("parquet(path='{tmp}/data', size=8, broken=skip, dedupe=True)", tmp_path)
    assert report.errors == 0 and set(found(report)) == {"unreadable file", "label conflict"}
    assert report.train.sum() == 33


def test_sound_vectors(tmp_path):
    layouts.features(tmp_path)
    report = report_of(FEATURES, tmp_path)
    assert report.findings == () and report.kind == doctor.document(report)["kind"] == "vectors"
    assert report.class_names == ("class 0", "class 1", "class 2")
    assert report.train.tolist() == [8, 12, 10] and report.test.tolist() == [10] * 3
    assert (report.sizes, report.grey) == ((), 0.0)
    lines = check.lines(report)
    assert lines[1] == "  30 training and 30 test vectors, 3 classes" and "training vectors of each class" in lines
    assert not any("image" in line or "width" in line for line in lines)
    assert report_of(f"development({FEATURES})", tmp_path).kind == "vectors"


def test_all_faults_of_vectors_are_found_in_one_go(tmp_path):
    layouts.features(tmp_path)
    with np.load(tmp_path / "features.npz") as file:
        arrays = dict(file)
    train, test = arrays["train_features"], arrays["test_features"]
    train[3, 1], test[2, 0] = np.nan, np.inf
    train[7] = train[4]  # of class 1, as is the fourth
    train[8] = train[10]  # of classes 2 and 1
    test[5] = train[11]
    arrays["train_labels"][[12, 13]] = -1, 3
    arrays["test_labels"][9] = 5
    arrays["clean_labels"][20] = 4
    arrays["train_ids"][1] = arrays["train_ids"][0]
    arrays["class_names"] = np.append(arrays["class_names"], "class 3 of none")
    arrays["train_labels"][13] = 4
    np.savez(tmp_path / "features.npz", **arrays)
    report = report_of(FEATURES, tmp_path)
    assert files_of(report, "not finite") == [["test_features[2]"], ["train_features[3]"]]
    assert files_of(report, "duplicate id") == [["train_features[0]", "train_features[1]"]]
    strange = [(entry["files"][0], entry["label"]) for entry in found(report)["label without a class"][1]]
    assert strange == [
        ("train_labels[12]", -1),
        ("train_labels[13]", 4),
        ("test_labels[9]", 5),
        ("clean_labels[20]", 4),
    ]
    assert found(report)["class without images"] == (True, [{"class": "class 3 of none", "files": []}])
    assert files_of(report, "label conflict") == [["train id 890", "train id 892"]]
    assert files_of(report, "training image in the test set") == [["test id 5", "train id 889"]]
    assert [entry["files"] for entry in found(report)["duplicate in a class"][1]] == [["train id 896", "train id 893"]]
    assert report.train.sum() == 28 and report.test.sum() == 29 and len(report.train) == 4
    texts = [finding.text for finding in report.findings]
    assert any("train_features: a number in row 3 is not finite" in text for text in texts)
    assert "vectors in several classes: 2, of which 1 differ" in texts
    assert "training vectors that are test vectors too: 1" in texts


@pytest.mark.parametrize("label", [-1, 2])
def test_labels_of_no_class_leave_the_rest_to_look_at(tmp_path, label):
    images = np.random.default_rng(0).integers(0, 256, (6, 4, 4), dtype=np.uint8)
    labels = np.array([0, 1, 0, 1, 0, label])
    np.savez(tmp_path / "a.npz", train_images=images, train_labels=labels, test_images=images, test_labels=labels % 2)
    report = report_of("npz(path='{tmp}/a.npz')", tmp_path)
    assert report.train.tolist() == ([3, 2] if label < 0 else [3, 2, 1])
    assert ("label without a class" in found(report)) == (label < 0)


def test_numbers_that_a_cast_would_wrap_are_found(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (6, 4, 4), dtype=np.uint8)
    labels, ids = np.array([0, 1, 0, 1, 2**32, 10**9]), np.arange(6, dtype=np.uint64)
    ids[2] = 2**63 + 1
    arrays = {"train_labels": labels, "train_ids": ids, "test_labels": np.arange(6) % 2}
    np.savez(tmp_path / "a.npz", train_images=images, test_images=images[::-1], **arrays)
    report = report_of("npz(path='{tmp}/a.npz')", tmp_path)
    strange = [(entry["files"][0], entry["label"]) for entry in found(report)["label without a class"][1]]
    assert strange == [("train_labels[4]", 2**32), ("train_labels[5]", 10**9)]
    assert found(report)["id out of range"] == (True, [{"id": 2**63 + 1, "files": ["train_images[2]"]}])
    assert report.class_names == ("0", "1") and report.train.tolist() == [2, 2]


def test_a_file_of_vectors_of_which_nothing_can_be_told_is_one_line(tmp_path, capsys):
    layouts.features(tmp_path)
    with np.load(tmp_path / "features.npz") as file:
        arrays = dict(file)
    np.savez(tmp_path / "features.npz", **arrays | {"test_features": arrays["test_features"][:, :4]})
    assert check.check([FEATURES.format(tmp=tmp_path)]) == 2
    said = capsys.readouterr().err
    assert "train_features are vectors of 6, test_features of 4" in said and said.count("\n") == 1
