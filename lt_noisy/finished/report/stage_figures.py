"""The figures and tables of one finished stage: whatever its directory and its summary have something for."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from lt_noisy.errors import check_range, require
from lt_noisy.evaluation.classification import class_groups
from lt_noisy.files import load_arrays
from lt_noisy.finished.report import drawn, figures
from lt_noisy.finished.report.contents import Figure, Table
from lt_noisy.finished.report.main_figures import SUSPECTS, quality_arrays, suspects
from lt_noisy.finished.report.reported import Reported
from lt_noisy.finished.run import FinishedStage
from lt_noisy.stages import STAGES

_CONFUSIONS = 15  # rows of the table of the largest
_RARE = 20  # of the tables of classes, where not each has a bar
_NETWORKS = 8  # of a stage of several, those whose curves are drawn

Items = list[Table | Figure | str]


def share(value: float) -> str:
    """A share in percent."""
    return f"{100 * value:.1f} %"


def blocks(run: Reported) -> str:
    """What the title of a matrix of many classes has to say."""
    most = drawn.MOST_CELLS
    return f", neighbours taken together in {most} blocks" if len(run.names) > most else ""


def stage_items(run: Reported, stage: FinishedStage, name: str, embedding: str) -> Items:
    """What there is to show of a stage.

    Args:
      name: what the names of its pictures begin with.
      embedding: `pca`, `umap` or `none`, how the map of its features is drawn.

    Raises:
      UserError: a file of it is damaged.
    """
    rows = [[title.strip(), value.strip()] for title, value in STAGES[stage.kind].rows(stage.summary)]
    items: Items = [Table(f"Figures of {stage.name}", ("figure", "value"), rows)] if rows else []
    items += _curves(stage, name)
    if stage.of_other_data:  # of whose classes the run has no names
        return items
    test = stage.summary.get("test")
    if isinstance(test, dict) and "per_class_accuracy" in test:
        items += _classes(run, test, name)
        items += _confusions(run, test, name)
        items += _calibration(test, name)
    items += _labels(run, stage, name)
    items += _transition(run, stage, name)
    return items + (_map(run, stage, name, embedding) if embedding != "none" else [])


def _curves(stage: FinishedStage, name: str) -> Items:
    own = stage.directory / "metrics.jsonl"
    if own.exists():
        panels, networks = drawn.curves(drawn.read_metrics(own)), 1
    else:  # of several networks each has its own
        paths = sorted(stage.directory.glob("*/metrics.jsonl"), key=lambda path: (len(path.parent.name), path))
        panels, networks = {}, len(paths)
        for path in paths[:_NETWORKS]:
            for panel, lines in drawn.curves(drawn.read_metrics(path)).items():
                panels.setdefault(panel, {}).update({f"{path.parent.name} {key}": its for key, its in lines.items()})
    if not panels:
        return []
    more = f" (the first {_NETWORKS} of {networks} networks)" if networks > _NETWORKS else ""
    last = "; ".join(
        f"{key} ends at {values[-1]:.3g}" for lines in panels.values() for key, (_, values) in list(lines.items())[:4]
    )
    alt = f"Learning curves of {stage.name} by step. {last}."
    return [Figure(f"{name}-curves", figures.learning_curves(panels), f"Learning curves of {stage.name}{more}", alt)]


def _classes(run: Reported, test: Mapping[str, Any], name: str) -> Items:
    accuracy, counts, order = drawn.per_class(test), run.clean_counts, run.order
    items: Items = []
    if counts is not None and len(accuracy) == len(counts):
        found = drawn.by_frequency(test, counts, class_groups(_trained_counts(run, counts)))
        parts = [f"{part.replace('_', ' ')} {share(value)}" for part, _, _, value in found.groups]
        if len(found.classes):
            alt = f"Test accuracy of {len(found.classes)} classes by training examples: {', '.join(parts)}."
            title = "Accuracy against class frequency"
            items.append(Figure(f"{name}-frequency", figures.frequency({"": found}, run.names), title, alt))
    title = "Accuracy of each class, by falling number of training examples"
    best, worst = int(np.nanargmax(accuracy)), int(np.nanargmin(accuracy))
    alt = (
        f"Test accuracy of {len(order)} classes: from {share(accuracy[worst])} ({run.names[worst]}) to "
        f"{share(accuracy[best])} ({run.names[best]})."
    )
    picture = figures.per_class([run.names[c] for c in order], accuracy[order], _by_label(run, order))
    items.append(Figure(f"{name}-classes", picture, title, alt))
    return items + (_class_tables(run, accuracy) if len(order) > figures.FEW else [])


def _trained_counts(run: Reported, counts: np.ndarray) -> np.ndarray:
    """Clean counts int [C] of what stages train on: of the manifest, `counts`, without what is held out to validate.

    Which examples those are the first stage that has judged their labels says.
    """
    for stage in run.run.stages:
        if (arrays := quality_arrays(stage.directory, "ids")) is not None:
            found = run.counts_of(arrays["ids"])
            return counts if found is None else found
    return counts


def _by_label(run: Reported, order: np.ndarray) -> dict[str, np.ndarray]:
    """Training examples in this order of the classes, by kind of label; by one where both are the same."""
    clean, observed = run.clean_counts, run.observed_counts
    if clean is None or observed is None:
        return {}
    by_label = {"by clean label": clean[order], "by observed label": observed[order]}
    return by_label if run.truth_known else {"by label": observed[order]}


def _class_tables(run: Reported, accuracy: np.ndarray) -> Items:
    """The names that no axis has room for: those of the tail, and those that the classifier gets wrong most."""
    counts = run.clean_counts
    tested = np.flatnonzero(~np.isnan(accuracy))
    worst = tested[np.argsort(accuracy[tested], kind="stable")][:_RARE]

    def line(c: int) -> list[str]:
        value = "" if np.isnan(accuracy[c]) else share(accuracy[c])
        return [run.names[c], "" if counts is None else f"{counts[c]:,}", value]

    head = ("class", "training examples", "test accuracy")
    rarest = [] if counts is None else [line(c) for c in run.order[::-1][:_RARE]]
    tail = [Table(f"The {len(rarest)} rarest classes", head, rarest)] if rarest else []
    return [*tail, Table(f"The {len(worst)} classes of lowest accuracy", head, [line(c) for c in worst])]


def _confusions(run: Reported, test: Mapping[str, Any], name: str) -> Items:
    pairs = test.get("confusions")
    if not pairs:
        return []
    names = [run.names[c] for c in run.order]
    largest = drawn.largest_confusions(pairs, _CONFUSIONS)
    first = largest[0] if largest else None
    alt = "Confusion matrix of the test set, each row divided by its sum"
    if first is not None:
        alt += f"; the largest confusion is {run.names[first[0]]} taken for {run.names[first[1]]}, {first[2]} times"
    picture = figures.matrix(drawn.shares(pairs, run.order), names, "true class", "predicted class")
    title = f"Confusion matrix, classes by falling number of training examples{blocks(run)}"
    rows = [[run.names[t], run.names[p], f"{number:,}", share(part)] for t, p, number, part in largest]
    head = ("true class", "predicted class", "test examples", "share of the true class")
    table = [Table(f"The {len(rows)} largest confusions", head, rows)] if rows else []
    return [Figure(f"{name}-confusions", picture, title, f"{alt}."), *table]


def _calibration(test: Mapping[str, Any], name: str) -> Items:
    bins = test.get("reliability")
    if not bins:  # of a run that was made before summaries had them
        return []
    gap = "; ".join(
        f"confidence {confidence:.2f}, accuracy {accuracy:.2f}"
        for count, confidence, accuracy in zip(*(bins[k] for k in ("count", "confidence", "accuracy")), strict=True)
        if count
    )
    alt = f"Reliability diagram, expected calibration error {test['ece']:.3f}, by bin: {gap}."
    return [Figure(f"{name}-reliability", figures.reliability(bins, test["ece"]), "Reliability diagram", alt)]


def _labels(run: Reported, stage: FinishedStage, name: str) -> Items:
    arrays = quality_arrays(stage.directory, "ids", "loss", "wrong_probability")
    if arrays is None:
        return []
    wrong = run.wrong(arrays["ids"])
    found = drawn.losses_by_bin(arrays["loss"], wrong, run.seed)
    means = " and ".join(f"{mean:.2f}" for mean in found.means)
    alt = f"Histogram of the cross-entropy of {len(arrays['loss']):,} training labels"
    alt += "" if wrong is None else f", {int(wrong.sum()):,} of them wrong"
    alt += f"; the components of the mixture have the means {means}." if means else "."
    title = "Losses of the training labels, and the mixture of two Gaussians on all of them"
    items: Items = [Figure(f"{name}-losses", figures.losses(found), title, alt)]
    rows = [["estimated share of wrong labels", share(float(arrays["wrong_probability"].mean()))]]
    if wrong is not None:
        rows.append(["true share", share(float(wrong.mean()))])
    rows += [[f"wrong among the first {k} suspects", share(part)] for k, part in (suspects(run, stage) or {}).items()]
    flags = stage.summary.get("label_quality", {}).get("flags")
    if flags:
        at = flags["precision_at"]
        rows += [[f"flagged among the {k} most suspicious", share(at[str(k)])] for k in SUSPECTS if str(k) in at]
    return [*items, Table("Wrong labels", ("figure", "value"), rows)]


def _transition(run: Reported, stage: FinishedStage, name: str) -> Items:
    path = stage.directory / "transition.npz"
    if not path.exists():
        return []
    (matrix,) = load_arrays(path, "matrix")
    classes = len(run.names)
    require(matrix.shape == (classes, classes), f"{path}: its matrix is {matrix.shape}, not of {classes} classes")
    alt = f"Estimated noise transition matrix; the mean of its diagonal is {share(float(np.diag(matrix).mean()))}."
    names = [run.names[c] for c in run.order]
    picture = figures.matrix(drawn.in_order(matrix, run.order), names, "clean label", "observed label")
    return [Figure(f"{name}-transition", picture, f"Noise transition matrix, estimated{blocks(run)}", alt)]


def _map(run: Reported, stage: FinishedStage, name: str, method: str) -> Items:
    path = stage.directory / "reference.npz"
    if not path.exists():
        return []
    features, ids, observed = load_arrays(path, "features", "ids", "observed")
    require(ids.shape == observed.shape == features.shape[:1], f"{path}: its arrays are not of one length")
    check_range(observed, len(run.names), f"labels in {path}")
    found = drawn.embedded(features, method, run.seed, str(path))
    wrong = run.wrong(ids)
    rank = np.empty(len(run.names), np.int64)
    rank[run.order] = np.arange(len(run.names))
    shown = None if wrong is None else wrong[found.rows]
    names = [run.names[c] for c in run.order]
    picture = figures.embedding(found, rank[observed[found.rows]], shown, names)
    how = "UMAP" if method == "umap" else "first two principal components"
    some = f"{len(ids):,}" if len(found.rows) == len(ids) else f"{len(found.rows):,} of {len(ids):,}"
    title = f"Features of {some} training examples, balanced where there are enough, by observed class: {how}"
    alt = f"Map of the features of {len(found.rows):,} training examples ({how}), coloured by observed class"
    alt += "." if shown is None else f"; {int(shown.sum()):,} wrong labels have a ring."
    return [Figure(f"{name}-map", picture, title, alt)]
