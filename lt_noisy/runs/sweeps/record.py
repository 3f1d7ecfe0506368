"""What a sweep has made so far: its finished cells, and the record that its table is made of."""

import json
import pathlib
from typing import Any, NamedTuple

from lt_noisy.errors import UserError
from lt_noisy.files import replacing, write_json
from lt_noisy.revision import PACKAGE, codes, distinct
from lt_noisy.runs.sweeps import tables
from lt_noisy.runs.sweeps.cells import Cell
from lt_noisy.runs.sweeps.processes import Planned, read_mark

ROOT = PACKAGE.parent  # of the project: what the record names is relative to it


class Sweep(NamedTuple):
    """What a config file says of its sweep."""

    cells: list[Cell]
    baseline: dict[str, Any] | None
    figures: dict[str, str]


def finished(planned: Planned) -> dict[str, Any] | None:
    """What a finished cell left: the summary of its last stage, `process_seconds`, and the `code` of all its stages.

    None if it is not finished, or ran other sources than it was planned with: they were edited before it started.
    The seconds are None where its command was printed, and run by something else.
    """
    try:
        summaries = [json.loads((planned.directory / s / "summary.json").read_text()) for s in planned.sources]
    except (OSError, ValueError):
        return None
    ran = [summary.get("sources_sha256") for summary in summaries]
    if ran != list(planned.sources.values()):
        return None
    return {**summaries[-1], "process_seconds": read_mark(planned), "code": codes(summaries)}


def make_record(
    sweep: Sweep, planned: list[Planned], config: str, overrides: list[str], command: str
) -> dict[str, Any]:
    """Everything that the table is made of, and how it came about; no path of this machine."""
    summaries = [finished(cell) for cell in planned]
    there = [s for s in summaries if s is not None]
    cells = []
    for (cell, *_), summary in zip(planned, summaries, strict=True):
        entry = {"labels": cell.labels, "overrides": cell.overrides, "figures": None}
        if summary is not None:
            entry["figures"] = tables.figures(summary, sweep.figures)
            entry |= {key: summary.get(key) for key in ("params_sha256", "wall_seconds", "process_seconds")}
        cells.append(entry)
    return {
        "command": command,
        "config": portable(config),
        "overrides": overrides,
        "figures": sweep.figures,
        "baseline": sweep.baseline,
        "code": distinct(code for s in there for code in s["code"]),
        "versions": distinct(s["versions"] for s in there),
        "machine": distinct(s["machine"] for s in there),
        "process_seconds": round(sum(s["process_seconds"] or 0 for s in there)),
        "cells": cells,
    }


def portable(path: str) -> str:
    """A relative path as it is; an absolute one as from the repository, or its last part where it is elsewhere."""
    given = pathlib.Path(path)
    if given.is_absolute():
        given = given.relative_to(ROOT) if given.is_relative_to(ROOT) else pathlib.Path(given.name)
    return str(given)


def refuse_other(root: pathlib.Path, record: dict[str, Any]) -> None:
    """`UserError` where the record in `root` is of another config, variant or overrides than this one."""
    path = root / "record.json"
    if not path.exists():
        return
    old, new = ((r["config"], *sorted(r["overrides"])) for r in (read_record(path, "--root"), record))
    if old != new:
        raise UserError(f"--root={root}: holds another sweep, {' '.join(old)}; choose another directory")


def read_record(path: pathlib.Path, option: str) -> dict[str, Any]:
    """A record; `UserError`, naming `option`, for a file that is none."""
    try:
        record = json.loads(path.read_text())
    except OSError as error:
        raise UserError(f"{option}={path}: {error.strerror}") from None
    except ValueError:
        record = None
    keys = {"config", "overrides", "figures", "baseline", "cells"}
    if not isinstance(record, dict) or keys - record.keys():
        raise UserError(f"{option}: {path} is not the record of a sweep")
    return record


def write(root: pathlib.Path, record: dict[str, Any]) -> None:
    """record.json, table.md and table.csv."""
    write_json(root / "record.json", record)
    for name, text in (("table.md", tables.table(record) + "\n"), ("table.csv", tables.table_csv(record))):
        with replacing(root / name, "w") as file:
            file.write(text)
