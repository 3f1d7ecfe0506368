"""Whole runs of two processes: every kind of stage, the loss of one, signals, restarts, what they do not agree on."""

import os
import pathlib
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
from helpers import layouts
from helpers.commands import HANGS, ROOT, metrics_of, summary_of, xla_flags

CONFIG = "--config=tests/helpers/processes_config.py"
STOPPED = ("pretrain", "density", "rwsam", "cluster", "experts", "distil")  # of which three, and all of them go on
LOCAL = (sys.executable, "launch/local_processes.py")


@pytest.fixture(scope="module")
def arguments(tmp_path_factory):
    """Of main.py: the config, on vectors that are made here."""
    root = tmp_path_factory.mktemp("vectors")
    layouts.features(root)
    source = f"features(path='{root}/features.npz')"
    return ["--distributed=env", CONFIG, f"--config.dataset={source}", f"--config.labels.pool={source}"]


def start(env, *command, **changed):
    environment = {**env, "XLA_FLAGS": xla_flags(1), **changed}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([*map(str, command)], env=environment, cwd=ROOT, **pipes)


def run(env, *command, **changed):
    """The exit status and what was printed."""
    child = start(env, *command, **changed)
    out, err = child.communicate(timeout=HANGS)
    return child.returncode, out, err


@pytest.fixture(scope="module")
def finished(env, arguments, tmp_path_factory):
    """An uninterrupted run of two processes; nobody writes into it."""
    workdir = tmp_path_factory.mktemp("finished")
    status, out, err = run(env, *LOCAL, 2, "--", "main.py", *arguments, f"--workdir={workdir}")
    assert status == 0, err
    assert "Traceback" not in err
    return workdir, out


def test_every_kind_runs_in_two_processes(env, arguments, finished, tmp_path):
    """As in one process with two devices, but for rounding; which is seen of some, in half the time."""
    workdir, out = finished
    assert "2 x cpu" in out and "in 2 processes on 1 host(s)" in out
    assert out.count("pretrain 1/6") == 1  # one of them prints
    assert out.count("joint: stopped early, at step ") == 1 and summary_of(workdir, "joint")["steps"] < 30
    some = "--config.stages=('pretrain', 'density', 'cluster', 'folds', 'matrix', 'mixnn', 'balanced')"
    alone = [sys.executable, "main.py", *arguments[1:], some, f"--workdir={tmp_path}"]
    status, _, err = run(env, *alone, XLA_FLAGS=xla_flags(2))
    assert status == 0, err
    for stage in sorted(path.parent.name for path in tmp_path.glob("*/summary.json")):
        ours, theirs = summary_of(workdir, stage), summary_of(tmp_path, stage)
        assert ours.keys() == theirs.keys() and ours["identity_sha256"] == theirs["identity_sha256"]
        assert {p.name for p in (workdir / stage).iterdir()} == {p.name for p in (tmp_path / stage).iterdir()}
    for stage in ("pretrain", "mixnn"):
        losses = [[line["loss"] for line in metrics_of(place, stage)][:2] for place in (workdir, tmp_path)]
        np.testing.assert_allclose(losses[0], losses[1], rtol=1e-2, atol=1e-3)


def test_lost_stopped_and_killed_in_a_save_it_ends_bit_identical(env, arguments, finished, tmp_path):
    """Process 1 is killed in a stage, all are stopped in another, process 0 is killed in a save of a third."""
    place, killer = f"--workdir={tmp_path / 'run'}", "tests/helpers/killer.py"
    tmp_path, alone = tmp_path / "run", tmp_path / "alone"
    early, arguments = "--config.heartbeat=5.0", [*arguments, f"--config.stages={STOPPED}"]
    status, out, err = run(env, *LOCAL, 2, "--", killer, "before step 4", *arguments, early, place, KILLED="1")
    assert status == 128 + signal.SIGKILL, err
    assert "process 1 of 2 ended by SIGKILL" in err and "process 0 of 2 stays" not in err
    lost = [line for line in err.splitlines() if "has not been heard of for 5 s (config.heartbeat) and is lost" in line]
    assert len(lost) == 1 and lost[0].startswith("error: process 1 (")

    # One process can go on with it too, with other bits: the devices are others.
    shutil.copytree(tmp_path, alone)
    only = "--config.stages=('pretrain',)"
    status, out, err = run(env, sys.executable, "main.py", *arguments[1:], only, f"--workdir={alone}")
    assert status == 0 and "pretrain: resuming from step 2 of 6" in out, err
    assert "note: the checkpoint was written with other machine" in out

    out = []
    with start(env, *LOCAL, 2, "--restarts=3", "--", "main.py", *arguments, place) as child:
        assert child.stdout is not None and child.stderr is not None
        for line in child.stdout:
            out.append(line)
            if line.startswith("distil 2/60"):
                child.send_signal(signal.SIGTERM)
        err = child.stderr.read()
    assert child.returncode == 143, err
    assert "pretrain: resuming from step 2 of 6\n" in out
    saved = [line for line in out if line.startswith("distil: saved at step ")]
    assert len(saved) == 1 and "starting all again" not in err

    status, out, err = run(env, *LOCAL, 2, "--", killer, "during a save", *arguments, place, KILLED="0")
    assert status == 128 + signal.SIGKILL and "process 0 of 2 ended by SIGKILL" in err
    assert saved[0].split("saved at ")[1].split(";")[0] in out  # resuming from step ... of 6

    status, out, err = run(env, *LOCAL, 2, "--", "main.py", *arguments, place)
    assert status == 0, err
    for stage in ("pretrain", "rwsam", "distil"):
        assert summary_of(tmp_path, stage)["params_sha256"] == summary_of(finished[0], stage)["params_sha256"]
        assert metrics_of(tmp_path, stage) == metrics_of(finished[0], stage)
    ours, theirs = (summary_of(place, "experts")["experts"] for place in (tmp_path, finished[0]))
    assert [expert["params_sha256"] for expert in ours] == [expert["params_sha256"] for expert in theirs]
    for file in ("density/weights.npz", "cluster/clusters.npz"):
        assert (tmp_path / file).read_bytes() == (finished[0] / file).read_bytes()


def together(env, arguments, *, places=("", ""), other=(), cwd=(ROOT, ROOT)):
    """Two processes by hand, each in a directory of its own: their statuses and what they say."""
    address = f"127.0.0.1:{20000 + os.getpid() % 20000}"
    children = []
    for process, place in enumerate(places):
        contract = {
            "JAX_COORDINATOR_ADDRESS": address,
            "JAX_NUM_PROCESSES": "2",
            "JAX_PROCESS_ID": str(process),
            "XLA_FLAGS": xla_flags(1),
            "PYTHONPATH": str(ROOT),
        }
        command = [sys.executable, str(ROOT / "main.py"), *arguments, f"--workdir={place}", *(other if process else ())]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        children.append(subprocess.Popen(command, env={**env, **contract}, cwd=cwd[process], **pipes))
    said = [child.communicate(timeout=HANGS)[1] for child in children]
    return [child.returncode for child in children], said


def test_a_directory_that_is_not_shared_is_refused(env, arguments, tmp_path):
    (tmp_path / "a").mkdir(), (tmp_path / "b").mkdir()
    arguments = [argument.replace("=tests/", f"={ROOT}/tests/") for argument in arguments]
    statuses, said = together(env, arguments, places=("run", "run"), cwd=(tmp_path / "a", tmp_path / "b"))
    assert statuses == [2, 2], said
    assert "error: --workdir=run: process 1 (" in said[0] and "does not see what process 0 (" in said[0]
    assert len(said[0].strip().splitlines()) == 1 and said[1].strip() == ""


def test_processes_of_other_configs_are_refused(env, arguments, tmp_path):
    statuses, said = together(env, arguments, places=(tmp_path, tmp_path), other=["--config.base.batch_size=4"])
    assert statuses == [2, 2] and "has other config than process 0" in said[0], said
    assert list(tmp_path.iterdir()) == []


CONTRACT = {"JAX_COORDINATOR_ADDRESS": "127.0.0.1:1", "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "0"}
BAD = {
    "alone": ("off", CONTRACT, "--distributed=off, but JAX_NUM_PROCESSES=2: 2 processes would each do the whole run"),
    "under srun": ("off", {"SLURM_STEP_NUM_TASKS": "4"}, "set --distributed=auto"),
    "no contract": ("env", {}, "JAX_COORDINATOR_ADDRESS and JAX_NUM_PROCESSES and JAX_PROCESS_ID not set"),
    "half of one": ("env", {**CONTRACT, "JAX_PROCESS_ID": ""}, "--distributed=env: JAX_PROCESS_ID not set"),
    "too many": ("env", {**CONTRACT, "JAX_PROCESS_ID": "2"}, "JAX_PROCESS_ID=2 is not one of JAX_NUM_PROCESSES=2"),
    "no port": (
        "env",
        {**CONTRACT, "JAX_COORDINATOR_ADDRESS": "host"},
        "JAX_COORDINATOR_ADDRESS=host is not HOST:PORT",
    ),
    "a mode": ("on", {}, "--distributed=on: it is off, auto, env"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_surroundings_are_one_line(case, arguments, tmp_path, monkeypatch, capsys):
    import main

    mode, environment, says = BAD[case]
    for name in (*CONTRACT, "SLURM_STEP_NUM_TASKS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "cache"))
    more = ["--config.heartbeat=0.5"] if case == "a heartbeat" else []
    place = f"--workdir={tmp_path / 'run'}"
    assert main.main(["main.py", *arguments[1:], f"--distributed={mode}", place, *more]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and says in error and len(error.strip().splitlines()) == 1
    assert not pathlib.Path(tmp_path / "run").exists()
