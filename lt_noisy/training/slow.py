"""Which process of several holds up the others.

All take the same steps in the same time: who is late lets the others wait in the next collective. So what is compared
is what a process does for itself: how long it waits for its images, what else it does between two calls, and how long
its slowest device takes for one small program that no other has a part in.
"""

import functools
import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lt_noisy.training.parallel import Device

MEASURES = ("a step waiting for images", "a step between two calls", "for a small program of its own")
_RATIO = 1.5  # of the median of the others
_SHARE = 0.1  # of a step: less is nobody's trouble


class Slow(NamedTuple):
    """A process whose figure is well above those of the others.

    Attributes:
      process: its index.
      measure: the index of one of `MEASURES`.
      seconds: its figure.
      others: their median.
    """

    process: int
    measure: int
    seconds: float
    others: float

    def line(self, name: str) -> str:
        """What is printed of it; `name`: of the process."""
        ours, theirs = (f"{1000 * s:.3g} ms" for s in (self.seconds, self.others))
        return f"note: {name} is slow: {ours} {MEASURES[self.measure]}, the median of the others is {theirs}"


def slowest(figures: np.ndarray, step: float) -> Slow | None:
    """The process that is furthest above the others, if one is well above them.

    Args:
      figures: seconds [P, 3] of each process, by `MEASURES`; the first two for a step.
      step: seconds of a step.

    Returns:
      None where no figure is 1.5 times the median of the others and, of the first two, a tenth of a step above it.
    """
    found: list[tuple[float, Slow]] = []
    for measure, column in enumerate(figures.T if len(figures) > 1 else ()):
        process = int(column.argmax())
        others = float(np.median(np.delete(column, process)))
        excess = float(column[process]) - others
        least = 0.0 if measure == len(MEASURES) - 1 else _SHARE * step
        if excess > max((_RATIO - 1) * others, least):
            found.append((excess / max(others, least, 1e-9), Slow(process, measure, float(column[process]), others)))
    return max(found, key=lambda candidate: candidate[0])[1] if found else None


class Comparing:
    """Says now and then which process is slow: once it was so in two comparisons in a row.

    Args:
      pause: comparisons after one that was told of in which nothing is.
    """

    def __init__(self, pause: int = 10):
        self._pause, self._quiet = pause, 0
        self._before: tuple[int, int] | None = None

    def hear(self, figures: np.ndarray, step: float) -> Slow | None:
        """What is to be told of a comparison (see `slowest`)."""
        found = slowest(figures, step)
        before, self._before = self._before, found and (found.process, found.measure)
        self._quiet -= 1
        if found is None or self._before != before or self._quiet >= 0:
            return None
        self._quiet = self._pause
        return found


def own_figures(images: float, host: float) -> np.ndarray:
    """Seconds [3] of this process; its devices have to be idle."""
    return np.array([images, host, max(map(_multiplying, jax.local_devices()))])


@functools.cache
def _product(device: Device) -> tuple[Callable[[jax.Array], jax.Array], jax.Array]:
    """A program of about a millisecond, and what it takes."""
    size, dtype = (256, np.float32) if device.platform == "cpu" else (2048, jnp.bfloat16)
    matrix = jax.device_put(np.ones((size, size), dtype), device)

    def multiply(x: jax.Array) -> jax.Array:
        return jax.lax.fori_loop(0, 8, lambda _, y: (y @ x) / size, x)

    return jax.jit(multiply), matrix


def _multiplying(device: Device) -> float:
    """Seconds of `device` for the small program: the median of a few times."""
    program, matrix = _product(device)
    jax.block_until_ready(program(matrix))
    seconds = []
    for _ in range(5):
        began = time.perf_counter()
        jax.block_until_ready(program(matrix))
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)
