"""Sections of a config as tables of fields: what each holds, its default, and how it is bound."""

import math
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from lt_noisy.config.spec import Table, bind, canonical
from lt_noisy.errors import UserError, did_you_mean


class Field(NamedTuple):
    """One field of a section.

    Attributes:
      default: its value in a new section. A field holds a spec or a plain value of the default's type.
      table: the table its specs are bound against; None for a plain value.
      identity: whether it is part of a stage's identity (cadence and logging are not).
    """

    default: Any
    table: Table | None = None
    identity: bool = True


Fields = Mapping[str, Field]


def new_section(fields: Fields, values: Mapping[str, Any], what: str) -> ConfigDict:
    """A section with all its defaults, then `values`; a name that is not a field is refused."""
    for name in values:
        if name not in fields:
            raise UserError(f"{what} has no field {name!r}{did_you_mean(name, fields)} (known: {', '.join(fields)})")
    return ConfigDict({name: values.get(name, field.default) for name, field in fields.items()})


def bind_section(section: Mapping[str, Any], fields: Fields, where: str) -> tuple[SimpleNamespace, dict]:
    """Checks a section against its fields and binds every spec in it.

    Returns:
      The bound fields, and the canonical text or value of each.

    Raises:
      UserError: a missing or unknown field, a value of the wrong type, or a spec that does not bind.
    """
    for name in fields:
        if name not in section:
            raise UserError(f"{where}.{name} is missing (a section must keep all its fields)")
    for name in section:
        if name not in fields:
            raise UserError(f"{where} has no field {name!r}{did_you_mean(name, fields)} (known: {', '.join(fields)})")
    bound, texts = {}, {}
    for name, field in fields.items():
        value, place = section[name], f"{where}.{name}"
        if field.table is not None:
            bound[name], texts[name] = bind(value, field.table, place), canonical(value, field.table, place)
        elif type(value) is not type(field.default):
            raise UserError(f"{place} takes {type(field.default).__name__}, not {value!r}")
        elif isinstance(value, float) and not math.isfinite(value):
            raise UserError(f"{place} takes a finite number, not {value}")
        else:
            bound[name] = texts[name] = value
    return SimpleNamespace(**bound), texts
