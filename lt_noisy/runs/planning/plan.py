"""The command `python main.py --config=... --plan --devices=64 --accelerator=h100`.

Exit status 0 with a plan, 2 for wrong input and for what the memory of a device does not hold.
"""

import math
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp

from lt_noisy import system
from lt_noisy.config.resolve import Resolved, Stage, resolve
from lt_noisy.data.dataset import Dataset
from lt_noisy.data.feed import Room
from lt_noisy.data.images import Stored, kind_of
from lt_noisy.errors import UserError, say
from lt_noisy.files import exit_status, write_json
from lt_noisy.models import convolution
from lt_noisy.runs.card import versions
from lt_noisy.runs.jobs import make_jobs
from lt_noisy.runs.planning import estimate, programs, show, stand_ins
from lt_noisy.runs.planning.estimate import Machine, Use
from lt_noisy.runs.planning.programs import Program, TooLarge
from lt_noisy.runs.planning.request import Request, request
from lt_noisy.runs.training_set import load
from lt_noisy.stages import unlabelled
from lt_noisy.stages.base import Job
from lt_noisy.training import parallel, parameters
from lt_noisy.training.interrupt import Interrupts
from lt_noisy.training.loop import Plan, Prepared
from lt_noisy.weights.pretrained import Pretrained

Document = dict[str, Any]
_NVLINK = 8  # GPUs of a host that it joins, in the machines whose figures `accelerators` has


def plan(argv: Sequence[str]) -> int:
    """Plans what the command line asks for; prints it and returns the exit status."""

    def command() -> int:
        asked = request(list(argv))
        document = planned(asked)
        say(*show.lines(document))
        if asked.json is not None:
            write_json(asked.json, document)
        return 0

    return exit_status(command)


def planned(asked: Request) -> Document:
    """The plan, JSON-ready. What stages leave for each other is in a temporary directory, and gone at the end.

    Raises:
      UserError: wrong input; a step that the memory of a device does not hold, with the batch that it would.
    """
    resolved = resolve(asked.command.config)
    fields, accelerator = resolved.fields, asked.accelerator
    machine = Machine(
        accelerator,
        asked.devices,
        fields.precision == jnp.float32,
        asked.efficiency,
        asked.network,
        asked.decode_rate,
    )
    on = programs.devices(asked.devices, asked.compiler, accelerator)
    halved = asked.compiler == "cpu" and not machine.float32
    interrupts = Interrupts()
    with (
        tempfile.TemporaryDirectory(prefix="lt_noisy-plan-") as directory,
        interrupts.installed(),
        convolution.as_elsewhere(),
    ):
        interrupts.before_leaving = lambda: shutil.rmtree(directory, ignore_errors=True)
        resolved, origin, dataset = _data(resolved, asked, Path(directory))
        jobs = make_jobs(resolved, dataset, Path(directory), on, interrupts)
        stages: dict[str, Document] = {}
        for stage, job in zip(resolved.stages, jobs, strict=True):
            stages[stage.name] = _stage(resolved, stage, job, on, machine, halved, stages)
    seeds = max(len(fields.seeds), 1)
    total = seeds * sum(stage["seconds"] for stage in stages.values())
    return {
        "config": asked.command.config_name,
        "accelerator": accelerator.name,
        "figures": accelerator.source,
        "devices": asked.devices,
        "compiler": asked.compiler,
        "precision": resolved.texts["precision"],
        "efficiency": asked.efficiency,
        "network": asked.network,
        "decode_rate": asked.decode_rate,
        "data": {
            "origin": origin,
            "examples": len(dataset.ids),
            "test": len(dataset.test_labels),
            "classes": dataset.num_classes,
            "shape": list(dataset.train_images.shape[1:]),
            "streamed": isinstance(dataset.train_images, Stored),
        },
        "seeds": seeds,
        "stages": list(stages.values()),
        "seconds": total,
        "device_hours": total / 3600 * asked.devices,
        "notes": _notes(asked, isinstance(dataset.train_images, Stored), seeds),
        "versions": versions(),
    }


def _notes(asked: Request, streamed: bool, seeds: int) -> list[str]:
    """What makes the real time longer than the plan's, beside what every plan leaves out."""
    accelerator, notes = asked.accelerator, []
    if seeds > 1:
        notes.append(f"the total is of {seeds} seeds in turn, all else of one; together they take the memory of all")
    if accelerator.topology is None and asked.devices > _NVLINK and asked.network == accelerator.interconnect:
        notes.append(f"NVLink joins {_NVLINK} of these; between hosts the network is slower: --network=GB/s")
    if streamed and asked.decode_rate is None:
        notes.append(
            "reading pictures is taken to keep up; --decode_rate=N, of all hosts in a second, makes it a bound"
        )
    return notes


def _data(resolved: Resolved, asked: Request, directory: Path) -> tuple[Resolved, str, Dataset]:
    """The config with data that need not be there, where they come from, and the training set."""
    resolved, origin = stand_ins.with_data(resolved, asked.given)
    try:
        host = system.available_bytes() if origin == "read" else None  # of the run's nothing is known
        return resolved, origin, load(resolved, directory, Room(host, int(asked.accelerator.room)))[1]
    except UserError as error:
        if asked.given is not None:
            raise
        raise UserError(f"{error} (--plan does without the data by --examples=N --classes=C)") from None


def _stage(
    resolved: Resolved,
    stage: Stage,
    job: Job,
    on: parallel.Jit,
    machine: Machine,
    halved: bool,
    earlier: dict[str, Document],
) -> Document:
    """What a stage takes, and in its directory what later ones read of it."""
    job, steps, networks = stand_ins.with_inputs(job), [], 1
    found = programs.prepared(job, stage)
    if found is None:
        stand_ins.write(job, stage)
        plan, trained, flops = None, {}, _forward_flops(stage, job, earlier)
    else:
        networks, ready = found
        plan, flops = ready.plan, programs.forward_flops(job, stage.section.augment, ready)
        steps = [_step(stage, program, machine, halved) for program in programs.programs(stage.name, ready, on)]
        _leave(resolved, stage, job, ready)
        parts = parameters.parts(ready.state.params)
        trained = {
            "networks": networks,
            "parameters": sum(parts.values()),
            "parameters_by_part": parts,
            "batch_size": plan.batch_size,
            "steps": steps,
        }
    images = forward_images(stage, job, plan)
    peak = machine.accelerator.float32 if machine.float32 else machine.accelerator.bfloat16
    forward = images * flops / (peak * machine.efficiency * machine.devices)
    training = networks * sum(step["steps"] * step["step_seconds"] for step in steps)
    return {
        "stage": stage.name,
        "kind": stage.texts["kind"],
        **trained,
        "train_seconds": training,
        "forward_images": images,
        "forward_flops": flops,
        "forward_seconds": forward,
        "seconds": training + forward,
    }


def _forward_flops(stage: Stage, job: Job, earlier: dict[str, Document]) -> float:
    """Operations of one image through the network that a stage reads and does not train; 0 of one on features."""
    if isinstance(getattr(stage.section, "init", None), Pretrained):
        return programs.encoder_flops(job, stage.section.init)
    if "init" not in stage.inputs or kind_of(job.dataset.train_images.shape[1:]) == "vectors":
        return 0.0
    return earlier[stage.inputs["init"]]["forward_flops"]


def _step(stage: Stage, program: Program, machine: Machine, halved: bool) -> Document:
    """What a step of a phase takes; refuses one that no device holds."""

    def used(batch: int) -> Use:
        return estimate.use(program.at, batch, program.pictures, halved)

    def memory(batch: int) -> float:
        try:
            return used(batch).memory
        except TooLarge:
            return math.inf

    accelerator, batch = machine.accelerator, program.batch
    if (needed := memory(batch)) > accelerator.room:
        fits = estimate.fitting(memory, batch // 2, accelerator.room)
        takes = "more than there is" if needed == math.inf else show.size(needed)
        raise UserError(
            f"config.{stage.name}.batch_size: {batch * machine.devices} is {batch} a device, whose step takes {takes}; "
            f"of a {accelerator.name} JAX has {show.size(accelerator.room)}; "
            + (
                f"batch_size={fits * machine.devices}, {fits} a device, takes {show.size(memory(fits))}"
                if fits
                else "nor does it hold one example"
            )
        )
    use, cost = used(batch), program.at(batch)
    times = estimate.seconds(use, machine)
    bound = max(times, key=lambda name: times[name])
    return {
        "steps": program.steps,
        "batch": batch,
        **use._asdict(),
        "collectives": dict(cost.bytes_by_kind),
        "seconds": dict(times),
        "bound": bound,
        "step_seconds": times[bound],
    }


def _leave(resolved: Resolved, stage: Stage, job: Job, ready: Prepared) -> None:
    """The networks of a stage that a `distil` stage learns from."""
    by_name = {other.name: other for other in resolved.stages}
    for other in resolved.stages:
        if other.inputs.get("base") == stage.name:
            stand_ins.write_network(job.directory, ready.state)
        if other.inputs.get("experts") == stage.name:
            clusters = by_name[stage.inputs["clusters"]].section.partition.clusters
            for k in range(clusters):
                stand_ins.write_network(job.directory / f"expert_{k}", ready.state)


def forward_images(stage: Stage, job: Job, plan: Plan | None) -> int:
    """How many images a stage sends through a network without learning from them: to evaluate, or for features."""
    kind, section, dataset = stage.texts["kind"], stage.section, job.dataset
    train, test = len(dataset.ids), len(dataset.test_labels)
    held_out = 0 if dataset.validation is None else len(dataset.validation.ids)
    evaluations = 0 if plan is None else -(-plan.total // plan.eval_every)
    if kind == "supervised":
        return evaluations * (test + held_out) + train
    if kind == "mixnn":  # the losses of all examples in each epoch from `warmup` on
        assert plan is not None
        epochs = -(-plan.total // plan.epoch.steps)
        return evaluations * (test + held_out) + (epochs - section.warmup + 2) * train
    if kind in ("self_supervised", "distil"):
        return 0 if section.monitor is None else evaluations * (test + train) + test + 2 * train
    if kind == "pseudo_label":
        return len(unlabelled.pool(job, stand_ins.with_pool(job, section), job.name).ids)
    if kind in ("probe", "classifier", "features"):
        return train + test + (0 if kind == "probe" else held_out)
    return 0 if kind == "transition" else train
