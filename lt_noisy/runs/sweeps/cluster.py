"""Cells as jobs of Slurm, by submitit: submitted as arrays, known again in the queue, waited for.

What is submitted is written down in `ROOT/jobs/NAME.json` first, and NAME is what Slurm calls those jobs. So whenever a
sweep is killed, the next one finds in the queue what is there already. Whether a job lives is asked of `squeue`, which
needs no accounting, and how its cell ended is in the cell's directory.
"""

import contextlib
import io
import json
import os
import pathlib
import shlex
import shutil
import subprocess
import time
import uuid
from collections.abc import Mapping
from typing import Any, NamedTuple

from lt_noisy.errors import UserError, say
from lt_noisy.files import write_json
from lt_noisy.revision import PACKAGE
from lt_noisy.runs.sweeps.job import CellJob, failure
from lt_noisy.runs.sweeps.order import groups
from lt_noisy.runs.sweeps.processes import Done, Planned, read_mark, remove_mark
from lt_noisy.training.interrupt import Interrupts

CLUSTERS = ("slurm", "local")
OURS = ("job_name", "array", "array_parallelism", "output", "error", "dependency", "signal", "open_mode", "requeue")
INSTEAD = {"ntasks": "nodes and ntasks_per_node", "gpus_per_task": "gpus_per_node", "gpus": "gpus_per_node"}
OF_SUBMITIT = ("time", "nodes", "ntasks_per_node", "signal_delay_s", "setup")  # sbatch alone reads the other options
RESTARTS = 1000  # after time-outs: main.py itself gives up where it makes no progress
ENDED = {"BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED"}
ENDED |= {"REVOKED", "TIMEOUT"}
LOG_LEVEL = "SUBMITIT_LOG_LEVEL"
UNSEEN_SECONDS = 20.0  # until what another machine wrote is seen here


class Settings(NamedTuple):
    """How cells are submitted.

    Attributes:
      cluster: one of `CLUSTERS`; `local` is submitit's stand-in, which starts all jobs here, and at once.
      jobs: jobs of an array that run at the same time; None for as many as Slurm lets.
      slurm: options of sbatch by their long names, with `_` for `-`, and of submitit, with `time` in minutes.
    """

    cluster: str
    jobs: int | None
    slurm: Mapping[str, str | int]

    @property
    def tasks(self) -> int:
        """Processes of a cell."""
        return int(self.slurm.get("nodes", 1)) * int(self.slurm.get("ntasks_per_node", 1))


class Queued(NamedTuple):
    """A job as the queue has it: its submission and its place there, its id and its state."""

    name: str
    place: int
    job: str
    state: str


def check(settings: Settings) -> None:
    """Refuses settings that no job could have, before anything is submitted.

    Raises:
      UserError: what is wrong, or missing on this machine.
    """
    _submitit()
    slurm = settings.slurm
    if settings.cluster not in CLUSTERS:
        raise UserError(f"--cluster={settings.cluster}: it is {' or '.join(CLUSTERS)}")
    if settings.cluster == "slurm" and shutil.which("sbatch") is None:
        raise UserError("--backend=submitit: there is no Slurm here (no sbatch); --backend=local runs the cells here")
    for name in slurm:
        if name in OURS:
            raise UserError(f"--slurm.{name}: that is for the sweep to set")
        if name in INSTEAD:
            raise UserError(f"--slurm.{name}: give --slurm.{INSTEAD[name].replace(' and ', ' and --slurm.')}")
    for name in ("time", "nodes", "ntasks_per_node", "signal_delay_s"):
        if name in slurm and not (type(slurm[name]) is int and int(slurm[name]) > 0):
            raise UserError(f"--slurm.{name}={slurm[name]}: a number from 1 on{', of minutes' * (name == 'time')}")
    if "time" not in slurm:
        raise UserError("--slurm.time=MINUTES is needed: after that a cell is saved, and goes on in the queue")
    gpus = slurm.get("gpus_per_node")  # 4, or h100:4
    number = None if gpus is None else str(gpus).rpartition(":")[2]
    if settings.tasks > 1 and number not in (None, str(slurm.get("ntasks_per_node", 1))):
        raise UserError(
            f"--slurm.gpus_per_node={gpus}: one process has one GPU; give as many as --slurm.ntasks_per_node"
        )
    if settings.tasks > 1 and settings.cluster == "local":
        raise UserError("--cluster=local: a cell is one process there")


def _submitit() -> Any:
    """The package, kept from what its import does: it sets up all of `logging` anew, and closes what others opened."""
    level = os.environ.get(LOG_LEVEL)
    os.environ[LOG_LEVEL] = "NOCONFIG"
    try:
        import submitit
    except ImportError:
        raise UserError("--backend=submitit needs submitit: pip install 'lt_noisy[slurm]'") from None
    finally:  # the jobs inherit it
        del os.environ[LOG_LEVEL]
        if level is not None:
            os.environ[LOG_LEVEL] = level
    return submitit


def refuse_queued(todo: list[Planned], root: pathlib.Path) -> None:
    """Refuses to run cells that are in the queue; where there is no Slurm, nobody can tell.

    Raises:
      UserError: there are such cells, or Slurm does not answer.
    """
    if shutil.which("squeue") is not None and (queued := _jobs(todo, _queue(root / "jobs"), root / "jobs")):
        raise UserError(
            f"--root={root}: {len(queued)} of its cells are in Slurm's queue; --backend=submitit waits for them, "
            f"scancel {' '.join(sorted({job.partition('_')[0] for job in queued.values()}))} removes them"
        )


def run_jobs(todo: list[Planned], root: pathlib.Path, settings: Settings, interrupts: Interrupts, done: Done) -> None:
    """Submits the cells that are not in the queue; calls `done` with each that ends. A signal ends the waiting alone.

    Cells that share a stage with one before wait in the queue until that has ended; on `local`, at its lock.

    Raises:
      UserError: Slurm takes no such job, or does not answer.
    """
    folder = root.absolute() / "jobs"
    folder.mkdir(parents=True, exist_ok=True)
    here: list[Any] = []  # submitit's own jobs
    jobs: dict[str, str] = {}
    if settings.cluster == "slurm" and (jobs := _jobs(todo, _queue(folder), folder)):
        say(f"{len(jobs)} cells are in the queue already, submitted before; waiting for them")
    for leaders, cells in groups(todo):
        new = [cell for cell in cells if cell.sha256 not in jobs]
        if new and interrupts.pending is None:
            for cell in new:
                remove_mark(cell)
            submitted = _submit(new, folder, settings, [jobs[leader.sha256] for leader in leaders])
            jobs |= {cell.sha256: job.job_id for cell, job in zip(new, submitted, strict=True)}
            here += submitted
    gone: dict[str, float] = {}  # since when, of cells whose end is not seen yet
    began, waiting = time.monotonic(), list(todo)
    while waiting and interrupts.pending is None:
        _rest(min(max((time.monotonic() - began) / 20, 0.5), 15.0), interrupts)
        try:
            states = _local(here) if settings.cluster == "local" else {q.job: q.state for q in _queue(folder)}
        except UserError:  # the controller restarts, or has too much to do
            continue
        for cell in list(waiting):
            ended = _end(cell, jobs[cell.sha256], states, gone, folder)
            if ended is not None:
                waiting.remove(cell)
                done(cell, *ended)
    for job in here if settings.cluster == "local" and not waiting else ():
        job.wait()  # for what it has to do after its cell
    left = [cell for cell in waiting if cell.sha256 in jobs]
    if left and settings.cluster == "slurm":
        say(f"{len(left)} cells stay in the queue; the same command waits for them")


def _rest(seconds: float, interrupts: Interrupts) -> None:
    end = time.monotonic() + seconds
    while interrupts.pending is None and time.monotonic() < end:
        time.sleep(0.2)


def _end(
    cell: Planned, job: str, states: Mapping[str, str], gone: dict[str, float], folder: pathlib.Path
) -> tuple[float | None, str] | None:
    """The seconds of a cell that has ended and why it failed; None while it has not, or while that is not seen yet."""
    seconds = read_mark(cell)
    if seconds is not None:
        return seconds, ""
    state = states.get(job, "gone from the queue")
    if job in states and state not in ENDED:
        gone.pop(cell.sha256, None)
        return None
    failed = failure(cell, job)
    if failed is not None or time.monotonic() < gone.setdefault(cell.sha256, time.monotonic()) + UNSEEN_SECONDS:
        return failed
    try:
        lines = (folder / f"{job}_0_log.err").read_text(errors="replace").split("\n")
    except OSError:
        lines = []
    said = [line.strip() for line in lines if line.strip()]
    return None, f"job {job}: {state}: {(said or ['no output'])[-1]}"


def _submit(cells: list[Planned], folder: pathlib.Path, settings: Settings, leaders: list[str]) -> list[Any]:
    """Submits the cells as one array, to start when the jobs `leaders` have ended; returns submitit's jobs."""
    name = f"lt_noisy-{uuid.uuid4().hex[:8]}"
    if settings.cluster == "slurm":
        write_json(folder / f"{name}.json", {"cells": [cell.sha256 for cell in cells]})
    executor = _submitit().AutoExecutor(
        folder, cluster=settings.cluster, slurm_max_num_timeout=RESTARTS, local_max_num_timeout=RESTARTS
    )
    # What unpickles a cell may have been started anywhere, and the package need not be installed.
    setup = [f"export PYTHONPATH={shlex.quote(str(PACKAGE.parent))}${{PYTHONPATH:+:$PYTHONPATH}}"]
    options = {key: value for key, value in settings.slurm.items() if key not in OF_SUBMITIT}
    setup += [str(settings.slurm["setup"])] if "setup" in settings.slurm else []
    if settings.cluster == "local":
        executor.update_parameters(timeout_min=settings.slurm["time"], local_setup=setup)
    else:
        options |= {"requeue": True}
        options |= {"dependency": f"afterany:{':'.join(leaders)}"} if leaders else {}
        # srun: those that are left say which process was lost; the cores of a task, which it does not take by itself.
        cores = [f"--cpus-per-task={options['cpus_per_task']}"] if "cpus_per_task" in options else []
        given = {"signal_delay_s": 120, **{key: settings.slurm[key] for key in OF_SUBMITIT if key in settings.slurm}}
        executor.update_parameters(
            slurm_job_name=name,
            slurm_array_parallelism=settings.jobs or len(cells),
            slurm_additional_parameters=options,
            slurm_srun_args=["--kill-on-bad-exit=0", *cores],
            **{f"slurm_{key}": value for key, value in given.items() if key != "setup"},
            slurm_setup=setup,
        )
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # submitit prints what the error says
            return executor.submit_array([CellJob(cell) for cell in cells])
    except (RuntimeError, OSError, subprocess.SubprocessError) as error:  # what sbatch says is in submitit's own
        raise UserError(f"--backend=submitit: {' '.join(str(error).split())}") from None


def _queue(folder: pathlib.Path) -> list[Queued]:
    """The jobs that were ever submitted here and that Slurm still knows of.

    Raises:
      UserError: Slurm does not answer.
    """
    names = [path.stem for path in folder.glob("*.json")]
    if not names:
        return []
    command = ["squeue", "--noheader", "--array", "--states=all", f"--name={','.join(names)}", "--format=%j|%K|%i|%T"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise UserError(f"squeue: {' '.join(done.stderr.split()) or f'exit status {done.returncode}'}")
    fields = [line.strip().split("|") for line in done.stdout.splitlines()]
    return [Queued(name, int(place) if place.isdigit() else 0, job, state) for name, place, job, state in fields]


def _jobs(todo: list[Planned], queue: list[Queued], folder: pathlib.Path) -> dict[str, str]:
    """{sha256: job} of the cells whose job waits or runs."""
    cells = {path.stem: json.loads(path.read_text())["cells"] for path in folder.glob("*.json")}
    alive = {cells[entry.name][entry.place]: entry.job for entry in queue if entry.state not in ENDED}
    return {cell.sha256: alive[cell.sha256] for cell in todo if cell.sha256 in alive}


def _local(jobs: list[Any]) -> dict[str, str]:
    return {job.job_id: "RUNNING" for job in jobs if not job.done()}
