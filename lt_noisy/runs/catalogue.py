"""Everything that a config can name, read from the code itself: tables of specs, kinds of stages, and their fields.

What is said of a spec is the first paragraph of its factory's docstring, and its paper is where the section
`References:` begins: everything up to a year in brackets, such as "Lin et al., "Focal Loss" (2017)"; several papers
are divided by semicolons. A factory `make_x` is documented by the formula `x` of its file. What is said of a field is
the comment behind it or above it.
"""

import dataclasses
import functools
import inspect
import re
import sys
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from lt_noisy.config.fields import NO_STAGE, Field, fields_of
from lt_noisy.config.resolve import RunFields
from lt_noisy.config.spec import Table, signature_text
from lt_noisy.errors import UserError, did_you_mean
from lt_noisy.stages import STAGES


class Entry(NamedTuple):
    """One thing that can be written.

    Attributes:
      text: as it is written, with its defaults.
      says: what it is, in a sentence.
      paper: where it is from; the empty string where no paper is named.
    """

    text: str
    says: str
    paper: str = ""


class Group(NamedTuple):
    """What can be written in one place.

    Attributes:
      name: what `--list` calls it: the table's own name, or the stage kind.
      about: a sentence on where it is written.
      entries: in the order of the table.
    """

    name: str
    about: str
    entries: tuple[Entry, ...]


def catalogue() -> dict[str, Group]:
    """All groups by name: the fields of a run, the kinds of stages, the fields of each, and every table of specs."""
    kinds = {name: sys.modules[kind.section.__module__].__doc__ or "" for name, kind in STAGES.items()}
    said = {name: _summary(doc).partition(": ")[2] for name, doc in kinds.items()}  # after "Stage `name`"
    entries = tuple(Entry(name, said[name], paper_of(doc)) for name, doc in kinds.items())
    groups = [
        Group(
            "run", "Fields of a run, `config`; beside them stands a section for each of its stages.", _fields(RunFields)
        ),
        Group("stages", "Kinds of a stage, `config.STAGE.kind`.", entries),
        *(
            Group(
                name, f"Fields of a stage, `config.STAGE`, of the kind `{name}`: {text}", _fields(STAGES[name].section)
            )
            for name, text in said.items()
        ),
        *(_table(name, table, where) for name, table, where in _tables()),
    ]
    return {group.name: group for group in groups}


def find(name: str) -> Group:
    """The group of this name.

    Raises:
      UserError: there is none; names the nearest, or the table that a field of this name is written from.
    """
    groups = catalogue()
    if name in groups:
        return groups[name]
    by_field = [group for group, _, where in _tables() if name in where]
    hint = f", did you mean {by_field[0]!r}, what the field {name} takes?" if by_field else did_you_mean(name, groups)
    raise UserError(f"--list: nothing is called {name!r}{hint} (known: {', '.join(groups)})")


def _tables() -> list[tuple[str, Table, dict[str, list[str]]]]:
    """Name and content of every table that a field is bound against, and {field: kinds with it, none for a run}."""
    found: dict[int, tuple[Table, dict[str, list[str]]]] = {}
    for kind, section in [("", RunFields), *((name, kind.section) for name, kind in STAGES.items())]:
        for name, field in fields_of(section).items():
            if field.table is not None:
                kinds = found.setdefault(id(field.table), (field.table, {}))[1].setdefault(name, [])
                kinds += [kind] if kind else []
    return [(table_name(table), table, where) for table, where in found.values()]


def table_name(table: Table) -> str:
    """The name that the table has where it is made, in small letters: "losses" of `LOSSES`."""
    return _names()[id(table)].lower()


@functools.cache
def _names() -> dict[int, str]:
    """Names in capitals of the package's modules by the id of what they name, the first of each."""
    modules = [module for name, module in list(sys.modules.items()) if name.startswith("lt_noisy.")]
    named = [(id(value), name) for module in modules for name, value in vars(module).items() if name.isupper()]
    return dict(reversed(named))


def _table(name: str, table: Table, where: Mapping[str, list[str]]) -> Group:
    """The group of a table; where it has all entries of another table, that one's name stands for them."""
    others = [(other, entries) for other, entries, _ in _tables() if len(entries) < len(table)]
    within = [(other, entries) for other, entries in others if entries.items() <= table.items()]
    told = {key for _, entries in within for key in entries}
    fields: dict[str, list[str]] = {}
    for field, kinds in where.items():
        fields.setdefault(", ".join(kinds) or "the run", []).append(f"`{field}`")
    uses = "; ".join(f"{', '.join(names)} of {kinds}" for kinds, names in fields.items())
    more = "".join(f" Or any of `{other}`." for other, _ in within)
    own = tuple(entry(key, factory) for key, factory in table.items() if key not in told)
    return Group(name, f"For {uses}.{more}", own)


def entry(name: str, factory: Callable[..., Any]) -> Entry:
    """What a table's entry says of itself."""
    doc = inspect.getdoc(documented(factory)) or ""
    return Entry(signature_text(name, factory), _summary(doc), paper_of(doc))


def documented(factory: Callable[..., Any]) -> Callable[..., Any]:
    """The function whose docstring is the factory's: of `make_x` the formula `x` of the same file."""
    prefix, _, name = factory.__name__.partition("make_")
    return factory if prefix or not name else getattr(sys.modules[factory.__module__], name, factory)


def _summary(doc: str) -> str:
    return " ".join(doc.partition("\n\n")[0].split())


def paper_of(doc: str) -> str:
    """The papers that a docstring's section `References:` begins with; the empty string without one."""
    section = re.search(r"^ *References:\n((?: +.*\n?)+)", doc, re.MULTILINE)
    found = section and re.match(r".*?\(\d{4}\)(?!; [A-Z])", " ".join(section[1].split()))
    return found[0] if found else ""


def _fields(section: type) -> tuple[Entry, ...]:
    said = _comments(section)
    return tuple(
        Entry(f"{name}={field.default!r}", "; ".join(filter(None, (_accepts(field), said.get(name, "")))))
        for name, field in fields_of(section).items()
    )


def _accepts(field: Field) -> str:
    """What may be written in a field, where its default does not show that."""
    if field.table is not None and field.reference is None:
        return f"one of `{table_name(field.table)}`"
    if field.choices is not None:
        return " or ".join(map(repr, field.choices))
    if field.reference is None:
        return ""
    kinds = " or ".join(field.reference.kinds)
    unlabelled = " that has seen no labels" if field.reference.label_free else ""
    also = [f"one of `{table_name(field.table)}`"] if field.table is not None else []
    without = [repr(NO_STAGE)] if field.reference.optional else []
    return ", or ".join([*also, f"an earlier {kinds} stage{unlabelled}", *without])


def _comments(section: type) -> dict[str, str]:
    """The comment behind each field of a section's class, or on the lines above it; also of the classes it extends."""
    found: dict[str, str] = {}
    for base in (c for c in reversed(section.__mro__) if dataclasses.is_dataclass(c)):
        above: list[str] = []
        for line in inspect.getsource(base).splitlines():
            field, comment = re.match(r"    (\w+): ", line), re.search(r"(?:^ +|  )# (.*)", line)
            if field:
                found[field[1]] = " ".join([*above, *([comment[1]] if comment else [])])
            above = [*above, comment[1]] if comment and not field else []
    return found
