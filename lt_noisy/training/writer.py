"""Metrics on their way out: (sum, count) trees to numbers, JSON lines always, TensorBoard when asked."""

import contextlib
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from lt_noisy.errors import UserError
from lt_noisy.files import naming, replacing


def means(totals: Mapping[str, tuple[Any, Any]]) -> dict[str, float]:
    """{name: (sum, count)} -> {name: sum / count} on the host."""
    return {name: float(np.asarray(s) / np.maximum(np.asarray(n), 1e-12)) for name, (s, n) in totals.items()}


def refuse_nonfinite(totals: Mapping[str, tuple[Any, Any]], first: int, last: int, stage: str) -> None:
    """Raises `UserError` if any step of `first..last` had a loss or gradient that is not finite."""
    bad, _ = totals["nonfinite"]
    if not float(np.asarray(bad)) == 0.0:
        raise UserError(
            f"{stage}: the loss or its gradient is not finite in steps {first}..{last}; the last checkpoint before "
            "them is kept. A lower learning rate or a longer warm-up is the usual cure"
        )


class Writer:
    """`metrics.jsonl` in `directory`, each step once, and TensorBoard files beside it when asked."""

    def __init__(self, directory: pathlib.Path, tensorboard: bool):
        self.path = directory / "metrics.jsonl"
        self._tensorboard = _tensorboard(directory) if tensorboard else None

    def truncate(self, step: int) -> None:
        """Drops what a killed run wrote after `step` (and a half-written line), before going on from there."""
        if not self.path.exists():
            return
        lines = []
        for line in self.path.read_text().splitlines():
            with contextlib.suppress(ValueError):
                if json.loads(line)["step"] <= step:
                    lines.append(line + "\n")
        with replacing(self.path, "w") as file:
            file.writelines(lines)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Adds one line; a value that is not finite becomes null."""
        clean = {k: v if np.isfinite(v) else None for k, v in values.items()}
        with naming(self.path), open(self.path, "a") as file:
            file.write(json.dumps({"step": step, **clean}) + "\n")
        if self._tensorboard is not None:
            self._tensorboard.write_scalars(step, {k: v for k, v in clean.items() if v is not None})

    def sync(self) -> None:
        """Brings the lines so far to the disk: a checkpoint that is saved after them must not outlive them."""
        if self.path.exists():
            with naming(self.path), open(self.path, "a") as file:
                os.fsync(file.fileno())

    def close(self) -> None:
        """Flushes what is buffered."""
        if self._tensorboard is not None:
            self._tensorboard.close()


def _tensorboard(directory: pathlib.Path):
    try:  # imports TensorFlow: seconds, and an extra
        from clu import metric_writers
    except ImportError as error:
        raise UserError(
            f"config.tensorboard needs an extra that is not installed ({error.name}): pip install '.[tensorboard]'"
        ) from None
    return metric_writers.SummaryWriter(str(directory))
