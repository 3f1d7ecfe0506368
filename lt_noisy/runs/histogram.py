"""How many images each class has: bars for a terminal, and a picture."""

import pathlib
import warnings
from collections.abc import Sequence

import numpy as np

from lt_noisy.errors import UserError, printable
from lt_noisy.files import replacing

_MOST = 40  # classes that are shown by name
_BAR = 40  # characters of the longest bar
_NAME, _TITLE = 24, 100  # characters


def bars(class_names: Sequence[str], counts: np.ndarray) -> list[str]:
    """A line a class, by falling count (int [C]); of more than 40 classes the 20 largest and the 20 smallest.

    The largest class has 40 characters, and whatever has an image at least one.
    """
    if not len(counts):
        return []
    order = np.argsort(-counts, kind="stable").tolist()
    left_out = len(order) - _MOST
    head, tail = (order, []) if left_out <= 0 else (order[: _MOST // 2], order[-(_MOST // 2) :])
    names = [_short(name, _NAME) for name in class_names]
    width = max(len(names[c]) for c in [*head, *tail])
    digits, most = len(f"{counts.max():,}"), max(int(counts.max()), 1)

    def line(c: int) -> str:
        count = int(counts[c])
        length = max(round(_BAR * count / most), min(count, 1))
        return f"{names[c]:{width}}  {count:{digits},}  {'#' * length}".rstrip()

    between = [f"... {left_out} classes between these are not shown ..."] if tail else []
    return [*map(line, head), *between, *map(line, tail)]


def _short(text: str, most: int) -> str:
    """`text` on one line of so many characters."""
    text = printable(text)
    return text if len(text) <= most else f"{text[: most - 3]}..."


def require_matplotlib() -> None:
    """`UserError` where a picture cannot be drawn."""
    try:
        import matplotlib  # noqa: F401  # pyright: ignore[reportMissingImports] (an extra)
    except ImportError:
        raise UserError("--png takes matplotlib: pip install 'lt_noisy[plot]'") from None


def save_png(
    path: pathlib.Path,
    title: str,
    class_names: Sequence[str],
    train: np.ndarray,
    test: np.ndarray,
    kind: str = "images",
) -> None:
    """Draws training and test images (int [C]), or what `kind` says, of each class, by falling number of the former."""
    from matplotlib.figure import Figure  # pyright: ignore[reportMissingImports]

    order = np.argsort(-train, kind="stable")
    places = np.arange(len(order))
    few = len(order) <= _MOST
    figure = Figure(figsize=(8, max(3.0, 0.22 * len(order) + 1.2)) if few else (10, 5), layout="constrained")
    axes = figure.add_subplot()
    if few:
        axes.barh(places - 0.2, train[order], 0.4, label=f"training {kind}")
        axes.barh(places + 0.2, test[order], 0.4, label=f"test {kind}")
        names = [_short(class_names[int(c)], _NAME) for c in order]
        axes.set_yticks(places, names, parse_math=False)  # a class may be called $5
        axes.invert_yaxis()
    else:
        axes.step(places, train[order], where="mid", label=f"training {kind}")
        axes.step(places, test[order], where="mid", label=f"test {kind}")
        axes.set_xlabel(f"classes, by number of training {kind}")
    (axes.set_xlabel if few else axes.set_ylabel)(kind)
    axes.set_title(_short(title, _TITLE), parse_math=False, fontsize="medium")
    axes.legend(loc="lower right" if few else "upper right")  # where the small classes are
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)  # it is drawn as a box
        with replacing(path) as file:
            figure.savefig(file, format="png", dpi=150)
