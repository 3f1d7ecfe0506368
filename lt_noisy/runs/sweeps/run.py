"""A sweep: its cells bound before the first starts, run as processes, and made one table."""

import functools
import pathlib
import shlex
import sys
from collections.abc import Callable
from typing import NamedTuple

from lt_noisy.config.command_line import parse
from lt_noisy.config.identity import run_sha256
from lt_noisy.config.python_file import errors_named, read_module
from lt_noisy.config.resolve import resolve
from lt_noisy.errors import UserError, prefixed, say
from lt_noisy.files import write_json
from lt_noisy.hashing import json_sha256
from lt_noisy.progress import remaining
from lt_noisy.runs.sweeps import cluster, tables
from lt_noisy.runs.sweeps.cells import Cell, arguments, only, slug
from lt_noisy.runs.sweeps.order import stage_keys
from lt_noisy.runs.sweeps.processes import Planned, run_all
from lt_noisy.runs.sweeps.record import ROOT, Sweep, finished, make_record, portable, refuse_other, write
from lt_noisy.runs.workdir import locked, planned_sources
from lt_noisy.training.interrupt import Interrupts

MAIN = ROOT / "main.py"
BACKENDS = ("local", "submitit", "print")


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
        with prefixed(f"cell {cell}"):
            resolved = resolve(parse(["main.py", *own])[0])
        if resolved.fields.seeds:
            raise UserError(f'cell {cell}: config.seeds: a sweep has a cell for each seed, axis("seed", (0, 1, 2))')
        sources = planned_sources(resolved)
        sha256 = json_sha256({"config": run_sha256(resolved), "sources": sources})
        if sha256 in planned:
            raise UserError(f"cell {cell}: the same config as cell {planned[sha256].cell}")
        directory = root / "cells" / f"{slug(cell)}-{sha256[:8]}"
        command = [str(MAIN), own[0], f"--workdir={directory}", f"--store={store}", *own[1:]]
        planned[sha256] = Planned(cell, directory, sources, sha256, command, stage_keys(resolved, sources))
    return list(planned.values())


def execute(
    todo: list[Planned],
    start: Callable[..., None],
    figures: dict[str, str],
    jobs: int | None,
    interrupts: Interrupts,
) -> list[str]:
    """Runs the cells with a line on each that ends; returns those that failed, each with its error.

    Args:
      start: `start(todo, interrupts=, done=)` runs them.
      jobs: cells at the same time, to tell how long the rest takes; None where nobody knows.
    """
    failed: list[str] = []
    ended: list[float | None] = []

    def done(planned: Planned, seconds: float | None, error: str) -> None:
        ended.append(seconds)
        summary = None if error else finished(planned)
        if summary is not None:
            outcome = tables.headline(tables.figures(summary, figures))
        elif interrupts.pending is not None:
            outcome = "stopped"
        else:
            error = error or "the sources were edited after the sweep began"
            failed.append(f"{planned.cell}: {error}")
            outcome = f"failed, {error}"
        took = "" if seconds is None else f", {seconds:.0f} s"
        say(f"[{len(ended)}/{len(todo)}] {planned.cell}: {outcome}{took}{_eta(ended, len(todo), jobs)}")

    start(todo, interrupts=interrupts, done=done)
    return failed


def _eta(ended: list[float | None], number: int, jobs: int | None) -> str:
    known = [seconds for seconds in ended if seconds is not None]
    if jobs is None or not known:
        return ""
    return f", {remaining(sum(known) / len(known) * (number - len(ended)) / jobs)}"


class Options(NamedTuple):
    """The options of a sweep.

    Attributes:
      config: a config file with a `sweep(variant)`, as `path[:variant]`.
      root: where cells, stages, record and tables go.
      store: where stages go that several sweeps share; None for `root/stages`.
      jobs: cells that run at the same time; None for one, or for as many as a cluster lets.
      record: where the record goes once every cell is finished; None for nowhere else than `root`.
      only: `AXIS=LABEL`, the cells to run and tabulate (`cells.only`); all of them without one.
      overrides: `--config.FIELD=VALUE`, of every cell.
      backend: one of `BACKENDS`.
      cluster: where `submitit` submits, `cluster.CLUSTERS`.
      slurm: its settings, `cluster.Settings.slurm`.
    """

    config: str
    root: pathlib.Path
    store: pathlib.Path | None
    jobs: int | None
    record: pathlib.Path | None
    only: list[str]
    overrides: list[str]
    backend: str
    cluster: str
    slurm: dict[str, str | int]


def run(chosen: Options) -> int:
    """Plans, runs and tabulates; returns the exit status."""
    settings = cluster.Settings(chosen.cluster, chosen.jobs, chosen.slurm)
    if chosen.backend == "submitit":
        cluster.check(settings)
    sweep = read_sweep(chosen.config)
    sweep = sweep._replace(cells=only(sweep.cells, chosen.only))
    store = chosen.store or chosen.root / "stages"
    planned = plan(sweep.cells, chosen.config, chosen.root, store, chosen.overrides)
    places = {"config": chosen.config, "root": chosen.root, "store": chosen.store, "record": chosen.record}
    given = [f"--{name}={portable(str(place))}" for name, place in places.items() if place is not None]
    given += [f"--only={text}" for text in chosen.only]
    command = shlex.join(["python", "launch/sweep.py", *given, *_how(chosen), *chosen.overrides])
    interrupts = Interrupts()
    with locked(chosen.root, "--root"), interrupts.installed(), interrupts.deferred():
        record = make_record(sweep, planned, chosen.config, chosen.overrides, command)
        refuse_other(chosen.root, record)
        write(chosen.root, record)  # says whose directory it is
        todo = [cell for cell in planned if finished(cell) is None]
        at_once = f", {chosen.jobs or 1} at a time" if chosen.backend == "local" else ""
        tell = functools.partial(say, stream=sys.stderr if chosen.backend == "print" else sys.stdout)
        tell(f"{len(planned)} cells, {len(planned) - len(todo)} finished already{at_once}")
        failed = _run(chosen, settings, todo, sweep, interrupts)
        record = make_record(sweep, planned, chosen.config, chosen.overrides, command)
        write(chosen.root, record)
        missing = [cell for cell in record["cells"] if cell["figures"] is None]
        if chosen.record is not None and not missing:
            write_json(chosen.record, record)
        tell(*tables.table(record).splitlines())
        for line in failed:
            tell(f"failed: {line}")
        if missing:
            does = "tabulates them once they are" if chosen.backend == "print" else "runs them"
            tell(f"{len(missing)} cells are not finished; the same command {does}")
    return 1 if failed else 0


def _run(
    chosen: Options, settings: cluster.Settings, todo: list[Planned], sweep: Sweep, interrupts: Interrupts
) -> list[str]:
    """Has the backend run the cells; returns those that failed, each with its error."""
    if chosen.backend == "submitit":
        start = functools.partial(cluster.run_jobs, root=chosen.root, settings=settings)
        return execute(todo, start, sweep.figures, None, interrupts)
    cluster.refuse_queued(todo, chosen.root)
    if chosen.backend == "local":
        jobs = chosen.jobs or 1
        return execute(todo, functools.partial(run_all, jobs=jobs), sweep.figures, jobs, interrupts)
    for planned in todo:
        say(planned.shown())
    return []


def _how(chosen: Options) -> list[str]:
    """The options that say where the cells ran."""
    if chosen.backend == "local":
        return [f"--jobs={chosen.jobs or 1}"]
    options = {"jobs": chosen.jobs, "cluster": chosen.cluster if chosen.backend == "submitit" else None}
    given = [f"--{name}={value}" for name, value in options.items() if value is not None]
    return [f"--backend={chosen.backend}", *given, *(_setting(*item) for item in chosen.slurm.items())]


def _setting(name: str, value: object) -> str:
    return f"--slurm.{name}" if value is True else f"--slurm.{name}={value}"
