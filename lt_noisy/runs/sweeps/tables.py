"""What the cells of a sweep gave: its record as a table."""

import csv
import io
import json
import math
import statistics
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from lt_noisy.errors import UserError, did_you_mean
from lt_noisy.runs.markdown import markdown, percent
from lt_noisy.runs.sweeps.cells import SEED, Cell, Labels

# Where each figure is in the summary of a cell's last stage; the first that there is heads the table.
FIGURES = {
    "test.balanced_accuracy": "balanced accuracy",
    "test.last_three_classes.accuracy": "last three classes",
    "train.memorised": "wrong labels memorised",
    "probes.all.linear.balanced_accuracy": "linear probe",
    "probes.all.knn.balanced_accuracy": "kNN probe",
    "representation.knn_balanced_bank": "kNN",
}


def check(cells: Any, baseline: Any, paths: Any) -> None:
    """Refuses what a config file's `sweep()`, `BASELINE` (or None) or `FIGURES` cannot be, and equal cells."""
    if not isinstance(cells, list) or not cells or not all(isinstance(cell, Cell) for cell in cells):
        raise UserError("sweep() returns a list of cells, at least one: see axis, product and chain")
    for i, cell in enumerate(cells):
        if any(cell.labels == other.labels for other in cells[:i]):
            raise UserError(f"sweep: two cells have the labels {cell}")
    titles = list(paths.values()) if isinstance(paths, dict) else []
    if not titles or not all(isinstance(text, str) for text in [*paths, *titles]) or len(set(titles)) < len(titles):
        raise UserError("FIGURES is {dotted path in a summary: title}, no title twice")
    if baseline is not None:
        if not isinstance(baseline, dict):
            raise UserError("BASELINE is {axis: label}")
        rows = list({json.dumps(r, sort_keys=True): r for r in (_without_seed(cell.labels) for cell in cells)}.values())
        if SEED in baseline or not any(_agree(row, baseline, baseline) for row in rows):
            raise UserError(f"BASELINE: no row of the table has the labels {Cell(baseline, {})}")
        for row in rows:
            _baseline_of(row, rows, baseline)


def figures(summary: Mapping[str, Any], paths: Mapping[str, str]) -> dict[str, float | None]:
    """{title: value} of a stage's summary; None where it has no such number."""
    found = {}
    for path, title in paths.items():
        value: Any = summary
        for key in path.split("."):
            value = value.get(key) if isinstance(value, Mapping) else None
        number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        found[title] = value if number else None
    return found


def headline(found: Mapping[str, float | None]) -> str:
    """The first figure that there is, in words."""
    return next((f"{title} {100 * value:.1f} %" for title, value in found.items() if value is not None), "no figure")


class _Row(NamedTuple):
    """Cells that differ in their seed only: their labels without it, and the figures of each finished one by seed."""

    labels: dict[str, Any]
    by_seed: dict[Any, Mapping[str, float | None]]
    planned: int


def _rows(record: Mapping[str, Any]) -> list[_Row]:
    grouped: dict[str, list[Mapping[str, Any]]] = {}
    for cell in record["cells"]:
        key = json.dumps(_without_seed(cell["labels"]), sort_keys=True)
        grouped.setdefault(key, []).append(cell)
    return [
        _Row(
            _without_seed(cells[0]["labels"]),
            {c["labels"].get(SEED): c["figures"] for c in cells if c["figures"] is not None},
            len(cells),
        )
        for cells in grouped.values()
    ]


def _without_seed(labels: Labels) -> dict[str, Any]:
    return {axis: label for axis, label in labels.items() if axis != SEED}


def _agree(a: Labels, b: Labels, axes: Iterable[str]) -> bool:
    return all(axis in a and axis in b and a[axis] == b[axis] for axis in axes)


def _baseline_of(labels: Labels, rows: list[dict[str, Any]], baseline: Labels) -> dict[str, Any] | None:
    """The row whose labels are the baseline's and agree on every other axis that both have; None for a baseline row."""
    if _agree(labels, baseline, baseline):
        return None
    found = []
    for other in rows:
        common = (labels.keys() & other.keys()) - baseline.keys()
        if _agree(other, baseline, baseline) and _agree(labels, other, common):
            found.append(other)
    if len(found) > 1:
        raise UserError(f"BASELINE: {Cell(labels, {})} has two: {Cell(found[0], {})}; {Cell(found[1], {})}")
    return found[0] if found else None


def _contents(record: Mapping[str, Any]) -> tuple[list[str], list[str], list[list[Any]]]:
    """Axes, titles, and per row a text for each axis and then a list of shares (or a count, for `n`) for each title."""
    rows = _rows(record)
    axes = list(dict.fromkeys(axis for row in rows for axis in row.labels))
    values = [v for row in rows for v in row.by_seed.values()]
    titles = [t for t in record["figures"].values() if any(v[t] is not None for v in values)]
    baseline = record["baseline"]
    gains = baseline is not None and bool(titles)
    most = max(row.planned for row in rows)
    counts = any(len(row.by_seed) < most for row in rows)
    contents = []
    for row in rows:
        content: list[Any] = [str(row.labels.get(axis, "")) for axis in axes]
        content += [[v[title] for v in row.by_seed.values() if v[title] is not None] for title in titles]
        if baseline is not None and titles:
            theirs = _baseline_of(row.labels, [other.labels for other in rows], baseline)
            base = next((other.by_seed for other in rows if other.labels == theirs), {})
            pairs = [(v[titles[0]], base[seed][titles[0]]) for seed, v in row.by_seed.items() if seed in base]
            content.append([ours - its for ours, its in pairs if ours is not None and its is not None])
        contents.append([*content, len(row.by_seed)] if counts else content)
    return axes, [*titles, *["gain"] * gains, *["n"] * counts], contents


def table(record: Mapping[str, Any]) -> str:
    """A record as a Markdown table: a row per setting in the order of the cells, in percent.

    Each figure is the mean and the sample standard deviation over the finished seeds; `n` says how many those are where
    any is missing. `gain` is that of the first figure over the baseline, seed by seed, over the seeds that both have.
    """
    axes, titles, contents = _contents(record)
    lines = [[*axes, *titles]]
    lines += [[percent(entry) if isinstance(entry, list) else str(entry) for entry in content] for content in contents]
    return markdown(lines)


def table_across(record: Mapping[str, Any], across: Iterable[str], figure: str = "") -> str:
    """One figure of a record as a Markdown table with a column for every combination of labels on the axes `across`.

    Args:
      figure: a title in the table, such as "gain"; the empty string for the first.

    Raises:
      UserError: an axis or a figure that the record does not have.
    """
    axes, titles, contents = _contents(record)
    if not titles:
        raise UserError("the record has no figures")
    across, figure = list(across), figure or titles[0]
    for name, known in ((figure, titles), *((axis, axes) for axis in across)):
        if name not in known:
            raise UserError(f"the record has no {name!r}{did_you_mean(name, known)} (it has {', '.join(known)})")
    rows: dict[tuple[str, ...], dict[tuple[str, ...], str]] = {}
    for content in contents:
        labels = dict(zip(axes, content, strict=False))
        row = tuple(labels[axis] for axis in axes if axis not in across)
        entry = content[len(axes) + titles.index(figure)]
        text = percent(entry) if isinstance(entry, list) else str(entry)
        rows.setdefault(row, {})[tuple(labels[axis] for axis in across)] = text
    columns = list(dict.fromkeys(column for row in rows.values() for column in row))
    lines = [[*(axis for axis in axes if axis not in across), *(", ".join(column) for column in columns)]]
    lines += [[*row, *(entries.get(column, "") for column in columns)] for row, entries in rows.items()]
    return markdown(lines)


def table_csv(record: Mapping[str, Any]) -> str:
    """The same table as CSV: mean and standard deviation, as shares, in columns of their own."""
    axes, titles, contents = _contents(record)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*axes, *(h for t in titles for h in ((t,) if t == "n" else (t, f"{t}, std")))])
    for content in contents:
        line: list[Any] = []
        for entry in content:
            line += _numbers(entry) if isinstance(entry, list) else [entry]
        writer.writerow(line)
    return text.getvalue()


def _numbers(values: list[float]) -> list[str]:
    mean = f"{statistics.mean(values):.6g}" if values else ""
    return [mean, f"{statistics.stdev(values):.6g}" if len(values) > 1 else ""]
