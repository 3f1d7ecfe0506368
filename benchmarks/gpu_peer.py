"""Training on one GPU beside PyTorch, in turns: our bare step and our loop, a plain program of theirs and a tuned one.

    python benchmarks/gpu_peer.py [--pairs=5] [--steps=40] [--workers=8] [--python=python] [--json=FILE]

ResNet-18 SimCLR (batch 512, bfloat16) and ResNet-32 supervised (batch 128, float32), on 50,000 random images at
32 pixels. All augment; `plain` and `tuned` are described in benchmarks/torch_loop.py. `step` is the compiled program on
rows that are there, `loop` is `loop.train` with its batches and log. `--python` is an interpreter that has torch and
torchvision; by default this one. Both sides' processes live through all turns and share the GPU's memory, so this one
allocates as it needs. A ratio is PyTorch's time divided by our loop's: above 1 we are the faster.
"""

import contextlib
import io
import os
import pathlib
import sys
import tempfile
from collections.abc import Callable
from typing import Any

import arguments
import jax
import ssl_cost
import throughput
from records import measured
from sides import in_turns, median, named_alone, ratios, spread, started, versions_of
from turns import serve

from lt_noisy import system
from lt_noisy.config.resolve import default, resolve, section
from lt_noisy.errors import say
from lt_noisy.files import write_json
from lt_noisy.runs.jobs import make_job
from lt_noisy.runs.markdown import markdown
from lt_noisy.training import parallel
from lt_noisy.training.interrupt import Interrupts

STEPS_PER_CALL = 4
IMAGES = 50_000
CASES = {  # title, model, precision, batch, kind, fields
    "resnet18_simclr": (
        "ResNet-18, SimCLR, bfloat16",
        "resnet18(stem=cifar)",
        "bfloat16",
        512,
        "self_supervised",
        {"objective": "simclr(hidden=512, size=128)", "augment": "simclr_cifar()"},
    ),
    "resnet32": (
        "ResNet-32, supervised, float32",
        "resnet32()",
        "float32",
        128,
        "supervised",
        {"augment": "cifar()"},
    ),
}


def ours(case: str, batch: int, steps: int) -> tuple[Callable[[], float], Callable[[], float]]:
    """Functions that give the seconds of a step: of the bare program and of the loop."""
    _, model, precision, _, kind, fields = CASES[case]
    c = default()
    c.model, c.precision, c.steps_per_call = model, precision, STEPS_PER_CALL
    c.train = section(kind, batch_size=batch, length="epochs(1000)", **fields)
    c.stages = ("train",)
    resolved, devices = resolve(c), parallel.make("jit", 1)
    dataset = ssl_cost.random_dataset(32, IMAGES)
    calls, _ = ssl_cost.compiled_steps(resolved, dataset, devices)
    (stage,) = resolved.stages
    job = make_job(resolved, stage, pathlib.Path("."), dataset, dataset, devices, Interrupts())
    assert stage.kind.prepare is not None
    ready = stage.kind.prepare(job, stage.section)
    total = (1 + -(-steps // STEPS_PER_CALL)) * STEPS_PER_CALL  # its first call is not counted
    plan = ready.plan._replace(total=total, eval_every=2 * total, save_every=2 * total)

    def bare() -> float:
        return ssl_cost.seconds(calls["train"], -(-steps // STEPS_PER_CALL)) / STEPS_PER_CALL

    def loop() -> float:
        with contextlib.redirect_stdout(io.StringIO()):  # its log; stdout is for the seconds
            return batch / throughput.loop(job, ready._replace(plan=plan))

    return bare, loop


def compare(case: str, given: Any) -> dict[str, Any]:
    """The medians and every ratio of a case."""
    here = pathlib.Path(__file__).resolve()
    batch = given.batch or CASES[case][3]
    numbers = [str(batch), str(given.steps), str(given.workers)]
    commands = {}
    for kind in ("plain", "tuned"):
        commands[kind] = [given.python, str(here.with_name("torch_loop.py")), case, kind, *numbers]
    for kind in ("step", "loop"):
        own = [f"--serve={kind}", f"--case={case}", f"--batch={batch}", f"--steps={given.steps}"]
        commands[kind] = [sys.executable, str(here), *own]
    with started(commands) as sides:
        turns = in_turns(sides, given.pairs)
    return {
        "case": CASES[case][0],
        "batch": batch,
        **{f"{name}_images_per_second": batch / median(turns, name) for name in commands},
        **{f"{name}_ratios": ratios(turns, name, "loop") for name in ("plain", "tuned")},
        "loop_over_step": ratios(turns, "loop", "step"),
    }


def show(rows: list[dict[str, Any]]) -> str:
    """A Markdown table."""
    speeds = {"plain": "PyTorch, plain", "tuned": "PyTorch, tuned", "step": "our step", "loop": "our loop"}
    titles = ["training", *(f"{title}, images/s" for title in speeds.values()), "loop/plain", "loop/tuned"]
    body = [
        [
            row["case"],
            *(f"{row[f'{name}_images_per_second']:,.0f}" for name in speeds),
            *(spread(row[f"{name}_ratios"]) for name in ("plain", "tuned")),
        ]
        for row in rows
    ]
    return markdown([titles, *body])


def main(argv: list[str]) -> None:
    """Prints the table and writes the JSON."""
    parser = arguments.Parser(description=__doc__)
    for name, number in {"pairs": 5, "steps": 40, "workers": 8}.items():
        parser.add_argument(f"--{name}", type=arguments.count, default=number)
    parser.add_argument("--batch", type=arguments.count, help="in place of each case's own")
    parser.add_argument("--case", choices=CASES, action="append", help="these alone; repeatable")
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--json", type=arguments.new_file)
    parser.add_argument("--serve", choices=("step", "loop"), help="our side, which this script starts")
    given = parser.parse_args(argv[1:])
    if given.serve:
        system.keep_memory()
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # read when JAX first meets the GPU
        with tempfile.TemporaryDirectory() as cache:  # every turn's loop compiles its step anew
            jax.config.update("jax_compilation_cache_dir", cache)
            jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
            bare, loop = ours(given.case[0], given.batch, given.steps)
            serve(bare if given.serve == "step" else loop)
        return
    theirs = versions_of("--python", given.python, ["torch", "torchvision"])
    rows = [compare(case, given) for case in given.case or CASES]
    say(*show(rows).splitlines())
    if given.json is not None:
        record = measured(named_alone(argv, given.python), rows=rows)
        record["versions"] |= theirs
        write_json(given.json, record)


if __name__ == "__main__":
    arguments.run(main)
