"""`--profile=100:110`: a trace of these steps, by JAX's profiler, of every process for itself."""

import pathlib
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax

from lt_noisy.errors import UserError, did_you_mean, say
from lt_noisy.training.progress import Stopwatch

PyTree = Any

DIRECTORY = "profile"  # in the workdir


class Steps(NamedTuple):
    """Steps `first` to `last`, both traced, of the first training stage or of `stage`."""

    first: int
    last: int
    stage: str = ""


def parse(text: str) -> Steps | None:
    """What `--profile=100:110` or `--profile=STAGE/100:110` asks for; None where it is empty.

    Raises:
      UserError: it is no range of steps, which are counted from 1.
    """
    if not text:
        return None
    found = re.fullmatch(r"(?:(.+)/)?(\d{1,10}):(\d{1,10})", text)
    if not found or not 1 <= int(found[2]) <= int(found[3]):
        raise UserError(f"--profile={text}: write FIRST:LAST or STAGE/FIRST:LAST, steps from 1 on, such as 100:110")
    return Steps(int(found[2]), int(found[3]), found[1] or "")


def placed(steps: Steps, lengths: Mapping[str, int]) -> Steps:
    """The steps with the stage that they are of.

    Args:
      lengths: of the training stages of the run, in order.

    Raises:
      UserError: no training stage is called so, or it is shorter.
    """
    name = steps.stage or next(iter(lengths), "")
    if name not in lengths:
        raise UserError(
            f"--profile: {name!r} is no training stage of this run{did_you_mean(name, list(lengths))} "
            f"(there are: {', '.join(lengths) or 'none'})"
        )
    if steps.last > lengths[name]:
        raise UserError(f"--profile: {name} has {lengths[name]} steps, and {steps.first}:{steps.last} goes beyond them")
    return steps._replace(stage=name)


class Trace:
    """Traces the calls that the steps fall into, once in a process: of a stage of several networks in the first.

    Args:
      directory: of this process.
    """

    def __init__(self, steps: Steps, directory: pathlib.Path):
        self._steps, self._directory = steps, directory
        self._running = self._over = False

    def at(self, step: int, per_call: int, done: PyTree, stopwatch: Stopwatch) -> None:
        """Before every call: starts or stops where it is time.

        Args:
          step: steps so far.
          per_call: steps of the call.
          done: an array of the call before.
          stopwatch: does not count what starting and stopping takes.
        """
        if self._running and step >= self._steps.last:
            with stopwatch.paused(done):
                self.close()
        elif self._over or self._running or step + per_call < self._steps.first:
            return
        elif step >= self._steps.last:
            self._over = True
            say(f"note: --profile: steps {self._steps.first}:{self._steps.last} have run already; nothing is traced")
        else:
            with stopwatch.paused(done):
                self._running = self._over = True
                jax.profiler.start_trace(self._directory)

    def finish(self) -> None:
        """The stage has ended: says so where none of its calls came to the steps."""
        if not self._over:
            steps = f"{self._steps.first}:{self._steps.last}"
            say(f"note: --profile: no network of {self._steps.stage} ran steps {steps} now; nothing is traced")

    def close(self) -> None:
        """Writes the trace that is under way, if any."""
        if not self._running:
            return
        self._running = False
        jax.profiler.stop_trace()
        say(
            f"profile: steps {self._steps.first}:{self._steps.last} of {self._steps.stage} are in {self._directory}; "
            "open its *.trace.json.gz in https://ui.perfetto.dev, or all of it by `xprof --logdir=DIR` "
            "(pip install xprof)"
        )
