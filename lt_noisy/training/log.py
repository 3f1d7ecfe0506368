"""What the loop says of its steps: a line of the metrics file and a progress line, once the next call is on its way."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from lt_noisy.errors import say
from lt_noisy.training import parallel
from lt_noisy.training.progress import Stopwatch
from lt_noisy.training.writer import Writer, means, refuse_nonfinite

PyTree = Any


class Log:
    """The metrics file and the progress lines of one stage.

    Totals are held until `flush`, which the loop calls after it has sent off the next call: to fetch them at once
    would let the devices wait for the host.

    Args:
      name: the stage, for messages.
      total: its steps.
    """

    def __init__(
        self, name: str, total: int, devices: parallel.Jit | parallel.Pmap, writer: Writer, stopwatch: Stopwatch
    ):
        self._name, self._total, self._devices = name, total, devices
        self._writer, self._stopwatch = writer, stopwatch
        self._held: tuple[int, int, PyTree, Mapping[str, float]] | None = None

    def add(self, first: int, last: int, totals: PyTree, evaluated: Mapping[str, float]) -> None:
        """Holds the totals of steps `first..last` (on the devices), and the figures of an evaluation after `last`.

        They are {} where there was none.
        """
        self._held = first, last, totals, evaluated

    def add_evaluation(self, step: int, evaluated: Mapping[str, float]) -> None:
        """Writes an evaluation that falls between two lines: to the metrics file alone, and at once."""
        self._writer.write(step, {**evaluated, "seconds": self._stopwatch.seconds()})

    def flush(self) -> None:
        """Writes and prints what is held, if anything.

        Raises:
          UserError: a step of it had a loss or gradient that is not finite.
        """
        if self._held is None:
            return
        (first, last, totals, evaluated), self._held = self._held, None
        sums = self.finite(first, last, totals)
        values = {**_figures(sums), **evaluated}
        self._writer.write(last, {**values, "seconds": self._stopwatch.seconds()})
        say(self._stopwatch.line(last, self._total, values))

    def finite(self, first: int, last: int, totals: PyTree) -> PyTree:
        """The totals of steps `first..last` on the host.

        Raises:
          NonFinite: one of them had a loss or gradient that is not finite.
        """
        sums = self._devices.fetch(totals)
        for position, one in enumerate(sums if isinstance(sums, tuple) else ()):
            refuse_nonfinite(one, first, last, f"{self._name}, number {position + 1} of them", position)
        if isinstance(sums, Mapping):
            refuse_nonfinite(sums, first, last, self._name)
        return sums


def _figures(sums: Any) -> dict[str, Any]:
    """{name: mean} of totals; of those of several seeds a mean for each, [S]."""
    if isinstance(sums, tuple):
        each = [_figures(one) for one in sums]
        return {name: np.array([figures[name] for figures in each]) for name in each[0]}
    return means({name: pair for name, pair in sums.items() if name != "nonfinite"})
