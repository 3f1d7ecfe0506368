"""What a report is made of: sections of figures and tables, whatever they show and however they are written."""

import re
from collections.abc import Sequence
from typing import NamedTuple

_NUMBER = re.compile(r"[-\d.,±% ]*")


class Table(NamedTuple):
    """A table of texts, as they are: each form in which it is written escapes what it has to.

    Attributes:
      title: its caption.
      head: the names of its columns.
      rows: as many texts each; the first names the row.
      folded: whether a page shows it only when asked, as it is long.
    """

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    folded: bool = False


def numeric(table: Table) -> list[bool]:
    """Which columns of a table hold numbers alone, shares and deviations among them: they end at the same side."""
    columns = list(zip(*table.rows, strict=True)) or [()] * len(table.head)
    return [i > 0 and all(_NUMBER.fullmatch(cell) for cell in column) for i, column in enumerate(columns)]


class Figure(NamedTuple):
    """A picture.

    Attributes:
      name: of its file, without `.png`.
      png: the file.
      title: its caption.
      alt: what it shows, for who does not see it.
    """

    name: str
    png: bytes
    title: str
    alt: str


class Section(NamedTuple):
    """A part of the page.

    Attributes:
      level: of its heading, 2 or below; no level is left out.
      title: its heading.
      items: in order; a text is a paragraph.
    """

    level: int
    title: str
    items: Sequence[Table | Figure | str] = ()
