"""What keeping freed memory for the next step is worth on this CPU, in turns: speed, and the most memory held.

    python benchmarks/keep_memory.py [--pairs=5] [--batch=128] [--case=resnet20] [--json=FILE]

Two processes with the bare step of benchmarks/cpu_peer.py, with `LT_NOISY_KEEP_MEMORY` 1 and 0. Linux with glibc.
"""

import pathlib
import sys
from typing import Any

import arguments
import cpu_peer
from records import measured
from sides import in_turns, median, ratios, spread, started

from lt_noisy import system
from lt_noisy.errors import say
from lt_noisy.files import write_json
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
    environments = {name: {system.KEEP_MEMORY: value} for name, value in SIDES.items()}
    with started(dict.fromkeys(SIDES, command), environments) as sides:
        turns = in_turns(sides, pairs)
        peaks = {name: round(peak_mib(side.process.pid)) for name, side in sides.items()}
    return {
        "case": cpu_peer.CASES[case][0],
        "milliseconds": {name: round(1e3 * median(turns, name)) for name in SIDES},
        "ratios": ratios(turns, "given back", "kept"),
        "peak_mib": peaks,
    }


def show(rows: list[dict[str, Any]]) -> str:
    """A Markdown table."""
    titles = ["step", *(f"{name}, ms" for name in SIDES), "gain", *(f"{name}, peak MiB" for name in SIDES)]
    body = [
        [
            row["case"],
            *map(str, row["milliseconds"].values()),
            spread(row["ratios"]),
            *(f"{peak:,}" for peak in row["peak_mib"].values()),
        ]
        for row in rows
    ]
    return markdown([titles, *body])


def main(argv: list[str]) -> None:
    """Prints the table and writes the JSON."""
    parser = arguments.Parser(description=__doc__)
    parser.add_argument("--pairs", type=arguments.count, default=5)
    parser.add_argument("--batch", type=arguments.count, default=128)
    parser.add_argument("--case", choices=cpu_peer.CASES, action="append", help="these alone; repeatable")
    parser.add_argument("--json", type=arguments.new_file)
    given = parser.parse_args(argv[1:])
    rows = [compare(case, given.batch, given.pairs) for case in given.case or cpu_peer.CASES]
    say(*show(rows).splitlines())
    if given.json is not None:
        write_json(given.json, measured(argv, rows=rows))


if __name__ == "__main__":
    arguments.run(main)
