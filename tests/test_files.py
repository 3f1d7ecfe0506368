"""Paths that users write: `~` is the home directory, wherever a spec or a flag takes a path."""

import argparse
import csv
import pathlib

import numpy as np
import pytest
import sweep
from PIL import Image

from lt_noisy import files
from lt_noisy.config.python_file import read_module
from lt_noisy.data.given import MANIFESTS
from lt_noisy.data.noise import human, transition
from lt_noisy.data.pools import POOLS
from lt_noisy.data.sources import SOURCES
from lt_noisy.errors import UserError
from lt_noisy.files import user_path
from lt_noisy.losses.table import LOSSES


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home directory, with the working directory elsewhere."""
    home = tmp_path / "home"
    home.mkdir()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(tmp_path / "elsewhere")
    return home


def test_a_table_that_a_spreadsheet_shows_right_and_does_not_compute(tmp_path):
    formulas, others = (
        ["=1+1", "-x", "+1", "@a", "\tb", "'+1", "''="],
        ["猫", "a=b", "caf\udce9", 'a "b", c', "'a", "'"],
    )
    cells = [*formulas, *others, -0.5]
    files.write_table(tmp_path / "x.csv", ["a"], [[cell] for cell in cells])
    assert (tmp_path / "x.csv").read_bytes().startswith(b"\xef\xbb\xbfa\n'=1+1\n'-x\n")
    with open(tmp_path / "x.csv", newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
        read = [row[0] for row in csv.reader(file)]
    assert read == ["a", *(f"'{cell}" for cell in formulas), *others, "-0.5"]
    assert list(map(files.cell_text, read[1:])) == list(map(str, cells))


def test_the_home_directory(home):
    assert user_path("~") == home and user_path("~/a/b") == home / "a" / "b"
    assert user_path("a/~/b") == pathlib.Path("a/~/b") and user_path("/~") == pathlib.Path("/~")
    assert user_path("./~") == pathlib.Path("~")  # as a shell reads it
    with pytest.raises(
        UserError, match=r"~nobody-here/x: there is no home directory ~nobody-here; .* write \./~nobody"
    ):
        user_path("~nobody-here/x")
    with pytest.raises(argparse.ArgumentTypeError, match="there is no home directory ~nobody-here"):
        files.path_argument("~nobody-here/x")


def test_every_spec_that_takes_a_path(home):
    for name, seed in (("a/0", 0), ("a/1", 1), ("b/0", 2), ("b/1", 3)):
        (home / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.RandomState(seed).randint(0, 256, (4, 4, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(home / "photos" / f"{name}.png")
    source = SOURCES["folder"]("~/photos", size=4)()
    assert sorted([*source.train.files, *source.test.files]) == ["a/0.png", "a/1.png", "b/0.png", "b/1.png"]
    assert len(POOLS["images"]("~/photos", size=4).load().ids) == 4
    rows = np.arange(2)
    parts = {"train_images": source.train.images(rows), "test_images": source.test.images(rows)}
    np.savez(home / "a.npz", train_labels=rows, test_labels=rows, **parts)
    assert SOURCES["npz"]("~/a.npz")().num_classes == 2
    np.save(home / "labels.npy", np.array([1, 0]))
    assert human("~/labels.npy").corrupt(rows, rows, 2, 0).tolist() == [1, 0]
    np.save(home / "t.npy", np.eye(2)[::-1])
    assert transition(path="~/t.npy").corrupt(rows, rows, 2, 0).tolist() == [1, 0]
    assert LOSSES["forward"](path="~/t.npy").content
    with pytest.raises(UserError, match=f"{home}/run/manifest.npz is missing"):
        MANIFESTS["file"]("~/run")(rows, rows, "ab")
    (home / "config.py").write_text("here = 1\n")
    assert read_module("~/config.py").here == 1


def test_every_flag_that_takes_a_path(home, monkeypatch):
    """`--workdir` and `--store`, of which no shell expands what follows the equals sign; the sweep's options."""
    import main
    from lt_noisy.runs import run as runs

    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(home / "cache"))
    placed = []
    monkeypatch.setattr(runs, "place", lambda works, card, store: placed.append(store) or 1 / 0)
    config = pathlib.Path(__file__).resolve().parent.parent / "configs" / "digits_lt_noise.py"
    flags = ["--workdir=~/runs/a", "--store=~/store", "--config.devices=1", "--config.model=resnet8(width=4)"]
    assert main.main(["main.py", f"--config={config}", *flags]) == 1
    assert (home / "runs" / "a").is_dir() and placed == [home / "store"]

    chosen = sweep.options([f"--config=~/{config.name}:small", "--root=~/grid", "--store=~/s", "--record=~/r.json"])
    assert chosen.config == str(home / f"{config.name}:small")
    assert (chosen.root, chosen.store, chosen.record) == (home / "grid", home / "s", home / "r.json")
    assert list(pathlib.Path().iterdir()) == []  # no directory called ~
