"""The figures of a report as PNG files: Matplotlib's objects without its state, in colours that the colour-blind tell
apart (Okabe & Ito, "Color universal design", 2008; ten classes by Tol, "Colour schemes", 2021).

Each takes what `drawn` gives, and names that are on one line each.
"""

import functools
import io
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib  # pyright: ignore[reportMissingImports] (an extra)
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg  # pyright: ignore[reportMissingImports]
from matplotlib.colors import PowerNorm  # pyright: ignore[reportMissingImports]
from matplotlib.figure import Figure  # pyright: ignore[reportMissingImports]
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter  # pyright: ignore[reportMissingImports]

from lt_noisy.finished.report.drawn import ByFrequency, Curve, Losses, Map, trend

FEW = 60  # classes that each have a bar and a name
_NAMED = 30  # classes that have a name along a matrix
_NAME = 18  # characters of a name along an axis
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
_CLASSES = (  # of ten classes
    *("#332288", "#88CCEE", "#44AA99", "#117733", "#999933", "#DDCC77", "#CC6677", "#882255", "#AA4499", "#777777"),
)
_LINES = ("-", "--", "-.", ":")
_STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.edgecolor": "#767676",
    "axes.titlesize": "medium",
    "grid.color": "#e4e4e4",
    "legend.frameon": False,
    "legend.fontsize": "small",
    "text.parse_math": False,  # a class may be called $5
}


def _as_png(draw: Callable[..., Figure]) -> Callable[..., bytes]:
    """What draws a figure, as what returns its file."""

    @functools.wraps(draw)
    def png(*args: Any, **kwargs: Any) -> bytes:
        with matplotlib.rc_context(_STYLE), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)  # it is drawn as a box
            figure, file = draw(*args, **kwargs), io.BytesIO()
            # Without a date the same run gives the same bytes.
            FigureCanvasAgg(figure).print_png(file, metadata={"Software": None})
            return file.getvalue()

    return png


def _figure(width: float, height: float) -> Figure:
    """A figure of so many inches."""
    return Figure(figsize=(width, height), dpi=144, layout="constrained")


def _short(name: str) -> str:
    return _named(name if len(name) <= _NAME else f"{name[: _NAME - 1]}…")


def _named(label: str) -> str:
    """With a zero-width space before an underscore, by which Matplotlib leaves a label out of legends."""
    return f"\u200b{label}" if label.startswith("_") else label


def _log_counts(axis: Any) -> None:
    """An axis of counts, logarithmic, labelled in plain numbers."""
    plain = FuncFormatter(lambda value, _: f"{value:,.0f}" if value >= 1 else "")
    axis.set_major_locator(LogLocator(10, subs=(1, 2, 5), numticks=12))
    axis.set_major_formatter(plain)
    axis.set_minor_formatter(NullFormatter())


@_as_png
def learning_curves(panels: Mapping[str, Mapping[str, Curve]]) -> Figure:
    """A panel for each of `drawn.curves`."""
    figure = _figure(3.7 * max(len(panels), 1) + 0.3, 3.1)
    for axes, (title, lines) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        for i, (name, (steps, values)) in enumerate(lines.items()):
            style = {"color": _COLOURS[i % len(_COLOURS)], "linestyle": _LINES[i % len(_LINES)]}
            axes.plot(steps, values, label=_tail(name), marker="o", markersize=2.5, linewidth=1.4, **style)
        axes.set_title("accuracy" if title == "share" else title)
        axes.set_xlabel("step")
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        if title == "share":
            axes.set_ylim(0, 1.02)
        axes.legend(loc="best", fontsize="x-small")  # said, for where it is not Matplotlib warns on a slow machine
    return figure


def _tail(name: str) -> str:
    """The end of a long name: what comes first is in all of them."""
    return _named(name if len(name) <= 34 else f"…{name[-33:]}")


@_as_png
def frequency(series: Mapping[str, ByFrequency], names: Sequence[str] | None = None) -> Figure:
    """Accuracy against class frequency; of one run with the parts of its long tail, of several with their trends.

    Args:
      names: of the C classes, to stand at the points of one run.
    """
    figure = _figure(6.6, 4.2)
    axes = figure.add_subplot()
    axes.set_xscale("log")
    for i, (label, found) in enumerate(series.items()):
        colour = _COLOURS[i % len(_COLOURS)]
        alone = len(series) == 1
        size, alpha = (26, 0.9) if len(found.classes) <= FEW else (9, 0.45)
        point = {"s": size, "alpha": alpha, "color": colour, "marker": "os^Dv<>"[i % 7], "linewidths": 0}
        axes.scatter(found.counts, found.accuracy, label="a class" if alone else _tail(label), **point)
        if not alone or len(found.classes) > FEW:
            places = trend(found.counts, found.accuracy)
            axes.plot(*places, color=colour, linestyle=_LINES[i % len(_LINES)], linewidth=1.6, alpha=0.9)
        if alone:
            for part, (name, low, high, value) in enumerate(found.groups):
                line = {"color": _COLOURS[1 + part % 5], "linestyle": _LINES[part % len(_LINES)], "linewidth": 1.5}
                span = (low / 1.03, high * 1.03)  # of one class it is seen too
                axes.plot(span, (value, value), label=f"{name.replace('_', ' ')}: {100 * value:.1f} %", **line)
        if alone and names is not None and len(found.classes) <= 20:
            for c, x, y in zip(found.classes, found.counts, found.accuracy, strict=True):
                offset = {"xytext": (4, 4), "textcoords": "offset points", "fontsize": "x-small"}
                axes.annotate(_short(names[int(c)]), (x, y), **offset)
    axes.set_ylim(-0.02, 1.04)
    axes.set_xlabel("training examples of the class, by clean label")
    axes.set_ylabel("test accuracy of the class")
    _log_counts(axes.xaxis)
    axes.legend(loc="best")
    return figure


@_as_png
def per_class(names: Sequence[str], accuracy: np.ndarray | None, counts: Mapping[str, np.ndarray]) -> Figure:
    """Accuracy float [n] (NaN: none) and training examples, int [n] by kind of label, of classes in this order."""
    panels = (accuracy is not None) + bool(counts)
    if len(names) > FEW:
        figure = _figure(7.4, 2.5 * panels)
        rows = list(figure.subplots(panels, 1, sharex=True, squeeze=False)[:, 0])
        rows[-1].set_xlabel("rank of the class, by falling number of training examples")
        if counts:
            _count_lines(rows.pop(0), counts)
        if accuracy is not None:
            _accuracy_points(rows[0], accuracy)
        return figure
    figure = _figure(7.4, max(2.6, 0.21 * len(names) + 1.0))
    columns = list(figure.subplots(1, panels, sharey=True, squeeze=False)[0])
    places = np.arange(len(names))
    columns[0].set_yticks(places, list(map(_short, names)))
    columns[0].set_ylim(len(names) - 0.5, -0.5)
    if counts:
        axes, height = columns.pop(0), 0.8 / len(counts)
        for i, (label, values) in enumerate(counts.items()):
            axes.barh(places + (i - (len(counts) - 1) / 2) * height, values, height, color=_COLOURS[4 + i], label=label)
        axes.set_xlabel("training examples")
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.grid(False, axis="y")
        axes.legend(loc="lower right")
    if accuracy is not None:
        axes = columns[0]
        axes.barh(places, np.nan_to_num(accuracy), 0.7, color=_COLOURS[0])
        for place, value in zip(places, accuracy, strict=True):
            text = "no test examples" if math.isnan(value) else f"{100 * value:.0f}"
            axes.text(0 if math.isnan(value) else value, place, f" {text}", va="center", fontsize="x-small")
        axes.set_xlim(0, 1.09)
        axes.set_xlabel("test accuracy (percent at the bars)")
        axes.grid(False, axis="y")
    return figure


def _count_lines(axes: Any, counts: Mapping[str, np.ndarray]) -> None:
    for i, (label, values) in enumerate(counts.items()):
        shown = np.where(values > 0, values, np.nan)  # there is no 0 on the axis
        axes.plot(np.arange(1, len(values) + 1), shown, label=label, color=_COLOURS[1 - i], linewidth=1 + i)
    axes.set_yscale("log")
    _log_counts(axes.yaxis)
    axes.set_ylabel("training examples")
    axes.legend(loc="upper right")


def _accuracy_points(axes: Any, accuracy: np.ndarray) -> None:
    ranks = np.arange(1, len(accuracy) + 1)
    axes.scatter(ranks, accuracy, s=7, color=_COLOURS[0], alpha=0.5, linewidths=0, label="a class")
    there = ~np.isnan(accuracy)
    if there.any():
        parts = np.array_split(np.flatnonzero(there), min(25, int(there.sum())))
        means = [accuracy[part].mean() for part in parts]
        axes.plot([ranks[p].mean() for p in parts], means, color=_COLOURS[1], linewidth=1.8, label="mean of neighbours")
    axes.set_ylim(-0.02, 1.04)
    axes.set_ylabel("test accuracy")
    axes.legend(loc="lower left")


@_as_png
def matrix(values: np.ndarray, names: Sequence[str], row: str, column: str) -> Figure:
    """Shares float [B, B] as colours; names where there are at most 30 classes, and the shares of at most 12."""
    named = len(names) <= _NAMED and len(names) == len(values)
    side = min(7.2, 0.27 * len(names) + 3.2) if named else 6.0
    figure = _figure(side + 0.6, side)
    axes = figure.add_subplot()
    axes.grid(False)
    # The square root: what is confused with what is small beside the diagonal.
    drawn = axes.imshow(values, cmap="cividis", norm=PowerNorm(0.5, 0, 1), interpolation="nearest")
    axes.set_facecolor("#d9d9d9")  # behind the rows of which there is nothing
    figure.colorbar(drawn, ax=axes, shrink=0.8, ticks=(0, 0.05, 0.2, 0.5, 1), label="share of the row")
    axes.set_ylabel(row)
    axes.set_xlabel(column)
    if named:
        places, texts = np.arange(len(names)), list(map(_short, names))
        axes.set_xticks(places, texts, rotation=0 if max(map(len, texts)) <= 2 else 90)
        axes.set_yticks(places, texts)
        if len(names) <= 12:
            for (i, k), value in np.ndenumerate(values):
                if value >= 0.005:
                    colour = "black" if value > 0.3 else "white"
                    axes.text(k, i, f"{100 * value:.0f}", ha="center", va="center", fontsize="x-small", color=colour)
    else:
        axes.set_xticks([])
        axes.set_yticks([])
    return figure


@_as_png
def reliability(bins: Mapping[str, Sequence[Any]], ece: float) -> Figure:
    """Accuracy by confidence over the examples by confidence, of the bins of a summary's `reliability`."""
    figure = _figure(4.6, 4.8)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    width = 1 / len(bins["count"])
    middles = (np.arange(len(bins["count"])) + 0.5) * width
    there = [i for i, count in enumerate(bins["count"]) if count]
    means = [bins["accuracy"][i] for i in there]
    upper.bar(middles[there], means, width * 0.94, color=_COLOURS[4], label="accuracy of a bin")
    confidences = [bins["confidence"][i] for i in there]
    upper.plot(confidences, means, "o", color=_COLOURS[1], markersize=4, label="at its mean confidence")
    upper.plot((0, 1), (0, 1), color="#555555", linestyle="--", linewidth=1, label="calibrated")
    upper.set_xlim(0, 1)
    upper.set_ylim(0, 1.02)
    upper.set_ylabel("accuracy")
    upper.set_title(f"expected calibration error {ece:.3f}")
    upper.legend(loc="upper left")
    lower.bar(middles, bins["count"], width * 0.94, color="#767676")
    lower.set_ylabel("test examples")
    lower.set_xlabel("confidence, the largest probability")
    return figure


@_as_png
def losses(found: Losses) -> Figure:
    """The losses of right and of wrong labels, and the two components of the mixture over them."""
    figure = _figure(6.6, 3.6)
    axes = figure.add_subplot()
    middles, width = (found.edges[:-1] + found.edges[1:]) / 2, found.edges[1] - found.edges[0]
    below = np.zeros(len(middles))
    colours = {"labels": "#767676", "right labels": _COLOURS[4], "wrong labels": _COLOURS[1]}
    for name, counts in found.counts.items():
        axes.bar(middles, counts, width, below, color=colours[name], alpha=0.8, label=f"{name} ({counts.sum():,})")
        below = below + counts
    for i, name in enumerate(("of lower mean", "of higher mean")[: len(found.means)]):
        style = {"color": ("#004C77", "#7A3500")[i], "linestyle": _LINES[i], "linewidth": 1.6}
        axes.plot(found.places, found.components[i], label=f"component {name} ({found.means[i]:.2f})", **style)
    if below.max():  # a narrow component may be far above its bars
        axes.set_ylim(0, 1.25 * below.max())
    axes.set_xlabel("cross-entropy to the observed label")
    axes.set_ylabel("training examples")
    axes.legend(loc="best")
    return figure


@_as_png
def embedding(found: Map, observed: np.ndarray, wrong: np.ndarray | None, names: Sequence[str]) -> Figure:
    """Points coloured by observed class, wrong labels with a ring.

    Args:
      observed: int [n], the place of each point's class in `names`.
      wrong: bool [n]; None where it is not known.
      names: by falling number of training examples.
    """
    figure = _figure(7.0, 5.2)
    axes = figure.add_subplot()
    size = 16 if len(observed) <= 1500 else 6
    if len(names) <= len(_CLASSES):
        for c, name in enumerate(names):
            axes.scatter(*found.points[observed == c].T, s=size, color=_CLASSES[c], linewidths=0, label=_short(name))
    else:
        drawn = axes.scatter(*found.points.T, s=size, c=observed, cmap="cividis_r", linewidths=0)
        figure.colorbar(drawn, ax=axes, label="rank of the observed class, by falling number of training examples")
    if wrong is not None and wrong.any():
        ring = {"facecolors": "none", "edgecolors": "black", "linewidths": 0.6 if size > 10 else 0.3}
        axes.scatter(*found.points[wrong].T, s=2.4 * size, label="wrong label", **ring)
    axes.set_xlabel(found.axes[0])
    axes.set_ylabel(found.axes[1])
    axes.grid(False)
    if axes.get_legend_handles_labels()[0]:
        figure.legend(loc="outside right upper", markerscale=1.4)
    return figure
