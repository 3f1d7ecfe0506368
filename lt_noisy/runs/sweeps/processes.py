"""The processes of a sweep's cells, several at a time.

The process of a cell holds the lock of the cell's log.txt from its start to its end: the log is its output, and a lock
goes with an open file. So cells that outlive a killed sweep are known to the next one, which waits for them. Who runs
the process marks the cell by `cell.json` once it has ended well.
"""

import json
import os
import pathlib
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from lt_noisy.errors import say
from lt_noisy.files import take_lock, write_json
from lt_noisy.runs.sweeps.cells import Cell
from lt_noisy.training.interrupt import Interrupts

POLL_SECONDS = 0.1


class Planned(NamedTuple):
    """A cell that is known to bind.

    Attributes:
      cell: its labels and overrides.
      directory: its workdir.
      sources: of its stages, `workdir.planned_sources`.
      sha256: of its config and its sources.
      command: main.py and its arguments.
      stages: what its stages share with those of other cells, `order.stage_keys`.
    """

    cell: Cell
    directory: pathlib.Path
    sources: dict[str, str]
    sha256: str
    command: list[str]
    stages: frozenset[str]

    def shown(self, more: Sequence[str] = ()) -> str:
        """The command, with `more` arguments, as a line for a shell in the directory that the sweep was started in."""
        program, *arguments = self.command
        return shlex.join(["python", os.path.relpath(program), *arguments, *more])


Done = Callable[[Planned, float | None, str], None]  # a cell that ended, its process's seconds, why it failed or ""


class Child:
    """The `process` of one cell; None while that of a killed sweep is still at it.

    Args:
      planned: the cell.
      more: arguments of main.py beside those that are planned.
      log: the file, in the cell's directory, that takes its output.
    """

    def __init__(self, planned: Planned, more: Sequence[str] = (), log: str = "log.txt"):
        self.planned, self._more, self._log = planned, more, planned.directory / log
        self.process: subprocess.Popen[bytes] | None = None
        planned.directory.mkdir(parents=True, exist_ok=True)
        self._start()
        if self.process is None:
            say(f"{planned.cell}: still running, started by a sweep that was killed; waiting for it")

    def _start(self) -> None:
        with open(self._log, "a", encoding="utf-8", errors="surrogateescape") as log:
            if not take_lock(log, self._log):
                return
            log.write(f"$ {self.planned.shown(self._more)}\n")
            log.flush()
            self.offset, self.began = log.tell(), time.perf_counter()
            # In a session of its own: Ctrl-C in a terminal reaches the sweep alone, which tells every child once.
            # A child inherits what is blocked: Slurm may send all processes of a job what it has to say to submitit.
            blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1, signal.SIGUSR2})
            try:
                self.process = subprocess.Popen(
                    [sys.executable, *self.planned.command, *self._more],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, blocked)

    def poll(self) -> int | None:
        """The exit status of its process, None until that has ended; starts it once nothing else is at the cell."""
        if self.process is None:
            self._start()
            return None
        return self.process.poll()

    def ended(self, status: int) -> tuple[float, str]:
        """The seconds of a process that ended with this status, and why it failed; marks the cell if it did not."""
        seconds = round(time.perf_counter() - self.began, 3)
        if status == 0:
            write_json(_mark(self.planned), {"sha256": self.planned.sha256, "process_seconds": seconds})
        return seconds, self._error(status) if status else ""

    def _error(self, status: int) -> str:
        """Its exit status and the last line of its output, that of an error if there is one."""
        with open(self._log, encoding="utf-8", errors="replace") as log:
            log.seek(self.offset)
            lines = [line.strip() for line in log if line.strip()]
        errors = [line for line in lines if line.startswith("error: ")]
        end = f"exit status {status}" if status >= 0 else f"killed by {signal.Signals(-status).name}"
        return f"{end}: {(errors or lines or ['no output'])[-1]}"


def read_mark(planned: Planned) -> float | None:
    """The seconds of the process that ended a cell well; None without one, which a sweep of its own did not start."""
    try:
        mark = json.loads(_mark(planned).read_text())
    except (OSError, ValueError):
        return None
    return mark["process_seconds"] if mark.get("sha256") == planned.sha256 else None


def remove_mark(planned: Planned) -> None:
    """Before a cell runs again that ended well and ran other sources than were planned."""
    _mark(planned).unlink(missing_ok=True)


def _mark(planned: Planned) -> pathlib.Path:
    return planned.directory / "cell.json"


def run_all(todo: list[Planned], jobs: int, interrupts: Interrupts, done: Done) -> None:
    """Runs the cells, `jobs` at a time; calls `done` with each that ends; a signal stops those that run.

    Cells that a killed sweep left running come first, since they are among the `jobs`; a signal does not reach them.
    The others run in their order; one that needs a stage which another is at waits for it.
    """
    waiting = sorted(todo, key=lambda planned: not _under_way(planned))
    running: list[Child] = []
    stopping = False

    def stop() -> None:
        for process in _terminate(running):
            process.wait()

    interrupts.before_leaving = stop  # a second signal: children that are saving leave at once, too
    try:
        while running or (waiting and interrupts.pending is None):
            while waiting and len(running) < jobs and interrupts.pending is None:
                running.append(Child(waiting.pop(0)))
            if interrupts.pending is not None and not stopping:
                stopping, running = True, [child for child in running if child.process is not None]
                _terminate(running)
            time.sleep(POLL_SECONDS)
            ended = [(child, status) for child in running if (status := child.poll()) is not None]
            for child, status in ended:
                running.remove(child)
                done(child.planned, *child.ended(status))
    finally:  # an error here
        stop()


def _terminate(children: list[Child]) -> list[subprocess.Popen[bytes]]:
    """Terminates the children's processes, those that there are; returns them."""
    processes = [child.process for child in children if child.process is not None]
    for process in processes:
        process.terminate()
    return processes


def _under_way(planned: Planned) -> bool:
    """Whether the process of a sweep that was killed is at the cell: it has the lock of its log."""
    path = planned.directory / "log.txt"
    if not path.exists():
        return False
    with open(path, "a") as log:
        return not take_lock(log, path)
