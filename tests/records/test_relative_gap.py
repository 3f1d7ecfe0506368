"""The relative gap of hand-made runs, by hand: who is paired with whom, what the table says, bad input in one line."""

import json
import runpy
import shutil
import subprocess
import sys

import numpy as np
import pytest
import relative_gap
from helpers.commands import ROOT

from lt_noisy.data import manifest as manifests
from lt_noisy.errors import UserError
from lt_noisy.evaluation.probes import evaluate_probes, logistic
from lt_noisy.evaluation.representation import knn_predict
from lt_noisy.files import write_json
from lt_noisy.hashing import json_sha256

SCRIPT = ROOT / "benchmarks" / "relative_gap.py"
TEN = "exponential(ratio=10.0, n_max=0, subset='seeded')"
TAIL = [10, 3, 1]  # 14 images; the control has 5, 5 and 4
EVEN = [5, 5, 4]


def balanced(longtail):
    return f"balanced(profile={longtail})"


def add_stage(run, name, kind, inputs, own, summary, seed):
    """The two files of a finished stage; returns its hash, for the stages that read it."""
    identity = {"seed": seed, "model": "resnet8(width=4)", f"{name}.kind": kind, **own}
    identity |= {f"inputs.{key}": value for key, value in inputs.items()}
    (run / name).mkdir(parents=True)
    write_json(run / name / "identity.json", identity)
    sha = json_sha256(identity)
    made_by = {"identity_sha256": sha, "versions": {"jax": "0.9"}, "code": {"commit": "3bfb9e0"}}
    write_json(run / name / "summary.json", {**summary, **made_by})
    return sha


def make_run(run, longtail, counts, probes, seed=0, dataset="digits()", noise="none()", objective="simclr()"):
    """A finished run of `pretrain` and `base`, and of each `name: (stage, report)` in `probes`."""
    labels = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
    recipe = {"dataset": dataset, "longtail": longtail, "noise": noise, "seed": seed}
    recipe |= {"num_classes": len(counts), "class_names": [str(c) for c in range(len(counts))]}
    recipe |= {"nominal_rate": 0.0, "noise_before_longtail": False}
    manifests.save(manifests.Manifest(np.arange(len(labels)), labels, labels, recipe), run)
    own = {"data.ids": f"{longtail} {seed}"}  # as in real runs, another training set for every one
    sha = {
        "pretrain": add_stage(
            run, "pretrain", "self_supervised", {}, {**own, "pretrain.objective": objective}, {}, seed
        ),
        "base": add_stage(run, "base", "supervised", {}, own, {}, seed),
    }
    for name, (stage, report) in probes.items():
        fields = {f"{name}.init": stage, f"{name}.shots": [0], "data.ids": "the full split"}
        add_stage(run, name, "probe", {stage: sha[stage]}, fields, {"probes": report}, seed)
    return str(run)


def report(linear, knn):
    return {"all": {"linear": {"balanced_accuracy": linear}, "knn": {"balanced_accuracy": knn}}}


def ssl(linear, knn=0.5):
    return {"probe": ("pretrain", report(linear, knn))}


def table(out):
    """{(stage probed, probe, n, ratio): (A balanced, A imbalanced, relative gap)} of what was printed."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in out.strip().splitlines()[2:]]
    assert all(len(row) == 8 for row in rows)
    assert len({tuple(row[:5]) for row in rows}) == len(rows)
    return {tuple(row[1:5]): tuple(row[5:]) for row in rows}


def test_the_command_line_by_hand(tmp_path):
    """Gaps (.8 - .6) / .8 and (.5 - .45) / .5 by seed, 25 and 10 %: their mean is not the gap of the means."""
    figures = {  # self-supervised and supervised, each linear and kNN
        ("even", 0): ((0.8, 0.5), (0.4, 0.4)),
        ("even", 1): ((0.5, 0.5), (0.4, 0.4)),
        ("tail", 0): ((0.6, 0.5), (0.1, 0.3)),
        ("tail", 1): ((0.45, 0.5), (0.1, 0.5)),
    }
    for (name, seed), (first, second) in figures.items():
        probes = {"probe_z": ("pretrain", report(*first)), "probe_a": ("base", report(*second))}
        longtail, counts = (TEN, TAIL) if name == "tail" else (balanced(TEN), EVEN)
        make_run(tmp_path / f"{name}{seed}", longtail, counts, probes, seed)
    runs = ["tail1", "even1", "tail0", "even0"]
    command = [sys.executable, str(SCRIPT), *runs, "--json=gap.json"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert table(done.stdout) == {
        ("pretrain (self_supervised) by probe_z", "linear", "14", "10 (exponential)"): (
            "65.0 ± 21.2",
            "52.5 ± 10.6",
            "17.5 ± 10.6",
        ),
        ("base (supervised) by probe_a", "linear", "14", "10 (exponential)"): (
            "40.0 ± 0.0",
            "10.0 ± 0.0",
            "75.0 ± 0.0",
        ),
        ("pretrain (self_supervised) by probe_z", "knn", "14", "10 (exponential)"): (
            "50.0 ± 0.0",
            "50.0 ± 0.0",
            "0.0 ± 0.0",
        ),
        ("base (supervised) by probe_a", "knn", "14", "10 (exponential)"): (
            "40.0 ± 0.0",
            "40.0 ± 14.1",
            "0.0 ± 35.4",
        ),
    }
    record = json.loads((tmp_path / "gap.json").read_text())
    assert record["command"] == f"python benchmarks/relative_gap.py {' '.join(runs)} --json=gap.json"
    assert record["versions"] == {"jax": "0.9"} and record["code"] == [{"commit": "3bfb9e0"}]
    assert [(row["probe"], row["kind"]) for row in record["rows"][:2]] == [  # beside each other
        ("linear", "supervised"),
        ("linear", "self_supervised"),
    ]
    row = record["rows"][1]
    assert (row["stage"], row["n"], row["ratio"], row["longtail"], row["data"]) == (
        "pretrain",
        14,
        10.0,
        TEN,
        "digits()",
    )
    assert (row["seeds"], row["balanced"], row["imbalanced"]) == ([0, 1], [0.8, 0.5], [0.6, 0.45])
    assert row["relative_gap"] == pytest.approx([0.25, 0.1], rel=1e-12)


def test_a_refusal_is_one_line_and_exit_status_2(tmp_path, monkeypatch, capsys):
    tail = make_run(tmp_path / "tail", TEN, TAIL, ssl(0.6))
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), tail])
    with pytest.raises(SystemExit) as status:
        runpy.run_path(str(SCRIPT), run_name="__main__")
    out, error = capsys.readouterr()
    assert (status.value.code, out, len(error.splitlines())) == (2, "", 1)
    assert error.startswith(f"error: {tail}: no balanced control with n=14, seed 0")


def test_pairs_by_n_seed_data_and_noise(tmp_path, capsys):
    """Each pair has a balanced accuracy of its own, and an imbalanced one that is half of that, or 90 %."""
    step = "step(ratio=5.0, n_max=5, subset='seeded')"
    keys = [
        (TEN, TAIL, EVEN, {}),
        (TEN, TAIL, EVEN, {"seed": 3}),
        (TEN, TAIL, EVEN, {"noise": "symmetric(rate=0.4)"}),
        (TEN, TAIL, EVEN, {"dataset": "cifar10()"}),
        ("exponential(ratio=50.0, n_max=50, subset='seeded')", [50, 7, 1], [20, 19, 19], {}),
        # As with noise before the long tail: the clean counts are not those asked for.
        ("explicit(counts=(6, 2, 2), subset='seeded')", [5, 3, 2], [4, 3, 3], {}),
        (step, [5, 1, 1], [3, 2, 2], {}),
    ]
    runs = []
    for i, (longtail, tail, even, fields) in enumerate(keys):
        kept = 0.9 if fields.get("seed") else 0.5
        accuracy = (i + 2) / 10
        runs.append(make_run(tmp_path / f"tail{i}", longtail, tail, ssl(kept * accuracy), **fields))
        runs.insert(0, make_run(tmp_path / f"even{i}", balanced(longtail), even, ssl(accuracy), **fields))
    # The same images of another profile have the same control.
    runs.append(make_run(tmp_path / "other", step, TAIL, ssl(0.05)))
    relative_gap.main(["", *runs, f"--json={tmp_path / 'gap.json'}"])
    rows = [row for row in json.loads((tmp_path / "gap.json").read_text())["rows"] if row["probe"] == "linear"]
    by_seed = ("seeds", "balanced", "relative_gap")
    found = {(r["data"], r["n"], r["ratio"]): list(zip(*(r[key] for key in by_seed), strict=True)) for r in rows}
    half, tenth = pytest.approx(0.5, abs=1e-9), pytest.approx(0.1, abs=1e-9)
    assert found == {
        ("digits()", 14, 10.0): [(0, 0.2, half), (3, 0.3, tenth)],
        ("digits(), symmetric(rate=0.4)", 14, 10.0): [(0, 0.4, half)],
        ("cifar10()", 14, 10.0): [(0, 0.5, half)],
        ("digits()", 58, 50.0): [(0, 0.6, half)],
        ("digits()", 10, 3.0): [(0, 0.7, half)],
        ("digits()", 7, 5.0): [(0, 0.8, half)],
        ("digits()", 14, 5.0): [(0, 0.2, pytest.approx(0.75))],
    }
    assert len(rows) == len(found)
    assert "| 3 (explicit) | 70.0 | 35.0 | 50.0 |" in capsys.readouterr().out  # of one seed, no deviation


def test_a_real_report_few_shots_and_a_control_without_long_tail(tmp_path, capsys):
    """Reports as the stage writes them; equal classes are balanced, whatever the recipe calls them."""
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(3), 20)
    reports = []
    for noise in (0.6, 1.5):
        x, test = (np.eye(3)[y] + noise * rng.normal(size=(60, 3)) for _ in range(2))
        knn = lambda *arguments: knn_predict(*arguments, k=3, temperature=0.1)  # noqa: E731
        args = (x.astype(np.float32), y, test.astype(np.float32), y, np.full(3, 20), ["a", "b", "c"], 0)
        reports.append(evaluate_probes(logistic(), knn, (0, 5), 2, *args))
    even = make_run(tmp_path / "even", "none()", [4, 4, 4], {"probe": ("pretrain", reports[0])})
    tail = make_run(tmp_path / "tail", TEN, [9, 2, 1], {"probe": ("pretrain", reports[1])})
    relative_gap.main(["", even, tail])
    rows = table(capsys.readouterr().out)
    assert [probe for _, probe, _, _ in rows] == ["linear", "linear, 5 per class", "knn", "knn, 5 per class"]
    for (_, probe, _, _), shown in rows.items():
        kind, shots = probe.split(",")[0], "5" if "per class" in probe else "all"
        a, b = (np.mean(r["5"][kind]["runs"]) if shots == "5" else r["all"][kind]["accuracy"] for r in reports)
        assert [float(value) for value in shown] == pytest.approx([100 * a, 100 * b, 100 * (1 - b / a)], abs=0.051)
        assert a > b


def _broken(run, name, text=None):
    path = run / name
    path.unlink() if text is None else path.write_text(text)


@pytest.mark.parametrize(
    ("break_it", "says"),
    [
        (lambda tail: shutil.rmtree(tail), "tail: not a finished run, it has no manifest.json"),
        (lambda tail: _broken(tail, "manifest.npz"), "manifest.npz is missing"),
        (lambda tail: _broken(tail, "probe/summary.json"), "tail: not a finished run, probe lacks a whole"),
        (lambda tail: _broken(tail, "base/summary.json"), "tail: not a finished run, base lacks a whole"),
        (lambda tail: _broken(tail, "probe/summary.json", "{"), "tail: not a finished run, probe lacks a whole"),
        (lambda tail: _broken(tail, "probe/identity.json", "{"), "tail: not a finished run, probe lacks a whole"),
        (lambda tail: _broken(tail, "probe/summary.json", "{}"), "tail: not a finished run, probe lacks a whole"),
        (lambda tail: shutil.rmtree(tail / "pretrain"), "tail: not a finished run, pretrain lacks a whole"),
        (lambda tail: shutil.rmtree(tail / "probe"), "tail: no probe stage among its stages (base, pretrain)"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_run_that_is_not_whole_is_refused(tmp_path, break_it, says):
    runs = [make_run(tmp_path / "even", balanced(TEN), EVEN, ssl(0.8))]
    runs.append(make_run(tmp_path / "tail", TEN, TAIL, ssl(0.6)))
    relative_gap.main(["", *runs])
    break_it(tmp_path / "tail")
    _refused(runs, says)


def _refused(arguments, says):
    with pytest.raises(UserError) as error:
        relative_gap.main(["", *arguments])
    assert says in str(error.value) and len(str(error.value).splitlines()) == 1


def test_runs_that_do_not_pair_are_refused(tmp_path):
    even = make_run(tmp_path / "even", balanced(TEN), EVEN, ssl(0.8))
    tail = make_run(tmp_path / "tail", TEN, TAIL, ssl(0.6))
    seven = make_run(tmp_path / "seven", TEN, TAIL, ssl(0.6), seed=7)
    _refused([even, tail, seven], f"{seven}: no balanced control with n=14, seed 7, probe stage 'probe'")
    larger = make_run(tmp_path / "larger", TEN, [20, 6, 2], ssl(0.6))
    _refused([even, tail, larger], f"{larger}: no balanced control with n=28, seed 0")
    _refused([even, tail, tail], f"{tail} and {tail}: two runs of exponential(ratio=10.0")
    twin = make_run(tmp_path / "twin", "none()", [7, 7], ssl(0.8))
    _refused([even, twin, tail], f"{even} and {twin}: two balanced controls with n=14, seed 0")
    _refused([even], f"{even}: a control, but no imbalanced run with n=14, seed 0")
    more = make_run(tmp_path / "more", balanced(TEN), EVEN, {**ssl(0.8), "extra": ("base", report(0.8, 0.5))})
    _refused([more, tail], f"{more}: a control, but no imbalanced run with n=14, seed 0, probe stage 'extra'")
    zero = make_run(tmp_path / "zero", balanced(TEN), EVEN, ssl(0.0))
    _refused([zero, tail], "balanced accuracy above 0")


def test_other_settings_before_the_probe_are_refused(tmp_path):
    """Within a pair, and between the seeds of a row."""
    even = make_run(tmp_path / "even", balanced(TEN), EVEN, ssl(0.8))
    tail = make_run(tmp_path / "tail", TEN, TAIL, ssl(0.6))
    moco = {"seed": 1, "objective": "moco()"}
    pair = [
        make_run(tmp_path / "moco_even", balanced(TEN), EVEN, ssl(0.8), **moco),
        make_run(tmp_path / "moco_tail", TEN, TAIL, ssl(0.6), **moco),
    ]
    relative_gap.main(["", *pair])
    says = "differ in more than the training set: pretrain.objective: simclr() and moco()"
    _refused([*pair, even, tail], says)
    _refused([even, make_run(tmp_path / "moco", TEN, TAIL, ssl(0.6), objective="moco()")], says)
    # Stages that the probe does not come from may differ.
    probes = {"probe": ("base", report(0.8, 0.5))}
    runs = [make_run(tmp_path / "even_base", balanced(TEN), EVEN, probes)]
    runs.append(make_run(tmp_path / "moco_base", TEN, TAIL, probes, objective="moco()"))
    relative_gap.main(["", *runs])


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "required: runs"),
        (["--json=x"], "required: runs"),
        (["run", "--jsn=x"], "unrecognized arguments: --jsn=x"),
        (["run", "--json"], "--json: expected one argument"),
        (["run", "--json="], "--json: '' is no file in a directory that exists"),
        (["run", "--json=/nowhere/x"], "'/nowhere/x' is no file in a directory that exists"),
    ],
)
def test_bad_arguments_are_refused_before_runs_are_read(arguments, says):
    _refused(arguments, says)


def test_a_manifest_that_does_not_say_its_recipe_is_refused(tmp_path):
    tail = make_run(tmp_path / "tail", TEN, TAIL, ssl(0.6))
    manifest = manifests.load(tail)
    del manifest.recipe["longtail"]
    manifests.save(manifest, tail)
    _refused([tail], f"{tail}: the recipe of its manifest must name dataset, noise and longtail")
