"""Processes that measure in turns: each waits for a line, computes, answers, and is quiet while another computes."""

import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

STEPS = 3  # of a turn


def serve(once: Callable[[], Any], wait: Callable[[Any], Any]) -> None:
    """The body of a `Side`: for each line of its input the seconds of a step; `wait(once())` is one whole step."""
    for _ in range(2):  # compiles, warms
        wait(once())
    print("ready", flush=True)
    for _ in sys.stdin:
        began, out = time.perf_counter(), None
        for _ in range(STEPS):
            out = once()
        wait(out)
        print((time.perf_counter() - began) / STEPS, flush=True)


class Side:
    """Such a process.

    Raises:
      RuntimeError: it ended by itself.
    """

    def __init__(self, command: list[str]):
        self.command = command
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
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
