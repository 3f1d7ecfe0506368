"""What is found wrong or strange with a data set: to be refused, noted, or reported with all the rest."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from lt_noisy.errors import UserError, say

Entry = Mapping[str, Any]


class Finding(NamedTuple):
    """One kind of trouble.

    Attributes:
      kind: such as `unreadable file`; one kind has one meaning wherever it is found.
      is_error: whether training is refused for it or would plainly be wrong; else it is a note.
      text: one line, which says where and what.
      entries: JSON-ready, all places: most have `files`, the names of those that belong together, and what is known
        beside (`why`, `class`, `id`, `line`).
    """

    kind: str
    is_error: bool
    text: str
    entries: tuple[Entry, ...] = ()


def settle(findings: Iterable[Finding | None]) -> None:
    """Refuses the first error as a `UserError`; where there is none the notes are said. None is no finding."""
    found = [finding for finding in findings if finding is not None]
    for finding in found:
        if finding.is_error:
            raise UserError(finding.text)
    for finding in found:
        say(f"note: {finding.text}")


def repeated_ids(ids: Sequence[int], names: Sequence[str], text: str) -> Finding | None:
    """Ids that several of N images have; `text` says where."""
    copies = {number for number, count in Counter(ids).items() if count > 1}
    if not copies:
        return None
    files: dict[int, list[str]] = {}
    for number, name in zip(ids, names, strict=True):
        if number in copies:
            files.setdefault(int(number), []).append(name)
    entries = tuple({"id": number, "files": own} for number, own in files.items())
    return Finding("duplicate id", True, text, entries)
