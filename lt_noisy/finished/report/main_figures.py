"""The tables of the main figures: a row per stage of a group of runs that differ in their seed alone."""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lt_noisy.errors import UserError
from lt_noisy.evaluation import label_quality
from lt_noisy.files import load_arrays
from lt_noisy.finished.report.contents import Table
from lt_noisy.finished.report.published_rows import published
from lt_noisy.finished.report.reported import Group, Reported
from lt_noisy.finished.run import FinishedStage
from lt_noisy.runs.markdown import percent
from lt_noisy.runs.sweeps.tables import figures

SUSPECTS = (25, 50, 100)  # the first so many


class _Family(NamedTuple):
    """A table: the entry of a summary without which a stage is not in it, and {path in the summary: column}."""

    title: str
    entry: str
    shares: Mapping[str, str]
    numbers: Mapping[str, str] = {}


_GROUPS = ("many", "medium", "few", "head_third", "middle_third", "tail_third")
_FAMILIES = (
    _Family(
        "Classification, test set, percent",
        "test",
        {
            "test.accuracy": "accuracy",
            "test.balanced_accuracy": "balanced accuracy",
            **{f"test.groups.{name}.accuracy": name.replace("_", " ") for name in _GROUPS},
            "test.last_three_classes.accuracy": "last three classes",
            "train.memorised": "wrong labels memorised",
        },
        {"test.nll": "NLL", "test.ece": "ECE"},
    ),
    _Family(
        "Representation, kNN accuracy in percent",
        "representation",
        {
            "representation.knn_balanced_bank": "balanced bank",
            "representation.knn_longtailed_bank": "long-tailed bank",
        },
        {"representation.effective_rank": "effective rank"},
    ),
    _Family(
        "Probes, balanced accuracy in percent",
        "probes",
        {"probes.all.linear.balanced_accuracy": "linear", "probes.all.knn.balanced_accuracy": "kNN"},
    ),
    _Family(
        "Wrong labels found, percent",
        "label_quality",
        {
            "label_quality.estimated_rate": "estimated rate",
            "label_quality.true_rate": "true rate",
            "label_quality.precision": "precision",
            "label_quality.recall": "recall",
            "label_quality.wrong_probability.auroc": "AUROC",
            "label_quality.wrong_probability.average_precision": "average precision",
            **{f"label_quality.suspects.{k}": f"wrong of the first {k} suspects" for k in SUSPECTS},
            **{f"label_quality.precision_at.{k}": f"flagged of the {k} most suspicious" for k in SUSPECTS},
        },
    ),
    _Family(
        "Noise transition, percent",
        "transition",
        {
            "transition.estimated_rate": "estimated rate",
            "transition.realised_rate": "true rate",
            "transition.mean_absolute_error": "mean absolute error of an entry",
            "transition.total_variation": "total variation of a row",
        },
    ),
)


def main_tables(groups: Sequence[Group]) -> list[Table]:
    """A table for each family of figures that one of the runs has; columns without any figure are left out.

    Of several seeds a figure is mean ± sample standard deviation (n - 1), `seeds` says of how many; a published figure
    stands beside the rows whose config is that of the publication.
    """
    return [table for family in _FAMILIES if (table := _table(family, groups)) is not None]


def by_seed(groups: Sequence[Group]) -> list[Table]:
    """The same of every seed by itself, of the groups of several."""
    alone = [
        Group(f"{group.label}, seed {run.seed}", (run,))
        for group in groups
        if len(group.runs) > 1
        for run in group.runs
    ]
    return [table._replace(title=f"{table.title}, each seed", folded=True) for table in main_tables(alone)]


def _table(family: _Family, groups: Sequence[Group]) -> Table | None:
    found: list[tuple[list[str], list[list[float]]]] = []
    columns = {**family.shares, **family.numbers}
    for group in groups:
        names = dict.fromkeys(stage.name for run in group.runs for stage in run.with_entry(family.entry))
        for name in names:
            pairs = [(run, stage) for run in group.runs for stage in run.with_entry(family.entry) if stage.name == name]
            each = [figures(measured(run, stage), columns) for run, stage in pairs]
            values = [[one[title] for one in each if one[title] is not None] for title in columns.values()]
            reference = published(pairs[0][0], pairs[0][1]) if family.entry == "test" else ""
            found.append(([group.label, name, str(len(pairs)), reference], values))  # pyright: ignore[reportArgumentType]
    if not any(any(values) for _, values in found):
        return None
    runs, seeds = len(groups) > 1, any(labels[2] != "1" for labels, _ in found)
    comparable = any(labels[3] for labels, _ in found)
    kept = [i for i in range(len(columns)) if any(values[i] for _, values in found)]
    titles = list(columns.values())
    head = ["run"] * runs + ["stage"] + ["seeds"] * seeds + [titles[i] for i in kept]
    rows = []
    for (label, stage, count, reference), values in found:
        cells = [_spread(values[i]) if i >= len(family.shares) else percent(values[i]) for i in kept]
        rows.append([label] * runs + [stage] + [count] * seeds + cells + [reference] * comparable)
    return Table(family.title, head + ["published accuracy"] * comparable, rows)


def _spread(values: Sequence[float]) -> str:
    """Mean and sample standard deviation of what is no share."""
    if not values:
        return ""
    mean = f"{statistics.mean(values):.3f}"
    return f"{mean} ± {statistics.stdev(values):.3f}" if len(values) > 1 else mean


def measured(run: Reported, stage: FinishedStage) -> dict[str, Any]:
    """A stage's summary, in whose `label_quality` stands what is known of the truth alone.

    `suspects` are of the wrong labels by the manifest, `precision_at` is of the flags of the publisher of the data.
    Where neither is known, no figure that needs it is there.
    """
    quality = stage.summary.get("label_quality")
    if not isinstance(quality, dict):
        return dict(stage.summary)
    if "flags" in quality:
        quality = {name: quality[name] for name in ("estimated_rate", "out_of_sample")} | {
            "precision_at": quality["flags"]["precision_at"],
            "wrong_probability": quality["flags"],
        }
    elif (first := suspects(run, stage)) is None:
        quality = {name: quality[name] for name in ("estimated_rate", "out_of_sample") if name in quality}
    else:
        quality = {**quality, "suspects": {str(k): share for k, share in first.items()}}
    return {**stage.summary, "label_quality": quality}


def suspects(run: Reported, stage: FinishedStage) -> dict[int, float] | None:
    """{k: share of wrong labels among the first k of a stage's `suspects.csv`}, of `SUSPECTS` those that it lists.

    None where it judged no labels, or the truth is not known.
    """
    arrays = quality_arrays(stage.directory, "ids", "observed", "loss", "wrong_probability", "suggested")
    wrong = None if arrays is None else run.wrong(arrays["ids"])
    if arrays is None or wrong is None:
        return None
    listed = wrong[label_quality.suspects(arrays, arrays["observed"])]
    return {k: float(listed[:k].mean()) for k in SUSPECTS if k <= len(listed)}


def quality_arrays(directory: Path, *names: str) -> dict[str, np.ndarray] | None:
    """These arrays of a stage's `label_quality.npz`; None where it has no such file.

    Raises:
      UserError: it is damaged, or its arrays are not of one length, or a loss in it is not finite.
    """
    path = directory / "label_quality.npz"
    if not path.exists():
        return None
    arrays = dict(zip(names, load_arrays(path, *names), strict=True))
    if len({len(array) for array in arrays.values()}) > 1 or not len(arrays[names[0]]):
        raise UserError(f"{path}: its arrays are empty or not of one length")
    if "loss" in arrays and not np.isfinite(arrays["loss"]).all():
        raise UserError(f"{path}: a loss is not finite")
    return arrays
