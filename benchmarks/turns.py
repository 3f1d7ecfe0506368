"""Processes that measure in turns: each waits for a line, computes, answers, and is quiet while another computes."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

STEPS = 3  # of a turn


def timed(once: Callable[[], Any], wait: Callable[[Any], Any], steps: int = STEPS) -> Callable[[], float]:
    """A function that gives the seconds of a step, over so many; `wait(once())` is a whole one, and compiles here."""
    for _ in range(2):  # compiles, warms
        wait(once())

    def seconds() -> float:
        began, out = time.perf_counter(), None
        for _ in range(steps):
            out = once()
        wait(out)
        return (time.perf_counter() - began) / steps

    return seconds


def serve(seconds: Callable[[], float]) -> None:
    """The body of a `Side`: measures for each line of its input."""
    print("ready", flush=True)
    for _ in sys.stdin:
        print(seconds(), flush=True)


class Side:
    """Such a process.

    Raises:
      RuntimeError: it ended by itself.
    """

    def __init__(self, command: list[str], environment: Mapping[str, str] | None = None):
        """`environment`: what it has beside this process's own."""
        self.command = command
        env = {**os.environ, **(environment or {})}
        self.process = subprocess.Popen(command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._line()

    def _line(self) -> str:
        line = self.process.stdout.readline() if self.process.stdout else ""
        if not line:
            self.process.communicate()
            raise RuntimeError(f"{' '.join(self.command)} ended with {self.process.returncode}")
        return line

    def seconds(self) -> float:
        """Of one step, measured now."""
        if self.process.stdin:
            self.process.stdin.write("\n")
            self.process.stdin.flush()
        return float(self._line())

    def close(self) -> None:
        """Ends it."""
        self.process.terminate()
        self.process.communicate()
