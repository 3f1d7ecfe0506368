"""Training steps on this CPU beside PyTorch's, in turns: what a step here costs against the same step there.

    python benchmarks/cpu_peer.py [--pairs=5] [--batch=128] [--devices=1] [--python=python] [--json=FILE]

`--python` is an interpreter that has torch (`pip install torch`); by default this one. Both sides are processes that
live through all pairs and wait while the other computes: bare steps of float32 on a batch that is there, forward,
backward and update, the images as they are. PyTorch has channels_last and as many threads as there are cores;
`--devices=2` shares our batch between two CPU devices, beside one with all the cores.
A ratio is PyTorch's time divided by ours: above 1 we are the faster.
"""

import os
import pathlib
import shutil
import statistics
import subprocess
import sys
from typing import Any

import arguments
import jax
import ssl_cost
from turns import Side, serve, timed

from lt_noisy import revision, system
from lt_noisy.config.resolve import default, resolve, section
from lt_noisy.errors import UserError, say
from lt_noisy.files import write_json
from lt_noisy.runs.card import versions
from lt_noisy.runs.markdown import markdown
from lt_noisy.training import parallel

CASES = {
    "resnet20": ("ResNet-20, supervised", "resnet20()", {}),
    "resnet32": ("ResNet-32, supervised", "resnet32()", {}),
    "resnet18_simclr": ("ResNet-18, SimCLR", "resnet18()", {"objective": "simclr()"}),
}


def ours(case: str, batch: int, num_devices: int = 1) -> Any:
    """A call of the compiled step of lt_noisy."""
    _, model, fields = CASES[case]
    c = default()
    c.model, c.precision = model, "float32"
    kind = "self_supervised" if fields else "supervised"
    c.step = section(kind, batch_size=batch, length="epochs(1000)", augment="none()", **fields)
    c.stages = ("step",)
    devices = parallel.make("jit", num_devices)
    calls, _ = ssl_cost.compiled_steps(resolve(c), ssl_cost.random_dataset(32, 4 * batch), devices)
    return calls["step"]


def compare(case: str, batch: int, devices: int, pairs: int, python: str) -> dict[str, Any]:
    """The medians and every ratio of a case."""
    here = pathlib.Path(__file__).resolve()
    sides = {"torch": Side([python, str(here.with_name("torch_step.py")), case, str(batch), str(system.cores() or 1)])}
    try:
        for name, count in ({"one": 1, "ours": devices} if devices > 1 else {"ours": 1}).items():
            given = [f"--case={case}", f"--batch={batch}", f"--devices={count}"]
            sides[name] = Side([sys.executable, str(here), "--serve", *given])
        turns = [{name: side.seconds() for name, side in sides.items()} for _ in range(pairs)]
    finally:
        for side in sides.values():
            side.close()
    ratios = [turn["torch"] / turn["ours"] for turn in turns]
    return {
        "case": CASES[case][0],
        **{f"{name}_images_per_second": batch / statistics.median(t[name] for t in turns) for name in sides},
        "ratio": statistics.median(ratios),
        "ratios": [round(ratio, 3) for ratio in ratios],
        **({"gains_over_one_device": [round(t["one"] / t["ours"], 3) for t in turns]} if devices > 1 else {}),
    }


def show(rows: list[dict[str, Any]]) -> str:
    """A Markdown table; with the gain over one device where there are several."""
    several = "gains_over_one_device" in rows[0]
    body = [
        [
            row["case"],
            f"{row['torch_images_per_second']:.0f}",
            f"{row['ours_images_per_second']:.0f}",
            _spread(row["ratios"]),
            *([_spread(row["gains_over_one_device"])] if several else []),
        ]
        for row in rows
    ]
    titles = ["step", "PyTorch, images/s", "lt_noisy, images/s", "ratio (smallest to largest)"]
    return markdown([[*titles, *(["gain over one device"] if several else [])], *body])


def _spread(ratios: list[float]) -> str:
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


def main(argv: list[str]) -> None:
    """Prints the table and writes the JSON."""
    parser = arguments.Parser(__doc__)
    parser.add_argument("--pairs", type=arguments.count, default=5)
    parser.add_argument("--batch", type=arguments.count, default=128)
    parser.add_argument("--devices", type=arguments.count, default=1)
    parser.add_argument("--case", choices=CASES, action="append", help="these alone; repeatable")
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--json", type=arguments.new_file)
    parser.add_argument("--serve", action="store_true", help="our side, which this script starts")
    given = parser.parse_args(argv[1:])
    if given.serve:
        system.keep_memory()
        serve(timed(ours(given.case[0], given.batch, given.devices), jax.block_until_ready))
        return
    if shutil.which(given.python) is None:
        raise UserError(f"--python={given.python}: no such interpreter")
    torch = "import torch; print(torch.__version__)"
    found = subprocess.run([given.python, "-c", torch], capture_output=True, text=True, check=False)
    if found.returncode:
        raise UserError(f"--python={given.python}: it has no torch (pip install torch)")
    try:
        rows = [compare(case, given.batch, given.devices, given.pairs, given.python) for case in given.case or CASES]
    except RuntimeError as error:
        raise UserError(str(error)) from None
    say(*show(rows).splitlines())
    if given.json is not None:
        there = [word.replace(given.python, pathlib.Path(given.python).name) for word in argv[1:]]  # on any machine
        record = {
            "command": " ".join(["python benchmarks/cpu_peer.py", *there]),
            "rows": rows,
            "machine": {"device": "cpu", "cores": system.cores(), "environment": _settings()},
            "versions": {**versions(), "torch": found.stdout.strip()},
            "code": [revision.code()],
        }
        write_json(given.json, record)


def _settings() -> dict[str, str]:
    """What was set that bears on speed."""
    return {name: os.environ[name] for name in ("XLA_FLAGS", system.KEEP_MEMORY) if name in os.environ}


if __name__ == "__main__":
    arguments.run(main)
