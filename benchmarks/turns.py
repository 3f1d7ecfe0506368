"""What a process does that measures in turns: it waits for a line, computes, answers, and is quiet meanwhile.

Without lt_noisy, so that an interpreter serves that has only PyTorch.
"""

import sys
import time
from collections.abc import Callable
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
    """The body of a `sides.Side`: measures for each line of its input."""
    print("ready", flush=True)
    for _ in sys.stdin:
        print(seconds(), flush=True)
