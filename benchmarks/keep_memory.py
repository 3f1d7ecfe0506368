"""What keeping freed memory for the next step is worth on this CPU, in turns: speed, and the most memory held.

    python benchmarks/keep_memory.py [--pairs=5] [--batch=128] [--case=resnet20] [--json=FILE]

Two processes with the bare step of benchmarks/cpu_peer.py, with `LT_NOISY_KEEP_MEMORY` 1 and 0. Linux with glibc.
"""

import pathlib
import statistics
import sys
from typing import Any

import arguments
import cpu_peer
from turns import Side

from lt_noisy import revision, system
from lt_noisy.errors import UserError, say
from lt_noisy.files import write_json
from lt_noisy.runs.card import versions
from lt_noisy.runs.markdown import markdown

SIDES = {"kept": "1", "given back": "0"}


def peak_mib(pid: int) -> float:
    """The most memory that a live process held."""
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024


def compare(case: str, batch: int, pairs: int) -> dict[str, Any]:
    """The medians and every ratio of a case."""
    script = pathlib.Path(__file__).resolve().with_name("cpu_peer.py")
    command = [sys.executable, str(script), "--serve", f"--case={case}", f"--batch={batch}"]
    sides = {}
    try:
        for name, value in SIDES.items():
            sides[name] = Side(command, {system.KEEP_MEMORY: value})
        turns = [{name: side.seconds() for name, side in sides.items()} for _ in range(pairs)]
        peaks = {name: round(peak_mib(side.process.pid)) for name, side in sides.items()}
    finally:
        for side in sides.values():
            side.close()
    return {
        "case": cpu_peer.CASES[case][0],
        "milliseconds": {name: round(1e3 * statistics.median(turn[name] for turn in turns)) for name in SIDES},
        "ratios": [round(turn["given back"] / turn["kept"], 3) for turn in turns],
        "peak_mib": peaks,
    }


def show(rows: list[dict[str, Any]]) -> str:
    """A Markdown table."""
    titles = ["step", *(f"{name}, ms" for name in SIDES), "gain", *(f"{name}, peak MiB" for name in SIDES)]
    body = [
        [
            row["case"],
            *map(str, row["milliseconds"].values()),
            f"{statistics.median(row['ratios']):.2f} ({min(row['ratios']):.2f} to {max(row['ratios']):.2f})",
            *(f"{peak:,}" for peak in row["peak_mib"].values()),
        ]
        for row in rows
    ]
    return markdown([titles, *body])


def main(argv: list[str]) -> None:
    """Prints the table and writes the JSON."""
    parser = arguments.Parser(__doc__)
    parser.add_argument("--pairs", type=arguments.count, default=5)
    parser.add_argument("--batch", type=arguments.count, default=128)
    parser.add_argument("--case", choices=cpu_peer.CASES, action="append", help="these alone; repeatable")
    parser.add_argument("--json", type=arguments.new_file)
    given = parser.parse_args(argv[1:])
    try:
        rows = [compare(case, given.batch, given.pairs) for case in given.case or cpu_peer.CASES]
    except RuntimeError as error:
        raise UserError(str(error)) from None
    say(*show(rows).splitlines())
    if given.json is not None:
        record = {
            "command": " ".join(["python benchmarks/keep_memory.py", *argv[1:]]),
            "rows": rows,
            "machine": {"device": "cpu", "cores": system.cores()},
            "versions": versions(),
            "code": [revision.code()],
        }
        write_json(given.json, record)


if __name__ == "__main__":
    arguments.run(main)
