"""Runs every cell of a config file's `sweep(variant)`, several at a time, and makes one table of them.

    python launch/sweep.py --config=configs/x.py[:VARIANT] --root=runs/x [--jobs=2] [--config.FIELD=VALUE ...]
    python launch/sweep.py ... --backend=submitit --slurm.time=60 [--slurm.partition=gpu ...]    as jobs of Slurm
    python launch/sweep.py ... --backend=print                              a command a cell, for any other engine
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

With `--backend=submitit` cells are jobs of Slurm, in arrays: `--slurm.KEY=VALUE` is any option of sbatch, `time` in
minutes; with several tasks (`nodes`, `ntasks_per_node`) a cell is a run of so many processes. Where the time is over it
is saved and goes on in the queue. This program only waits: killed or stopped, it is started again by the same command,
which submits nothing twice. Docs: docs/slurm.md. With `--backend=print` the commands of what is not finished go to
standard output, all else to standard error; once they ran, the same command, or any backend's, tabulates.

ROOT gets record.json, table.md and table.csv; it is for one config, variant and list of overrides. Overrides hold for
every cell, before its own. `--only=seed=0 --only=loss=CE --only=loss=LA` runs and tabulates those cells alone; a later
call takes others, or all, and finds these finished. On a GPU that several jobs share, set
XLA_PYTHON_CLIENT_MEM_FRACTION.
"""

import argparse
import pathlib
import sys

# The code of the checkout that this file is in, as main.py has it.
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from lt_noisy.system import refuse_unsupported

refuse_unsupported()

from lt_noisy.training.interrupt import leave_on_signals

if __name__ == "__main__":  # while libraries load; a handler that stops the cells comes with the first of them
    leave_on_signals()

from lt_noisy.config.arguments import Parser, new_file
from lt_noisy.errors import UserError
from lt_noisy.files import exit_status, path_argument
from lt_noisy.files import show as show_text
from lt_noisy.runs.sweeps import tables
from lt_noisy.runs.sweeps.cluster import CLUSTERS
from lt_noisy.runs.sweeps.record import read_record
from lt_noisy.runs.sweeps.run import BACKENDS, Options, run


def options(argv: list[str]) -> argparse.Namespace:
    """The sweep's own options; `overrides` holds those of the config."""
    parser = Parser(description=__doc__)
    parser.add_argument(
        "--config",
        type=lambda text: str(path_argument(text)),
        help="a config file with a sweep(variant), and perhaps :VARIANT",
    )
    parser.add_argument("--root", type=path_argument, help="where cells, stages, record and tables go")
    parser.add_argument("--store", type=path_argument, help="where stages go that several sweeps share (ROOT/stages)")
    parser.add_argument("--jobs", type=int, help="cells that run at the same time (default: 1)")
    parser.add_argument("--record", type=new_file, help="where the record goes once every cell is finished")
    parser.add_argument("--only", action="append", metavar="AXIS=LABEL", help="the cells with this label; repeatable")
    parser.add_argument("--show", type=path_argument, help="print the table of this record, and do nothing else")
    parser.add_argument("--csv", action="store_true", help="with --show: as CSV")
    parser.add_argument("--across", help="with --show: axes that become columns, such as noise,ratio")
    parser.add_argument("--figure", help="with --across: which figure, such as gain (default: the first)")
    parser.add_argument("--backend", choices=BACKENDS, help="what runs the cells (default: processes here)")
    parser.add_argument("--cluster", choices=CLUSTERS, help="with --backend=submitit: slurm, or local to try it out")
    overrides = [argument for argument in argv if argument.startswith("--config.")]
    slurm = [argument for argument in argv if argument.startswith("--slurm.")]
    found = parser.parse_args([argument for argument in argv if argument not in {*overrides, *slurm}])
    found.overrides = overrides
    found.slurm = dict(map(_setting, slurm))
    showing = [f"--{name}" for name in ("csv", "across", "figure") if getattr(found, name)]
    running = [
        f"--{name}"
        for name in ("config", "root", "store", "jobs", "record", "only", "backend", "cluster")
        if getattr(found, name) is not None
    ] + slurm
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
    found.only = found.only or []
    if found.jobs is not None and found.jobs < 1:
        raise UserError(f"--jobs is at least 1, not {found.jobs}")
    found.backend = found.backend or "local"
    if found.backend != "submitit" and (found.cluster or slurm):
        raise UserError(f"command line: {(slurm or ['--cluster'])[0]} goes with --backend=submitit")
    if found.backend == "print" and found.jobs is not None:
        raise UserError("command line: --jobs goes with a backend that runs the cells, not with print")
    found.cluster = found.cluster or "slurm"
    return found


def _setting(argument: str) -> tuple[str, str | int]:
    """`--slurm.KEY=VALUE`, or `--slurm.KEY` for an option without a value."""
    name, equals, value = argument.removeprefix("--slurm.").partition("=")
    number = value.isdecimal() and value == str(int(value))  # and no account called 007
    return name.replace("-", "_"), (int(value) if number else value) if equals else True


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
    show_text(text)


def main(argv: list[str]) -> int:
    """Returns the exit status: 0 all finished, 1 failed cells, 2 wrong input (143, 130 and 129 leave as SystemExit)."""
    return exit_status(lambda: _sweep(argv[1:]))


def _sweep(argv: list[str]) -> int:
    chosen = options(argv)
    if chosen.show is not None:
        show(chosen)
        return 0
    return run(Options(*(getattr(chosen, name) for name in Options._fields)))


if __name__ == "__main__":
    sys.exit(main(sys.argv))
