"""How long steps take, as this process sees it, and how far it may run ahead of its devices.

A call returns before its steps are done. So the host waits, now and then, until the devices have come to where it was a
while ago: for every call where one takes long, else for every group of calls that take `_GROUP` seconds together, as it
costs tenths of a millisecond.
"""

import collections
import contextlib
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from lt_noisy.training.progress import Stopwatch

_AHEAD = 2  # groups on their way while one runs: what the host does for the next is hidden, and their images fit
_GROUP = 0.05  # seconds


class Paced(NamedTuple):
    """Timings of some calls, in seconds; calls during which the devices were idle or compiling are left out.

    Attributes:
      steps: of each group of calls, seconds a step.
      images: a step, waiting for the batch.
      host: a step, everything else that the host did.
      waited: for images since the last `take`, over all calls, those left out above too.
    """

    steps: np.ndarray
    images: float
    host: float
    waited: float

    def milliseconds(self) -> dict[str, float]:
        """Percentiles of a step; {} without one."""
        if not self.steps.size:
            return {}
        p50, p90, most = 1000 * np.percentile(self.steps, (50, 90, 100))
        return {"p50": round(float(p50), 3), "p90": round(float(p90), 3), "max": round(float(most), 3)}


@jax.jit
def _mark(step: jax.Array) -> jax.Array:
    return step + 1  # an array of its own: the next call takes that of the state


class Pace:
    """Takes the time of calls."""

    def __init__(self, stopwatch: Stopwatch, steps_per_call: int):
        self._stopwatch, self._per_call = stopwatch, steps_per_call
        self._marks: collections.deque[Any] = collections.deque()
        self._size, self._calls, self._images = 1, 0, 0.0  # of a group; so far, of this one
        self._last: tuple[float, float] | None = None  # (time, idle seconds) at the end of the last group
        self._groups: list[tuple[int, float, float, float]] = []  # (calls, seconds, for images, for the devices)
        self._waited = 0.0

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Around what makes the batch."""
        began = time.perf_counter()
        try:
            yield
        finally:
            taken = time.perf_counter() - began
            self._images, self._waited = self._images + taken, self._waited + taken

    def called(self, step: jax.Array | tuple[jax.Array, ...]) -> None:
        """After each call; `step`: of the state that it returns, of several seeds that of each."""
        self._calls += 1
        if self._calls < self._size:
            return
        began = time.perf_counter()
        self._marks.append(jax.tree.map(_mark, step))
        if len(self._marks) > _AHEAD:
            jax.block_until_ready(self._marks.popleft())
        now, idle = time.perf_counter(), self._stopwatch.idle
        if self._last is not None and self._last[1] == idle:
            seconds = now - self._last[0]
            self._groups.append((self._calls, seconds, self._images, now - began))
            # No more than twice as many: the first groups wait for nothing yet.
            self._size = max(min(round(_GROUP * self._calls / max(seconds, 1e-9)), 2 * self._calls), 1)
        self._last, self._calls, self._images = (now, idle), 0, 0.0

    def take(self) -> Paced:
        """The calls since it was last asked."""
        calls, seconds, images, devices = np.array(self._groups).reshape(-1, 4).T
        waited, self._waited, self._groups = self._waited, 0.0, []
        steps = max(calls.sum() * self._per_call, 1)
        host = seconds - images - devices
        return Paced(seconds / (calls * self._per_call), images.sum() / steps, host.sum() / steps, waited)
