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
import statistics
import sys
from typing import Any

import arguments
import jax
import ssl_cost
from records import measured
from sides import in_turns, median, named_alone, ratios, spread, started, versions_of
from turns import serve, timed

from lt_noisy import system
from lt_noisy.config.resolve import default, resolve, section
from lt_noisy.errors import say
from lt_noisy.files import write_json
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
    commands = {"torch": [python, str(here.with_name("torch_step.py")), case, str(batch), str(system.cores() or 1)]}
    for name, count in ({"one": 1, "ours": devices} if devices > 1 else {"ours": 1}).items():
        given = [f"--case={case}", f"--batch={batch}", f"--devices={count}"]
        commands[name] = [sys.executable, str(here), "--serve", *given]
    with started(commands) as sides:
        turns = in_turns(sides, pairs)
    found = ratios(turns, "torch", "ours")
    return {
        "case": CASES[case][0],
        **{f"{name}_images_per_second": batch / median(turns, name) for name in commands},
        "ratio": statistics.median(found),
        "ratios": found,
        **({"gains_over_one_device": ratios(turns, "one", "ours")} if devices > 1 else {}),
    }


def show(rows: list[dict[str, Any]]) -> str:
    """A Markdown table; with the gain over one device where there are several."""
    several = "gains_over_one_device" in rows[0]
    body = [
        [
            row["case"],
            f"{row['torch_images_per_second']:.0f}",
            f"{row['ours_images_per_second']:.0f}",
            spread(row["ratios"]),
            *([spread(row["gains_over_one_device"])] if several else []),
        ]
        for row in rows
    ]
    titles = ["step", "PyTorch, images/s", "lt_noisy, images/s", "ratio (smallest to largest)"]
    return markdown([[*titles, *(["gain over one device"] if several else [])], *body])


def main(argv: list[str]) -> None:
    """Prints the table and writes the JSON."""
    parser = arguments.Parser(description=__doc__)
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
    theirs = versions_of("--python", given.python, ["torch"])
    rows = [compare(case, given.batch, given.devices, given.pairs, given.python) for case in given.case or CASES]
    say(*show(rows).splitlines())
    if given.json is not None:
        record = measured(named_alone(argv, given.python), rows=rows)
        record["machine"]["environment"] = _settings()
        record["versions"] |= theirs
        write_json(given.json, record)


def _settings() -> dict[str, str]:
    """What was set that bears on speed."""
    return {name: os.environ[name] for name in ("XLA_FLAGS", system.KEEP_MEMORY) if name in os.environ}


if __name__ == "__main__":
    arguments.run(main)
