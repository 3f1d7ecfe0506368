"""Tables in Markdown, and the figures in them."""

import re
import statistics
from collections.abc import Sequence

from lt_noisy.errors import printable

_SPECIAL = {"&": "&amp;", "<": "&lt;", ">": "&gt;", **{c: f"\\{c}" for c in "\\`*[]~$#!"}}


def escaped(text: object) -> str:
    """`text` on one line in which neither Markdown nor HTML means anything; what a table takes for its own, `markdown`
    escapes."""
    special = "".join(_SPECIAL.get(c, c) for c in printable(text))
    return re.sub(r"(?<![^\W_])_|_(?![^\W_])", r"\\_", special)  # inside of a word it is an underscore


def markdown(lines: Sequence[Sequence[str]]) -> str:
    """A table of these lines of cells, the first of which is its head."""
    head, *body = ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines]
    return "\n".join([head, "|" + "---|" * len(lines[0]), *body])


def percent(shares: Sequence[float]) -> str:
    """The mean of shares in percent, of several their sample standard deviation too; of none the empty string."""
    if not shares:
        return ""
    mean = f"{100 * statistics.mean(shares):.1f}"
    return f"{mean} ± {100 * statistics.stdev(shares):.1f}" if len(shares) > 1 else mean
