"""Whole runs through main.py: kill and resume, signals, skips and refusals."""

import re
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
from helpers.commands import CONFIG, HANGS, KILLER, ROOT, SSL, metrics_of, plain_json, run, summary_of, xla_flags

from lt_noisy.revision import code
from lt_noisy.training.checkpoint import committed


@pytest.fixture(scope="session")
def finished(env, tmp_path_factory):
    """An uninterrupted run; nobody writes into it."""
    workdir = tmp_path_factory.mktemp("finished")
    done = run(env, workdir, "--config.keep=all")  # tests below fall back on older checkpoints
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    return workdir, done.stdout


def _assert_same(workdir, reference):
    """Bit for bit: weights, metrics and results, each step once."""
    for stage in ("pretrain", "finetune"):
        ours, theirs = summary_of(workdir, stage), summary_of(reference, stage)
        assert ours["params_sha256"] == theirs["params_sha256"]
        for part in ("representation", "test", "train"):
            assert ours.get(part) == theirs.get(part)
        assert metrics_of(workdir, stage) == metrics_of(reference, stage)
    assert (workdir / "manifest.npz").read_bytes() == (reference / "manifest.npz").read_bytes()


def test_a_wholerun(finished):
    workdir, out = finished
    for text in ("10 classes", "wrong", "resnet8", "images/s", "ETA", "balanced accuracy", "memorised"):
        assert text in out
    assert out.rstrip().endswith(f"summary: {workdir}/finetune/summary.json")
    assert [line["step"] for line in metrics_of(workdir, "pretrain")] == [5, 10, 15, 20]
    assert [line["step"] for line in metrics_of(workdir, "finetune")] == [4, 8, 12, 16]
    assert "test_balanced_accuracy" in metrics_of(workdir, "finetune")[-1]
    summary = summary_of(workdir, "finetune")
    assert summary["seed"] == 0 and len(summary["params_sha256"]) == 64 and "jax" in summary["versions"]
    assert summary["code"] == code() and len(summary["sources_sha256"]) == 64
    assert {true for true, _, _ in summary["test"]["confusions"]} == set(range(10))
    arrays = np.load(workdir / "manifest.npz")
    assert sorted(arrays) == ["clean_labels", "ids", "observed_labels"]
    assert plain_json((workdir / "manifest.json").read_text())
    wrong = float(np.mean(arrays["clean_labels"] != arrays["observed_labels"]))
    assert 0.3 < wrong < 0.4 and str(round(100 * wrong, 1)) in out
    assert summary["train"]["wrong_labels"] == round(wrong * len(arrays["ids"]))


def test_killed_at_every_moment_and_resumed_is_bit_identical(env, finished, tmp_path):
    """One run: each process is killed where the moment says, and the next one goes on from there."""
    moments = {  # and what the next process says of where it goes on
        "inside the manifest write": "pretrain: first step done",
        "mid-epoch": "pretrain: resuming from step 10 of 20",
        "during a save": r"pretrain: resuming from step (15|20) of 20",
        "between the last step and the summary": "pretrain: resuming from step 20 of 20",
        "between stages": "pretrain: finished already",
        "before step 10": "finetune: resuming from step 8 of 16",
    }
    expected = "first step done"
    for moment, resumed in moments.items():
        killed = run(env, tmp_path, program=(KILLER, moment))
        assert killed.returncode == -signal.SIGKILL, (moment, killed.stderr)
        assert re.search(expected, killed.stdout) or moment == "inside the manifest write", (moment, killed.stdout)
        expected = resumed
    again = run(env, tmp_path)
    assert again.returncode == 0 and re.search(expected, again.stdout), again.stderr + again.stdout
    _assert_same(tmp_path, finished[0])
    for stage, last in (("pretrain", 20), ("finetune", 16)):  # of a stage killed before it was pruned, too
        assert committed(tmp_path / stage / "checkpoints") == [last]


def test_weights_alone_serve_the_runs_that_share_a_store(env, finished, tmp_path):
    """Killed before it is pruned; gone on with; and read by a run that fine-tunes otherwise."""
    options = ["--config.keep=weights", f"--store={tmp_path / 'store'}"]
    killed = run(env, tmp_path / "one", *options, program=(KILLER, "between stages"))
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert len(list((tmp_path / "store").glob("*/checkpoints"))) == 1
    again = run(env, tmp_path / "one", *options)
    assert again.returncode == 0 and "pretrain: finished already" in again.stdout, again.stderr
    _assert_same(tmp_path / "one", finished[0])
    assert not list((tmp_path / "store").glob("*/checkpoints"))
    size, whole = (
        sum(file.stat().st_size for file in (workdir / "finetune" / name).rglob("*"))
        for workdir, name in ((tmp_path / "one", "weights/00000016"), (finished[0], "checkpoints/00000016"))
    )
    assert size < 0.8 * whole
    other = run(env, tmp_path / "two", options[1], "--config.finetune.loss=gce(q=0.5)")
    assert other.returncode == 0 and "pretrain: finished already" in other.stdout, other.stderr


def test_a_signal_saves_and_exits(env, finished, tmp_path):
    """Stopped in the loop: saved where it is, the right status, and the rest is the same run."""
    command = [sys.executable, "main.py", *CONFIG, f"--workdir={tmp_path}"]
    slow = [*command, "--config.pretrain.log_every=steps(1)"]
    with subprocess.Popen(slow, env=env, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        for line in child.stdout:
            if line.startswith("pretrain 3/20"):
                child.send_signal(signal.SIGTERM)
        assert child.wait(HANGS) == 143
        errors = child.stderr.read()
    assert "Traceback" not in errors
    again = run(env, tmp_path, "--config.pretrain.log_every=steps(1)")
    assert again.returncode == 0, again.stderr
    start = int(again.stdout.split("pretrain: resuming from step ")[1].split()[0])
    assert 3 <= start <= 20
    assert [line["step"] for line in metrics_of(tmp_path, "pretrain")] == list(range(1, 21))
    for stage in ("pretrain", "finetune"):
        assert summary_of(tmp_path, stage)["params_sha256"] == summary_of(finished[0], stage)["params_sha256"]


def _times(workdir):
    """When each file was written, but for the one that says what was asked for last."""
    return {p: p.stat().st_mtime_ns for p in workdir.rglob("*.json*") if p.name != "run.json"}


def test_finished_stages_are_skipped_and_another_identity_is_refused(env, finished, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(finished[0], workdir)
    before = _times(workdir)
    again = run(env, workdir, "--config.finetune.log_every=steps(2)")  # cadence is not identity
    assert again.returncode == 0 and "pretrain: finished already" in again.stdout
    assert _times(workdir) == before

    other = run(env, workdir, "--config.finetune.loss=gce(q=0.5)")
    assert other.returncode == 2
    assert "finetune.loss: " in other.stderr and "gce(q=0.5, " in other.stderr
    assert len(other.stderr.strip().splitlines()) == 1
    noise = run(env, workdir, "--config.noise=symmetric(rate=0.2)")
    assert noise.returncode == 2 and "manifest differs" in noise.stderr
    assert _times(workdir) == before


def test_altered_manifest_and_second_process_are_refused(env, finished, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(finished[0], workdir)
    arrays = dict(np.load(workdir / "manifest.npz"))
    arrays["observed_labels"][0] = (arrays["observed_labels"][0] + 1) % 10
    np.savez(workdir / "manifest.npz", **arrays)
    altered = run(env, workdir)
    assert altered.returncode == 2 and len(altered.stderr.strip().splitlines()) == 1

    import fcntl

    with open(workdir / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        second = run(env, workdir)
    assert second.returncode == 2 and "another process" in second.stderr


def test_a_saved_manifest_replaces_the_recipe(env, finished, tmp_path):
    reference = finished[0]
    recipe = [
        "--config.longtail=none()",
        "--config.noise=none()",
        f"--config.manifest=file(path='{reference}')",
    ]
    refused = run(env, tmp_path / "loaded", "--config.noise=none()", "--config.finetune.batch_size=5000")
    assert refused.returncode == 2 and "5000" in refused.stderr  # and what replaces it may have its place
    loaded = run(env, tmp_path / "loaded", *recipe)
    assert loaded.returncode == 0, loaded.stderr
    assert (
        summary_of(tmp_path / "loaded", "finetune")["params_sha256"]
        == (summary_of(reference, "finetune")["params_sha256"])
    )
    clash = run(env, tmp_path / "clash", recipe[2])
    assert clash.returncode == 2 and "already fixes the training set" in clash.stderr


def test_frozen_encoder_stays_as_pretrained(env, finished, tmp_path):
    from lt_noisy.training.checkpoint import read_final

    shutil.copytree(finished[0] / "pretrain", tmp_path / "pretrain")
    done = run(env, tmp_path, "--config.finetune.freeze_encoder=True")
    assert done.returncode == 0, done.stderr
    before, after = read_final(tmp_path / "pretrain"), read_final(tmp_path / "finetune")
    moved = {k for k in after if k in before and not np.array_equal(after[k], before[k])}
    encoder = [k for k in after if k.startswith(("state.params.encoder", "state.batch_stats.encoder"))]
    assert encoder and not moved & set(encoder)


def test_a_corrupt_newest_checkpoint_falls_back_and_ends_the_same(env, finished, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(finished[0], workdir)
    for stage, newest in (("pretrain", "00000020"), ("finetune", "00000016")):
        (workdir / stage / "summary.json").unlink()
        for file in (workdir / stage / "checkpoints" / newest).rglob("*"):
            if file.is_file() and file.stat().st_size > 2000:
                content = bytearray(file.read_bytes())
                content[len(content) // 2] ^= 1
                file.write_bytes(content)
    done = run(env, workdir)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    for stage, bad, good in (("pretrain", 20, 15), ("finetune", 16, 12)):
        assert f"{stage}/checkpoints/000000{bad} cannot be used" in done.stdout
        assert f"{stage}: resuming from step {good}" in done.stdout
    _assert_same(workdir, finished[0])


def test_two_devices_under_pmap_give_the_samerun(env, finished, tmp_path):
    """The whole of main.py on stacked arrays: resume from one device's checkpoint, training, evaluation."""
    workdir = tmp_path / "run"
    shutil.copytree(finished[0], workdir)
    for stage, newest in (("pretrain", "00000020"), ("finetune", "00000016")):
        (workdir / stage / "summary.json").unlink()
        shutil.rmtree(workdir / stage / "checkpoints" / newest)
        (workdir / stage / "checkpoints" / f"{newest}.json").unlink()
    two = {**env, "XLA_FLAGS": xla_flags(2)}
    done = run(two, workdir, "--config.devices=2", "--config.parallel=pmap")
    assert done.returncode == 0, done.stderr
    assert "pretrain: resuming from step 15" in done.stdout and "not bit for bit" in done.stdout
    for stage in ("pretrain", "finetune"):
        ours, theirs = metrics_of(workdir, stage), metrics_of(finished[0], stage)
        assert [line["step"] for line in ours] == [line["step"] for line in theirs]
        assert ours[-1]["loss"] == pytest.approx(theirs[-1]["loss"], rel=1e-2)


def test_not_finite_stops_and_keeps_the_last_good_checkpoint(env, tmp_path):
    wild = run(env, tmp_path, "--config.pretrain.schedule=constant(lr=1e30)")
    assert wild.returncode == 2
    line = wild.stderr.strip().splitlines()[-1]
    assert line.startswith("error: pretrain: the loss or its gradient is not finite in steps ")
    assert not (tmp_path / "pretrain" / "summary.json").exists()


@pytest.fixture(scope="session")
def self_supervised(env, tmp_path_factory):
    """An uninterrupted run of every self-supervised stage kind; nobody writes into it."""
    workdir = tmp_path_factory.mktemp("self_supervised")
    done = run(env, workdir, "--config.keep=weights", "--config.feed=streamed(workers=1)", config=SSL)
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    return workdir, done.stdout


def test_every_self_supervised_stage_leaves_its_figures(self_supervised):
    workdir, out = self_supervised
    for text in ("rank correlation", "purity", "expert 1: ", "linear probe, 2 per class", "on the pixels", "effective"):
        assert text in out
    metrics = {stage: metrics_of(workdir, stage)[-1] for stage in ("moco", "byol", "rwsam", "distil")}
    # Keys of ten steps of two views of 32 images have passed through the queue of 100: the last three steps and a bit.
    assert metrics["moco"]["queue_filled"] == 1.0
    assert metrics["moco"]["queue_age"] == pytest.approx((64 * 1 + 36 * 2) / 100)
    assert metrics["rwsam"]["ascent_norm"] > 0 and "ascent_norm" not in metrics["byol"]
    assert all(m["effective_rank"] >= 1 and m["channel_std"] >= 0 for m in metrics.values())
    representation = summary_of(workdir, "byol")["representation"]
    assert {"knn_initial", "knn_pixels", "collapsed", "effective_rank"} <= set(representation)

    weights = np.load(workdir / "density" / "weights.npz")
    ids = np.load(workdir / "manifest.npz")["ids"]
    np.testing.assert_array_equal(weights["ids"], ids)
    assert weights["weights"].min() == 1.0 and len(np.unique(weights["weights"])) > 10
    clusters = np.load(workdir / "cluster" / "clusters.npz")["clusters"]
    experts = summary_of(workdir, "experts")["experts"]
    assert [e["images"] for e in experts] == np.bincount(clusters).tolist()
    total = 641 // 32 * 32  # images that one network would see in the stage's one epoch
    for e in experts:  # 641 images in two clusters: a quarter of either holds a batch
        assert e["batch_size"] == 32 and e["steps"] == round(total * e["images"] / 641 / 32)
    probes = summary_of(workdir, "probe")["probes"]
    assert probes["all"]["train_size"] == 1797 - 200 and probes["2"]["train_size"] == 20
    assert len(probes["2"]["linear"]["runs"]) == 2
    # The last stage works on another source whole: 1797 less 30 test images a class.
    assert summary_of(workdir, "tuned")["examples_seen"] == 4 * 32
    assert sum(number for _, _, number in summary_of(workdir, "tuned")["test"]["confusions"]) == 300


def test_a_table_of_what_was_learnt(self_supervised, monkeypatch):
    """`benchmarks/ssl_table.py` on a real run: a row a representation, its probe found, seeds merged."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import ssl_table

    from lt_noisy.errors import UserError

    workdir, _ = self_supervised
    rows = ssl_table.read_run(workdir)
    methods = ["byol", "distilled from base and experts", "moco", "simsiam + rwSAM"]
    assert sorted(row["method"] for row in rows) == methods
    probe, distil = summary_of(workdir, "probe")["probes"]["all"]["linear"], summary_of(workdir, "distil")
    row = next(row for row in rows if row["method"].startswith("distilled"))
    assert row["figures"]["linear"] == probe["balanced_accuracy"]
    assert row["figures"]["knn_balanced_bank"] == distil["representation"]["knn_balanced_bank"]
    losses = [line["loss"] for line in metrics_of(workdir, "distil")]
    assert (row["figures"]["loss_first"], row["figures"]["loss_last"]) == (losses[0], losses[-1])

    other = [{**r, "seed": 1, "figures": {**r["figures"], "params_sha256": "other"}} for r in rows]
    unprobed = {**row, "figures": {k: v for k, v in row["figures"].items() if not k.startswith("linear")}}
    merged = ssl_table.merge([unprobed, *rows, *other])  # a stage that two runs share counts once, with its probe
    assert len(merged) == 4 and all(row["seeds"] == [0, 1] for row in merged)
    # Neighbours, of the network before training too, but not of pixels, which were streamed; and two of the probe.
    assert ssl_table.show({"rows": merged}).count("± 0.0") == 2 * 4 + 2
    with pytest.raises(UserError, match="two runs of seed 1"):
        ssl_table.merge([*other, {**other[0], "figures": {"params_sha256": "another"}}])
    apart = {**row, "seed": 1, "settings": {**row["settings"], "density.estimator": "class_oracle()"}}
    assert len(ssl_table.merge([row, apart])) == 2  # what an earlier stage did differently is another method


def test_a_finished_run_with_probes_is_skipped_and_one_killed_in_a_probe_goes_on(env, self_supervised, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(self_supervised[0], workdir)
    (workdir / "probe" / "summary.json").unlink()
    again = run(env, workdir, config=SSL)
    assert again.returncode == 0 and again.stdout.count("finished already, skipped") == 8, again.stderr
    assert summary_of(workdir, "probe")["probes"] == summary_of(self_supervised[0], "probe")["probes"]


def test_queue_target_and_weights_resume_bit_for_bit(env, self_supervised, tmp_path):
    """Killed in MoCo, in BYOL, in rwSAM, in the second expert and in distillation; one whole run in the end.

    Streamed by three workers, where the reference had one: the same bits.
    """
    reference, _ = self_supervised
    fed = "--config.feed=streamed(workers=3)"
    # Steps that each process takes before it dies; two are done again after a save at step 4 or 8.
    for steps, resumed in ((6, None), (6 + 6, "moco"), (6 + 6, "byol"), (6 + 15, "rwsam"), (7 + 6, "experts/expert_1")):
        killed = run(env, tmp_path, fed, program=(KILLER, f"before step {steps}"), config=SSL)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        assert resumed is None or f"{resumed}: resuming from step 4 of" in killed.stdout
    done = run(env, tmp_path, fed, config=SSL)
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    for stage in ("moco", "byol", "rwsam", "distil", "tuned"):
        assert summary_of(tmp_path, stage)["params_sha256"] == summary_of(reference, stage)["params_sha256"]
        assert metrics_of(tmp_path, stage) == metrics_of(reference, stage)
    ours, theirs = (summary_of(w, "experts")["experts"] for w in (tmp_path, reference))
    assert [e["params_sha256"] for e in ours] == [e["params_sha256"] for e in theirs]
    for name, file in (("density", "weights.npz"), ("cluster", "clusters.npz")):
        assert (tmp_path / name / file).read_bytes() == (reference / name / file).read_bytes()
    assert summary_of(tmp_path, "probe")["probes"] == summary_of(reference, "probe")["probes"]
