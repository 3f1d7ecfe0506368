"""The command that writes reports: what it writes, what it leaves out, and what it refuses before any work."""

import importlib.util
import itertools
import json
import shutil

import numpy as np
import pytest
from helpers.commands import summary_of
from helpers.finished_runs import write_run
from PIL import Image

from lt_noisy.files import write_arrays, write_json
from lt_noisy.finished.report import command, figures
from lt_noisy.finished.report.command import report
from lt_noisy.runs.cli import main

PICTURES = {
    *("noise", "pretrain-curves", "train-curves", "train-frequency", "train-classes", "train-confusions"),
    *("train-reliability", "train-losses", "train-map", "noise_model-transition"),
}


class _NotDrawn:
    """In the place of Matplotlib's canvas: a picture of one pixel, in no time."""

    def __init__(self, figure):
        pass

    def print_png(self, file, metadata):
        Image.new("L", (1, 1)).save(file, "PNG")


@pytest.fixture
def drawn():
    """For a test whose pictures are to be drawn, as those of `run` and `runs` are."""


@pytest.fixture(autouse=True)
def _others_are_not(request, monkeypatch):
    if "drawn" not in request.fixturenames:
        monkeypatch.setattr(figures, "FigureCanvasAgg", _NotDrawn)


def pictures(directory):
    return {path.stem for path in (directory / "figures").glob("*.png")}


def copied(run, tmp_path):
    shutil.copytree(run, tmp_path / "run", ignore=shutil.ignore_patterns("report"))
    return tmp_path / "run"


def refused(capsys, argv):
    """The one line that the command says."""
    assert report([str(argument) for argument in argv]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("error: ") and err.count("\n") == 1
    return err


def test_the_report_of_a_run_lies_in_it(run):
    assert pictures(run / "report") == PICTURES
    assert sorted(path.name for path in (run / "report").iterdir()) == [
        "figures",
        "index.html",
        "tables.md",
        "tables.tex",
    ]
    for path in (run / "report" / "figures").iterdir():
        assert path.read_bytes().startswith(b"\x89PNG")
    assert "## Classification, test set, percent" in (run / "report" / "tables.md").read_text()
    assert (run / "report" / "tables.tex").read_text().count("\\toprule") == 4


def test_a_page_is_the_same_whenever_it_is_written(drawn, run, tmp_path, monkeypatch):
    """Byte by byte, pictures and all, on a slow machine too: but for the place of the run."""
    seconds = itertools.count(step=10)
    monkeypatch.setattr("time.perf_counter", lambda: float(next(seconds)))  # else Matplotlib warns of what took one
    assert report([str(run), f"--out={tmp_path / 'again'}"]) == 0
    assert (tmp_path / "again" / "index.html").read_bytes() == (run / "report" / "index.html").read_bytes()


def test_the_report_of_several_runs(runs):
    page = (runs / "out" / "index.html").read_text()
    assert "side-by-side-frequency" in pictures(runs / "out")
    assert {"run1-train-map", "run2-train-losses"} <= pictures(runs / "out") and "run2-train-map" not in pictures(
        runs / "out"
    )
    assert "Where their configs differ" in page and "several, seed 0" in page and "±" in page
    assert "several, seed 2" in (runs / "out" / "tables.md").read_text()


def test_seeds_alone_are_a_report_too(runs, tmp_path):
    assert report([str(runs / "several"), f"--out={tmp_path / 'out'}", "--embedding=none"]) == 0
    page = (tmp_path / "out" / "index.html").read_text()
    assert "<h1>several</h1>" in page and "side-by-side-frequency" not in pictures(tmp_path / "out")
    assert "run1-train-map" not in pictures(tmp_path / "out")


def test_what_a_run_does_not_have_is_left_out(run, tmp_path):
    """No reference, no judged labels, bins of no calibration (an older summary), no curve, and a stage not finished."""
    directory = copied(run, tmp_path)
    for name in ("train/reference.npz", "train/label_quality.npz", "train/metrics.jsonl", "noise_model/summary.json"):
        (directory / name).unlink()
    summary = summary_of(directory, "train")
    del summary["test"]["reliability"]
    write_json(directory / "train" / "summary.json", summary)
    assert report([str(directory)]) == 0
    assert pictures(directory / "report") == {
        "noise",
        "pretrain-curves",
        *(f"train-{n}" for n in ("frequency", "classes", "confusions")),
    }
    assert "finished: pretrain, train" in (directory / "report" / "index.html").read_text()


def test_a_run_without_a_finished_stage_or_a_manifest(run, tmp_path):
    directory = copied(run, tmp_path)
    for path in [*directory.glob("*/summary.json"), *directory.glob("manifest.*")]:
        path.unlink()
    assert report([str(directory)]) == 0
    page = (directory / "report" / "index.html").read_text()
    assert "finished: none yet" in page and "has no manifest" in page and not pictures(directory / "report")


def test_a_set_whose_truth_is_not_known(tmp_path):
    """No ring, no matrix of the noise, one histogram, counts by the one kind of label."""
    directory = write_run(tmp_path / "own", wrong=0)
    assert report([str(directory)]) == 0
    page = (directory / "report" / "index.html").read_text()
    assert "noise" not in pictures(directory / "report") and "have a ring" not in page
    assert "not known" in page and "true share" not in page


def test_labels_of_other_data_than_the_manifest_are_not_called_wrong(run, tmp_path):
    directory = copied(run, tmp_path)
    with np.load(directory / "train" / "reference.npz") as arrays:
        write_arrays(directory / "train" / "reference.npz", **{**arrays, "ids": arrays["ids"] + 1})
    assert report([str(directory)]) == 0
    assert "have a ring" not in (directory / "report" / "index.html").read_text()


def test_the_parts_of_the_tail_are_those_of_what_was_trained_on(run, tmp_path):
    """Half of the images held out: the groups of the summary are by the counts of the others."""
    directory = copied(run, tmp_path)
    with np.load(directory / "train" / "label_quality.npz") as arrays:
        half = {name: array[::2] for name, array in arrays.items()}
    write_arrays(directory / "train" / "label_quality.npz", **half)
    summary = summary_of(directory, "train")
    groups = summary["test"]["groups"]
    groups.clear()
    groups |= {"medium": {"accuracy": 0.75, "num_classes": 3}, "few": {"accuracy": 0.5, "num_classes": 5}}
    write_json(directory / "train" / "summary.json", summary)
    assert report([str(directory), "--embedding=none"]) == 0
    page = (directory / "report" / "index.html").read_text()
    assert "Test accuracy of 8 classes by training examples: medium 75.0 %, few 50.0 %." in page


def test_networks_of_one_stage_share_a_picture_of_their_curves(run, tmp_path):
    """As a stage of folds leaves them, each in a directory of its own."""
    directory = copied(run, tmp_path)
    for k in (0, 1):
        (directory / "train" / f"fold_{k}").mkdir()
        shutil.copy(directory / "train" / "metrics.jsonl", directory / "train" / f"fold_{k}")
    (directory / "train" / "metrics.jsonl").unlink()
    assert report([str(directory)]) == 0
    assert "fold_0 loss ends at 1.5" in (directory / "report" / "index.html").read_text()


def test_what_a_real_run_leaves(drawn, messy, tmp_path):
    """Of a folder, so the truth is not known; read alone, nothing of it changes."""
    workdir, out = messy[1], tmp_path / "out"
    before = {path: path.stat().st_mtime_ns for path in workdir.rglob("*")}
    assert report([str(workdir), f"--out={out}"]) == 0
    assert "noise" not in pictures(out)
    kinds = {name.partition("-")[2] for name in pictures(out)}
    assert kinds >= {"curves", "frequency", "classes", "confusions", "reliability", "losses", "map"}
    assert {path: path.stat().st_mtime_ns for path in workdir.rglob("*")} == before


def test_many_classes_have_tables_in_the_place_of_names(drawn, tmp_path):
    directory = write_run(tmp_path / "run", counts=tuple(range(64, 0, -1)), test_per_class=2, features=False)
    assert report([str(directory)]) == 0
    page = (directory / "report" / "index.html").read_text()
    assert "The 20 rarest classes" in page and "The 20 classes of lowest accuracy" in page
    assert "<details><summary>Training examples of each class</summary>" in page


def test_a_new_report_takes_the_pictures_of_the_old_one_away(run, tmp_path):
    directory = copied(run, tmp_path)
    (directory / "report" / "figures").mkdir(parents=True)
    (directory / "report" / "index.html").write_text(command._OURS)
    (directory / "report" / "figures" / "gone-curves.png").write_bytes(b"")
    (directory / "report" / "figures" / "notes.txt").write_text("mine")
    assert report([str(directory), "--embedding=none"]) == 0
    assert pictures(directory / "report") == PICTURES - {"train-map"}
    assert (directory / "report" / "figures" / "notes.txt").exists()


def test_bad_input_is_one_line(run, runs, tmp_path, capsys):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("")
    (tmp_path / "file").write_text("")
    assert "the following arguments are required: RUN" in refused(capsys, [])
    assert "there is no such directory of a run" in refused(capsys, [tmp_path / "none"])
    assert "is no directory of a run" in refused(capsys, [tmp_path])
    assert "--out=DIR" in refused(capsys, [run, runs / "other"])
    assert "is named twice" in refused(capsys, [run, run / ".." / run.name, "--out", tmp_path / "out"])
    assert "holds other files, such as thesis.tex" in refused(capsys, [run, f"--out={tmp_path / 'mine'}"])
    assert "is no directory" in refused(capsys, [run, f"--out={tmp_path / 'file'}"])
    assert "nor a new one in one that exists" in refused(capsys, [run, f"--out={tmp_path / 'a' / 'b'}"])
    assert "invalid choice: 'tsne'" in refused(capsys, [run, "--embedding=tsne"])
    assert "unrecognized arguments: --embed=pca" in refused(capsys, [run, "--embed=pca"])
    assert not (tmp_path / "out").exists()


def test_what_is_no_report_is_not_replaced(run, tmp_path, capsys):
    (tmp_path / "paper" / "figures").mkdir(parents=True)
    (tmp_path / "paper" / "figures" / "mine.png").write_bytes(b"mine")
    assert "figures is of no report" in refused(capsys, [run, f"--out={tmp_path / 'paper'}"])
    (tmp_path / "paper" / "index.html").write_text("mine")
    assert "index.html is of no report" in refused(capsys, [run, f"--out={tmp_path / 'paper'}"])
    assert (tmp_path / "paper" / "figures" / "mine.png").exists()
    directory = copied(run, tmp_path)
    assert report([str(directory), "--embedding=none"]) == 0 == report([str(directory), "--embedding=none"])


def test_a_file_that_is_damaged_leaves_no_half_report(run, tmp_path, capsys):
    directory = copied(run, tmp_path)
    (directory / "train" / "metrics.jsonl").write_text(json.dumps({"loss": 1.0}))
    assert "metrics.jsonl, line 1: that is no line of metrics" in refused(capsys, [directory])
    assert not (directory / "report").exists()


@pytest.mark.parametrize(
    ("file", "array", "change", "says"),
    [
        ("train/reference.npz", "observed", lambda a: a[1:], "its arrays are not of one length"),
        ("train/reference.npz", "observed", lambda a: a + 8, "must be in [0, 8), but they span 8 to 15"),
        ("train/reference.npz", "features", lambda a: a / 0 * np.inf, "are not finite"),
        ("train/label_quality.npz", "loss", lambda a: a[1:], "its arrays are empty or not of one length"),
        ("train/label_quality.npz", "loss", lambda a: a + np.inf, "a loss is not finite"),
        ("noise_model/transition.npz", "matrix", lambda a: a[1:], "its matrix is (7, 8), not of 8 classes"),
    ],
)
def test_arrays_that_do_not_fit_are_named(run, tmp_path, capsys, monkeypatch, file, array, change, says):
    monkeypatch.setattr("lt_noisy.finished.report.figures.learning_curves", lambda panels: b"")
    directory = copied(run, tmp_path)
    with np.load(directory / file) as arrays, np.errstate(all="ignore"):
        write_arrays(directory / file, **{**arrays, array: change(arrays[array])})
    err = refused(capsys, [directory])
    assert says in err and file.rpartition("/")[2] in err


@pytest.mark.parametrize(
    ("missing", "argument", "says"),
    [
        (("jinja2", "matplotlib"), "--embedding=pca", "jinja2 and matplotlib missing: pip install 'lt_noisy[report]'"),
        (("umap",), "--embedding=umap", "--embedding=umap takes umap-learn: pip install 'lt_noisy[umap]'"),
    ],
)
def test_a_library_that_is_missing_is_named_with_the_command(run, capsys, monkeypatch, missing, argument, says):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in missing else find(name))
    assert says in refused(capsys, [run, argument])


def test_the_program_has_the_command(run, tmp_path, capsys):
    assert main(["lt-noisy", "report", str(run), f"--out={tmp_path / 'out'}", "--embedding=none"]) == 0
    assert capsys.readouterr().out.startswith(f"{tmp_path / 'out' / 'index.html'}: 1 run(s), 9 figures")
