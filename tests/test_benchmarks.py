"""Benchmarks that no other test runs: throughput, for a fraction of a second, and the messy folder."""

import importlib.util
import json

import numpy as np
import pytest
from conftest import CONFIG, ROOT
from PIL import Image

from lt_noisy.spec import UserError


def load(name):
    """A script of `benchmarks/` as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "benchmarks" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_throughput_of_every_part(monkeypatch, capsys, tmp_path):
    throughput = load("throughput")
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(throughput, "ROUNDS", 1)
    own = ["--stage=finetune", "--seconds=0.1", f"--json={tmp_path / 'x.json'}"]
    throughput.main(["throughput.py", *CONFIG, "--config.devices=1", *own])
    record = json.loads((tmp_path / "x.json").read_text())
    speeds = record["images_per_second"]
    assert list(speeds) == ["data", "augment", "step", "loop"] and min(speeds.values()) > 0
    assert len(record["loop_overhead_percent_rounds"]) == 1
    assert f"{speeds['loop']:,.0f} images/s" in capsys.readouterr().out


def test_a_messy_folder_and_the_score_of_a_list(monkeypatch, capsys, tmp_path):
    """What `make` says is wrong is wrong: a list in that order is right from its first file to its last."""
    messy_folder = load("messy_folder")
    photos, recipe = tmp_path / "photos", ["--longtail=explicit(counts=(30, 20, 10, 5, 5, 5, 5, 5, 5, 5))"]
    messy_folder.main(["x", "make", str(photos), "--dataset=digits()", *recipe, "--noise=symmetric(rate=0.4)"])
    assert "photos: 95 images, " in capsys.readouterr().out
    from sklearn.datasets import load_digits

    digits = load_digits()
    files = sorted(photos.glob("*/*.png"), key=lambda file: digits.target[int(file.stem)] == int(file.parent.name))
    assert len(files) == 95
    for file in files[:3]:
        np.testing.assert_array_equal(np.asarray(Image.open(file)), np.rint(digits.images[int(file.stem)] * 255 / 16))
    wrong = sum(digits.target[int(file.stem)] != int(file.parent.name) for file in files)
    lines = [f"0,{file.relative_to(photos)},{file.parent.name},{digits.target[int(file.stem)]},1.0" for file in files]
    suspects = tmp_path / "suspects.csv"
    suspects.write_text("\n".join(["id,file,label,suggested,wrong_probability", *lines]) + "\n")
    messy_folder.main(["x", "score", str(photos), str(suspects), f"--json={tmp_path / 'score.json'}"])
    figures = json.loads((tmp_path / "score.json").read_text())
    assert 20 < wrong < 50 and figures["wrong"] == wrong / 95
    assert [row["files"] for row in figures["head"]] == [25, 50, 95]
    assert [row["wrong"] for row in figures["head"]] == [min(25, wrong), min(50, wrong), wrong]
    assert all(row["suggested_is_true"] == row["files"] for row in figures["head"])
    with pytest.raises(UserError, match="exists already"):
        messy_folder.make(photos, "digits()", "none()", "none()", 0)
