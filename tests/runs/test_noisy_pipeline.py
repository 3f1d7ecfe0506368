"""Whole runs of the stages that learn from noisy labels: what they leave, kill and resume, bad input."""

import json
import signal

import numpy as np
import pytest
from helpers.commands import KILLER, NOISY, metrics_of, run, summary_of

TRAINED = ("elr", "forward", "joint", "mixnn")


@pytest.fixture(scope="session")
def noisy(env, tmp_path_factory):
    """An uninterrupted run of every kind; nobody writes into it."""
    workdir = tmp_path_factory.mktemp("noisy")
    done = run(env, workdir, "--config.feed=streamed(workers=1)", config=NOISY)
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    return workdir, done.stdout


def test_what_the_run_says(noisy):
    workdir, out = noisy
    for text in ("(19 of them held out)", "best on noisy validation", "wrong labels, estimated", "labels repaired"):
        assert text in out
    elr = summary_of(workdir, "elr")
    assert set(elr["selection"]) == {"evaluations", "last", "best_on_validation", "oracle_best_on_test"}
    assert elr["selection"]["last"]["test_balanced_accuracy"] == elr["test"]["balanced_accuracy"]
    evaluated = [line for line in metrics_of(workdir, "elr") if "validation_balanced_accuracy" in line]
    best = max(evaluated, key=lambda line: line["validation_balanced_accuracy"])
    assert elr["selection"]["best_on_validation"]["step"] == best["step"]
    assert 0 <= summary_of(workdir, "mixnn")["correction"]["repaired"] <= 1


def test_held_out_examples_are_trained_on_by_no_stage(noisy):
    """Judged are the rows that were trained on: the manifest without the split, and no image of the pool."""
    workdir, _ = noisy
    manifest = np.load(workdir / "manifest.npz")
    judged = {stage: np.load(workdir / stage / "label_quality.npz")["ids"] for stage in (*TRAINED, "folds")}
    for ids in judged.values():
        np.testing.assert_array_equal(ids, judged["elr"])
    assert len(judged["elr"]) == len(manifest["ids"]) - 19 and np.isin(judged["elr"], manifest["ids"]).all()
    pool = np.load(workdir / "labels" / "pseudo_labels.npz")
    assert len(pool["ids"]) == 2 * len(judged["elr"]) and not np.isin(pool["ids"], manifest["ids"]).any()
    assert pool["targets"].shape == (len(pool["ids"]), 10)


def test_memories_and_targets_resume_bit_for_bit(env, noisy, tmp_path):
    """Killed with ELR's memory, and in MixNN's mixup and neighbour phases; one whole run in the end.

    Streamed by three workers, where the reference had one: the same bits.
    """
    fed = "--config.feed=streamed(workers=3)"
    # Steps that each process takes before it dies: 6 of ELR, resumed at 4; then 8 + 8 + 4 + 8 and 6 of MixNN, twice.
    moments = ((6, "elr: first step"), (28 + 6, "elr: resuming from step 4"), (7, "mixnn: resuming from step 4"))
    for steps, resumed in moments:
        killed = run(env, tmp_path, fed, program=(KILLER, f"before step {steps}"), config=NOISY)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        assert resumed in killed.stdout
    done = run(env, tmp_path, fed, config=NOISY)
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    assert "mixnn: resuming from step 8 of 15" in done.stdout
    assert "read from their source step by step by 3 thread(s)" in done.stdout
    for stage in TRAINED:
        ours, theirs = summary_of(tmp_path, stage), summary_of(noisy[0], stage)
        assert ours["params_sha256"] == theirs["params_sha256"]  # the method's state is in it
        assert metrics_of(tmp_path, stage) == metrics_of(noisy[0], stage)
        for block in ("test", "selection", "label_quality"):
            assert ours[block] == theirs[block]
    for file in ("folds/label_quality.npz", "noise_model/transition.npz", "labels/pseudo_labels.npz"):
        assert (tmp_path / file).read_bytes() == (noisy[0] / file).read_bytes()
    assert summary_of(tmp_path, "balanced")["test"] == summary_of(noisy[0], "balanced")["test"]


def test_a_finished_run_is_skipped_whole(env, noisy):
    workdir, _ = noisy
    before = {path: path.stat().st_mtime_ns for path in workdir.glob("*/summary.json")}
    again = run(env, workdir, config=NOISY)
    assert again.returncode == 0 and again.stdout.count("finished already, skipped") == len(before), again.stdout
    assert len(before) >= 8
    assert before == {path: path.stat().st_mtime_ns for path in workdir.glob("*/summary.json")}
    assert json.loads((workdir / "balanced" / "summary.json").read_text())["tuned"]["tau"] >= 0


BAD = {
    "mixed memory": ("--config.elr.mix=mixup()", "this loss remembers each example"),
    "no matrix": ("--config.forward.transition=none()", "config.forward.loss"),
    "a matrix that nobody reads": (
        "--config.forward.loss=cross_entropy()",
        "config.forward.transition: only forward()",
    ),
    "two at once": ("--config.joint.loss=forward()", "config.joint.loss: forward: no transition matrix"),
    "a late start": ("--config.mixnn.length=epochs(3)", "correct_from < 3"),
    "wrong kind": ("--config.labels.init=folds", "is a cross_fit stage"),
    "other data": ("--config.joint.data=full()", "set 'manifest()'"),
    "phases": ("--config.mixnn.correct_from=1", "1 <= warmup <= correct_from"),
    "mixup": ("--config.mixnn.mixup=liner", "did you mean 'linear'"),
    "validation": ("--config.validation=1.0", "config.validation is a share"),
    "pool": ("--config.labels.times=100.0", "lower times or ratio"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_before_work_starts(case, tmp_path, capsys, monkeypatch):
    import main

    override, says = BAD[case]
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "cache"))
    assert main.main(["main.py", *NOISY, override, f"--workdir={tmp_path / 'run'}"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and says in error
    assert len(error.strip().splitlines()) == 1
    assert not list((tmp_path / "run").glob("*/metrics.jsonl"))
