"""Tables as Markdown and as LaTeX: every text of them escaped."""

from collections.abc import Sequence

from lt_noisy.errors import printable
from lt_noisy.finished.report.contents import Table, numeric
from lt_noisy.runs.markdown import escaped, markdown

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


def in_latex(text: str) -> str:
    """`text` on one line that LaTeX shows as it is."""
    return "".join(_LATEX.get(c, c) for c in printable(text))


def markdown_tables(title: str, tables: Sequence[Table]) -> str:
    """A Markdown file of these tables."""
    parts = [f"# {escaped(title)}"]
    for table in tables:
        lines = [[escaped(cell) for cell in line] for line in (table.head, *table.rows)]
        parts.append(f"## {escaped(table.title)}\n\n{markdown(lines)}")
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
