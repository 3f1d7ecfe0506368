"""The evaluation of a stage with the best balanced accuracy on noisy validation: its weights, and when to stop for it.

`best/` in a stage's directory is laid out as the directory of a finished network that kept its weights alone
(`training.prune`): whatever reads one reads the other. Which evaluation was the best is a function of `metrics.jsonl`.
"""

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from lt_noisy import processes
from lt_noisy.config.spec import table
from lt_noisy.errors import require, say
from lt_noisy.training import parallel
from lt_noisy.training.checkpoint import WEIGHTS, Checkpoints, committed, remove, sweep
from lt_noisy.training.state import TrainState

BEST = "best"
FIGURE = "validation_balanced_accuracy"
PyTree = Any


def none() -> int:
    """The stage runs to its length."""
    return 0


def patience(evaluations: int = 5) -> int:
    """The stage stops when so many evaluations one after the other were not better than the best before them.

    Better is a higher balanced accuracy on the observed (noisy) labels that `config.validation` holds out; evaluations
    come every `eval_every`. Schedules still run over the planned length: a stage that is stopped early has not seen
    their end. The last weights stay the headline, the best ones are in `best/`.
    """
    require(evaluations >= 1, f"evaluations is at least 1, not {evaluations}")
    return evaluations


EARLY_STOPPING = table({"none": none, "patience": patience})


class Best:
    """The best evaluation of one network so far; ties go to the first, as in `evaluation.selection`.

    Its weights are held on the host and written right before the next checkpoint. So of those in `best/` at most one is
    newer than the checkpoint that a killed run goes on from, and the one before it is still there.

    Args:
      directory: of the stage.
      card: what every card of this run says.
    """

    def __init__(self, directory: pathlib.Path, card: Mapping[str, Any]):
        self._metrics, self._card = directory / "metrics.jsonl", card
        self._directory = directory / BEST / WEIGHTS
        self._evaluated: list[tuple[int, float]] = []  # step and figure
        self._held: tuple[int, PyTree] | None = None

    def begin(self, step: int) -> None:
        """Goes on after `step`: with the evaluations up to it, and without weights of a later one."""
        self._evaluated = processes.once(lambda: self._read(step))
        self._held = None

    def _read(self, step: int) -> list[tuple[int, float]]:
        sweep(self._directory)
        for later in committed(self._directory):
            if later > step:
                remove(self._directory, later)
        lines = self._metrics.read_text().splitlines() if self._metrics.exists() else []
        evaluated = [line for line in map(json.loads, lines) if FIGURE in line and line["step"] <= step]
        return [(line["step"], line[FIGURE]) for line in evaluated]

    def see(
        self, step: int, state: TrainState, evaluated: Mapping[str, Any], devices: parallel.Jit | parallel.Pmap
    ) -> None:
        """Records the evaluation after `step`; does nothing where `evaluated` has no validation figure."""
        if FIGURE not in evaluated:
            return
        value = float(evaluated[FIGURE])
        if not self._evaluated or value > max(figure for _, figure in self._evaluated):
            self._held = step, devices.fetch(state.evaluated)
        self._evaluated.append((step, value))

    @property
    def step(self) -> int | None:
        """Of the best evaluation; None before the first."""
        return max(self._evaluated, key=lambda one: one[1])[0] if self._evaluated else None

    def exhausted(self, patience: int) -> bool:
        """Whether the last `patience` evaluations were no better than the best before them; 0: never."""
        since = [step for step, _ in self._evaluated if step > (self.step or 0)]
        return 0 < patience <= len(since)

    def save(self, seconds: float) -> None:
        """Writes the weights of a best evaluation since the last save, if there was one; before the checkpoint.

        Raises:
          OSError: they cannot be written.
        """
        if self._held is None:
            return
        (step, variables), self._held = self._held, None
        weights = Checkpoints(self._directory, self._card, 1)
        try:
            weights.save(step, {"state": variables}, seconds)
            weights.wait()
        finally:
            weights.close()

    def finish(self) -> int | None:
        """Leaves the weights of the best evaluation alone in `best/`; returns its step, None without any.

        They can be missing where a run went on from a checkpoint before its newest ones, which were damaged.
        """
        return processes.once(self._finish)

    def _finish(self) -> int | None:
        for step in committed(self._directory):
            if step != self.step:
                remove(self._directory, step)
        if self.step is not None and not committed(self._directory):
            say(f"note: the weights of step {self.step}, best on validation, are lost with a damaged checkpoint")
            return None
        return self.step


class Bests:
    """The same of several seeds, whose states and figures come together; none of them stops early."""

    def __init__(self, each: Sequence[Best]):
        self._each = each

    def begin(self, step: int) -> None:
        """As `Best.begin`."""
        for best in self._each:
            best.begin(step)

    def see(self, step: int, states: Any, evaluated: Mapping[str, Any], devices: Any) -> None:
        """As `Best.see`, of figures [S]."""
        if FIGURE in evaluated:
            for best, state, value in zip(self._each, states.each, evaluated[FIGURE], strict=True):
                best.see(step, state, {FIGURE: value}, devices)

    def exhausted(self, patience: int) -> bool:
        """Never: `stages.together` trains such seeds one after the other."""
        return False

    def save(self, seconds: float) -> None:
        """As `Best.save`."""
        for best in self._each:
            best.save(seconds)

    def finish(self) -> tuple[int | None, ...]:
        """As `Best.finish`, of each seed."""
        return tuple(best.finish() for best in self._each)
