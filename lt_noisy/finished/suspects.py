"""The labels of a run that its networks take for wrong: which stage judged them, and the list."""

import csv
import io
from pathlib import Path
from typing import NamedTuple

from lt_noisy.errors import UserError
from lt_noisy.files import cell_text
from lt_noisy.finished.run import FinishedRun, FinishedStage

_LIST = "suspects.csv"


class Suspect(NamedTuple):
    """A label to look at.

    Attributes:
      id: of the image, as in the manifest.
      file: where images are files; else the empty string.
      label: the class that it has.
      suggested: the class that a network takes it for.
      wrong_probability: how probably the label is wrong.
    """

    id: int
    file: str
    label: str
    suggested: str
    wrong_probability: float


def judge(run: FinishedRun, name: str = "") -> FinishedStage:
    """The stage of this name that judged the labels; empty: the last that judged them out of sample, or else the last.

    Raises:
      UserError: it judged none, or no stage did.
    """
    judges = [stage for stage in run.stages if (stage.directory / _LIST).exists()]
    if name:
        stage = run.stage(name)
        if stage not in judges:
            raise UserError(f"{stage.directory} has no {_LIST}: a {stage.kind} stage judges no labels")
        return stage
    if not judges:
        raise UserError(f"{run.directory}: no finished stage has judged the labels (supervised, mixnn, cross_fit)")
    unseen = [stage for stage in judges if stage.summary["label_quality"]["out_of_sample"]]
    return (unseen or judges)[-1]


def read_suspects(directory: Path) -> list[Suspect]:
    """The list that a stage left, most suspicious first."""
    path = directory / _LIST
    try:
        text = path.read_text(encoding="utf-8-sig", errors="surrogateescape")
        rows = list(csv.DictReader(io.StringIO(text, newline="")))
        return [
            Suspect(
                int(row["id"]),
                cell_text(row["file"]),
                cell_text(row["label"]),
                cell_text(row["suggested"]),
                float(row["wrong_probability"]),
            )
            for row in rows
        ]
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise UserError(f"{path} is damaged ({error!r}); remove {directory} to run the stage again") from None
