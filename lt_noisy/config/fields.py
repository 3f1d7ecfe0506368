"""Sections of a config as frozen dataclasses: each field says what the user may write and how it is bound.

    @dataclasses.dataclass(frozen=True)
    class Section:
        init: str = stage_ref("none()", kinds=("self_supervised",), optional=True)
        loss: Method = spec("cross_entropy()", LOSSES)
        batch_size: int = plain(128)

An instance holds the bound values; what the user wrote is in the config and, in canonical form, in the texts that
`bind_section` returns beside it.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, NamedTuple, TypeVar

from ml_collections import ConfigDict

from lt_noisy.config.spec import Table, read
from lt_noisy.errors import UserError, did_you_mean

S = TypeVar("S")

NO_STAGE = "none()"  # what a field that names an earlier stage holds where it names none


class Reference(NamedTuple):
    """What a field that names an earlier stage may name.

    Attributes:
      kinds: stages of these kinds.
      optional: or none at all, `NO_STAGE`.
      label_free: only stages that read no labels of the training set, nor were made of one that did.
    """

    kinds: tuple[str, ...]
    optional: bool = False
    label_free: bool = False


class Field(NamedTuple):
    """What the metadata of a dataclass field says.

    Attributes:
      default: its value in a new section.
      identity: whether it is part of a stage's identity (cadence and logging are not).
      table: the table its specs are bound against; None for a plain value of the default's type.
      choices: text -> the value that it stands for; None where it is no such choice.
      reference: where it names an earlier stage, which ones it may; with a table a spec may stand in its place.
    """

    default: Any
    identity: bool = True
    table: Table | None = None
    choices: Mapping[str, Any] | None = None
    reference: Reference | None = None


def _field(field: Field) -> Any:
    return dataclasses.field(metadata={"field": field})


def plain(default: Any, *, identity: bool = True) -> Any:
    """A field that holds a value of the default's type."""
    return _field(Field(default, identity))


def spec(default: str, table: Table, *, identity: bool = True) -> Any:
    """A field that holds a spec; bound it is what the factory built."""
    return _field(Field(default, identity, table=table))


def choice(default: str, choices: Mapping[str, Any] | tuple[str, ...], *, identity: bool = True) -> Any:
    """A field that holds one of a few names; bound it is the value that the name stands for, or the name itself."""
    values = choices if isinstance(choices, Mapping) else {name: name for name in choices}
    return _field(Field(default, identity, choices=values))


def stage_ref(
    default: str,
    kinds: tuple[str, ...],
    *,
    optional: bool = False,
    label_free: bool = False,
    table: Table | None = None,
) -> Any:
    """A field that names an earlier stage (see `Reference`); bound it is that name, or what a spec of `table` built."""
    return _field(Field(default, table=table, reference=Reference(kinds, optional, label_free)))


def fields_of(section: type) -> dict[str, Field]:
    """The fields of a section's class, by name."""
    return {field.name: field.metadata["field"] for field in dataclasses.fields(section)}


def new_section(section: type, values: Mapping[str, Any], what: str) -> ConfigDict:
    """A section with all its defaults, then `values`; a name that is not a field is refused."""
    fields = fields_of(section)
    _refuse_unknown(values, fields, what)
    return ConfigDict({name: _converted(values.get(name, f.default), f.default) for name, f in fields.items()})


def bind_section(values: Mapping[str, Any], section: type[S], where: str) -> tuple[S, dict[str, Any]]:
    """Checks a section against its class and binds every spec in it.

    Returns:
      The bound section, and the canonical text or value of each field.

    Raises:
      UserError: a missing or unknown field, a value of the wrong type, or a spec that does not bind.
    """
    fields = fields_of(section)
    for name in fields:
        if name not in values:
            raise UserError(f"{where}.{name} is missing (a section must keep all its fields)")
    _refuse_unknown(values, fields, where)
    bound = {name: _bound(values[name], field, f"{where}.{name}") for name, field in fields.items()}
    return section(**{name: value for name, (value, _) in bound.items()}), {n: text for n, (_, text) in bound.items()}


def _refuse_unknown(values: Mapping[str, Any], fields: Mapping[str, Field], what: str) -> None:
    for name in values:
        if name not in fields:
            raise UserError(f"{what} has no field {name!r}{did_you_mean(name, fields)} (known: {', '.join(fields)})")


def _converted(value: Any, default: Any) -> Any:
    return float(value) if type(default) is float and type(value) is int else value


def _is_spec(value: Any) -> bool:
    """Whether what stands where a stage may be named is a spec."""
    return isinstance(value, str) and "(" in value and value != NO_STAGE


def _bound(value: Any, field: Field, where: str) -> tuple[Any, Any]:
    """The bound value, and its canonical text or, where it is plain, the value itself."""
    if field.table is not None and (field.reference is None or _is_spec(value)):
        return read(value, field.table, where)
    value = _converted(value, field.default)
    if type(value) is not type(field.default):
        raise UserError(f"{where} takes {type(field.default).__name__}, not {value!r}")
    if field.choices is not None:
        if value not in field.choices:
            hint = did_you_mean(value, field.choices)
            raise UserError(f"{where} is {' or '.join(field.choices)}, not {value!r}{hint}")
        return field.choices[value], value
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{where} takes a finite number, not {value}")
    return value, value
