"""The page itself: sections as HTML, with its pictures inside and nothing from elsewhere."""

import base64
import struct
from collections.abc import Sequence
from typing import Any

import jinja2

from lt_noisy.errors import printable
from lt_noisy.finished.report.contents import Figure, Section, Table, numeric

_DENSITY = 1.4  # pixels of a picture on one of the page


def _kind(item: Table | Figure | str) -> str:
    if isinstance(item, Table):
        return "table"
    return "figure" if isinstance(item, Figure) else "text"


def _data_uri(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode('ascii')}"


def _size(png: bytes) -> tuple[int, int]:
    """Width and height at which a picture is shown where there is room: its text is then as large as a table's."""
    width, height = struct.unpack(">II", png[16:24])  # of the header
    return round(width / _DENSITY), round(height / _DENSITY)


def _on_one_line(value: Any) -> Any:
    """Every text that is put into the page: lone surrogates are no UTF-8, and the template's own marks stay."""
    return printable(value) if type(value) is str else value


def html(title: str, about: str, sections: Sequence[Section]) -> str:
    """The page.

    Args:
      title: its heading.
      about: a line under it.
      sections: in order; the first is of level 2, and none is more than one level below the one before.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("lt_noisy.finished.report"),
        undefined=jinja2.StrictUndefined,
        autoescape=True,
        finalize=_on_one_line,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"kind": _kind, "data_uri": _data_uri, "size": _size, "numeric": numeric}
    return environment.get_template("index.html.jinja").render(title=title, about=about, sections=sections)
