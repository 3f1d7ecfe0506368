"""docs/own_data.md, "The whole way": its commands as they stand there, with a person at the page in between."""

import csv
import re
import shlex
import shutil

from helpers import photos
from helpers.commands import ROOT, started, summary_of

from lt_noisy.data import manifest as manifests
from lt_noisy.finished.suspects import read_suspects

# What makes the config a matter of seconds; all else is as the page says.
SHORT = [
    "--config.model=resnet8(width=4)",
    "--config.devices=1",
    "--config.pretrain.length=steps(6)",
    "--config.pretrain.batch_size=16",
    "--config.pretrain.monitor=none()",
    "--config.finetune.length=steps(48)",
    "--config.finetune.batch_size=16",
    "--config.finetune.augment=normalise((0.5,), (0.25,))",
    "--config.finetune.schedule=cosine(lr=0.1)",
    "--config.folds.folds=2",
    "--config.folds.length=steps(48)",
    "--config.folds.batch_size=16",
    "--config.folds.augment=normalise((0.5,), (0.25,))",
    "--config.folds.schedule=cosine(lr=0.1)",
]


def commands():
    page = (ROOT / "docs" / "own_data.md").read_text()
    section = page.partition("## The whole way, command by command")[2]
    return re.search(r"```sh\n(.*?)```", section, re.DOTALL)[1].splitlines()


def decide(browser_page, workdir):
    """Every suspect becomes what is suggested, by the key of the page; without a browser, by a file of its form."""
    target = workdir.parent.parent / "decisions.csv"
    if browser_page is not None:
        with browser_page(workdir / "review" / "index.html") as (view, _, _):
            while view.inner_text("#progress") != "3 of 3 decided":
                view.keyboard.press("r")
            with view.expect_download() as download:
                view.get_by_role("button", name="Export decisions.csv").click()
            download.value.save_as(target)
        return
    with open(target, "w", newline="") as file:
        rows = [(s.id, "relabel", s.suggested) for s in read_suspects(workdir / "folds")]
        csv.writer(file).writerows([("id", "decision", "new_label"), *rows])


def test_from_a_folder_to_a_corrected_model(env, tmp_path, request):
    browser = request.getfixturevalue("browser_page") if shutil.which("chromium") else None
    photos.make(tmp_path / "photos")
    (tmp_path / "new").mkdir()
    for label in range(3):
        photos.layouts.picture(tmp_path / "new" / f"{label}.jpg", label, 500)
    said = {}
    for line in commands():
        program, *arguments = shlex.split(line.replace("configs/", f"{ROOT}/configs/").replace("size=32", "size=8"))
        assert program == "python" and arguments[0] == "main.py"
        if arguments[1].startswith("--config="):
            arguments += SHORT
        if arguments[1] == "apply":
            decide(browser, tmp_path / "runs" / "photos")
        done = started(ROOT / "main.py", arguments[1:], env, tmp_path)
        assert done.returncode == 0, (line, done.stderr)
        said[line.split()[2].partition("=")[0] + str(len(said))] = done.stdout
    runs = tmp_path / "runs"
    assert [name[:-1] for name in said] == ["check", "--config", "review", "apply", "--config", "report", "predict"]
    assert "runs/photos/corrected: 39 images, 3 relabelled, 0 dropped" in said["apply3"]
    assert "pretrain: finished already" in said["--config4"] or "pretrain: skipped" in said["--config4"]

    true = {name: label for name, label in photos.WRONG.items()}
    listed = {row["image"]: row["label"] for row in _rows(runs / "photos" / "corrected" / "corrected.csv")}
    assert all(listed[name] == label for name, label in true.items())
    corrected = manifests.load(runs / "corrected")
    assert (corrected.observed_labels == corrected.clean_labels).all()
    assert summary_of(runs / "corrected", "finetune")["test"]["accuracy"] == 1
    assert (runs / "report" / "index.html").exists()
    found = {row["file"]: row["class"] for row in _rows(tmp_path / "predictions.csv")}
    assert found == {f"new/{label}.jpg": f"class {label}" for label in range(3)}


def _rows(path):
    with open(path, newline="", encoding="utf-8-sig") as file:
        return list(csv.DictReader(file))
