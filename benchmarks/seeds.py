"""Five seeds in one process beside a sweep of five processes, and the two ways to step them, on this machine.

    python benchmarks/seeds.py [--pairs=1] [--turns=5] [--case=mlp] [--json=FILE]

Whole runs from an empty compilation cache, in turns: `config.seeds`, then `launch/sweep.py --jobs=2`. Seconds of the
clock hang on what else the machine does, those of the processor less so. Then the step of all seeds alone, vectorised
and one after the other.
"""

import os
import pathlib
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

import arguments
import jax
import numpy as np
import seeds_config
from records import measured
from turns import timed

from lt_noisy import system
from lt_noisy.config.resolve import resolve
from lt_noisy.data.batches import grouped
from lt_noisy.errors import UserError, say
from lt_noisy.files import write_json
from lt_noisy.runs import seeds
from lt_noisy.runs.jobs import make_jobs
from lt_noisy.runs.markdown import markdown
from lt_noisy.runs.workdir import read_json
from lt_noisy.training import parallel
from lt_noisy.training.interrupt import Interrupts
from lt_noisy.training.replicas import InTurn, joined

ROOT = pathlib.Path(__file__).resolve().parent.parent
CONFIG = pathlib.Path(__file__).resolve().with_name("seeds_config.py")
CASES = {"mlp": "MLP of 128 units on digits as vectors", "resnet": "ResNet-8 of width 16 on digits"}
STEPS = (1, 8)  # of a call


def vectors(path: pathlib.Path) -> str:
    """Digits as vectors in a file; the dataset's text."""
    source = resolve(seeds_config.get_config("resnet")).fields.dataset()
    arrays = {}
    for name in ("train", "test"):
        split = getattr(source, name)
        images = split.images(np.arange(len(split.labels)))
        arrays[f"{name}_features"] = images.reshape(len(images), -1).astype(np.float32) / 255
        arrays[f"{name}_labels"] = split.labels
    np.savez(path, **arrays)
    return f"features(path='{path}')"


def took(command: list[str], cache: pathlib.Path) -> dict[str, float]:
    """Seconds of the clock and of the processor, of a program with all its children."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": str(cache)}
    done = subprocess.run([sys.executable, *command], cwd=ROOT, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise UserError(f"{' '.join(command)} ended with {done.returncode}: {done.stderr[-300:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"clock": round(time.perf_counter() - began, 2), "processor": round(processor, 2)}


def whole(case: str, pairs: int) -> dict[str, Any]:
    """Both programs so many times in turns, and what they found."""
    turns = []
    for _ in range(pairs):
        with tempfile.TemporaryDirectory() as name:
            place = pathlib.Path(name)
            own = [f"--config={CONFIG}:{case}"]
            if case == "mlp":
                own.append(f"--config.dataset={vectors(place / 'digits.npz')}")
            asked = f"--config.seeds={seeds_config.SEEDS}"
            one = took(["main.py", *own, asked, f"--workdir={place / 'one'}"], place / "cache_one")
            sweep = ["launch/sweep.py", *own, f"--root={place / 'many'}", "--jobs=2"]
            turns.append({"one process": one, "a sweep": took(sweep, place / "cache_many")})
            compared = _compared(place)
    ratios = {of: [round(t["a sweep"][of] / t["one process"][of], 3) for t in turns] for of in ("clock", "processor")}
    return {"turns": turns, "ratios": ratios, **compared}


def _compared(place: pathlib.Path) -> dict[str, Any]:
    """The figure of each seed both ways, and whether all arrays are equal, bit for bit."""
    found = []
    for seed in seeds_config.SEEDS:
        own = read_json(place / "one" / f"seed_{seed}" / "train" / "summary.json") or {}
        (cell,) = (place / "many" / "cells").glob(f"seed={seed}-*")
        theirs = read_json(cell / "train" / "summary.json") or {}
        found.append((own, theirs))
    accuracy = [[summary["test"]["balanced_accuracy"] for summary in pair] for pair in found]
    return {
        "equal_bits": [own["params_sha256"] == theirs["params_sha256"] for own, theirs in found],
        "balanced_accuracy": {"one process": [a for a, _ in accuracy], "a sweep": [b for _, b in accuracy]},
    }


def ways(case: str, per_call: int, turns: int) -> dict[str, Any]:
    """Milliseconds of a step of all seeds, vectorised and in turn: medians of as many turns, and the ratio of each."""
    with tempfile.TemporaryDirectory() as name:
        config = seeds_config.get_config(case)
        config.update({"seeds": seeds_config.SEEDS, "steps_per_call": per_call})
        if case == "mlp":
            config.dataset = vectors(pathlib.Path(name) / "digits.npz")
        cadence = dict.fromkeys(("log_every", "eval_every", "save_every"), "percent(100)")
        config.update({"train": {"length": f"steps({8 * per_call})", **cadence}})
        resolved = resolve(config)
        runs = seeds.replicas(resolved, pathlib.Path(name), parallel.make("jit", 1))
        readies = []
        for run, (_, dataset) in zip(runs, seeds.load_each(runs), strict=True):
            (job,) = make_jobs(run.resolved, dataset, run.directory, run.devices, Interrupts())
            (stage,) = run.resolved.stages
            readies.append(stage.kind.run.prepare(job, stage.section))
    own = [run.devices for run in runs]
    timers = {
        "vectorised": _timer(joined(readies, vectorised=True), own[0], per_call),
        "in turn": _timer(joined(readies, vectorised=False), InTurn(own), per_call),
    }
    measured = [{name: seconds() / per_call for name, seconds in timers.items()} for _ in range(turns)]
    return {
        "steps_per_call": per_call,
        "milliseconds": {way: round(1e3 * statistics.median(t[way] for t in measured), 3) for way in timers},
        "ratios": [round(t["in turn"] / t["vectorised"], 3) for t in measured],
    }


def _timer(ready: Any, devices: Any, per_call: int) -> Any:
    step = ready.phases[0].step
    call = devices.compile_step(step, per_call)
    totals = parallel.zeros(step, ready.state, ready.data, ready.batches(0))
    state, totals, data = (devices.replicate(tree) for tree in (ready.state, totals, ready.data))
    batch = grouped(ready.batches, 0, per_call)

    def once() -> Any:
        nonlocal state, totals
        state, totals = call(state, totals, data, batch)
        return state

    return timed(once, lambda out: jax.block_until_ready(out.step), 20)


def show(rows: list[dict[str, Any]]) -> str:
    """Two Markdown tables: whole runs, and steps."""
    titles = [
        "five seeds",
        "one process, s",
        "sweep, s",
        "clock",
        "processor",
        "seeds with equal bits",
        "largest difference",
    ]
    runs = [titles]
    steps = [["step of five seeds", "steps per call", "vectorised, ms", "in turn, ms", "in turn over vectorised"]]
    for row in rows:
        its, name = row["whole"], CASES[row["case"]]
        accuracy = its["balanced_accuracy"]
        pairs = zip(accuracy["one process"], accuracy["a sweep"], strict=True)
        apart = max(abs(a - b) for a, b in pairs)
        seconds = [statistics.median(t[side]["clock"] for t in its["turns"]) for side in ("one process", "a sweep")]
        runs.append(
            [
                name,
                *(f"{s:.0f}" for s in seconds),
                *(f"{statistics.median(its['ratios'][of]):.2f}" for of in ("clock", "processor")),
                f"{sum(its['equal_bits'])} of {len(its['equal_bits'])}",
                f"{100 * apart:.1f} points",
            ]
        )
        for step in row["steps"]:
            numbers = [f"{milliseconds:.2f}" for milliseconds in step["milliseconds"].values()]
            steps.append([name, str(step["steps_per_call"]), *numbers, f"{statistics.median(step['ratios']):.2f}"])
    return f"{markdown(runs)}\n\n{markdown(steps)}"


def main(argv: list[str]) -> None:
    """Prints the tables and writes the JSON."""
    parser = arguments.Parser(description=__doc__)
    parser.add_argument("--pairs", type=arguments.count, default=1)
    parser.add_argument("--turns", type=arguments.count, default=5)
    parser.add_argument("--case", choices=CASES, action="append", help="these alone; repeatable")
    parser.add_argument("--json", type=arguments.new_file)
    given = parser.parse_args(argv[1:])
    system.keep_memory()
    rows = []
    for case in given.case or CASES:
        steps = [ways(case, per_call, given.turns) for per_call in STEPS]
        rows.append({"case": case, "steps": steps, "whole": whole(case, given.pairs)})
    say(*show(rows).splitlines())
    if given.json is not None:
        write_json(given.json, measured(argv, rows=rows))


if __name__ == "__main__":
    arguments.run(main)
