"""Runs every cell of a config file's `sweep(variant)`, several at a time, and makes one table of them.

    python launch/sweep.py --config=configs/x.py[:VARIANT] --root=runs/x [--jobs=2] [--config.FIELD=VALUE ...]
    python launch/sweep.py --show=results/x.json [--csv | --across=AXES]    prints the table of a record

Each cell is `python main.py --config=... --workdir=ROOT/cells/CELL --store=ROOT/stages --config.FIELD=VALUE ...`, a
process of its own (its command and output are in CELL/log.txt), so a stage that several cells need runs once. Every
cell's config is bound before the first starts. A failed cell stops no other; the same command again runs what is not
finished. The directory of a cell carries the hash of its config and of the sources that its stages run: a cell that is
changed in the config file, or whose loss is corrected, is run again in a new directory, and what the old one shares
with it is not. A finished cell holds `cell.json`, written here after exit 0; data that changes on disk behind an
unchanged config goes unseen. Cells run in their order, and one that needs a stage which another is at waits for it:
axes that share no stage, such as the seed, belong last. Cells outlive a sweep that is killed outright: the same command
waits for them, then goes on (`process_seconds` is that of a cell's last process).

ROOT gets record.json, table.md and table.csv; it is for one config, variant and list of overrides. Overrides hold for
every cell, before its own. On a GPU that several jobs share, set XLA_PYTHON_CLIENT_MEM_FRACTION.
"""

import argparse
import importlib.util
import json
import os
import pathlib
import shlex
import signal
import sys
import time
from typing import Any, NamedTuple, NoReturn

if __name__ == "__main__":  # quiet while libraries load; handlers that stop the cells come with the first of them
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from lt_noisy.config.command_line import parse
from lt_noisy.config.identity import identity_sha256, run_sha256
from lt_noisy.config.resolve import resolve
from lt_noisy.errors import UserError
from lt_noisy.files import write_json
from lt_noisy.revision import distinct
from lt_noisy.runs.sweeps import tables
from lt_noisy.runs.sweeps.cells import Cell, arguments, slug
from lt_noisy.runs.sweeps.jobs import Child, Planned, run_all
from lt_noisy.runs.workdir import locked, planned_sources
from lt_noisy.training.interrupt import Interrupts

MAIN = ROOT / "main.py"


class Sweep(NamedTuple):
    """What a config file says of its sweep."""

    cells: list[Cell]
    baseline: dict[str, Any] | None
    figures: dict[str, str]


def read_sweep(config: str) -> Sweep:
    """`sweep(variant)`, `BASELINE` and `FIGURES` of the config file of `path[:variant]`."""
    name, _, variant = config.partition(":")
    path = pathlib.Path(name)
    if not path.is_file():
        raise UserError(f"--config: no file {str(path)!r} (configs are in configs/)")
    if path.suffix != ".py":
        raise UserError(f"--config: {str(path)!r} is not a Python file (configs are in configs/)")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        if not hasattr(module, "sweep"):
            raise UserError(
                f"{path} has no sweep(variant); it returns a list of cells, see lt_noisy/runs/sweeps/cells.py"
            )
        cells = module.sweep(variant)
    except UserError:
        raise
    except Exception as error:  # a slip in the file, of any kind
        raise UserError(f"{path}: {type(error).__name__}: {error}") from None
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


def finished(planned: Planned) -> dict[str, Any] | None:
    """What a finished cell left: the summary of its last stage, `process_seconds`, and the `code` of all its stages.

    None if it is not finished, or ran other sources than it was planned with: they were edited before it started.
    """
    try:
        mark = json.loads((planned.directory / "cell.json").read_text())
        summaries = [json.loads((planned.directory / s / "summary.json").read_text()) for s in planned.sources]
    except (OSError, ValueError):
        return None
    ran = [summary.get("sources_sha256") for summary in summaries]
    if mark.get("sha256") != planned.sha256 or ran != list(planned.sources.values()):
        return None
    return {**summaries[-1], "process_seconds": mark["process_seconds"], "code": distinct(summaries)}


def execute(todo: list[Planned], jobs: int, figures: dict[str, str], interrupts: Interrupts) -> list[str]:
    """Runs the cells with a line on each that ends; returns those that failed, each with its error."""
    failed: list[str] = []
    ended: list[float] = []

    def done(child: Child) -> None:
        cell, seconds = child.planned.cell, time.perf_counter() - child.began
        ended.append(seconds)
        left = round(sum(ended) / len(ended) * (len(todo) - len(ended)) / jobs)
        eta = f"ETA {left // 3600}:{left // 60 % 60:02}:{left % 60:02}"
        summary = None
        if child.process.returncode == 0:
            mark = {"sha256": child.planned.sha256, "process_seconds": round(seconds, 3)}
            write_json(child.planned.directory / "cell.json", mark)
            summary = finished(child.planned)
        if summary is not None:
            said = tables.headline(tables.figures(summary, figures))
        elif interrupts.pending is not None:
            said = "stopped"
        else:
            error = child.error() if child.process.returncode else "the sources were edited after the sweep began"
            failed.append(f"{cell}: {error}")
            said = f"failed, {error}"
        print(f"[{len(ended)}/{len(todo)}] {cell}: {said}, {seconds:.0f} s, {eta}", flush=True)

    run_all(todo, jobs, interrupts, done)
    return failed


def make_record(
    sweep: Sweep, planned: list[Planned], config: str, overrides: list[str], command: str
) -> dict[str, Any]:
    """Everything that the table is made of, and how it came about; no path of this machine."""
    summaries = [finished(each) for each in planned]
    there = [s for s in summaries if s is not None]
    cells = []
    for each, summary in zip(planned, summaries, strict=True):
        cell = {"labels": each.cell.labels, "overrides": each.cell.overrides, "figures": None}
        if summary is not None:
            cell["figures"] = tables.figures(summary, sweep.figures)
            cell |= {key: summary.get(key) for key in ("params_sha256", "wall_seconds", "process_seconds")}
        cells.append(cell)
    return {
        "command": command,
        "config": _portable(config),
        "overrides": overrides,
        "figures": sweep.figures,
        "baseline": sweep.baseline,
        "code": _distinct([code for s in there for code in s["code"]]),
        "versions": _distinct([s["versions"] for s in there]),
        "machine": _distinct([s["machine"] for s in there]),
        "process_seconds": round(sum(s["process_seconds"] for s in there)),
        "cells": cells,
    }


def _distinct(values: list[Any]) -> list[Any]:
    return [value for i, value in enumerate(values) if value not in values[:i]]


def _portable(path: str) -> str:
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
    (root / "table.md").write_text(tables.table(record) + "\n")
    (root / "table.csv").write_text(tables.table_csv(record))


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"command line: {message}")


def options(argv: list[str]) -> argparse.Namespace:
    """The sweep's own options; `overrides` holds those of the config."""
    parser = _Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    parser.add_argument("--config", help="a config file with a sweep(variant), and perhaps :VARIANT")
    parser.add_argument("--root", type=pathlib.Path, help="where cells, stages, record and tables go")
    parser.add_argument("--store", type=pathlib.Path, help="where stages go that several sweeps share (ROOT/stages)")
    parser.add_argument("--jobs", type=int, help="cells that run at the same time (default: 1)")
    parser.add_argument("--record", type=pathlib.Path, help="where the record goes once every cell is finished")
    parser.add_argument("--show", type=pathlib.Path, help="print the table of this record, and do nothing else")
    parser.add_argument("--csv", action="store_true", help="with --show: as CSV")
    parser.add_argument("--across", help="with --show: axes that become columns, such as noise,ratio")
    parser.add_argument("--figure", help="with --across: which figure, such as gain (default: the first)")
    overrides = [argument for argument in argv if argument.startswith("--config.")]
    found = parser.parse_args([argument for argument in argv if not argument.startswith("--config.")])
    found.overrides = overrides
    showing = [f"--{name}" for name in ("csv", "across", "figure") if getattr(found, name)]
    running = [
        f"--{name}" for name in ("config", "root", "store", "jobs", "record") if getattr(found, name) is not None
    ]
    if found.show is not None:
        if running or overrides:
            raise UserError(f"command line: --show only prints: it takes no {[*running, *overrides][0]}")
        if found.csv and found.across:
            raise UserError("command line: --csv or --across, not both")
        if found.figure and not found.across:
            raise UserError("command line: --figure goes with --across")
        return found
    if showing:
        raise UserError(f"command line: {showing[0]} goes with --show")
    if found.config is None or found.root is None:
        raise UserError("command line: --config and --root are needed (or --show)")
    if found.record is not None and not found.record.parent.is_dir():
        raise UserError(f"--record={found.record}: there is no directory {str(found.record.parent)!r}")
    found.jobs = 1 if found.jobs is None else found.jobs
    if found.jobs < 1:
        raise UserError(f"--jobs is at least 1, not {found.jobs}")
    return found


def show(chosen: argparse.Namespace) -> None:
    """Prints the table of a record."""
    record = read_record(chosen.show, "--show")
    try:
        if chosen.across:
            text = tables.table_across(record, chosen.across.split(","), chosen.figure or "")
        else:
            text = tables.table_csv(record).rstrip() if chosen.csv else tables.table(record)
    except UserError:
        raise
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise UserError(f"--show={chosen.show}: a damaged record of a sweep ({error!r})") from None
    try:
        print(text, flush=True)
    except BrokenPipeError:  # `| head` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush at exit


def run(chosen: argparse.Namespace) -> int:
    """Plans, runs and tabulates; returns the exit status."""
    sweep = read_sweep(chosen.config)
    store = chosen.store or chosen.root / "stages"
    planned = plan(sweep.cells, chosen.config, chosen.root, store, chosen.overrides)
    names = ("config", "root", "store", "record")
    given = [f"--{name}={_portable(str(getattr(chosen, name)))}" for name in names if getattr(chosen, name) is not None]
    command = shlex.join(["python", "launch/sweep.py", *given, f"--jobs={chosen.jobs}", *chosen.overrides])
    interrupts = Interrupts()
    with locked(chosen.root, "--root"), interrupts.installed(), interrupts.deferred():
        record = make_record(sweep, planned, chosen.config, chosen.overrides, command)
        refuse_other(chosen.root, record)
        write(chosen.root, record)  # says whose directory it is
        todo = [each for each in planned if finished(each) is None]
        print(f"{len(planned)} cells, {len(planned) - len(todo)} finished already, {chosen.jobs} at a time", flush=True)
        failed = execute(todo, chosen.jobs, sweep.figures, interrupts)
        record = make_record(sweep, planned, chosen.config, chosen.overrides, command)
        write(chosen.root, record)
        missing = [cell for cell in record["cells"] if cell["figures"] is None]
        if chosen.record is not None and not missing:
            write_json(chosen.record, record)
        print(tables.table(record), flush=True)
        for line in failed:
            print(f"failed: {line}", flush=True)
        if missing:
            print(f"{len(missing)} cells are not finished; the same command runs them", flush=True)
    return 1 if failed else 0


def main(argv: list[str]) -> int:
    """Returns the exit status: 0 all finished, 1 failed cells, 2 wrong input (130 and 143 leave as SystemExit)."""
    try:
        chosen = options(argv[1:])
        if chosen.show is not None:
            show(chosen)
            return 0
        return run(chosen)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: {error.filename or 'writing'}: {error.strerror or error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv))
