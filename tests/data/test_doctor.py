"""The data doctor: every planted fault is found, all of them at once, and a clean set has none."""

import io
import json
import shutil

import numpy as np
import pytest
from helpers import layouts
from helpers.reports import files_of, found, report_of
from helpers.tfds_files import examples, pictures, write_tfds
from PIL import Image

from lt_noisy.config.spec import parse
from lt_noisy.data import doctor
from lt_noisy.data.published import published_counts
from lt_noisy.data.sources import SOURCES
from lt_noisy.errors import UserError
from lt_noisy.files import write_json

FILES = [name for name in layouts.SPECS if name not in ("parquet", "features")]  # see test_doctor_kinds.py


@pytest.mark.parametrize("name", FILES)
def test_every_layout_is_sound_and_each_of_its_faults_is_found(tmp_path, name):
    write, text = layouts.SPECS[name]
    write(tmp_path)
    report = report_of(text, tmp_path)
    assert report.errors == 0, report.findings
    source = SOURCES[parse(text).name](**parse(report.spec).kwargs)()
    for counts, split in ((report.train, source.train), (report.test, source.test)):
        assert counts.tolist() == np.bincount(split.labels, minlength=source.num_classes).tolist()
    assert report.class_names == source.class_names and report.sizes[0] == (16, 16) and report.grey == 0
    assert [finding.kind for finding in report.findings] == (["not the published number"] if report.published else [])

    cut, overwritten, copied = source.train.files[:3] if name != "folder" else folder_files(tmp_path)
    root = {"table": tmp_path / "pictures", "food101n": tmp_path / "Food-101N_release"}.get(name, tmp_path)
    (root / cut).write_bytes((root / cut).read_bytes()[:200])
    test_file = source.test.files[0]
    shutil.copy(root / copied, root / overwritten)
    if name != "folder":
        shutil.copy(root / copied, root / test_file)
    report = report_of(text, tmp_path)
    assert files_of(report, "unreadable file") == [[cut]] and found(report)["unreadable file"][1][0]["why"]
    if name != "folder":
        crossed = sorted([overwritten, copied, test_file])
        assert files_of(report, "training image in the test set") == [crossed]
    else:
        assert files_of(report, "label conflict") == [sorted([overwritten, copied])]


def folder_files(root):
    """One file to cut, and two of different classes."""
    return "class 0/0.jpg", "class 1/1.jpg", "class 2/2.jpg"


def broken_folder(root):
    """Splits of two classes and a third without pictures, and one of everything that can be wrong with files."""
    for split, start in (("train", 0), ("test", 100)):
        for label, name in enumerate("ab"):
            for number in range(4):
                layouts.picture(root / split / name / f"{number}.jpg", label, start + number)
    (root / "train" / "empty").mkdir()
    (root / "train" / "empty" / "notes.txt").write_text("hello")
    (root / "train" / "gone").mkdir()
    (root / "train" / "gone" / "0.png").write_bytes(b"no picture")
    whole = (root / "train" / "a" / "0.jpg").read_bytes()
    (root / "train" / "a" / "0.jpg").write_bytes(whole[: len(whole) // 2])
    (root / "train" / "b" / "new\nline.png").write_bytes(b"")
    shutil.copy(root / "train" / "a" / "1.jpg", root / "train" / "a" / "twin.jpg")
    shutil.copy(root / "train" / "a" / "2.jpg", root / "train" / "b" / "torn.jpg")
    shutil.copy(root / "train" / "b" / "3.jpg", root / "test" / "b" / "seen.jpg")
    (root / "train" / "b" / "again").symlink_to(root, target_is_directory=True)
    layouts.picture(root / "top.jpg", 0, 900)
    Image.fromarray(np.zeros((30, 10), np.uint8)).save(root / "train" / "a" / "grey.png")


def test_all_faults_of_a_folder_are_found_in_one_go(tmp_path):
    broken_folder(tmp_path)
    report = report_of("folder(path='{tmp}', size=12)", tmp_path)
    kinds = [finding.kind for finding in report.findings]
    assert report.errors == 6 and kinds.count("class without images") == 2
    empty, gone = [f for f in report.findings if f.kind == "class without images"]
    assert empty.entries == ({"class": "empty", "files": []},) and "but 1 file (.txt)" in empty.text
    assert gone.entries == ({"class": "gone", "files": []},)
    assert files_of(report, "unreadable file") == [["train/a/0.jpg"], ["train/b/new\nline.png"], ["train/gone/0.png"]]
    assert files_of(report, "link in a circle") == [[f"{tmp_path}/train/b/again"]]
    assert files_of(report, "label conflict") == [["train/a/2.jpg", "train/b/torn.jpg"]]
    assert files_of(report, "training image in the test set") == [["test/b/seen.jpg", "train/b/3.jpg"]]
    notes = {kind: entries for kind, (is_error, entries) in found(report).items() if not is_error}
    twins = {"files": ["train/a/1.jpg", "train/a/twin.jpg"], "classes": ["a", "a"], "splits": ["train", "train"]}
    assert notes == {
        "no image": [{"files": ["train/empty/notes.txt"]}],
        "outside the class folders": [{"files": ["top.jpg"]}],
        "duplicate in a class": [twins],
        "small picture": [{"files": ["train/a/grey.png"], "size": [10, 30]}],
    }
    assert report.train.tolist() == [5, 5, 0, 0] and report.test.tolist() == [4, 5, 0, 0]
    assert report.grey == pytest.approx(1 / 19) and report.sizes == ((16, 16), (18, 16), (19, 16))


@pytest.mark.parametrize("split", ["train", "test"])
def test_equal_images_of_a_class_and_split_are_a_note_alone(tmp_path, split):
    for place, start in (("train", 0), ("test", 100)):
        for label, name in enumerate("ab"):
            layouts.picture(tmp_path / place / name / "0.jpg", label, start)
    for copy in ("1.jpg", "2.jpg"):
        shutil.copy(tmp_path / split / "a" / "0.jpg", tmp_path / split / "a" / copy)
    report = report_of("folder(path='{tmp}', size=8)", tmp_path)
    files = [f"{split}/a/{number}.jpg" for number in range(3)]
    entry = {"files": files, "classes": ["a"] * 3, "splits": [split] * 3}
    assert found(report) == {"duplicate in a class": (False, [entry])} and report.findings[0].text.endswith(": 2")


def test_what_a_spec_leaves_out_is_a_note_and_not_counted(tmp_path):
    broken_folder(tmp_path)
    for place in ("empty", "gone"):
        shutil.rmtree(tmp_path / "train" / place)
    (tmp_path / "train" / "b" / "again").unlink()
    report = report_of("folder(path='{tmp}', size=8, broken=skip, dedupe=True)", tmp_path)
    assert report.errors == 0
    kinds = set(found(report))
    assert {"unreadable file", "label conflict", "training image in the test set", "duplicate in a class"} <= kinds
    source = SOURCES["folder"](str(tmp_path), size=8, broken="skip", dedupe=True)()
    assert (report.train.sum(), report.test.sum()) == (len(source.train.ids), len(source.test.ids)) == (6, 9)


def test_a_class_of_too_few_images_and_one_that_is_not_trained(tmp_path):
    layouts.folder(tmp_path / "whole")
    for number in range(1, 4):
        (tmp_path / "whole" / "class 1" / f"{number}.jpg").unlink()
    report = report_of("folder(path='{tmp}/whole', size=8)", tmp_path)
    assert files_of(report, "class without images") == [["class 1/0.jpg"]] and report.errors == 1
    layouts.picture(tmp_path / "whole" / "class 1" / "1.jpg", 1, 1)
    (tmp_path / "whole" / "class 1" / "0.jpg").write_bytes(b"")
    report = report_of("folder(path='{tmp}/whole', size=8)", tmp_path)
    assert found(report)["class without images"] == (True, [{"class": "class 1", "files": []}])
    for split, names in (("train", "ab"), ("test", "bc")):
        for label, name in enumerate(names):
            layouts.picture(tmp_path / "split" / split / name / "0.jpg", label, ord(name) + 9 * (split == "test"))
    report = report_of("folder(path='{tmp}/split', size=8)", tmp_path)
    assert files_of(report, "class without images") == [["test/c/0.jpg"]]
    assert found(report)["class without test images"] == (False, [{"class": "a", "files": []}])
    shutil.rmtree(tmp_path / "split" / "test")
    (tmp_path / "split" / "test").mkdir()
    report = report_of("folder(path='{tmp}/split', size=8)", tmp_path)
    assert files_of(report, "no test image") == [] and report.errors == 1


def test_all_faults_of_a_table_are_found_in_one_go(tmp_path):
    layouts.table(tmp_path)
    file = tmp_path / "labels.csv"
    text = file.read_text().replace("train,899", "train,900").replace("train,898", "train,first")
    text = text.replace("003.jpg,a,a,train", "003.jpg,,a,train").replace("004.jpg,b,b,train", "004.jpg,b,z,dev")
    file.write_text(text)
    report = report_of(layouts.SPECS["table"][1], tmp_path)
    lines = {
        (finding.text.partition(": ")[2], entry["line"])
        for finding in report.findings[:-1]
        for entry in finding.entries
    }
    assert {line for _, line in lines} == {4, 5, 6} and len(lines) == 4 and report.errors == 5
    assert report.findings[-1].entries == ({"id": 900, "files": ["000.jpg", "001.jpg"]},)
    assert report.findings[-1].kind == "duplicate id" and report.findings[-1].is_error
    file.write_text("image,label\n000.jpg,\n001.jpg,\n")
    report = report_of(layouts.SPECS["table"][1], tmp_path)
    assert [finding.kind for finding in report.findings] == ["wrong line", "one class", "no test image"]
    assert len(found(report)["wrong line"][1]) == 2 and report.errors == 3 and report.class_names == ()


def test_faults_in_lists(tmp_path):
    layouts.filelist(tmp_path)
    with open(tmp_path / "train.txt", "a") as file:
        file.write("no label\ntrain/a 1.jpg 7\nnone.jpg 1\n")
    report = report_of(layouts.SPECS["filelist"][1], tmp_path)
    assert found(report)["wrong line"] == (True, [{"line": 13, "text": "no label"}])
    assert found(report)["label without a class"] == (True, [{"files": ["train/a 1.jpg"], "label": 7}])
    assert files_of(report, "unreadable file") == [["none.jpg"]] and report.train.tolist() == [4, 4, 4]
    layouts.clothing1m(tmp_path / "clothes")
    layouts.animal10n(tmp_path / "animals")
    with open(tmp_path / "clothes" / "noisy_train_key_list.txt", "a") as file:
        file.write("images/0/00/none.jpg\n")
    (tmp_path / "animals" / "testing" / "dog.jpg").write_bytes(b"")
    report = report_of("clothing1m(path='{tmp}/clothes', size=8)", tmp_path)
    assert files_of(report, "file without a label") == [["images/0/00/none.jpg"]]
    assert report.published == {"train": 1_000_000, "test": 10_526}
    report = report_of("animal10n(path='{tmp}/animals', size=8)", tmp_path)
    assert files_of(report, "file without a label") == [["testing/dog.jpg"]]


def test_arrays(tmp_path, monkeypatch):
    images = pictures(9)
    arrays = {
        "train_images": images[[0, 1, 2, 3, 4, 4, 1]],
        "train_labels": np.array([0, 0, 1, 1, 3, 3, 1]),
        "train_ids": np.array([5, 6, 7, 8, 9, 5, 4]),
        "test_images": images[[5, 6, 3]],
        "test_labels": np.array([0, 1, 4]),
    }
    np.savez(tmp_path / "a.npz", **arrays)
    report = report_of("npz(path='{tmp}/a.npz')", tmp_path)
    assert files_of(report, "duplicate id") == [["train_images[0]", "train_images[5]"]]
    gaps = [entry["class"] for entry in found(report)["class without images"][1]]
    assert gaps == ["2", "4"] and report.train.tolist() == [2, 3, 0, 2, 0] and report.sizes == ((6, 6),) * 3
    conflicts = [["test id 2", "train id 8"], ["train id 4", "train id 6"]]
    assert files_of(report, "label conflict") == conflicts
    assert files_of(report, "training image in the test set") == conflicts[:1]
    (twins,) = found(report)["duplicate in a class"][1]
    assert twins["files"] == ["train id 9", "train id 5"]
    clean = examples(pictures(9), b"train_"), examples(pictures(9, seed=1), b"test_")
    write_tfds(tmp_path, "tiny_set", dict(zip(("train", "test"), clean, strict=True)))
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    report = report_of("tfds(tiny_set)", tmp_path)
    assert report.findings == () and report.train.sum() == report.test.sum() == 9 and report.grey == 0
    assert report_of("halves(digits())", tmp_path).grey == 1


def test_a_turned_photograph_has_the_size_that_is_seen(tmp_path):
    layouts.folder(tmp_path)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pictures(1, 90, 300)[0]).save(tmp_path / "class 0" / "9.jpg", exif=exif)
    assert report_of("folder(path='{tmp}', size=8)", tmp_path).sizes[-1] == (90, 300)


def test_a_report_as_json_is_complete(tmp_path):
    broken_folder(tmp_path)
    report = report_of("folder(path='{tmp}', size=12)", tmp_path)
    write_json(tmp_path / "report.json", doctor.document(report))
    written = json.loads((tmp_path / "report.json").read_text())
    assert written["dataset"] == report.spec and written["errors"] == 6
    assert written["images"] == {"train": 10, "test": 9} and written["published"] == {}
    assert written["classes"][1] == {"name": "b", "train": 5, "test": 5} and len(written["classes"]) == 4
    assert written["sizes"] == {"smallest": [16, 16], "median": [18, 16], "largest": [19, 16]}
    for entry, finding in zip(written["findings"], report.findings, strict=True):
        assert entry["severity"] == ("error" if finding.is_error else "note")
        assert (entry["kind"], entry["text"], entry["entries"]) == (finding.kind, finding.text, list(finding.entries))


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("tfds(name='cifar10:3.0.2', size=0, train='train', test='test')", {"train": 50_000, "test": 10_000}),
        ("tfds(name='cifar10', size=0, train='train[:10%]', test='test')", {"test": 10_000}),
        ("cnwl(path='x', colour='red', rate=0.4)", {"train": 50_010, "test": 5_000}),
        ("cnwl(path='x', colour='red', rate=0.2)", {"train": 50_000, "test": 5_000}),
        ("cnwl(path='x', colour='blue', rate=0.4)", {"test": 5_000}),
        ("webvision(path='x', classes=50, parts='google')", {"train": 65_944, "test": 2_500}),
        ("folder(path='x')", {}),
        ("development(inner=animal10n(path='x'))", {}),
    ],
)
def test_published_numbers(spec, expected):
    assert published_counts(parse(spec)) == expected


def test_nothing_to_look_at_is_one_line(tmp_path):
    (tmp_path / "empty").mkdir()
    for text, message in (
        ("folder(path='{tmp}/none')", "none is not a folder"),
        ("folder(path='{tmp}/empty')", "0 class folders"),
        ("table(path='{tmp}/none.csv')", "none.csv does not exist"),
        ("fodler(path='x')", "^check: unknown name 'fodler', did you mean 'folder'"),
    ):
        with pytest.raises(UserError, match=message) as error:
            report_of(text, tmp_path)
        assert "\n" not in str(error.value)


def test_no_image_can_be_read(tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
        for number in range(3):
            (tmp_path / name / f"{number}.png").write_bytes(io.BytesIO(bytes(number)).getvalue())
    report = report_of("folder(path='{tmp}')", tmp_path)
    assert {f.kind for f in report.findings} == {"unreadable file", "class without images", "no test image"}
    assert report.sizes == () and len(files_of(report, "unreadable file")) == 6
