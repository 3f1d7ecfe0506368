"""The processes of a sweep's cells, several at a time.

The process of a cell holds the lock of the cell's log.txt from its start to its end: the log is its output, and a lock
goes with an open file. So cells that outlive a killed sweep are known to the next one, which waits for them.
"""

import fcntl
import os
import pathlib
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import IO, NamedTuple

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
    """

    cell: Cell
    directory: pathlib.Path
    sources: dict[str, str]
    sha256: str
    command: list[str]


class Child:
    """The `process` of one cell; None while that of a killed sweep is still at it."""

    def __init__(self, planned: Planned):
        self.planned, self.process = planned, None
        planned.directory.mkdir(parents=True, exist_ok=True)
        self._start()
        if self.process is None:
            print(f"{planned.cell}: still running, started by a sweep that was killed; waiting for it", flush=True)

    def _start(self) -> None:
        with open(_log(self.planned), "a") as log:
            if not _lock(log):
                return
            program, *arguments = self.planned.command
            log.write(f"$ {shlex.join(['python', os.path.relpath(program), *arguments])}\n")
            log.flush()
            self.offset, self.began = log.tell(), time.perf_counter()
            # In a session of its own: Ctrl-C in a terminal reaches the sweep alone, which tells every child once.
            self.process = subprocess.Popen(
                [sys.executable, program, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def ended(self) -> bool:
        """Whether its process has ended; starts it once nothing else is at the cell."""
        if self.process is None:
            self._start()
            return False
        return self.process.poll() is not None

    def error(self) -> str:
        """Why it failed: its status and the last line of its output, that of an error if there is one."""
        with open(_log(self.planned), errors="replace") as log:
            log.seek(self.offset)
            lines = [line.strip() for line in log if line.strip()]
        said = [line for line in lines if line.startswith("error: ")] or lines or ["no output"]
        code = self.process.returncode
        status = f"exit status {code}" if code >= 0 else f"killed by {signal.Signals(-code).name}"
        return f"{status}: {said[-1]}"


def run_all(todo: list[Planned], jobs: int, interrupts: Interrupts, done: Callable[[Child], None]) -> None:
    """Runs the cells, `jobs` at a time, and calls `done` after each; a signal stops those that run.

    Cells that a killed sweep left running come first, since they are among the `jobs`; a signal does not reach them.
    The others run in their order; one that needs a stage which another is at waits for it.
    """
    waiting, running, told = sorted(todo, key=lambda each: not _under_way(each)), [], False
    try:
        while running or (waiting and interrupts.pending is None):
            while waiting and len(running) < jobs and interrupts.pending is None:
                running.append(Child(waiting.pop(0)))
            if interrupts.pending is not None and not told:
                told, running = True, _started(running)
                for child in running:
                    child.process.terminate()
            time.sleep(POLL_SECONDS)
            for child in [child for child in running if child.ended()]:
                running.remove(child)
                done(child)
    finally:  # a second signal, or an error here
        for child in _started(running):
            child.process.terminate()
        for child in _started(running):
            child.process.wait()


def _started(children: list[Child]) -> list[Child]:
    return [child for child in children if child.process is not None]


def _log(planned: Planned) -> pathlib.Path:
    return planned.directory / "log.txt"


def _lock(log: IO[str]) -> bool:
    """Takes the lock of an open log; False where the process of a killed sweep has it."""
    try:
        fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _under_way(planned: Planned) -> bool:
    if not _log(planned).exists():
        return False
    with open(_log(planned), "a") as log:
        return not _lock(log)
