"""`launch/slurm.sbatch` with a stand-in for srun and scontrol, as a job that Slurm starts would run it."""

import os
import pathlib
import shutil
import subprocess

import pytest
from helpers.commands import ROOT

SCRIPT = ROOT / "launch" / "slurm.sbatch"

# What they were called with goes into `calls`; srun ends as $SRUN_EXIT says.
SRUN = """#!/bin/sh
echo "srun $* ids=$JAX_LOCAL_DEVICE_IDS cores=$SRUN_CPUS_PER_TASK" >> calls
exit "$SRUN_EXIT"
"""
SCONTROL = """#!/bin/sh
echo "scontrol $*" >> calls
exit "$SCONTROL_EXIT"
"""


@pytest.fixture
def job(tmp_path, monkeypatch):
    """`job(*arguments, **variables of the job)`: the script's process and the calls that it made."""
    if shutil.which("bash") is None:
        pytest.skip("no bash here")
    for name, program in (("srun", SRUN), ("scontrol", SCONTROL)):
        (tmp_path / name).write_text(program)
        (tmp_path / name).chmod(0o755)
    (tmp_path / "main.py").touch()
    monkeypatch.chdir(tmp_path)

    def run(*arguments, **variables):
        pathlib.Path("calls").write_text("")
        mine = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_")}
        env = {**mine, "PATH": f"{tmp_path}:{os.environ['PATH']}", "SRUN_EXIT": "0", "SCONTROL_EXIT": "0", **variables}
        done = subprocess.run(["bash", str(SCRIPT), *arguments], env=env, capture_output=True, text=True)
        return done, pathlib.Path("calls").read_text().splitlines()

    return run


def test_a_dry_run_prints_what_would_run(job):
    done, calls = job("--config=configs/x.py:small", "--dry_run", "--config.finetune.loss=gce(q=0.7)")
    assert (done.returncode, done.stderr, calls) == (0, "", [])
    given = "--config=configs/x.py:small --config.finetune.loss=gce\\(q=0.7\\) "
    srun = "srun --kill-on-bad-exit=0 python main.py"
    assert done.stdout == f"sbatch launch/slurm.sbatch {given}\n{srun} {given}--distributed=off \n"
    done, calls = job("--dry_run", "--config=x.py", SLURM_JOB_ID="7", SLURM_NTASKS="8")
    assert (done.stdout, calls) == (f"{srun} --config=x.py --distributed=auto \n", [])


def test_what_a_job_needs_is_said(job):
    done, calls = job("--config=x.py")
    assert done.returncode == 2 and calls == [] and done.stderr.startswith("error: not in a job of Slurm;")
    os.remove("main.py")
    done, calls = job("--config=x.py", SLURM_JOB_ID="7")
    assert done.returncode == 2 and calls == [] and "submit from the root of the checkout" in done.stderr


def test_tasks_cores_and_gpus(job):
    """Of one task JAX is told nothing; with GPUs of its own a task counts them from 0 on."""
    main = "srun --kill-on-bad-exit=0 python main.py --config=x.py 'a b'".replace("'", "")
    assert job("--config=x.py", "a b", SLURM_JOB_ID="7")[1] == [f"{main} --distributed=off ids= cores="]
    given = {"SLURM_NTASKS": "4", "SLURM_CPUS_PER_TASK": "8", "SLURM_GPUS_PER_TASK": "h100:2"}
    done, calls = job("--config=x.py", "a b", SLURM_JOB_ID="7", SLURM_RESTART_COUNT="2", **given)
    assert calls == [f"{main} --distributed=auto ids=0,1 cores=8"]
    assert done.stdout.startswith("job 7 on ?, 4 tasks, start 3: srun ")


@pytest.mark.parametrize("status", [0, 1, 2, 75, 134, 137, 143])
@pytest.mark.parametrize("tasks", [1, 2])
def test_what_can_go_on_is_queued_again(job, status, tasks):
    """Saved, or a process lost; of several tasks srun returns the status of a killed one, not what the others say."""
    done, calls = job("--config=x.py", SLURM_JOB_ID="7", SLURM_NTASKS=str(tasks), SRUN_EXIT=str(status))
    again = status in (75, 143) or (tasks > 1 and status in (134, 137))
    assert done.returncode == status and done.stderr == ""
    assert calls[1:] == (["scontrol requeue 7"] if again else [])


def test_a_slurm_that_queues_no_job_again_is_told_of(job):
    done, _ = job("--config=x.py", SLURM_JOB_ID="7", SRUN_EXIT="143", SCONTROL_EXIT="1")
    assert done.returncode == 143 and "the same sbatch command goes on" in done.stderr
