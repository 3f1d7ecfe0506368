"""The network of a finished run, and `lt-noisy predict`."""

import contextlib
import csv
import io
import json
import os

import numpy as np
import pytest
from helpers import layouts, photos
from PIL import Image
from scipy.special import softmax

from lt_noisy import progress
from lt_noisy.config.spec import parse
from lt_noisy.data.sources import SOURCES
from lt_noisy.finished import predict
from lt_noisy.finished.network import Fit, fit_of, load_network
from lt_noisy.finished.pictures import Read
from lt_noisy.finished.run import named, read_run
from lt_noisy.runs import cli


@pytest.fixture(scope="module")
def network(messy):
    return load_network(read_run(messy[1]))


def table(text):
    return list(csv.DictReader(io.StringIO(text.removeprefix("\ufeff"))))


def test_its_outputs_are_those_of_its_stage(messy, network):
    """Read again without the data it gives the probabilities that its training wrote of every image."""
    folder, workdir = messy
    train = SOURCES["folder"](path=str(folder), size=8)().train
    with np.load(workdir / "finetune" / "label_quality.npz") as arrays:
        np.testing.assert_array_equal(arrays["ids"], train.ids)
        logits, features = network(train.images(np.arange(len(train.ids))))
        np.testing.assert_allclose(softmax(logits, -1), arrays["probabilities"], atol=1e-5)
    assert network.class_names == ("class 0", "class 1", "class 2") and network.image_shape == (8, 8, 3)
    reference = network.reference
    assert len(reference.ids) == len(train.ids) and features.shape == reference.features.shape
    order = np.argsort(reference.ids)
    np.testing.assert_array_equal(reference.ids[order], np.sort(train.ids))
    assert reference.distances(features).max() < 1e-3  # each is its own neighbour, but for float16


def test_the_distance_is_to_the_nearest_by_angle(network):
    bank = network.reference.features.astype(np.float64)
    queries = np.random.default_rng(0).normal(size=(7, bank.shape[1]))
    cosine = (queries @ bank.T) / np.linalg.norm(queries, axis=1)[:, None] / np.linalg.norm(bank, axis=1)
    np.testing.assert_allclose(network.reference.distances(queries), 1 - cosine.max(1), atol=1e-9)


def test_a_folder_gives_a_row_for_each_picture(messy, tmp_path, capsys):
    folder, workdir = messy
    out = tmp_path / "found.csv"
    assert cli.main(["lt-noisy", "predict", str(workdir), str(folder / "test"), f"--out={out}", "--top=2"]) == 0
    rows = table(out.read_text(encoding="utf-8"))
    assert [row["file"] for row in rows] == sorted(map(str, (folder / "test").rglob("*.jpg")))
    right = [row["class"] == row["file"].split("/")[-2] for row in rows]
    assert sum(right) >= len(rows) - 1
    first = rows[0]
    assert list(first) == [
        *("file", "class", "probability", "unlike_training", "distance", "class_2", "probability_2", "fault")
    ]
    assert float(first["probability"]) >= float(first["probability_2"]) > 0
    assert f"{out}: 12 files" in capsys.readouterr().out


def test_what_cannot_be_read_is_named_and_the_rest_is_there(messy, tmp_path, capsys):
    folder, workdir = messy
    good = next((folder / "test").rglob("*.jpg"))
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    (tmp_path / "list.txt").write_text(f"{good}\nbroken.jpg\n\ngone.jpg\n")
    assert predict.predict([str(workdir), str(tmp_path / "list.txt")]) == 1
    out, err = capsys.readouterr()
    rows = table(out)
    assert [row["fault"] != "" for row in rows] == [False, True, True]
    assert rows[2]["fault"] == "it does not exist" and rows[1]["class"] == rows[1]["probability"] == ""
    assert rows[0]["class"] == good.parent.name
    assert err.endswith("3 files, 2 could not be read (column `fault`)\n")


def test_tables_name_files_and_equal_ones_count_once(messy, tmp_path, capsys):
    _, workdir = messy
    for number in range(2):
        layouts.picture(tmp_path / f"{number}.jpg", 1, number)
    (tmp_path / "a.csv").write_text("\ufefflabel,path\nx,0.jpg\nx,1.jpg\n")
    (tmp_path / "b.tsv").write_text("file\tlabel\n1.jpg\tx\n")
    assert predict.predict([str(workdir), str(tmp_path / "a.csv"), str(tmp_path / "b.tsv")]) == 0
    assert [row["file"] for row in table(capsys.readouterr().out)] == [str(tmp_path / f"{n}.jpg") for n in range(2)]


def test_grey_and_transparent_pictures_are_taken(messy, tmp_path, capsys):
    _, workdir = messy
    pixels = np.arange(20 * 30, dtype=np.uint8).reshape(20, 30)
    Image.fromarray(pixels).save(tmp_path / "grey.png")
    Image.fromarray(np.stack([pixels] * 4, -1)).save(tmp_path / "clear.png")
    assert predict.predict([str(workdir / "finetune"), str(tmp_path)]) == 0
    assert len(table(capsys.readouterr().out)) == 2


@pytest.mark.parametrize(
    ("dataset", "fit"),
    [
        ("folder(path='x', size=224, resize=256)", Fit(256)),
        ("folder(path='x', size=224, resize=0)", Fit()),
        ("halves(of=folder(path='x', size=8, resize=9))", Fit(9)),
        ("digits()", Fit()),
        ("tfds(name='x', size=64, resize=0)", Fit(0, stretched=True)),
        ("development(of=tfds(name='x', size=64, resize=0))", Fit(0, stretched=True)),
        ("tfds(name='x', size=64, resize=72)", Fit(72)),
        ("tfds(name='cifar10', size=0, resize=0)", Fit()),  # as they are
    ],
)
def test_pictures_are_cut_as_those_of_the_data_set(dataset, fit):
    assert fit_of(parse(dataset)) == fit


def test_pictures_are_stretched_where_those_of_the_data_set_were(network, tmp_path):
    wide = np.zeros((8, 24, 3), np.uint8)
    wide[:, :8], wide[:, 16:] = 255, (255, 0, 0)  # the sides, which a cut centre loses
    Image.fromarray(wide).save(tmp_path / "wide.png")
    for stretched in (False, True):
        seen = Read([tmp_path / "wide.png"], network._replace(fit=Fit(0, stretched))).images[np.arange(1)][0]
        size = network.image_shape[0]
        expected = Image.fromarray(wide).resize((size, size), Image.Resampling.BILINEAR)
        assert np.array_equal(seen, np.asarray(expected)) == stretched


def test_vectors_are_no_pictures(own_run, tmp_path, capsys):
    document = json.loads((own_run / "run.json").read_text())
    (own_run / "run.json").write_text(json.dumps({**document, "image_shape": [16]}))
    assert predict.predict([str(own_run), str(tmp_path)]) == 2
    assert capsys.readouterr().err.endswith("are vectors, and no pictures\n")


def test_a_stage_can_be_named(messy):
    run, stage = named(str(messy[1] / "finetune"))
    assert (run.directory, stage) == (messy[1], "finetune")
    assert named(f"{messy[1]}/") == (run, "")


def test_a_table_on_standard_output_has_nothing_between_its_rows(messy, capsys, monkeypatch):
    """Lines of progress go to standard error."""
    monkeypatch.setattr(progress, "_EVERY", 0.0)
    monkeypatch.setattr(predict, "_BLOCK", 4)
    assert predict.predict([str(messy[1]), str(messy[0] / "test")]) == 0
    out, err = capsys.readouterr()
    assert len(table(out)) == 12 and out.count("\n") == 13 and "predicting files: 4 of 12" in err


def test_names_that_are_no_text_are_printed(messy, tmp_path):
    """Whatever standard output can encode."""
    layouts.picture(tmp_path / "1.jpg", 0, 1)
    (tmp_path / "1.jpg").rename(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.jpg"))
    strict = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors="strict")
    with contextlib.redirect_stdout(strict):
        assert predict.predict([str(messy[1]), str(tmp_path)]) == 0
    strict.flush()
    assert table(strict.buffer.getvalue().decode())[0]["file"].endswith("/\\udcff.jpg")


def test_another_machine_needs_no_devices_or_trackers_of_the_run(own_run):
    document = json.loads((own_run / "run.json").read_text())
    document["config"] |= {"devices": 4096, "trackers": "wandb()", "parallel": "pmap", "seeds": [1, 2]}
    (own_run / "run.json").write_text(json.dumps(document))
    assert load_network(read_run(own_run)).class_names == ("class 0", "class 1", "class 2")


BAD = {
    "no such run": (["nowhere", "."], "there is no such directory of a run"),
    "no run": (["{folder}", "."], "is no directory of a run"),
    "no classifier": (["{run}/folds", "{folder}"], "is a cross_fit stage, which holds no classifier"),
    "no such stage": (["{run}/finetun", "{folder}"], "has no finished stage 'finetun', did you mean 'finetune'"),
    "no such image": (["{run}", "nowhere.jpg"], "nowhere.jpg does not exist"),
    "empty folder": (["{run}", "{run}/log"], "holds no image"),
    "table without files": (["{run}", "{table}"], "has no column file or path or filename or image (its columns: id)"),
    "a cell beyond csv's limit": (["{run}", "{large}"], "large.csv, line 1, cannot be read as a table: field larger"),
    "no such home": (["{run}", "{folder}", "--out=~nobody-here/x"], "argument --out: ~nobody-here/x: there is no home"),
    "no images": (["{run}"], "predict: the following arguments are required: images; see lt-noisy predict --help"),
    "top": (["{run}", "{folder}", "--top=0"], "--top is at least 1"),
    "out": (["{run}", "{folder}", "--out=nowhere/x.csv"], "is no file in a directory that exists"),
    "flag": (["{run}", "{folder}", "--topp=3"], "unrecognized arguments: --topp=3"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line(name, messy, tmp_path, capsys):
    arguments, expected = BAD[name]
    (tmp_path / "t.csv").write_text("id\n1\n")
    (tmp_path / "large.csv").write_text(f"{'x' * 200_000}\n")
    places = {"run": messy[1], "folder": messy[0], "table": tmp_path / "t.csv", "large": tmp_path / "large.csv"}
    given = [a.format(**places) for a in arguments]
    assert predict.predict(given) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("error: ") and err.count("\n") == 1 and expected in err


def test_a_run_of_several_seeds_and_one_without_a_classifier(tmp_path, capsys):
    (tmp_path / "seed_3").mkdir()
    (tmp_path / "seed_3" / "run.json").write_text(json.dumps({}))
    assert predict.predict([str(tmp_path), "."]) == 2
    assert f"holds a run for each seed: name one, such as {tmp_path}/seed_3" in capsys.readouterr().err


def test_a_misspelt_command_is_one_line(capsys):
    assert cli.main(["lt-noisy", "predct", "runs/photos"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: there is no command 'predct', did you mean 'predict'? (there are check, ")


def test_help_is_the_commands_own(capsys):
    with pytest.raises(SystemExit) as left:
        cli.main(["lt-noisy", "predict", "--help"])
    assert left.value.code == 0 and "--top" in capsys.readouterr().out


def test_odd_names_are_text_in_the_table(messy, tmp_path, capsys, monkeypatch):
    """No spreadsheet computes a name."""
    layouts.picture(tmp_path / photos.ODD, 0, 1)
    monkeypatch.chdir(tmp_path)
    assert predict.predict([str(messy[1]), photos.ODD]) == 0
    assert table(capsys.readouterr().out)[0]["file"] == f"'{photos.ODD}"
