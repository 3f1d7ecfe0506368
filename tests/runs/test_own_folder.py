"""A folder as people have it: all of it grey, names that are no text, and output that takes ASCII alone."""

import csv
import json
import os

import numpy as np
from helpers.commands import run, summary_of
from PIL import Image

from lt_noisy.data import manifest

LATIN = os.fsdecode(b"caf\xe9")
NAMES = ('one\ntwo, "three"', LATIN)
SHORT = [
    "--config=configs/own_images.py:small",
    "--config.devices=1",
    "--config.model=resnet8(width=4)",
    "--config.stages=('pretrain', 'finetune')",
    "--config.pretrain.monitor=none()",
    *(f"--config.{stage}.length=steps(2)" for stage in ("pretrain", "finetune")),
    *(f"--config.{stage}.batch_size=4" for stage in ("pretrain", "finetune")),
]


def test_a_grey_folder_with_names_that_are_no_text_runs_on_a_strict_ascii_terminal(env, tmp_path):
    folder = tmp_path / "photos"
    for seed, name in enumerate(NAMES):
        (folder / name).mkdir(parents=True)
        for at in range(10):
            tone = np.random.default_rng(10 * seed + at).integers(0, 256, (8, 8)).astype(np.uint8)
            Image.fromarray(tone).save(folder / name / f"{LATIN}{at}.png")
    (folder / f"{LATIN}.txt").write_text("a note")
    done = run(
        {**env, "PYTHONIOENCODING": "ascii:strict"},
        tmp_path / "run",
        f"--config.dataset=folder(path='{folder}', size=8)",
        config=SHORT,
    )
    assert done.returncode == 0, done.stderr
    assert (
        f"note: {folder}: 1 files outside the class folders are not read ({folder}/caf\\udce9.txt, ...)" in done.stdout
    )
    assert "test images 8x8x1, 2 classes" in done.stdout and "more to watch" not in done.stdout
    assert "representation" not in summary_of(tmp_path / "run", "pretrain")

    loaded = manifest.load(tmp_path / "run")
    assert sorted(loaded.recipe["class_names"]) == sorted(NAMES)
    summary = json.loads((tmp_path / "run" / "finetune" / "summary.json").read_text())
    assert sorted(summary["test"]["class_names"]) == sorted(NAMES)
    path = tmp_path / "run" / "finetune" / "suspects.csv"
    with open(path, newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
        for row in csv.DictReader(file):
            assert (folder / row["file"]).exists() and {row["label"], row["suggested"]} <= set(NAMES)
