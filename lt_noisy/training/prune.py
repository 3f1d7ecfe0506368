"""What a finished stage keeps of its checkpoints: all, the last and the lasting, or the weights of the last alone.

A kill at any moment leaves a stage that goes on or stands finished. `write_weights` comes before the summary that marks
a stage as finished, `prune` after it, and whoever finds it finished later prunes again. Readers of finished stages see
`weights/` before `checkpoints/`, so that what is removed is never what they read.
"""

import pathlib
import shutil
from collections.abc import Iterator

from lt_noisy.training.best import BEST
from lt_noisy.training.checkpoint import CHECKPOINTS, WEIGHTS, Checkpoints, committed, final, lasting, remove, sweep

KEEPS = ("last", "weights", "all")
_READ_LATER = ("state.params.", "state.batch_stats.")  # all that later stages read of an earlier one


def _networks(stage_directory: pathlib.Path) -> Iterator[pathlib.Path]:
    """The directories that hold checkpoints: the stage's own, or those of its folds or experts."""
    for path in (*stage_directory.glob(CHECKPOINTS), *stage_directory.glob(f"*/{CHECKPOINTS}")):
        yield path.parent


def discard_weights(stage_directory: pathlib.Path) -> None:
    """Removes the weights of a stage that was killed before its summary: it goes on from its checkpoints.

    Not those of `best/`, which the loop keeps in step with them.
    """
    for path in (*stage_directory.glob(WEIGHTS), *stage_directory.glob(f"*/{WEIGHTS}")):
        if path.parent != stage_directory / BEST:
            shutil.rmtree(path, ignore_errors=True)


def write_weights(stage_directory: pathlib.Path) -> None:
    """Writes, beside each last checkpoint, one of its parameters and BatchNorm statistics alone, under `weights/`.

    Raises:
      OSError: it cannot be written.
      UserError: the last checkpoint cannot be used.
    """
    for network in _networks(stage_directory):
        arrays, card = final(network)
        arrays = {name: array for name, array in arrays.items() if name.startswith(_READ_LATER)}
        weights = Checkpoints(network / WEIGHTS, card)
        try:
            weights.save(card["step"], arrays, card["seconds"])
        finally:
            weights.close()


def prune(stage_directory: pathlib.Path, keep: str) -> None:
    """Removes what a finished stage was not asked to keep (one of `KEEPS`); what is gone already is no error."""
    for network in _networks(stage_directory):
        sweep(network / CHECKPOINTS)  # what a killed prune left
        steps = committed(network / CHECKPOINTS)
        if keep == "weights" and committed(network / WEIGHTS):
            for step in steps:
                remove(network / CHECKPOINTS, step)
            shutil.rmtree(network / CHECKPOINTS, ignore_errors=True)
        if keep == "last":
            for step in steps[:-1]:
                if not lasting(network / CHECKPOINTS, step):
                    remove(network / CHECKPOINTS, step)
