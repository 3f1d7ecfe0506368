"""What runs in a job of a cluster: the process of one cell, or its share of it, under submitit's worker.

Nothing here imports submitit before a job runs. Its worker hears SIGUSR2 when the time is nearly up; `checkpoint` then
has main.py save, and submitit queues the job again, which goes on from there. SIGTERM, which Slurm sends before it
pre-empts a job and when it cancels one, submitit lets pass: here it has main.py save, too.
"""

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import time
from typing import Any

from lt_noisy.files import write_json
from lt_noisy.processes import LOST
from lt_noisy.runs.sweeps.processes import POLL_SECONDS, Child, Planned

STOPPED = (143, -signal.SIGTERM)  # after a save; before main.py hears signals
KILLED = (-signal.SIGKILL, -signal.SIGABRT)
PATIENCE_SECONDS = 300.0  # longer than Slurm takes to kill a job that it has cancelled
SPREAD_SECONDS = 1.0  # in which a signal to all processes of a job reaches the last


class CellJob:
    """A cell as a callable that submitit runs, in each of the job's tasks; one with `checkpoint` is queued again.

    Args:
      planned: the cell.
    """

    def __init__(self, planned: Planned):
        self.planned = planned
        self._child: Child | None = None
        self._canary: subprocess.Popen[bytes] | None = None
        self._told = False

    def __call__(self) -> str:
        """Returns why the cell failed, or the empty string; leaves its mark or `failed.json` in its directory."""
        import submitit

        job = submitit.JobEnvironment()
        several, rank = job.num_tasks > 1, job.global_rank
        if rank == 0:
            _failure(self.planned).unlink(missing_ok=True)
        self._canary = subprocess.Popen(["sleep", "1000000000"])
        signal.signal(signal.SIGTERM, self._pass_on)
        more = ["--distributed=auto"] if several else []
        try:
            self._child = child = Child(self.planned, more, f"log.{rank}.txt" if rank else "log.txt")
            while (status := child.poll()) is None:
                time.sleep(POLL_SECONDS)
            lost = several and status in (LOST, *KILLED)
            if lost or status in STOPPED:
                if not lost and not _running(job):
                    time.sleep(PATIENCE_SECONDS)  # cancelled: it is killed now
                _queue_again(job)
                time.sleep(PATIENCE_SECONDS)  # another task than the first: that one speaks for all
            if rank:
                return ""
        finally:
            self._canary.kill()
            self._canary.wait()
        seconds, error = child.ended(status)
        if error:
            write_json(_failure(self.planned), {"job": job.job_id, "error": error, "process_seconds": seconds})
        return error

    def checkpoint(self) -> Any:
        """What submitit's handler calls before it queues the job again: returns once the process has saved and left."""
        import submitit

        self._stop()
        if self._child is not None and self._child.process is not None:
            # Not `wait`: this may have come in the middle of `poll`, which holds the lock that it takes.
            with contextlib.suppress(ChildProcessError):  # `poll` had its status
                os.waitid(os.P_PID, self._child.process.pid, os.WEXITED | os.WNOWAIT)
        return submitit.helpers.DelayedSubmission(CellJob(self.planned))

    def _pass_on(self, number: int, frame: object) -> None:
        time.sleep(SPREAD_SECONDS)
        self._stop()

    def _stop(self) -> None:
        """Has the process save, by SIGTERM, unless it has had that: by a second one it would leave at once.

        By how Slurm follows the processes of a job it tells the tasks alone, such as this worker, or all. The canary,
        which does nothing, shows which.
        """
        if not self._told and self._child is not None and self._child.process is not None:
            self._told = True
            if self._canary is None or self._canary.poll() != -signal.SIGTERM:
                self._child.process.terminate()


def _queue_again(job: Any) -> None:
    """What submitit does when the time is up: does not return in the first task, and does nothing in others."""
    os.kill(os.getpid(), getattr(signal, f"SIG{job.USR_SIG}"))


def _running(job: Any) -> bool:
    """Whether Slurm says so of this job; it does not of one that it has cancelled."""
    if job.cluster != "slurm":
        return False
    command = ["squeue", "--noheader", f"--jobs={job.raw_job_id}", "--format=%T"]
    with contextlib.suppress(OSError):
        return subprocess.run(command, capture_output=True, text=True).stdout.strip() == "RUNNING"
    return False


def failure(planned: Planned, job: str) -> tuple[float, str] | None:
    """The seconds and the error of a cell that this job ran and that failed; None if it did not."""
    try:
        found = json.loads(_failure(planned).read_text())
        return (found["process_seconds"], found["error"]) if found["job"] == job else None
    except (OSError, ValueError, KeyError):
        return None


def _failure(planned: Planned) -> pathlib.Path:
    return planned.directory / "failed.json"
