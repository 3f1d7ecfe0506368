"""The catalogue as text: for a terminal (`python main.py --list`), and as the page docs/specs.md.

python -m lt_noisy.runs.listing > docs/specs.md
"""

import re
import shutil
import textwrap
from collections.abc import Sequence

from lt_noisy.runs.catalogue import Entry, Group, catalogue, find

COMMAND = "python -m lt_noisy.runs.listing > docs/specs.md"


def listing(name: str) -> str:
    """What `--list NAME` prints; without a name what there is, and how much of it.

    Raises:
      UserError: nothing is called so.
    """
    if not name:
        counted = [Entry(f"{group.name} ({len(group.entries)})", group.about) for group in catalogue().values()]
        return "\n".join([*_columns(counted), "", "One of them: python main.py --list losses"])
    group = find(name)
    short = all(len(entry.text) <= 42 and not entry.paper for entry in group.entries)
    return "\n".join([_wrapped(group.about), *(_columns if short else _paragraphs)(group.entries)])


def _columns(entries: Sequence[Entry]) -> list[str]:
    width = 3 + max(len(entry.text) for entry in entries)
    return [_wrapped(f"{entry.text:{width}}{entry.says}".rstrip(), "  ", "  " + " " * width) for entry in entries]


def _paragraphs(entries: Sequence[Entry]) -> list[str]:
    lines = []
    for entry in entries:
        lines += [_wrapped(entry.text, "  ", "    ")]
        lines += [_wrapped(text, "      ", "      ") for text in (entry.says, entry.paper) if text]
    return lines


def _wrapped(text: str, first: str = "", others: str = "") -> str:
    width = min(shutil.get_terminal_size((120, 24)).columns, 120)
    return textwrap.fill(text, width, initial_indent=first, subsequent_indent=others, break_on_hyphens=False)


def page() -> str:
    """docs/specs.md."""
    head = (
        "# Specs\n\nWhat a config can name, and what each field takes. Every line is read from the code, as "
        "`python main.py --list` is.\n\n"
        f"<!-- Generated: {COMMAND} -->\n"
    )
    return "\n".join([head, *map(_section, catalogue().values())])


def _section(group: Group) -> str:
    return "\n".join([f"## {group.name}\n", f"{_markdown(group.about)}\n", *map(_bullet, group.entries), ""])


def _bullet(entry: Entry) -> str:
    paper = f" *{_markdown(entry.paper)}.*" if entry.paper else ""
    return f"- `{entry.text}`{': ' if entry.says else ''}{_markdown(entry.says)}{paper}"


def _markdown(text: str) -> str:
    """Prose of a docstring: outside of code a bracket is none that HTML takes for a tag's, and a table is linked to."""
    text = re.sub(r"`[^`]*`|<", lambda found: "&lt;" if found[0] == "<" else found[0], text)
    return re.sub(r"\b(one|any) of `(\w+)`", r"\1 of [\2](#\2)", text)


if __name__ == "__main__":
    print(page(), end="")
