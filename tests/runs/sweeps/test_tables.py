"""Cells and their arguments, the figures of a summary, the table by hand, and `launch/sweep.py --show`."""

import csv
import json
import os
import sys

import pytest
import sweep
from helpers.commands import ROOT

from lt_noisy.config.command_line import parse
from lt_noisy.errors import UserError
from lt_noisy.files import write_json
from lt_noisy.runs.sweeps import cells, tables
from lt_noisy.runs.sweeps.cells import axis, chain, product


def test_helpers():
    seed = axis("seed", range(2))
    loss = axis("loss", {"CE": {}, "LA": {"finetune.loss": "logit_adjusted()", "finetune.length": "steps(2)"}})
    grid = product(loss, seed)
    assert [str(cell) for cell in grid] == ["loss=CE, seed=0", "loss=CE, seed=1", "loss=LA, seed=0", "loss=LA, seed=1"]
    assert grid[3].overrides == {"finetune.loss": "logit_adjusted()", "finetune.length": "steps(2)", "seed": 1}
    assert [str(cell) for cell in chain(loss, seed)] == ["loss=CE", "loss=LA", "seed=0", "seed=1"]
    same = product(loss, axis("also", {"x": {"finetune.length": "steps(2)"}}))  # set twice, to the same
    assert same[1].overrides == loss[1].overrides
    assert product() == [cells.Cell({}, {})]


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: product(axis("a", {"x": {"seed": 1}}), axis("b", {"y": {"seed": 2}})), "a=x, b=y: field seed is both"),
        (lambda: product(axis("a", {"x": {"seed": 1}}), axis("b", {"y": {"seed": True}})), "field seed is both"),
        (lambda: product(axis("a", {"x": {}}), axis("a", {"y": {}})), "axis a is both 'x' and 'y'"),
        (lambda: axis("shots", [(0, 1)]), "(0, 1): not a label"),
        (lambda: axis("a", {"x": {"manifest": None}}), "manifest holds str, int, float, bool or tuple, not NoneType"),
        (lambda: tables.check(axis("seed", [0, 1, 1]), None, tables.FIGURES), "two cells have the labels seed=1"),
        (lambda: tables.check([], None, tables.FIGURES), "at least one"),
        (lambda: tables.check(axis("a", [1]), None, {"x": "t", "y": "t"}), "no title twice"),
        (lambda: tables.check(axis("loss", ["CE"]), {"los": "CE"}, tables.FIGURES), "BASELINE: no row"),
        (lambda: tables.check(axis("seed", [0]), {"seed": 0}, tables.FIGURES), "BASELINE: no row"),
        (
            lambda: tables.check(
                chain(axis("a", [1]), product(axis("a", [2]), axis("b", [1, 2]))), {"a": 2}, tables.FIGURES
            ),
            "BASELINE: a=1 has two: a=2, b=1; a=2, b=2",
        ),
    ],
)
def test_impossible_sweeps_are_one_line(make, says):
    with pytest.raises(UserError) as error:
        make()
    assert says in str(error.value) and "\n" not in str(error.value)


def test_every_type_of_override_survives_the_command_line_and_the_cells_come_last(monkeypatch):
    monkeypatch.chdir(ROOT)
    overrides = {
        "dataset": "folder(path='/a b/\"c\"=$x')",
        "stages": ("finetune",),
        "seed": 7,
        "finetune.encoder_rate": 1e-05,
        "finetune.freeze_encoder": True,
        "finetune.loss": "gce(q=0.7)",
        "finetune.keep_last": False,
    }
    base = ["--config.seed=3", "--config.finetune.loss=cross_entropy()", "--config.finetune.batch_size=5"]
    config, *_ = parse(["main.py", "--config=configs/digits_lt_noise.py", *base, *cells.arguments(overrides)])
    found = {name: config for name in overrides}
    for name in found:
        for part in name.split("."):
            found[name] = found[name][part]
    assert found == overrides and {n: type(v) for n, v in found.items()} == {n: type(v) for n, v in overrides.items()}
    assert config.finetune.batch_size == 5


def cell(labels, accuracy, memorised=None):
    found = None if accuracy is None else {"accuracy": accuracy, "absent": None, "memorised": memorised}
    return {"labels": labels, "overrides": {}, "figures": found}


def record(cells, baseline=None):
    paths = {"test.accuracy": "accuracy", "absent": "absent", "train.memorised": "memorised"}
    return {"figures": paths, "baseline": baseline, "cells": cells}


def test_a_table_by_hand():
    cells = [
        cell({"init": "scratch", "loss": "CE", "seed": 0}, 0.5, 0.1),
        cell({"init": "SSL", "freeze": "no", "loss": "CE", "seed": 0}, 0.7),
        cell({"init": "SSL", "freeze": "no", "loss": "L|A", "seed": 1}, None),
        cell({"init": "scratch", "loss": "CE", "seed": 1}, 0.7, 0.3),
        cell({"init": "SSL", "freeze": "no", "loss": "CE", "seed": 1}, 0.6),
        cell({"init": "SSL", "freeze": "no", "loss": "L|A", "seed": 2}, 0.9),
        cell({"init": "SSL", "freeze": "no", "loss": "L|A", "seed": 0}, 0.8, 0.0),
    ]
    # Standard deviations: of (50, 70) 14.142, of (70, 60) 7.071, of (90, 80) 7.071, of the gains (20, -10) 21.213.
    by_hand = """\
| init | loss | freeze | accuracy | memorised | gain | n |
|---|---|---|---|---|---|---|
| scratch | CE |  | 60.0 ± 14.1 | 20.0 ± 14.1 |  | 2 |
| SSL | CE | no | 65.0 ± 7.1 |  | 5.0 ± 21.2 | 2 |
| SSL | L\\|A | no | 85.0 ± 7.1 | 0.0 | 30.0 | 2 |"""
    made = record(cells, {"init": "scratch", "loss": "CE"})
    assert tables.table(made) == by_hand
    assert tables.table(json.loads(json.dumps(made))) == by_hand
    rows = list(csv.DictReader(tables.table_csv(made).splitlines()))
    assert rows[1]["accuracy"] == "0.65" and rows[1]["accuracy, std"] == "0.0707107" and rows[1]["gain"] == "0.05"
    assert rows[2]["loss"] == "L|A" and rows[2]["memorised, std"] == "" and rows[2]["n"] == "2"


def test_a_table_of_complete_seeds_has_no_counts_and_gains_match_the_other_labels():
    cells = [
        cell({"ratio": ratio, "loss": loss}, 0.01 * ratio + gain)
        for ratio in (10, 50)
        for loss, gain in (("CE", 0.0), ("LA", 0.02))
    ]
    assert (
        tables.table(record(cells, {"loss": "CE"}))
        == """\
| ratio | loss | accuracy | gain |
|---|---|---|---|
| 10 | CE | 10.0 |  |
| 10 | LA | 12.0 | 2.0 |
| 50 | CE | 50.0 |  |
| 50 | LA | 52.0 | 2.0 |"""
    )
    assert "gain" not in tables.table(record(cells)) and tables.table(record([cell({"a": 1}, None)])).endswith(
        "| 1 | 0 |"
    )


def test_one_figure_across_conditions():
    """A column per pair of labels; a row that one condition lacks has a hole."""
    cells = [
        cell({"noise": noise, "ratio": ratio, "loss": loss, "seed": seed}, 0.01 * ratio + gain + 0.02 * seed)
        for noise in ("sym", "asym")
        for ratio in (10, 50)
        for loss, gain in (("CE", 0.0), ("LA", 0.02))
        for seed in (0, 1)
        if (noise, ratio, loss) != ("asym", 50, "LA")
    ]
    made = record(cells, {"loss": "CE"})
    assert (
        tables.table_across(made, ("noise", "ratio"))
        == """\
| loss | sym, 10 | sym, 50 | asym, 10 | asym, 50 |
|---|---|---|---|---|
| CE | 11.0 ± 1.4 | 51.0 ± 1.4 | 11.0 ± 1.4 | 51.0 ± 1.4 |
| LA | 13.0 ± 1.4 | 53.0 ± 1.4 | 13.0 ± 1.4 |  |"""
    )
    assert tables.table_across(made, ["ratio"], "gain").endswith("| asym | LA | 2.0 ± 0.0 |  |")
    for axes, figure, says in ((("nose",), "", "did you mean 'noise'"), (("noise",), "gains", "did you mean 'gain'")):
        with pytest.raises(UserError, match=says):
            tables.table_across(made, axes, figure)


def test_figures_are_what_a_summary_has():
    summary = {"test": {"balanced_accuracy": 0.25}, "train": {"memorised": None}, "probes": {"all": 1}}
    found = tables.figures(summary, tables.FIGURES)
    assert {title for title, value in found.items() if value is not None} == {"balanced accuracy"}
    assert tables.headline(found) == "balanced accuracy 25.0 %" and tables.headline({}) == "no figure"
    probed = tables.figures({"probes": {"all": {"linear": {"balanced_accuracy": 0.5}}}}, tables.FIGURES)
    assert tables.headline(probed) == "linear probe 50.0 %"


def show(*arguments):
    """`launch/sweep.py` with these arguments; its exit status."""
    return sweep.main(["sweep.py", *arguments])


RECORD = {
    "config": "grid.py",
    "overrides": [],
    "figures": {"test.accuracy": "accuracy"},
    "baseline": None,
    "cells": [{"labels": {"a": 1}, "figures": {"accuracy": 0.5}}],
}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--show=absent.json"], "--show=absent.json: No such file"),
        (["--show=text.txt"], "text.txt is not the record of a sweep"),
        (["--show=other.json"], "other.json is not the record of a sweep"),
        (["--show=damaged.json"], "damaged.json: a damaged record of a sweep (KeyError('accuracy'))"),
        (["--show=empty.json", "--across=a"], "the record has no figures"),
        (["--show=grid.json", "--across=b"], "the record has no 'b'"),
        (["--show=grid.json", "--figure=accuracy"], "--figure goes with --across"),
        (["--show=grid.json", "--csv", "--across=a"], "--csv or --across, not both"),
        (["--show=grid.json", "--config.seed=1"], "--show only prints: it takes no --config.seed=1"),
        (["--show=grid.json", "--root=x"], "it takes no --root"),
        (["--show=grid.json", "--record=x.json"], "it takes no --record"),
        (["--show=grid.json", "--jobs=1"], "it takes no --jobs"),
    ],
)
def test_showing_what_cannot_be_shown_is_one_line(monkeypatch, tmp_path, capsys, arguments, says):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text("text")
    records = {"grid": RECORD, "other": {"rows": []}}
    for name, found in (("damaged", {}), ("empty", {"accuracy": None})):
        records[name] = RECORD | {"cells": [{"labels": {"a": 1}, "figures": found}]}
    for name, record in records.items():
        write_json(tmp_path / f"{name}.json", record)
    assert show(*arguments) == 2
    out, error = capsys.readouterr()
    assert out == "" and error.startswith("error: ") and says in error and len(error.strip().splitlines()) == 1


def test_a_reader_that_has_enough_ends_show_quietly(monkeypatch, tmp_path, capfd):
    write_json(tmp_path / "grid.json", RECORD)
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w") as closed:  # its own close would fail, as Python does at exit
        monkeypatch.setattr(sys, "stdout", closed)
        assert show(f"--show={tmp_path / 'grid.json'}") == 0
    assert capfd.readouterr() == ("", "")
