"""Tables, lists of files and the official layouts: what they give, and one line for what is wrong."""

import csv
import shutil

import numpy as np
import pytest
from helpers import layouts
from helpers.reports import found, report_of
from PIL import Image

from lt_noisy.config.spec import bind
from lt_noisy.data import manifest
from lt_noisy.data.dataset import whole as whole_set
from lt_noisy.data.longtail import none as whole
from lt_noisy.data.noise import none as no_noise
from lt_noisy.data.sources import SOURCES
from lt_noisy.errors import UserError
from lt_noisy.files import write_table


def load(text, root):
    return bind(text.format(tmp=root), SOURCES, "dataset")()


def made(name, root, **options):
    write, text = layouts.SPECS[name]
    write(root, **options)
    return load(text, root)


def by_file(split):
    return dict(zip(split.files, split.labels.tolist(), strict=True))


def test_names_that_a_spreadsheet_would_compute_are_read_as_they_were(tmp_path):
    """What `write_table` wrote with an apostrophe."""
    rows = []
    for number in range(8):
        name = "+-"[number % 2]
        layouts.picture(tmp_path / name / f"{number}.jpg", number % 2, number)
        rows.append((f"{name}/{number}.jpg", name))
    write_table(tmp_path / "t.csv", ("image", "label"), rows)
    assert SOURCES["table"](path=str(tmp_path / "t.csv"), size=4)().class_names == ("+", "-")


def test_a_table_with_every_column(tmp_path):
    source = made("table", tmp_path)
    assert source.class_names == ("a", "b", "c")
    assert by_file(source.train) == {f"{n:03d}.jpg": (n + (n == 0)) % 3 for n in range(8)}
    assert by_file(source.test) == {f"{n:03d}.jpg": n % 3 for n in range(8, 12)}
    assert dict(zip(source.train.files, source.train.ids.tolist(), strict=True))["003.jpg"] == 897
    wrong = source.train.clean != source.train.labels
    assert [source.train.files[row] for row in np.flatnonzero(wrong)] == ["000.jpg"]
    with Image.open(tmp_path / "pictures" / "000.jpg") as first:
        shown = np.asarray(first.convert("RGB")).mean((0, 1))
    image = source.train.images(np.flatnonzero(wrong))[0]
    assert np.abs(image.mean((0, 1)) - shown).max() < 6


def test_what_a_table_knows_of_clean_labels_goes_to_the_manifest_and_no_further(tmp_path):
    train = made("table", tmp_path).train
    built = manifest.build(train.labels, train.ids, 3, "abc", whole(), no_noise(), 0, {}, train.clean)
    assert (built.observed_labels == train.labels).all() and (built.clean_labels == train.clean).all()
    assert (built.observed_labels != built.clean_labels).sum() == 1
    assert manifest.verify(built, train.clean, train.ids).tolist() == list(range(8))


@pytest.mark.parametrize("separator", [",", "\t"])
def test_a_table_of_two_columns_is_divided_by_content(tmp_path, separator):
    layouts.table(tmp_path, each=10, heading=("label", "image"), separator=separator)
    text = "table(path='{tmp}/labels.%s', images='{tmp}/pictures', size=8)" % ("csv" if separator == "," else "tsv")
    source = load(text, tmp_path)
    assert source.train.clean is None and len(source.train.ids) + len(source.test.ids) == 30
    assert set(source.test.labels) == {0, 1, 2} and set(source.train.files).isdisjoint(source.test.files)
    assert load(text, tmp_path).test.files == source.test.files


def test_a_table_in_parquet(tmp_path):
    arrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet

    layouts.table(tmp_path)
    with open(tmp_path / "labels.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    pyarrow.parquet.write_table(
        arrow.Table.from_pylist([{**row, "id": int(row["id"])} for row in rows]), tmp_path / "labels.parquet"
    )
    ours, theirs = (
        load(f"table(path='{{tmp}}/labels.{kind}', images='{{tmp}}/pictures', size=8)", tmp_path)
        for kind in ("parquet", "csv")
    )
    assert by_file(ours.train) == by_file(theirs.train) and ours.train.ids.tolist() == theirs.train.ids.tolist()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("image,label", "picture,label", "has no column 'image' .it has picture, label, clean_label, split, id"),
        ("000.jpg,b", "000.jpg,", "column 'label' is empty in line 2"),
        ("000.jpg,b,a", "000.jpg,b,z", "line 2: clean_label 'z' is the label of no image"),
        ("train,900", "dev,900", "column 'split' is neither train nor test, .* in line 2"),
        ("train,900", "train,first", "column 'id' is no whole number in line 2"),
        ("train,900", f"train,{2**63}", "column 'id' is no whole number in line 2"),
        ("000.jpg,b,a", "\n\n000.jpg,b,z", "line 4: clean_label 'z' is the label of no image"),
        ("000.jpg", "a\0.jpg", r"a\\x00\.jpg cannot be read as an image: embedded null byte; broken='skip'"),
        ("000.jpg", "001.jpg/0.jpg", r"001\.jpg/0\.jpg cannot be read as an image: it does not exist; broken='skip'"),
        ("train,900", "train,899", "column 'id' has a number twice"),
        ("000.jpg", "none.jpg", r"none\.jpg cannot be read as an image: it does not exist; broken='skip'"),
        ("test", "train", "no test image"),
    ],
)
def test_what_is_wrong_in_a_table_is_one_line(tmp_path, old, new, message):
    layouts.table(tmp_path)
    file = tmp_path / "labels.csv"
    file.write_text(file.read_text().replace(old, new))
    with pytest.raises(UserError, match=message) as error:
        load(layouts.SPECS["table"][1], tmp_path)
    assert "\n" not in str(error.value)


def test_of_two_test_sets_in_a_table_one_is_read(tmp_path, capsys):
    layouts.table(tmp_path)
    file = tmp_path / "labels.csv"
    *others, last = file.read_text().splitlines()
    file.write_text("\n".join([*others, last.replace("test", "val"), "gone.jpg,,,Valid,x"]) + "\n")
    source = load(layouts.SPECS["table"][1], tmp_path)
    assert source.test.files and "011.jpg" not in (*source.test.files, *source.train.files)
    assert len(source.test.files) == 3 and len(source.train.files) == 8
    assert "labels.csv: 2 rows called val or valid are not read: the test set is test" in capsys.readouterr().out
    report = report_of(layouts.SPECS["table"][1], tmp_path)
    assert report.errors == 0 and found(report)["second test set"] == (False, [{"line": 13}, {"line": 14}])


def test_paths_that_no_file_can_have_are_left_out(tmp_path):
    layouts.table(tmp_path)
    file = tmp_path / "labels.csv"
    file.write_text(file.read_text().replace("000.jpg", "a\0.jpg").replace("003.jpg", "001.jpg/0.jpg"))
    source = load(layouts.SPECS["table"][1].replace("size=8", "size=8, broken=skip"), tmp_path)
    faults = {path.removeprefix(f"{tmp_path}/pictures/"): why for path, why in source.skipped}
    assert faults == {"a\0.jpg": "embedded null byte", "001.jpg/0.jpg": "it does not exist"}
    assert len(source.train.ids) == 6


def test_a_note_advises_what_the_source_can_do(tmp_path, capsys):
    layouts.table(tmp_path)
    shutil.copy(tmp_path / "pictures" / "000.jpg", tmp_path / "pictures" / "011.jpg")
    load(layouts.SPECS["table"][1], tmp_path)
    said = capsys.readouterr().out
    assert "1 training images are test images too" in said and "dedupe" not in said


def test_tables_that_will_not_do(tmp_path):
    for name, content, message in (
        ("none.csv", None, "does not exist"),
        ("a.txt", "", "a table is a .csv, .tsv or .parquet file"),
        ("b.csv", "image,label\n", "has no rows"),
        ("c.csv", "image,label\na.jpg,x\n", "1 class in column 'label'"),
        ("d.csv", b"\xff\xfe\x00", "cannot be read as a table"),
    ):
        if content is not None:
            (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        with pytest.raises(UserError, match=message):
            load(f"table(path='{{tmp}}/{name}')", tmp_path)


def test_a_list_of_files(tmp_path):
    source = made("filelist", tmp_path)
    assert source.class_names == ("a thing", "b", "c")
    assert by_file(source.train) == {f"train/a {n}.jpg": n % 3 for n in range(12)}
    assert by_file(source.test) == {f"test/a {n}.jpg": n % 3 for n in range(12)}
    numbered = load("filelist('{tmp}/train.txt', '{tmp}/test.txt', '{tmp}', size=8)", tmp_path)
    assert numbered.class_names == ("0", "1", "2")
    for line, message in (
        ("a.jpg", "line 13: 'a.jpg' is not a path and a label"),
        ("train/a 0.jpg 7", r"label 7 is not one of the 3 classes \(train/a 0\.jpg\)"),
        ("\n\ntrain/a 0.jpg x", "line 15: 'train/a 0.jpg x' is not a path and a label"),
        (f"train/a 0.jpg {2**63}", "line 13: .* is not a path and a label"),
        (f"train/a 0.jpg {'9' * 5000}", "line 13: .* is not a path and a label"),
    ):
        text = (tmp_path / "train.txt").read_text()
        (tmp_path / "train.txt").write_text(text + line + "\n")
        with pytest.raises(UserError, match=message):
            load(layouts.SPECS["filelist"][1], tmp_path)
        (tmp_path / "train.txt").write_text(text)
    (tmp_path / "classes.txt").write_text("a\nb\nc\nd\n")
    with pytest.raises(UserError, match="less than a training image that can be read of d"):
        load(layouts.SPECS["filelist"][1], tmp_path)
    (tmp_path / "classes.txt").write_text("a\nb\na\n")
    assert load(layouts.SPECS["filelist"][1], tmp_path).class_names == ("a (0)", "b", "a (2)")


def test_a_list_whose_labels_follow_a_tab(tmp_path):
    layouts.filelist(tmp_path)
    spaced = load(layouts.SPECS["filelist"][1], tmp_path)
    file = tmp_path / "train.txt"
    file.write_text(file.read_text().replace(".jpg ", ".jpg\t"))
    tabbed = load(layouts.SPECS["filelist"][1], tmp_path)
    assert by_file(tabbed.train) == by_file(spaced.train) and "train/a 0.jpg" in tabbed.train.files


def test_a_label_that_no_class_can_have_makes_no_names(tmp_path):
    layouts.filelist(tmp_path)
    file = tmp_path / "train.txt"
    file.write_text(file.read_text().replace("train/a 4.jpg 1", f"train/a 4.jpg {10**9}"))
    text = "filelist('{tmp}/train.txt', '{tmp}/test.txt', '{tmp}', size=8)"
    with pytest.raises(UserError, match=r"label 1000000000 is not one of the 3 classes \(train/a 4\.jpg\)"):
        load(text, tmp_path)
    assert len(report_of(text, tmp_path).class_names) == 3


def test_clothing1m(tmp_path):
    source = made("clothing1m", tmp_path)
    assert source.class_names[0] == "T-shirt" and source.class_names[8] == "Down Coat" and source.num_classes == 14
    assert np.bincount(source.train.labels).tolist() == np.bincount(source.test.labels).tolist() == [2] * 14
    assert all("noisy_train" in file for file in source.train.files) and "clean_test" in source.test.files[0]
    other = load("clothing1m(path='{tmp}', train=clean_train, test=clean_val, size=8)", tmp_path)
    assert all("clean_train" in file for file in other.train.files) and "clean_val" in other.test.files[0]
    (tmp_path / "noisy_label_kv.txt").write_text("images/0/00/other.jpg 3\n")
    with pytest.raises(UserError, match=r"no label of images/0/00/noisy_train0\.jpg, .* in noisy_label_kv\.txt"):
        load(layouts.SPECS["clothing1m"][1], tmp_path)
    with pytest.raises(UserError, match="train='noisy' is one of noisy_train, clean_train"):
        load("clothing1m(path='{tmp}', train=noisy)", tmp_path)


def test_webvision(tmp_path):
    source = made("webvision", tmp_path)
    assert source.class_names == ("tench", "crane (1)", "goldfish", "crane (3)")
    assert len(source.train.ids) == 12 and len(source.test.ids) == 8
    assert all(file.startswith("google/") for file in source.train.files)
    assert by_file(source.test)["val_images_256/val000006.jpg"] == 2
    mini = load("webvision(path='{tmp}', classes=2, parts=both, size=8)", tmp_path)
    assert len(mini.train.ids) == 12 and set(mini.train.labels) == {0, 1} and len(mini.test.ids) == 4
    assert {file.split("/")[0] for file in mini.train.files} == {"google", "flickr"}


def test_cnwl(tmp_path):
    source = made("cnwl", tmp_path)
    assert (
        source.class_names == ("thing 0", "thing 1", "thing 2") and len(source.train.ids) == len(source.test.ids) == 12
    )
    assert source.train.files[0].startswith("noisy_images/") and source.test.files[0].startswith("all_images/")
    from_web = {file for file in source.train.files if "/w" in file}
    assert len(from_web) == 3 and source.test.flags.tolist() == [-1] * 12
    assert {file for file, flag in zip(source.train.files, source.train.flags, strict=True) if flag == 1} == from_web
    assert set(source.train.flags) == {0, 1}
    with pytest.raises(UserError, match=r"red_noise_nl_0\.5 does not exist .there are red_noise_nl_0\.4"):
        load("cnwl(path='{tmp}', rate=0.5)", tmp_path)
    for rate in (0.44, 0.36):
        with pytest.raises(UserError, match=f"rate={rate} must be one of the lists' rates"):
            load(f"cnwl(path='{tmp_path}', rate={rate})", tmp_path)


def test_animal10n_and_food101n(tmp_path):
    animals = made("animal10n", tmp_path / "animals")
    assert by_file(animals.train)["training/7_1.jpg"] == 7 and len(animals.train.ids) == len(animals.test.ids) == 20
    (tmp_path / "animals" / "training" / "dog.jpg").write_bytes(b"")
    with pytest.raises(UserError, match=r"dog\.jpg is not called LABEL_ID\.jpg"):
        load(layouts.SPECS["animal10n"][1], tmp_path / "animals")
    food = made("food101n", tmp_path / "food")
    assert food.class_names == ("pie_0", "pie_1", "pie_2") and len(food.train.ids) == len(food.test.ids) == 9
    assert by_file(food.train)["images/pie_2/train1.jpg"] == 2
    flags = dict(zip(food.train.files, food.train.flags.tolist(), strict=True))
    assert [flags[f"images/pie_2/train{number}.jpg"] for number in range(3)] == [1, 0, -1]  # the last is not verified
    selected = whole_set(food).rows(np.array([4, 2]))
    assert selected.flags.tolist() == food.train.flags[[4, 2]].tolist()
    (tmp_path / "food" / "Food-101N_release" / "meta" / "verified_train.tsv").unlink()
    assert load(layouts.SPECS["food101n"][1], tmp_path / "food").train.flags is None
