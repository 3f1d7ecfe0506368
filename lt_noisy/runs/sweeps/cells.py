"""Sweeps: grids of overrides as lists of cells.

A config file with a `sweep(variant)` that returns a list of cells can be given to `launch/sweep.py`:

    def sweep(variant):
        losses = axis("loss", {"CE": {"finetune.loss": "cross_entropy()"}, "LA": {"finetune.loss": "logit_adjusted()"}})
        scratch = axis("init", {"scratch": {"stages": ("finetune",), "finetune.init": "none()"}})
        ssl = axis("init", {"SSL": {}})
        frozen = axis("freeze", {"no": {}, "yes": {"finetune.freeze_encoder": True}})
        return product(axis("seed", range(5)), chain(product(scratch, losses), product(ssl, frozen, losses)))

It may also have `BASELINE`, labels of the cells that the table's gains are over, such as {"init": "scratch",
"loss": "CE"}, and `FIGURES` in place of `tables.FIGURES`: shares, which are shown in percent. The label `seed` is what
means and deviations are taken over.
"""

import itertools
import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from lt_noisy.errors import UserError

Labels = Mapping[str, str | int | float | bool]
SEED = "seed"


class Cell(NamedTuple):
    """One run of a sweep: its label on each axis, and the config fields it sets, by dotted name."""

    labels: Labels
    overrides: Mapping[str, Any]

    def __str__(self) -> str:
        return ", ".join(f"{axis}={label}" for axis, label in self.labels.items())


def axis(name: str, options: Mapping[Any, Mapping[str, Any]] | Iterable[Any]) -> list[Cell]:
    """One cell per option.

    Args:
      name: of the axis: a column of the table.
      options: {label: {field: value}}, or values of the field called `name`, which are their own labels:
        `axis("seed", range(5))`.

    Raises:
      UserError: a label or a value of a type that a config cannot hold.
    """
    pairs = options.items() if isinstance(options, Mapping) else [(value, {name: value}) for value in options]
    for label, overrides in pairs:
        where = f"sweep: axis {name!r}, {label!r}"
        if type(label) not in (str, int, float, bool):
            raise UserError(
                f"{where}: not a label; give {{label: {{field: value}}}} with text or a number as the label"
            )
        for field, value in overrides.items():
            if type(value) not in (str, int, float, bool, tuple):
                raise UserError(f"{where}: {field} holds str, int, float, bool or tuple, not {type(value).__name__}")
    return [Cell({name: label}, dict(overrides)) for label, overrides in pairs]


def product(*lists: list[Cell]) -> list[Cell]:
    """Every combination of one cell from each list; the last list varies fastest."""
    return [_merged(cells) for cells in itertools.product(*lists)]


def chain(*lists: list[Cell]) -> list[Cell]:
    """The lists one after another."""
    return list(itertools.chain(*lists))


def only(cells: list[Cell], wanted: list[str]) -> list[Cell]:
    """The cells that have the `AXIS=LABEL`s of `wanted`; of several for one axis, any.

    Raises:
      UserError: one that no cell has, or together none.
    """
    labels: dict[str, list[str]] = {}
    for text in wanted:
        name, equals, label = text.partition("=")
        known = {str(cell.labels[name]) for cell in cells if name in cell.labels}
        axes = {axis for cell in cells for axis in cell.labels}
        if not equals or not known:
            raise UserError(f"--only={text}: give AXIS=LABEL (axes here: {', '.join(sorted(axes))})")
        if label not in known:
            raise UserError(f"--only={text}: no cell has it ({name} is {' | '.join(sorted(known))})")
        labels.setdefault(name, []).append(label)
    found = [c for c in cells if all(str(c.labels.get(name)) in those for name, those in labels.items())]
    if not found:
        raise UserError(f"no cell has all of {', '.join(f'--only={text}' for text in wanted)}")
    return found


def _merged(cells: Iterable[Cell]) -> Cell:
    labels: dict[str, Any] = {}
    overrides: dict[str, Any] = {}
    for cell in cells:
        for what, merged, added in (("axis", labels, cell.labels), ("field", overrides, cell.overrides)):
            for name, value in added.items():
                if name in merged and (type(merged[name]), merged[name]) != (type(value), value):
                    where = Cell({**labels, **cell.labels}, {})
                    raise UserError(f"sweep: {where}: {what} {name} is both {merged[name]!r} and {value!r}")
                merged[name] = value
    return Cell(labels, overrides)


def slug(cell: Cell) -> str:
    """The cell's labels as the name of a directory, at most 150 characters; other labels may share it."""
    return re.sub(r"[^A-Za-z0-9._+=,-]+", "_", ",".join(f"{a}={label}" for a, label in cell.labels.items()))[:150]


def arguments(overrides: Mapping[str, Any]) -> list[str]:
    """Overrides as command-line arguments of main.py."""
    return [f"--config.{name}={v if isinstance(v, str) else repr(v)}" for name, v in overrides.items()]
