"""Starts of one run by several processes: launchers start it again and again, and it gives up where that is no use."""

import pathlib
from collections.abc import Sequence

from lt_noisy import processes
from lt_noisy.errors import UserError, removal
from lt_noisy.files import write_json
from lt_noisy.runs.workdir import read_json
from lt_noisy.training.checkpoint import CHECKPOINTS, committed

STARTS = "starts.json"
_USELESS = 3  # starts in a row that found nothing new to go on from


def count_start(directory: pathlib.Path, stages: Sequence[str]) -> None:
    """Notes how far the run of several processes had come when this start found it; nothing for one process.

    Args:
      directory: of the run.
      stages: their names, in order.

    Raises:
      UserError: it had come no further at this start than at the three before.
    """
    if processes.count() == 1:
        return
    now = {stage: _reached(directory / stage) for stage in stages}
    if all(reached == "finished" for reached in now.values()):
        return
    starts = ((read_json(directory / STARTS) or {}).get("found") or [])[-_USELESS:]
    if starts == [now] * _USELESS:
        stage = next(stage for stage, reached in now.items() if reached != "finished")
        raise UserError(
            f"{directory}: the last {_USELESS} starts have made no progress (stage {stage}, step {now[stage]}); what "
            f"ended them is in their logs; remove {directory / STARTS} to try again: {removal(directory / STARTS)}"
        )
    write_json(directory / STARTS, {"found": [*starts, now]})


def _reached(stage: pathlib.Path) -> str:
    """How far a stage has come: finished, or the steps that the newest checkpoints of its networks hold."""
    if (stage / "summary.json").exists():
        return "finished"
    steps = [committed(path)[-1:] for path in sorted((*stage.glob(CHECKPOINTS), *stage.glob(f"*/{CHECKPOINTS}")))]
    return " + ".join(str(step) for found in steps for step in found) or "0"
