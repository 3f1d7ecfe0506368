"""What a training leaves whose loss or gradient is not finite: the batch of the step where that began.

The loop sees sums over a range of steps, and how many of them were not finite. A parameter that became NaN stays so,
and so does every loss after it: of n such steps the first is the n-th from the end of the range, and its batch is a
function of the step. So nothing is held or run again for it. Only if a step's loss was infinite but its gradient
finite, so that later steps were fine again, can the first bad step be an earlier one than is named.
"""

import contextlib
import json
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from lt_noisy import processes
from lt_noisy.data.batches import Resident
from lt_noisy.errors import UserError
from lt_noisy.files import MIB, write_arrays, write_json
from lt_noisy.stages.base import Job
from lt_noisy.training.loop import Prepared
from lt_noisy.training.writer import NonFinite

DIRECTORY = "nonfinite"
_MOST = 64 * MIB  # of images


@contextlib.contextmanager
def dumped(jobs: Sequence[Job], readies: Sequence[Prepared]) -> Iterator[None]:
    """Around a training, of one seed or of several: names in its error the file that it leaves.

    `nonfinite/batch.npz` in the stage's directory holds of the batch `rows` int [B] of the stage's training images,
    their `ids` int64 [B] (-1: of a pool of a `pseudo_label` stage), `labels` [B, ...] and `weights` float32 [B], and
    `images` of as many of them, from the first on, as 64 MiB hold, before augmentation. `nonfinite/report.json` says of
    which `step`, and the figures around it. Of several processes it is the part of the first.

    Raises:
      UserError: the one of the training, with the file.
    """
    try:
        yield
    except NonFinite as error:
        job, ready, found = jobs[error.position], readies[error.position], error
    else:
        return
    try:
        path = processes.once(lambda: _dump(job, ready, found))
    except Exception:  # a full disk, say: what the training says is more important
        raise found from None
    raise UserError(f"{found}. The batch of step {found.step} is in {path}")


def _dump(job: Job, ready: Prepared, error: NonFinite) -> pathlib.Path:
    directory = job.directory / DIRECTORY
    directory.mkdir(parents=True, exist_ok=True)
    batch = ready.batches(error.step - 1)
    (resident,) = (node for node in jax.tree.leaves(ready.data, is_leaf=_is_resident) if _is_resident(node))
    rows, own = batch["rows"], job.dataset.ids
    images = batch.get("images")
    shape = np.shape(resident.images if images is None else images)[1:]
    itemsize = (resident.images if images is None else images).dtype.itemsize
    most = max(_MOST // max(int(np.prod(shape)) * itemsize, 1), 1)
    write_arrays(
        directory / "batch.npz",
        rows=rows,
        ids=np.where(rows < len(own), own[np.minimum(rows, len(own) - 1)], -1),
        labels=np.asarray(resident.labels)[rows],
        weights=batch["weights"],
        images=images[:most] if images is not None else np.asarray(resident.images[rows[:most]]),
    )
    report = {
        "step": error.step,
        "steps": [error.first, error.last],
        "steps_not_finite": error.number,
        "means_over_steps": {name: _number(value) for name, value in error.means.items()},
        "last_line_before": _last_line(job.directory / "metrics.jsonl"),
    }
    write_json(directory / "report.json", report)
    return directory / "batch.npz"


def _is_resident(node: Any) -> bool:
    return isinstance(node, Resident)


def _number(value: float) -> float | str:
    return value if np.isfinite(value) else str(value)


def _last_line(metrics: pathlib.Path) -> Mapping[str, Any] | None:
    """The figures of the last steps that were finite."""
    lines = metrics.read_text().splitlines() if metrics.exists() else []
    return next((found for found in map(json.loads, reversed(lines)) if "grad_norm" in found), None)
