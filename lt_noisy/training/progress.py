"""Training time, images per second and the progress line."""

import contextlib
import time
from collections.abc import Iterator, Mapping

import jax
import numpy as np

from lt_noisy.errors import say
from lt_noisy.progress import remaining


class Stopwatch:
    """Training time without evaluation, saving and the first call (which compiles)."""

    def __init__(self, name: str, spent: float):
        self.name, self.spent = name, spent
        self.made = time.perf_counter()
        self.steps, self.images, self.started, self.idle = 0, 0, None, 0.0
        self.counting = True  # whether the next call does
        self.last_line = (self.made, 0, 0, 0.0)  # (time, steps, images, idle) at the last line, or at the first step

    def called(self, step: jax.Array, steps: int, images: int) -> None:
        """Counts the steps and images of a call; the first, which compiles, only starts the watch."""
        if self.started is None:
            jax.block_until_ready(step)
            self.started = time.perf_counter()
            say(f"{self.name}: first step done, compiled in {self.started - self.made:.1f} s")
            self.idle = 0.0  # what was before, such as the start of a profiler, is not measured
            self.last_line = (self.started, 0, 0, 0.0)
        elif self.counting:
            self.steps, self.images = self.steps + steps, self.images + images
        self.counting = True

    @contextlib.contextmanager
    def paused(self, step: jax.Array) -> Iterator[None]:
        """Keeps a block out of the training time, once the steps already dispatched are done."""
        jax.block_until_ready(step)
        began = time.perf_counter()
        try:
            yield
        finally:
            self.idle += time.perf_counter() - began

    @contextlib.contextmanager
    def uncounted(self, step: jax.Array) -> Iterator[None]:
        """The same for a call that compiles, whose steps do not count either."""
        with self.paused(step):
            yield
        self.counting = False

    def running(self) -> float:
        """Seconds of training since this start."""
        return time.perf_counter() - self.started - self.idle if self.started is not None else 0.0

    def seconds(self) -> float:
        """Seconds of training over all restarts."""
        return round(self.spent + self.running(), 3)

    def rate(self) -> float:
        """Images per second since this start, of all processes; 0 before the second call."""
        return round(self.images / self.running(), 1) if self.steps else 0.0

    def line(self, step: int, total: int, values: Mapping[str, float]) -> str:
        """The progress line after `step`, of the mean over seeds; the speed is that since the last line."""
        now = time.perf_counter()
        then, steps, images, idle = self.last_line
        taken, done, seen = (now - then) - (self.idle - idle), self.steps - steps, self.images - images
        self.last_line = (now, self.steps, self.images, self.idle)
        ordered = sorted(values, key=lambda name: (name != "loss", name))
        shown = "  ".join(f"{name} {np.mean(values[name]):.4g}" for name in ordered if name != "grad_norm")
        line = f"{self.name} {step}/{total} ({100 * step // total}%)  {shown}"
        if not done:  # the first call alone, which compiled
            return line
        return f"{line}  {seen / max(taken, 1e-9):.0f} images/s  {remaining(taken / done * (total - step))}"
