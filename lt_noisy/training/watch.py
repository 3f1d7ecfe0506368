"""What is watched of a training beside its metrics: the pace of its steps, this host's log, a trace, a slow process."""

import contextlib
from typing import Any

import numpy as np

from lt_noisy import processes
from lt_noisy.errors import say
from lt_noisy.training import slow
from lt_noisy.training.host_log import HostLog, memory
from lt_noisy.training.pace import Pace, Paced
from lt_noisy.training.profile import Trace
from lt_noisy.training.progress import Stopwatch

PyTree = Any

_COMPARED = 100  # calls between two comparisons of the processes, at the least: the devices are idle for one


class Watch:
    """Of the training of one network.

    Args:
      name: of the stage or network.
      log: of this process.
      trace: where its steps are to be traced.
    """

    def __init__(self, name: str, log: HostLog, trace: Trace | None = None):
        self._name, self._log, self._trace = name, log, trace
        self._comparing, self._since = slow.Comparing(), 0

    def begin(self, step: int, total: int, per_call: int, stopwatch: Stopwatch) -> None:
        """The training starts, or goes on from `step`."""
        self._pace, self._stopwatch, self._per_call = Pace(stopwatch, per_call), stopwatch, per_call
        self.event("resumed" if step else "started", step, total=total)

    def event(self, event: str, step: int, **values: object) -> None:
        """A line of the host's log."""
        self._log.write(event, stage=self._name, step=step, **values)

    def before(self, step: int, done: PyTree) -> None:
        """Before a call; `done`: the step of the state so far."""
        if self._trace is not None:
            self._trace.at(step, self._per_call, done, self._stopwatch)

    def waiting(self) -> contextlib.AbstractContextManager[None]:
        """Around what makes the batch of a call."""
        return self._pace.waiting()

    def called(self, done: PyTree) -> None:
        """After a call; `done`: the step of its state."""
        self._since += 1
        self._pace.called(done)

    def line(self, step: int, done: PyTree) -> None:
        """A line on the steps since the last one; now and then the processes compare theirs."""
        paced = self._pace.take()
        values = {"step_ms": paced.milliseconds(), "seconds_for_images": round(paced.waited, 3), **memory()}
        self.event("steps", step, **values)
        if processes.count() > 1 and self._since >= _COMPARED:  # the same in all of them
            self._since = 0
            with self._stopwatch.paused(done):
                self._compare(step, paced)

    def _compare(self, step: int, paced: Paced) -> None:
        step_seconds = float(np.median(paced.steps)) if paced.steps.size else 0.0
        own = np.array([*slow.own_figures(paced.images, paced.host), step_seconds])
        gathered = processes.gather(own)
        found = self._comparing.hear(gathered[:, :-1], float(gathered[:, -1].max()))
        if found is not None:
            name = processes.name(found.process)
            say(found.line(name), always=True)
            self.event("slow", step, of=name, measure=slow.MEASURES[found.measure], seconds=found.seconds)

    def close(self) -> None:
        """Writes a trace that is under way."""
        if self._trace is not None:
            self._trace.close()
