"""A sweep: its cells bound before the first starts, run as processes, and made one table."""

import pathlib
import shlex
import time
from typing import NamedTuple

from lt_noisy.config.command_line import parse
from lt_noisy.config.identity import identity_sha256, run_sha256
from lt_noisy.config.python_file import errors_named, read_module
from lt_noisy.config.resolve import resolve
from lt_noisy.errors import UserError, say
from lt_noisy.files import write_json
from lt_noisy.runs.sweeps import tables
from lt_noisy.runs.sweeps.cells import Cell, arguments, only, slug
from lt_noisy.runs.sweeps.processes import Child, Planned, run_all
from lt_noisy.runs.sweeps.record import ROOT, Sweep, finished, make_record, portable, refuse_other, write
from lt_noisy.runs.workdir import locked, planned_sources
from lt_noisy.training.interrupt import Interrupts

MAIN = ROOT / "main.py"


def read_sweep(config: str) -> Sweep:
    """`sweep(variant)`, `BASELINE` and `FIGURES` of the config file of `path[:variant]`."""
    path, _, variant = config.partition(":")
    module = read_module(path)
    if not hasattr(module, "sweep"):
        raise UserError(f"{path} has no sweep(variant); it returns a list of cells, see lt_noisy/runs/sweeps/cells.py")
    with errors_named(path):
        cells = module.sweep(variant)
    found = Sweep(cells, getattr(module, "BASELINE", None), getattr(module, "FIGURES", tables.FIGURES))
    tables.check(*found)
    return found


def plan(
    cells: list[Cell], config: str, root: pathlib.Path, store: pathlib.Path, overrides: list[str]
) -> list[Planned]:
    """Binds the config of every cell, from the arguments that its process will get.

    Raises:
      UserError: the first cell that does not bind or has the config of an earlier one; an override that every cell
        sets itself.
    """
    for override in overrides:
        field = override.removeprefix("--config.").partition("=")[0]
        if all(field in cell.overrides for cell in cells):
            raise UserError(f"{override} has no effect: every cell of the sweep sets {field}")
    planned: dict[str, Planned] = {}
    for cell in cells:
        own = [f"--config={config}", *overrides, *arguments(cell.overrides)]
        try:
            resolved = resolve(parse(["main.py", *own])[0])
        except UserError as error:
            raise UserError(f"cell {cell}: {error}") from None
        sources = planned_sources(resolved)
        sha256 = identity_sha256({"config": run_sha256(resolved), "sources": sources})
        if sha256 in planned:
            raise UserError(f"cell {cell}: the same config as cell {planned[sha256].cell}")
        directory = root / "cells" / f"{slug(cell)}-{sha256[:8]}"
        command = [str(MAIN), own[0], f"--workdir={directory}", f"--store={store}", *own[1:]]
        planned[sha256] = Planned(cell, directory, sources, sha256, command)
    return list(planned.values())


def execute(todo: list[Planned], jobs: int, figures: dict[str, str], interrupts: Interrupts) -> list[str]:
    """Runs the cells with a line on each that ends; returns those that failed, each with its error."""
    failed: list[str] = []
    ended: list[float] = []

    def done(child: Child, status: int) -> None:
        cell, seconds = child.planned.cell, time.perf_counter() - child.began
        ended.append(seconds)
        left = round(sum(ended) / len(ended) * (len(todo) - len(ended)) / jobs)
        eta = f"ETA {left // 3600}:{left // 60 % 60:02}:{left % 60:02}"
        summary = None
        if status == 0:
            mark = {"sha256": child.planned.sha256, "process_seconds": round(seconds, 3)}
            write_json(child.planned.directory / "cell.json", mark)
            summary = finished(child.planned)
        if summary is not None:
            outcome = tables.headline(tables.figures(summary, figures))
        elif interrupts.pending is not None:
            outcome = "stopped"
        else:
            error = child.error(status) if status else "the sources were edited after the sweep began"
            failed.append(f"{cell}: {error}")
            outcome = f"failed, {error}"
        say(f"[{len(ended)}/{len(todo)}] {cell}: {outcome}, {seconds:.0f} s, {eta}")

    run_all(todo, jobs, interrupts, done)
    return failed


class Options(NamedTuple):
    """The options of a sweep.

    Attributes:
      config: a config file with a `sweep(variant)`, as `path[:variant]`.
      root: where cells, stages, record and tables go.
      store: where stages go that several sweeps share; None for `root/stages`.
      jobs: cells that run at the same time.
      record: where the record goes once every cell is finished; None for nowhere else than `root`.
      only: `AXIS=LABEL`, the cells to run and tabulate (`cells.only`); all of them without one.
      overrides: `--config.FIELD=VALUE`, of every cell.
    """

    config: str
    root: pathlib.Path
    store: pathlib.Path | None
    jobs: int
    record: pathlib.Path | None
    only: list[str]
    overrides: list[str]


def run(chosen: Options) -> int:
    """Plans, runs and tabulates; returns the exit status."""
    sweep = read_sweep(chosen.config)
    sweep = sweep._replace(cells=only(sweep.cells, chosen.only))
    store = chosen.store or chosen.root / "stages"
    planned = plan(sweep.cells, chosen.config, chosen.root, store, chosen.overrides)
    places = {"config": chosen.config, "root": chosen.root, "store": chosen.store, "record": chosen.record}
    given = [f"--{name}={portable(str(place))}" for name, place in places.items() if place is not None]
    given += [f"--only={text}" for text in chosen.only]
    command = shlex.join(["python", "launch/sweep.py", *given, f"--jobs={chosen.jobs}", *chosen.overrides])
    interrupts = Interrupts()
    with locked(chosen.root, "--root"), interrupts.installed(), interrupts.deferred():
        record = make_record(sweep, planned, chosen.config, chosen.overrides, command)
        refuse_other(chosen.root, record)
        write(chosen.root, record)  # says whose directory it is
        todo = [cell for cell in planned if finished(cell) is None]
        say(f"{len(planned)} cells, {len(planned) - len(todo)} finished already, {chosen.jobs} at a time")
        failed = execute(todo, chosen.jobs, sweep.figures, interrupts)
        record = make_record(sweep, planned, chosen.config, chosen.overrides, command)
        write(chosen.root, record)
        missing = [cell for cell in record["cells"] if cell["figures"] is None]
        if chosen.record is not None and not missing:
            write_json(chosen.record, record)
        say(*tables.table(record).splitlines())
        for line in failed:
            say(f"failed: {line}")
        if missing:
            say(f"{len(missing)} cells are not finished; the same command runs them")
    return 1 if failed else 0
