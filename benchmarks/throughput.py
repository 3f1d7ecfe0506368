"""Images per second of each part of a training stage, and what the loop adds to the bare step.

    python benchmarks/throughput.py --config=configs/digits_lt_noise.py [--config.x=...] \\
        --stage=finetune --seconds=10 --json=results/throughput_digits.json [--start]

Rows: `data` (batch order on the host, gather on the device), `augment` (the stage's views), `step` (the bare
compiled step on a batch that is already there) and `loop` (`loop.train` with its logging, without
evaluation and saving). Step and loop are measured in turns, five times each, and the medians compared, since the
clock of a shared machine drifts. `--start` also times two fresh processes from their start to the end of the first
step, the first with an empty compilation cache and the second with the one it left.
"""

import argparse
import dataclasses
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
import records

from lt_noisy import files, rng, system
from lt_noisy.augment.base import augment_batch
from lt_noisy.collectives import positions
from lt_noisy.config import command_line
from lt_noisy.config.resolve import resolve
from lt_noisy.data.batches import fetch, grouped
from lt_noisy.errors import UserError
from lt_noisy.runs.card import run_card
from lt_noisy.runs.jobs import make_job
from lt_noisy.runs.training_set import load
from lt_noisy.training import parallel
from lt_noisy.training.checkpoint import Checkpoints
from lt_noisy.training.interrupt import Interrupts
from lt_noisy.training.loop import train
from lt_noisy.training.writer import Writer

ROUNDS = 5
ENOUGH = 20  # steps a round, for the overhead of the loop to be more than chance


def options(argv: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """Splits this script's own flags from those of the command line it shares with main.py."""
    parser = arguments.Parser(description=__doc__, epilog="All other options are those of main.py.")
    parser.add_argument("--stage", help="a stage that trains (default: the last)")
    parser.add_argument("--seconds", type=arguments.duration, default=10.0, help="for each of step and loop")
    parser.add_argument("--json", type=arguments.new_file, help="where the record goes")
    parser.add_argument("--start", action="store_true", help="time the start of processes, too")
    return parser.parse_known_args(argv)


def per_second(call, examples: int, seconds: float) -> float:
    """Examples per second of `call()`, which returns something to wait for; compiled before timing."""
    jax.block_until_ready(call())
    calls, began = 0, time.perf_counter()
    while not calls or time.perf_counter() - began < seconds:
        out = call()
        calls += 1
        if calls % 8 == 0:
            jax.block_until_ready(out)
    jax.block_until_ready(out)
    return calls * examples / (time.perf_counter() - began)


def measure(job, stage, seconds: float) -> dict[str, Any]:
    """The rows of the table for one stage."""
    # Of whole batches: a last, short one would be compiled for in the middle of a round.
    ready = stage.kind.prepare(job, dataclasses.replace(stage.section, keep_last=False))
    plan, devices = ready.plan, job.devices
    data = job.devices.replicate(ready.data)
    per_call = plan.batch_size * plan.steps_per_call
    clock = iter(range(10**9))

    gather_rows = devices.compile_step(lambda state, data, batch: (state, fetch(data, batch)[0].sum()))
    make_views = stage.section.objective.views if stage.texts["kind"] == "self_supervised" else augment_batch

    def augmented(state, data, batch):
        images, _ = fetch(data, batch)
        out = make_views(stage.section.augment, rng.stream(0, "benchmark", 0), images, positions(len(images)))
        return state, sum(x.sum().astype(np.float32) for x in jax.tree.leaves(out))

    compiled_augment = devices.compile_step(augmented)

    def call(compiled, zero):
        state, totals = devices.replicate(zero), devices.replicate(zero.copy())  # both are donated
        return compiled(state, totals, data, ready.batches(next(clock)))[1]

    rows: dict[str, Any] = {
        "data": per_second(lambda: call(gather_rows, np.zeros((), np.uint32)), plan.batch_size, seconds / 4),
        "augment": per_second(lambda: call(compiled_augment, np.zeros((), np.float32)), plan.batch_size, seconds / 4),
    }
    compiled = devices.compile_step(ready.phases[0].step, plan.steps_per_call)
    batch = grouped(ready.batches, 0, plan.steps_per_call)
    empty = parallel.zeros(ready.phases[0].step, ready.state, ready.data, ready.batches(0))
    state, totals = devices.replicate(ready.state), devices.replicate(empty)

    def bare():
        nonlocal state, totals
        state, totals = compiled(state, totals, data, batch)
        return totals

    first = per_second(bare, per_call, seconds / 10)
    steps = max(round(seconds / ROUNDS * first / per_call), 2) * plan.steps_per_call
    alone = plan._replace(total=steps, eval_every=2 * steps, save_every=2 * steps)
    bares, loops = [], []
    for _ in range(ROUNDS):
        bares.append(per_second(bare, per_call, seconds / ROUNDS))
        loops.append(loop(job, ready._replace(plan=alone)))
    rows["step"], rows["loop"] = statistics.median(bares), statistics.median(loops)
    ratios = sorted(bare / looped - 1 for bare, looped in zip(bares, loops, strict=True))
    rows["loop_overhead_percent"] = 100 * (rows["step"] / rows["loop"] - 1)
    rows["steps_per_round"] = steps
    rows["loop_overhead_percent_rounds"] = [round(100 * r, 2) for r in ratios]
    return rows


def loop(job, ready) -> float:
    """Images per second that `train` reports for the plan of `ready`."""
    with tempfile.TemporaryDirectory() as directory:
        path = pathlib.Path(directory)
        trained = train(
            "loop",
            ready,
            job.devices,
            Checkpoints(path / "checkpoints", {}),
            Writer(path),
            lambda state: {},
            Interrupts(),
        )
    return trained.images_per_second


def seconds_to_first_step(argv: list[str]) -> dict[str, float]:
    """Process start to the end of the first step, with a cold and with a warm compilation cache."""
    main = pathlib.Path(__file__).resolve().parent.parent / "main.py"
    out = {}
    with tempfile.TemporaryDirectory() as directory:
        for name in ("cold", "warm"):
            env = {**os.environ, "JAX_COMPILATION_CACHE_DIR": f"{directory}/cache"}
            began = time.perf_counter()
            command = [sys.executable, str(main), *argv, f"--workdir={directory}/{name}"]
            with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) as process:
                for line in process.stdout or ():
                    if "first step done" in line:
                        out[f"first_step_seconds_{name}_cache"] = round(time.perf_counter() - began, 2)
                        process.kill()
            if f"first_step_seconds_{name}_cache" not in out:
                raise UserError(f"the run ended before its first step: {' '.join(command)}")
    return out


def main(argv: list[str]) -> None:
    """Prints the table and writes the JSON."""
    own, rest = options(argv[1:])
    command = command_line.parse([argv[0], *rest])
    resolved = resolve(command.config)
    stages = {stage.name: stage for stage in resolved.stages}
    stage = stages.get(own.stage or resolved.stages[-1].name)
    if stage is None:
        raise UserError(f"--stage={own.stage}: not one of {', '.join(stages)}")
    if stage.texts["kind"] not in ("self_supervised", "supervised"):
        raise UserError(f"--stage={stage.name}: a {stage.texts['kind']} stage has no training step that runs alone")
    devices = parallel.make(resolved.fields.parallel, resolved.fields.devices)
    with tempfile.TemporaryDirectory() as directory:
        path = pathlib.Path(directory)
        manifest, dataset = load(resolved, path)
        card = run_card(resolved, manifest, devices)
        job = make_job(resolved, stage, path, dataset, dataset, devices, Interrupts())
        job = job._replace(inputs={})  # speed does not depend on the weights
        rows = measure(job, stage, own.seconds)
    stats = jax.local_devices()[0].memory_stats() or {}
    record = {
        "command": records.command(argv),
        "config": command.config_name,
        "stage": stage.name,
        "batch_size": stage.section.batch_size,
        "images_per_second": {k: round(rows[k], 1) for k in ("data", "augment", "step", "loop")},
        "loop_overhead_percent": round(rows["loop_overhead_percent"], 2),
        "loop_overhead_percent_rounds": rows["loop_overhead_percent_rounds"],
        "steps_per_round": rows["steps_per_round"],
        "host_memory_peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
        "device_memory_peak_mib": round(stats.get("peak_bytes_in_use", 0) / 2**20, 1) or None,
        **(seconds_to_first_step(rest) if own.start else {}),
        "code": [card["code"]],
        "versions": card["versions"],
        "machine": card["machine"],
    }
    print(f"\n{command.config_name}, stage {stage.name}, batch {stage.section.batch_size}")
    for row, value in record["images_per_second"].items():
        print(f"  {row:<10}{value:>12,.0f} images/s")
    for key in record:
        if key.endswith(("percent", "round", "mib", "cache")):
            print(f"  {key:<34}{record[key]}")
    if record["steps_per_round"] < ENOUGH:
        print(f"  note: fewer than {ENOUGH} steps a round, too few for the overhead of the loop; use more --seconds")
    if own.json is not None:
        files.write_json(own.json, record)


if __name__ == "__main__":
    system.keep_memory()  # as the program does
    arguments.run(main)
