"""Several runs side by side: what differs between them, and accuracy against class frequency of all of them."""

from collections.abc import Sequence

import numpy as np

from lt_noisy.finished.report import drawn, figures
from lt_noisy.finished.report.contents import Figure, Section, Table
from lt_noisy.finished.report.main_figures import by_seed, main_tables
from lt_noisy.finished.report.one_run import as_text, wrong_share
from lt_noisy.finished.report.reported import Group, without_seed

_DRAWN = 7  # series that have a colour each


def side_by_side(groups: Sequence[Group]) -> Section:
    """The section of several runs."""
    rows = [
        [
            group.label,
            ", ".join(str(run.seed) for run in group.runs),
            "; ".join(dict.fromkeys(wrong_share(run) for run in group.runs)),
            "; ".join(str(run.run.directory) for run in group.runs),
        ]
        for group in groups
    ]
    named = Table("The runs", ("run", "seeds", "wrong labels", "directories"), rows)
    differing = differences(groups)
    items = [named, *([differing] if differing.rows else []), *main_tables(groups), *overlays(groups), *by_seed(groups)]
    return Section(2, "Side by side", items)


def differences(groups: Sequence[Group]) -> Table:
    """The fields of the configs in which groups differ, a column a group; empty cells where one has no such field.

    That one lacks a whole stage its `stages` say.
    """
    configs = [without_seed(group.runs[0].run.config) for group in groups]
    fields = dict.fromkeys(field for config in configs for field in config)
    rows = []
    for field in fields:
        texts = [config[field] for config in configs if field in config]
        if any(text != texts[0] for text in texts):
            rows.append([field, *(as_text(config.get(field, "")) for config in configs)])
    return Table("Where their configs differ", ("field", *(group.label for group in groups)), rows)


def overlays(groups: Sequence[Group]) -> list[Figure]:
    """Accuracy against class frequency of the last classifier of each group, means over its seeds; [] of one group."""
    series = {}
    for group in groups:
        if (found := mean_by_frequency(group)) is not None:
            series[group.label] = found
    if len(series) < 2:
        return []
    shown = dict(list(series.items())[:_DRAWN])
    more = f" (the first {_DRAWN} of {len(series)})" if len(series) > _DRAWN else ""
    means = ", ".join(f"{label} {100 * found.accuracy.mean():.1f} %" for label, found in shown.items())
    title = f"Accuracy against class frequency, means over seeds, of each run's last classifier{more}"
    alt = f"Test accuracy of each class by its number of training examples; means over the classes: {means}."
    return [Figure("side-by-side-frequency", figures.frequency(shown), title, alt)]


def mean_by_frequency(group: Group) -> drawn.ByFrequency | None:
    """Of every class the mean count and the mean accuracy over the seeds; None where a seed has no classifier."""
    counts, accuracies = [], []
    for run in group.runs:
        tested = [
            stage.summary["test"]
            for stage in run.with_entry("test")
            if "per_class_accuracy" in stage.summary["test"] and not stage.of_other_data
        ]
        if not tested or run.clean_counts is None:
            return None
        counts.append(run.clean_counts)
        accuracies.append(drawn.per_class(tested[-1]))
    mean_counts, accuracy = np.mean(counts, axis=0), np.mean(accuracies, axis=0)
    classes = np.flatnonzero(~np.isnan(accuracy) & (mean_counts > 0))
    return drawn.ByFrequency(classes, mean_counts[classes], accuracy[classes], []) if len(classes) else None
