"""Metrics on their way out: (sum, count) trees to numbers, JSON lines always, trackers when asked."""

import contextlib
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from lt_noisy import processes
from lt_noisy.errors import UserError
from lt_noisy.files import naming, replacing
from lt_noisy.training.trackers import Tracked, Trackers, Tracking, none


def means(totals: Mapping[str, tuple[Any, Any]]) -> dict[str, float]:
    """{name: (sum, count)} -> {name: sum / count} on the host."""
    return {name: float(np.asarray(s) / np.maximum(np.asarray(n), 1e-12)) for name, (s, n) in totals.items()}


class NonFinite(UserError):
    """Of the steps `first..last` so many, `number`, had a loss or gradient that is not finite.

    Attributes:
      step: the first of them, if they are the last steps of the range.
      means: of the range's figures.
      position: of the seed among several that are trained together.
    """

    def __init__(self, stage: str, totals: Mapping[str, tuple[Any, Any]], first: int, last: int, position: int = 0):
        self.first, self.last, self.position = first, last, position
        bad = float(np.asarray(totals["nonfinite"][0]))
        self.number = int(bad) if 0 < bad <= last - first + 1 else last - first + 1
        self.step = last - self.number + 1
        self.means = means({name: pair for name, pair in totals.items() if name != "nonfinite"})
        super().__init__(
            f"{stage}: the loss or its gradient is not finite in steps {first}..{last}; the last checkpoint before "
            "them is kept. A lower learning rate or a longer warm-up is the usual cure"
        )


def refuse_nonfinite(
    totals: Mapping[str, tuple[Any, Any]], first: int, last: int, stage: str, position: int = 0
) -> None:
    """Raises `NonFinite` if any step of `first..last` had a loss or gradient that is not finite."""
    bad, _ = totals["nonfinite"]
    if not float(np.asarray(bad)) == 0.0:
        raise NonFinite(stage, totals, first, last, position)


class Writer:
    """`metrics.jsonl` in `directory`, each step once, and what `trackers` hold.

    Of several processes the first alone writes.

    Args:
      name: of the stage or network, for the trackers.
      config: its texts, for the trackers.
    """

    def __init__(
        self,
        directory: pathlib.Path,
        trackers: Trackers = none(),  # noqa: B008 (a constant)
        name: str = "",
        config: Mapping[str, Any] = {},
    ):
        self.path = directory / "metrics.jsonl"
        self._trackers, self._name, self._config = trackers, name, config
        self._tracking: Tracking | None = None

    def begin(self, step: int) -> None:
        """Drops what a killed run wrote after `step` (and a half-written line) and goes on from there.

        Raises:
          UserError: a tracker cannot be opened.
        """
        if not processes.first():
            return
        told = self._truncate(step) if self.path.exists() else 0
        run = Tracked(self._name, self.path.parent, self._config, step, told)
        self._tracking = Tracking(self._trackers, run)

    def _truncate(self, step: int) -> int:
        """Drops the lines of steps after `step`; returns the last step that there was."""
        kept, last = [], 0
        for line in self.path.read_text().splitlines():
            with contextlib.suppress(ValueError):
                last = json.loads(line)["step"]
                if last <= step:
                    kept.append(line + "\n")
        with replacing(self.path, "w") as file:
            file.writelines(kept)
        return last

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Adds one line; a value that is not finite becomes null."""
        if not processes.first():
            return
        clean = {k: v if np.isfinite(v) else None for k, v in values.items()}
        with naming(self.path), open(self.path, "a") as file:
            file.write(json.dumps({"step": step, **clean}) + "\n")
        if self._tracking is not None:
            self._tracking.write(step, {k: v for k, v in clean.items() if v is not None})

    def sync(self) -> None:
        """Brings the lines so far to the disk: a checkpoint that is saved after them must not outlive them."""
        if processes.first() and self.path.exists():
            with naming(self.path), open(self.path, "a") as file:
                os.fsync(file.fileno())

    def close(self, finished: bool) -> None:
        """Closes the trackers, which are told whether the training has ended."""
        if self._tracking is not None:
            self._tracking.close(finished)
