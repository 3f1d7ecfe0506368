"""A whole report: the page, the tables for papers, and the pictures by the names of their files."""

from collections.abc import Sequence
from typing import NamedTuple

from lt_noisy.finished.report.compare import side_by_side
from lt_noisy.finished.report.contents import Figure, Section
from lt_noisy.finished.report.forms import latex_tables, markdown_tables
from lt_noisy.finished.report.main_figures import by_seed, main_tables
from lt_noisy.finished.report.one_run import run_sections
from lt_noisy.finished.report.page import html
from lt_noisy.finished.report.reported import Group, Reported, grouped


class Tables(NamedTuple):
    """The main figures, as two files."""

    markdown: str
    latex: str


def whole(runs: Sequence[Reported], embedding: str) -> tuple[str, Tables, dict[str, bytes]]:
    """The page, the tables, and {name of its file: picture}.

    Args:
      runs: one or more.
      embedding: `pca`, `umap` or `none`.

    Raises:
      UserError: a file of a run is damaged.
    """
    groups = grouped(runs)
    title = groups[0].label if len(groups) == 1 else f"{len(groups)} runs side by side"
    sections = _alone(groups[0].runs[0], embedding) if len(runs) == 1 else _several(groups, embedding)
    tables = main_tables(groups)
    papers = [*tables, *by_seed(groups)]
    form = Tables(markdown_tables(title, papers), latex_tables(title, papers))
    pictures = [item for section in sections for item in section.items if isinstance(item, Figure)]
    return html(title, _about(runs), sections), form, {f"{item.name}.png": item.png for item in pictures}


def _alone(run: Reported, embedding: str) -> list[Section]:
    tables = main_tables([Group("", (run,))])
    first, *rest = run_sections(run, 2, "", embedding)
    return [first, *([Section(2, "Main figures", tables)] if tables else []), *rest]


def _several(groups: Sequence[Group], embedding: str) -> list[Section]:
    """Side by side, then the whole of one run of each group."""
    sections = [side_by_side(groups)]
    for i, group in enumerate(groups, 1):
        run = group.runs[0]
        more = f"{group.label}, seed {run.seed}" if len(group.runs) > 1 else group.label
        others = ", ".join(str(other.run.directory) for other in group.runs[1:])
        note = (
            [f"Its other seeds are in the tables above; each has a page of its own (lt-noisy report RUN): {others}"]
            if others
            else []
        )
        sections.append(Section(2, more, note))
        sections += run_sections(run, 3, f"run{i}-", embedding)
    return sections


def _about(runs: Sequence[Reported]) -> str:
    """A line under the title."""
    sets = list(dict.fromkeys(run.run.config["dataset"] for run in runs))
    shown = f"{sets[0]}" if len(sets) == 1 else f"{len(sets)} data sets"
    return f"{shown}; {len(runs)} run{'s' if len(runs) > 1 else ''}. Accuracies are of the last step, not the best."
