"""A run killed outright and gone on with, beside one left alone: are their weights and metrics the same bits?

    python benchmarks/resume.py --config=FILE[:VARIANT] --root=DIR --json=FILE [--config.FIELD=VALUE ...]

The first run is whole. The second gets SIGKILL when its last stage logs with a checkpoint behind it, and the same
command again. On a GPU the same bits take deterministic kernels: XLA_FLAGS=--xla_gpu_deterministic_ops=true.
"""

import json
import os
import pathlib
import signal
import subprocess
import sys
from typing import Any

import arguments
import records

from lt_noisy import files
from lt_noisy.config import command_line
from lt_noisy.config.resolve import resolve
from lt_noisy.errors import UserError, say
from lt_noisy.training.checkpoint import CHECKPOINTS, committed

MAIN = pathlib.Path(__file__).resolve().parent.parent / "main.py"


def finish(command: list[str]) -> str:
    """What a run prints to its end.

    Raises:
      UserError: it failed.
    """
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise UserError(f"exit {done.returncode}: {' '.join(command)}")
    return done.stdout


def kill(command: list[str], directory: pathlib.Path) -> str:
    """The line at which a run of this command was killed: one of the stage of `directory`, once that has saved."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout or ():
            if line.startswith(f"{directory.name} ") and committed(directory / CHECKPOINTS):
                process.send_signal(signal.SIGKILL)
                break
        status = process.wait()
    if status != -signal.SIGKILL:
        raise UserError(f"stage {directory.name} ended first: more steps, or smaller save_every and log_every")
    return line.strip()


def result(directory: pathlib.Path) -> tuple[str, list[dict[str, Any]]]:
    """The hash of a finished stage's weights, and its metrics without times."""
    summary = json.loads((directory / "summary.json").read_text())
    lines = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    return summary["params_sha256"], [{k: v for k, v in line.items() if k != "seconds"} for line in lines]


def main(argv: list[str]) -> None:
    """Prints what was found and writes the JSON; exits with 2 where the bits differ."""
    parser = arguments.Parser(description=__doc__, epilog="All other options are those of main.py.")
    parser.add_argument("--root", type=files.path_argument, required=True, help="a directory for the two runs")
    parser.add_argument("--json", type=arguments.new_file)
    own, rest = parser.parse_known_args(argv[1:])
    config, *_ = command_line.parse([argv[0], *rest])
    stage = resolve(config).stages[-1].name
    whole, killed = ([sys.executable, str(MAIN), *rest, f"--workdir={own.root / name}"] for name in ("whole", "killed"))
    finish(whole)
    line = kill(killed, own.root / "killed" / stage)
    resumed = next((text for text in finish(killed).splitlines() if "resuming from step" in text), None)
    ours, theirs = (result(own.root / name / stage) for name in ("killed", "whole"))
    same = {"weights": ours[0] == theirs[0], "metrics": ours[1] == theirs[1]}
    say(f"killed at: {line}", f"then: {resumed}", *(f"same {name}: {answer}" for name, answer in same.items()))
    if own.json is not None:
        summary: dict[str, Any] = json.loads((own.root / "whole" / stage / "summary.json").read_text())
        record = {
            "command": records.command(argv),
            "killed_at": line,
            "resumed": resumed,
            "same": same,
            "params_sha256": [theirs[0], ours[0]],
            "xla_flags": os.environ.get("XLA_FLAGS", ""),
            **{name: summary[name] for name in ("machine", "versions", "code") if name in summary},
        }
        files.write_json(own.json, record)
    if resumed is None or not all(same.values()):
        raise UserError("the run that was killed is not the same one" if resumed else "it did not resume")


if __name__ == "__main__":
    arguments.run(main)
