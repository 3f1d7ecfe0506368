"""`launch/slurm.sbatch` and `launch/sweep.py --backend=submitit` on a real Slurm of one node.

Skipped where there is none; `tests/slurm/start_node.py` says what to install, and starts it.
"""

import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from helpers.commands import HANGS, ROOT, summary_of
from helpers.sweeps import wait_until

CONFIG = "tests/slurm/slurm_config.py"


@pytest.fixture(scope="session")
def vectors(tmp_path_factory):
    """The override that names them: of three classes, 8 numbers each."""
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("vectors") / "vectors.npz"
    arrays = {}
    for name, number in (("train", 90), ("test", 30)):
        labels = np.arange(number, dtype=np.int32) % 3
        arrays[f"{name}_labels"] = labels
        arrays[f"{name}_features"] = (rng.normal(size=(number, 8)) + labels[:, None]).astype(np.float32)
    np.savez(path, **arrays)
    return f"--config.dataset=features(path='{path}')"


def submit(ask, log, options, *arguments):
    """A job of the script; returns its id."""
    script = ["launch/slurm.sbatch", *arguments]
    return ask("sbatch", "--parsable", f"--output={log}", "--ntasks-per-node=2", *options, *script)


def state_of(ask, job):
    """As `squeue` has it, with how often the job was queued again."""
    return ask("squeue", "--noheader", "--states=all", f"--jobs={job}", "--format=%T").partition("\n")[0]


def params_of(workdir):
    return [summary_of(workdir, stage)["params_sha256"] for stage in ("base", "finetune")]


@pytest.fixture(scope="session")
def uninterrupted(slurm, vectors, tmp_path_factory):
    """The workdir of a run of two tasks that nothing disturbed, and its output."""
    place = tmp_path_factory.mktemp("uninterrupted")
    script = ["launch/slurm.sbatch", f"--config={CONFIG}", vectors, f"--workdir={place / 'run'}"]
    options = ["--wait", f"--output={place / 'log'}", "--ntasks-per-node=2"]
    done = subprocess.run(["sbatch", *options, *script], env=slurm, cwd=ROOT, capture_output=True, text=True)
    log = (place / "log").read_text()
    assert done.returncode == 0, (done, log)
    return place / "run", log


def test_two_tasks_are_one_run(uninterrupted):
    workdir, log = uninterrupted
    assert "devices   2 x cpu" in log and log.count("summary: ") == 1
    assert summary_of(workdir, "finetune")["steps"] == 60


def test_a_job_whose_time_is_up_goes_on_to_the_same_end(slurm, ask, vectors, uninterrupted, tmp_path):
    """Slurm itself tells the tasks, once the job's time ends within what `--signal` says."""
    log, workdir = tmp_path / "log", tmp_path / "run"
    job = submit(ask, log, ["--time=60"], f"--config={CONFIG}:slow", vectors, f"--workdir={workdir}")
    wait_until(lambda: log.exists() and "base 5/60" in log.read_text())
    ask("scontrol", "update", f"JobId={job}", "EndTime=now+2minutes")
    wait_until(lambda: state_of(ask, job) == "PENDING")
    stopped = log.read_text()
    assert "base: saved at step " in stopped and "exit status 143: queued again" in stopped
    ask("scontrol", "update", f"JobId={job}", "TimeLimit=60")  # and no StartTime=now: Slurm has revoked its credential
    wait_until(lambda: state_of(ask, job) in ("COMPLETED", "FAILED", "TIMEOUT"))
    text = log.read_text()
    assert state_of(ask, job) == "COMPLETED", text
    assert text.startswith(stopped) and f"job {job} on " in text and ", 2 tasks, start 2: " in text
    assert "base: resuming from step " in text
    assert params_of(workdir) == params_of(uninterrupted[0])


def test_a_cancelled_job_is_not_queued_again(ask, vectors, tmp_path):
    """Though SIGTERM, which cancelling begins with, has its tasks save and exit 143."""
    log = tmp_path / "log"
    job = submit(ask, log, [], f"--config={CONFIG}:slow", vectors, f"--workdir={tmp_path / 'run'}")
    wait_until(lambda: log.exists() and "base 5/60" in log.read_text())
    ask("scancel", job)
    wait_until(lambda: state_of(ask, job) not in ("RUNNING", "COMPLETING"))
    assert state_of(ask, job) == "CANCELLED" and "queued again" not in log.read_text()


def sweeping(root, *arguments):
    """The command of a sweep of the config."""
    return [sys.executable, "launch/sweep.py", f"--config={CONFIG}", f"--root={root}", *arguments]


def call(slurm, *command):
    done = subprocess.run(command, env=slurm, cwd=ROOT, capture_output=True, text=True, timeout=HANGS)
    assert done.returncode == 0, done
    return done.stdout


def test_a_cell_of_two_processes_whose_time_is_up_goes_on(slurm, ask, vectors, uninterrupted, tmp_path):
    """Told by SIGUSR2, as submitit has Slurm do."""
    options = ["--backend=submitit", "--slurm.time=60", "--slurm.ntasks_per_node=2", "--only=loss=CE", "--only=seed=0"]
    command = sweeping(tmp_path / "sweep", vectors, *options)
    command[2] += ":slow"
    with subprocess.Popen(command, env=slurm, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        wait_until(lambda: any("base 5/60" in p.read_text() for p in tmp_path.rglob("log.txt")))
        name = next((tmp_path / "sweep" / "jobs").glob("lt_noisy-*.json")).stem
        job = ask("squeue", "--noheader", f"--name={name}", "--format=%i")
        ask("scancel", "--signal=USR2", job)
        assert process.stdout is not None
        out = process.stdout.read()
    assert process.returncode == 0 and "[1/1] loss=CE, seed=0: balanced accuracy " in out, out
    cell = next((tmp_path / "sweep" / "cells").iterdir())
    log = (cell / "log.txt").read_text()
    assert (
        log.count("\n$ python main.py ") == 1 and "base: saved at step " in log and "base: resuming from step " in log
    )
    assert "--distributed=auto" in (cell / "log.1.txt").read_text()
    assert params_of(cell) == params_of(uninterrupted[0])


def test_a_cell_that_is_pre_empted_is_saved_and_goes_on(slurm, ask, vectors, tmp_path):
    """By a job of another partition, which gets the node as soon as the cell is saved."""
    options = ["--backend=submitit", "--slurm.time=60", "--slurm.exclusive", "--only=loss=CE", "--only=seed=0"]
    command = sweeping(tmp_path / "sweep", vectors, *options)
    command[2] += ":slow"
    with subprocess.Popen(command, env=slurm, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        wait_until(lambda: any("base 5/60" in p.read_text() for p in tmp_path.rglob("log.txt")))
        ask("sbatch", "--wait", "--partition=urgent", "--exclusive", "--output=/dev/null", "--wrap=true")
        assert process.stdout is not None
        out = process.stdout.read()
    assert process.returncode == 0, out
    log = next(tmp_path.rglob("log.txt")).read_text()
    assert "base: saved at step " in log and "base: resuming from step " in log


def test_a_sweep_of_twelve_cells_is_killed_once_and_finished_by_the_same_command(slurm, ask, vectors, tmp_path):
    """Each cell runs once; the table and the weights are those of the same sweep without Slurm."""
    root = tmp_path / "cluster"
    command = sweeping(root, vectors, "--backend=submitit", "--slurm.time=60", "--slurm.cpus_per_task=1")
    with subprocess.Popen(command, env=slurm, cwd=ROOT, stdout=subprocess.DEVNULL) as killed:
        wait_until(lambda: list(root.glob("cells/*/cell.json")))
        killed.kill()
    jobs = root / "jobs"
    names = [path.stem for path in jobs.glob("lt_noisy-*.json")]
    assert len(names) == 4 and sum(len(json.loads((jobs / f"{n}.json").read_text())["cells"]) for n in names) == 12
    alive = ask("squeue", "--noheader", "--array", f"--name={','.join(names)}", "--format=%i").split()
    assert alive and len(list(root.glob("cells/*/cell.json"))) < 12  # it was killed in between

    out = call(slurm, *command)
    assert "cells are in the queue already, submitted before" in out and out.count("balanced accuracy 1") <= 12
    assert sorted(path.stem for path in jobs.glob("lt_noisy-*.json")) == sorted(names)  # nothing was submitted
    logs = [path.read_text() for path in root.glob("cells/*/log.txt")]
    assert [log.count("$ python main.py ") for log in logs] == [1] * 12
    assert not any("waiting for it" in log for log in logs)  # no cell held a slot for a stage of another
    assert sum("base: finished already, skipped" in log for log in logs) == 9

    call(slurm, *sweeping(tmp_path / "here", vectors, "--jobs=2"))
    tables = [(tmp_path / name / "table.md").read_text() for name in ("cluster", "here")]
    records = [json.loads((tmp_path / name / "record.json").read_text()) for name in ("cluster", "here")]
    assert tables[0] == tables[1] and len(tables[0].splitlines()) == 2 + 4
    of_cells = [[cell["params_sha256"] for cell in record["cells"]] for record in records]
    assert of_cells[0] == of_cells[1] and None not in of_cells[0]


def test_a_cell_that_slurm_ends_fails_alone(slurm, ask, vectors, tmp_path):
    """One that is cancelled; the same command then runs it."""
    root = tmp_path / "sweep"
    command = sweeping(root, vectors, "--backend=submitit", "--slurm.time=60", "--only=loss=CE", "--only=seed=0")
    with subprocess.Popen(command, env=slurm, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        wait_until(lambda: list(root.glob("cells/*/log.txt")))
        name = next((root / "jobs").glob("lt_noisy-*.json")).stem
        job = ask("squeue", "--noheader", f"--name={name}", "--format=%i")
        ask("scancel", job)
        assert process.stdout is not None
        out = process.stdout.read()
    assert process.returncode == 1 and f"failed: loss=CE, seed=0: job {job}: CANCELLED: " in out, out
    assert "1 cells, 0 finished already" in call(slurm, *command)


def test_what_slurm_does_not_take_is_one_line(slurm, vectors, tmp_path):
    options = ["--backend=submitit", "--slurm.time=60", "--slurm.partition=absent"]
    command = sweeping(tmp_path / "sweep", vectors, *options)
    done = subprocess.run(command, env=slurm, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert "invalid partition" in done.stderr
    assert not list(pathlib.Path(tmp_path).rglob("log.txt"))
