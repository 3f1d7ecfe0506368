"""What is drawn, as numbers: from the files of a run to the curves, bars, points and matrices of its figures."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from sklearn.decomposition import PCA

from lt_noisy import rng
from lt_noisy.errors import UserError, check_finite
from lt_noisy.estimate.clean_probability import loss_mixture

Curve = tuple[list[int], list[float]]  # steps, values
_BINS = 60
MOST_CELLS = 200  # of a side of a matrix
_MOST_POINTS = 5000  # of a map


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of a `metrics.jsonl`.

    Raises:
      UserError: a line is none of a metrics file.
    """
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            entry = json.loads(line)
            int(entry["step"])
        except (ValueError, KeyError, TypeError):
            raise UserError(f"{path}, line {number}: that is no line of metrics") from None
        found.append(entry)
    return found


def curves(lines: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, Curve]]:
    """The curves of a training by panel: `loss`, `NLL` and `share` (accuracies and the kNN's), in this order.

    What is neither, such as the norm of the gradient, is left out, and a panel without a curve too.
    """
    panels: dict[str, dict[str, Curve]] = {"loss": {}, "NLL": {}, "share": {}}
    for line in lines:
        for name, value in line.items():
            panel = _panel(name)
            if panel and isinstance(value, int | float) and np.isfinite(value):
                steps, values = panels[panel].setdefault(name.replace("_", " "), ([], []))
                steps.append(int(line["step"]))
                values.append(float(value))
    return {name: panel for name, panel in panels.items() if panel}


def _panel(name: str) -> str:
    if name == "loss" or name.endswith("_loss"):
        return "loss"
    if name.endswith("nll"):
        return "NLL"
    return "share" if "accuracy" in name or name.startswith("knn") else ""


class ByFrequency(NamedTuple):
    """Accuracy against class frequency.

    Attributes:
      classes: int [n], those with test and with training examples.
      counts: int [n], training examples by clean label.
      accuracy: float [n] on the test set.
      groups: of each part of the long tail its name, the least and the largest count in it, and its accuracy.
    """

    classes: np.ndarray
    counts: np.ndarray
    accuracy: np.ndarray
    groups: list[tuple[str, int, int, float]]


def by_frequency(test: Mapping[str, Any], counts: np.ndarray, groups: Mapping[str, np.ndarray]) -> ByFrequency:
    """Of a summary's `test`.

    Args:
      test: its `per_class_accuracy` [C] and `groups`.
      counts: int [C], clean training counts.
      groups: `class_groups` of the examples that it was trained on; one that is of other classes than that of `test`
        is left out.
    """
    accuracy = per_class(test)
    classes = np.flatnonzero(~np.isnan(accuracy) & (counts > 0))
    parts = []
    for name, members in groups.items():
        its = members[counts[members] > 0]
        own = test["groups"].get(name, {"num_classes": 0})
        if len(its) and own["num_classes"] == len(members):
            parts.append((name, int(counts[its].min()), int(counts[its].max()), own["accuracy"]))
    return ByFrequency(classes, counts[classes], accuracy[classes], [part for part in parts if part[3] is not None])


def per_class(test: Mapping[str, Any]) -> np.ndarray:
    """Accuracy float [C] of each class; NaN of one without test examples."""
    return np.array([np.nan if value is None else value for value in test["per_class_accuracy"]], float)


def trend(counts: np.ndarray, accuracy: np.ndarray, parts: int = 10) -> tuple[np.ndarray, np.ndarray]:
    """Of classes by rising count, cut into at most `parts` of one size: mean counts and mean accuracies, float [P]."""
    cuts = np.array_split(np.argsort(counts, kind="stable"), min(parts, len(counts)))
    return np.array([counts[part].mean() for part in cuts]), np.array([accuracy[part].mean() for part in cuts])


def shares(pairs: Sequence[Sequence[int]], order: np.ndarray) -> np.ndarray:
    """The matrix of [row class, column class, number], each row divided by its sum, in this order of the classes.

    Args:
      pairs: as `pair_counts` gives them.
      order: int [C].

    Returns:
      float [B, B], B = min(C, 200). A row without a number is NaN; of more than 200 classes neighbours share a row
      and a column: the mean of their rows, the sum of their columns.
    """
    num_classes = len(order)
    entries = np.asarray(pairs, np.int64).reshape(-1, 3)
    totals = np.bincount(entries[:, 0], weights=entries[:, 2], minlength=num_classes)
    cell = _cells(order)
    size = min(num_classes, MOST_CELLS)
    matrix = np.zeros((size, size))
    np.add.at(matrix, (cell[entries[:, 0]], cell[entries[:, 1]]), entries[:, 2] / totals[entries[:, 0]])
    present = np.bincount(cell[totals > 0], minlength=size)[:, None]
    return np.where(present > 0, matrix / np.maximum(present, 1), np.nan)


def in_order(matrix: np.ndarray, order: np.ndarray) -> np.ndarray:
    """A matrix [C, C] in this order of the classes, its cells as in `shares`."""
    size = min(len(order), MOST_CELLS)
    numbers = np.bincount(_cells(order), minlength=size)
    starts = np.cumsum(numbers) - numbers
    rows = np.add.reduceat(matrix[np.ix_(order, order)], starts, axis=0)
    return np.add.reduceat(rows, starts, axis=1) / numbers[:, None]


def _cells(order: np.ndarray) -> np.ndarray:
    """The row of a matrix in which each class is, int [C]."""
    cell = np.empty(len(order), np.int64)
    cell[order] = np.arange(len(order)) * min(len(order), MOST_CELLS) // len(order)
    return cell


def largest_confusions(pairs: Sequence[Sequence[int]], most: int) -> list[tuple[int, int, int, float]]:
    """Of the confusions [true, predicted, number] the `most` largest: the same and their share of the true class.

    By falling number, ties by rising true and predicted class.
    """
    totals: dict[int, int] = {}
    for true, _, number in pairs:
        totals[true] = totals.get(true, 0) + number
    wrong = sorted((p for p in pairs if p[0] != p[1]), key=lambda p: (-p[2], p[0], p[1]))
    return [(true, given, number, number / totals[true]) for true, given, number in wrong[:most]]


class Losses(NamedTuple):
    """Losses by bin, and the mixture of two Gaussians on all of them.

    Attributes:
      edges: float [B + 1].
      counts: {`right labels`, `wrong labels`: int [B]}, {`labels`: int [B]} where the truth is not known.
      places: float [P], where the components are given, [] without a mixture.
      components: float [2, P], as examples a bin, that of the right labels first.
      means: float [2].
    """

    edges: np.ndarray
    counts: dict[str, np.ndarray]
    places: np.ndarray
    components: np.ndarray
    means: np.ndarray


def losses_by_bin(loss: np.ndarray, wrong: np.ndarray | None, seed: int) -> Losses:
    """Of the losses float [N].

    Args:
      wrong: bool [N]; None where it is not known.
      seed: of the mixture, that of the run.
    """
    high = float(loss.max())
    low = float(loss.min())
    edges = np.linspace(low, high if high > low else low + 1, _BINS + 1)
    parts = {"labels": loss} if wrong is None else {"right labels": loss[~wrong], "wrong labels": loss[wrong]}
    counts = {name: np.histogram(part, edges)[0] for name, part in parts.items()}
    mixture = loss_mixture(loss, seed)
    if mixture is None:
        return Losses(edges, counts, np.empty(0), np.empty((2, 0)), np.empty(0))
    places = np.linspace(edges[0], edges[-1], 400)
    scaled = (places - mixture.means[:, None]) / mixture.stds[:, None]
    density = (mixture.weights / mixture.stds / np.sqrt(2 * np.pi))[:, None] * np.exp(-0.5 * scaled**2)
    return Losses(edges, counts, places, density * len(loss) * (edges[1] - edges[0]), mixture.means)


class Map(NamedTuple):
    """Points of a map of embeddings.

    Attributes:
      rows: int [n], of the features that are shown.
      points: float [n, 2].
      axes: the names of the two axes.
    """

    rows: np.ndarray
    points: np.ndarray
    axes: tuple[str, str]


def embedded(features: np.ndarray, method: str, seed: int, what: str) -> Map:
    """A map of at most 5,000 of the features [N, D], drawn by the seed.

    Args:
      method: `pca`: the first two principal components of all of them (Pearson 1901); `umap`: UMAP of those that are
        shown (McInnes et al., "UMAP: uniform manifold approximation and projection", 2018), as its program has it.
      what: what the features are called where they are refused.

    Raises:
      UserError: fewer than three rows or two columns, or one that is not finite.
    """
    features = np.asarray(features, np.float32)
    if features.ndim != 2 or features.shape[0] < 3 or features.shape[1] < 2:
        raise UserError(f"{what}: a map takes features [n, D], n at least 3 and D at least 2, not {features.shape}")
    check_finite(features, what)
    rows = np.arange(len(features))
    if len(rows) > _MOST_POINTS:
        rows = np.sort(rng.generator(seed, "report/map").choice(rows, _MOST_POINTS, replace=False))
    if method == "umap":
        import umap  # pyright: ignore[reportMissingImports] (an extra)

        points = umap.UMAP(random_state=seed, n_jobs=1).fit_transform(features[rows])
        return Map(rows, np.asarray(points, np.float64), ("UMAP 1", "UMAP 2"))
    if not np.ptp(features, axis=0).any():  # a network that has collapsed: nothing varies
        return Map(rows, np.zeros((len(rows), 2)), ("component 1 (0 %)", "component 2 (0 %)"))
    pca = PCA(2, svd_solver="covariance_eigh").fit(features)
    percent = [f"{100 * share:.0f} %" for share in pca.explained_variance_ratio_]
    first, second = (f"component {i + 1} ({share})" for i, share in enumerate(percent))
    return Map(rows, np.asarray(pca.transform(features[rows]), np.float64), (first, second))
