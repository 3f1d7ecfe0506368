"""Tables as Markdown and as LaTeX: every text of them escaped."""

import re
from collections.abc import Sequence

from lt_noisy.errors import printable
from lt_noisy.finished.report.contents import Table, numeric
from lt_noisy.runs.markdown import markdown

_MARKDOWN = {"&": "&amp;", "<": "&lt;", ">": "&gt;", **{c: f"\\{c}" for c in "\\`*[]~$"}}
_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "±": r"$\pm$",
    "[": "{[}",  # behind the \\ of a row it would begin an argument, as would the star
    "*": "{*}",
    **{c: f"\\{c}" for c in "&%$#_{}"},
}


def in_markdown(text: str) -> str:
    """`text` on one line that Markdown shows as it is; what a table takes for its own, `markdown` escapes."""
    escaped = "".join(_MARKDOWN.get(c, c) for c in printable(text))
    return re.sub(r"(?<!\w)_|_(?!\w)", r"\\_", escaped)  # inside of a word it is an underscore


def in_latex(text: str) -> str:
    """`text` on one line that LaTeX shows as it is."""
    return "".join(_LATEX.get(c, c) for c in printable(text))


def markdown_tables(title: str, tables: Sequence[Table]) -> str:
    """A Markdown file of these tables."""
    parts = [f"# {in_markdown(title)}"]
    for table in tables:
        lines = [[in_markdown(cell) for cell in line] for line in (table.head, *table.rows)]
        parts.append(f"## {in_markdown(table.title)}\n\n{markdown(lines)}")
    return "\n\n".join(parts) + "\n"


def latex_tables(title: str, tables: Sequence[Table]) -> str:
    """A LaTeX file of these tables, to be included in a document that uses `booktabs`."""
    parts = [f"% {printable(title)}\n% \\usepackage{{booktabs}}, and \\usepackage[T1]{{fontenc}}"]
    for table in tables:
        columns = "".join("r" if number else "l" for number in numeric(table))
        head, *rows = [" & ".join(map(in_latex, line)) + r" \\" for line in (table.head, *table.rows)]
        lines = [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{in_latex(table.title)}}}",
            rf"\begin{{tabular}}{{{columns}}}",
            r"\toprule",
            head,
            r"\midrule",
            *rows,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
        ]
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"
