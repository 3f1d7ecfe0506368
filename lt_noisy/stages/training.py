"""What the training stages share: their fields, how they start, run and finish."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from lt_noisy import rng
from lt_noisy.augment import AUGMENTS
from lt_noisy.augment.base import Augment
from lt_noisy.config.durations import DURATIONS, Clock, Duration
from lt_noisy.config.fields import plain, spec
from lt_noisy.data.batches import Batches, Resident, batches, steps_per_epoch
from lt_noisy.errors import UserError
from lt_noisy.hashing import arrays_sha256
from lt_noisy.stages.base import Job
from lt_noisy.system import GIB
from lt_noisy.training import parallel
from lt_noisy.training.checkpoint import CHECKPOINTS, Checkpoints
from lt_noisy.training.loop import Plan, Prepared, Trained, train
from lt_noisy.training.optim import OPTIMIZERS, SCHEDULES, BuildSchedule, Optimizer, by_part
from lt_noisy.training.state import TrainState, flatten
from lt_noisy.training.writer import Writer

PyTree = Any


@dataclasses.dataclass(frozen=True)
class Section:
    """The fields of every training."""

    length: Duration = spec("epochs(100)", DURATIONS)
    batch_size: int = plain(128)  # over all devices
    augment: Augment = spec("cifar()", AUGMENTS)
    optimizer: Optimizer = spec("sgd()", OPTIMIZERS)
    schedule: BuildSchedule = spec("cosine(lr=0.1)", SCHEDULES)
    log_every: Duration = spec("epochs(1)", DURATIONS, identity=False)
    eval_every: Duration = spec("percent(10)", DURATIONS, identity=False)
    save_every: Duration = spec("percent(10)", DURATIONS, identity=False)


def make_plan(job: Job, section: Section, more: int = 0) -> Plan:
    """Turns the section's durations into steps; refuses a batch or an interval that does not fit.

    Args:
      more: examples that the stage has beside those of its data set.
    """
    where, size = f"config.{job.name.partition('/')[0]}", section.batch_size
    epoch = steps_per_epoch(len(job.dataset.observed) + more, size, job.devices.num_devices, f"{where}.batch_size")
    clock = Clock(epoch, size, 0, job.multiple)
    total = section.length(clock, f"{where}.length")
    clock = clock._replace(total=total)
    cadence = {
        name: min(getattr(section, name)(clock, f"{where}.{name}"), total)
        for name in ("log_every", "eval_every", "save_every")
    }
    return Plan(total, **cadence, steps_per_call=job.steps_per_call, batch_size=size)


def check(job: Job, section: Section, more: int = 0) -> Plan:
    """The plan of a stage (see `make_plan`), once batch, intervals and augmentation are known to fit the data."""
    plan = make_plan(job, section, more)
    shape = job.dataset.train_images.shape[1:]
    needed, there = (len(job.dataset.ids) + more) * math.prod(shape), parallel.memory_bytes()
    if there is not None and needed > there:
        raise UserError(
            f"config.{job.name}: its images take {needed / GIB:.1f} GiB, the memory of one device is "
            f"{there / GIB:.1f} GiB; all of them must fit on each: give a smaller size=, or fewer images"
        )
    prepared = check_images(job, section.augment.evaluate, f"config.{job.name}.augment")
    augmented = check_images(job, lambda x: section.augment.train(jax.random.key(0), x), f"config.{job.name}.augment")
    if prepared != augmented:
        raise UserError(f"config.{job.name}.augment: turns {shape} into {augmented}, not {prepared}")
    return plan


def check_images(job: Job, apply: Callable[[jax.Array], jax.Array], where: str) -> tuple[int, ...]:
    """The shape of `apply(image)` for the job's images; refuses, as `where`, images that it does not take.

    Where the job starts from an earlier stage's encoder they must have as many channels as the run's own.
    """
    image, own = job.dataset.train_images.shape[1:], job.training_set.train_images.shape[1:]
    if "init" in job.inputs and image[-1] != own[-1]:
        raise UserError(f"config.{job.name}.data: its images have {image[-1]} channels, those of the run {own[-1]}")
    try:
        return jax.eval_shape(apply, jax.ShapeDtypeStruct(image, jnp.float32)).shape
    except UserError as error:
        raise UserError(f"{where}: {error}") from None


def initial_state(net: nn.Module, image_shape: tuple[int, ...], seed: int, name: str, method: PyTree) -> TrainState:
    """A fresh state on the host; the optimiser's part is still empty (see `with_optimizer`)."""
    image = jnp.zeros((1, *image_shape), jnp.float32)
    variables = jax.jit(lambda key: net.init(key, image, train=False))(rng.stream(seed, f"{name}/init"))
    host = jax.tree.map(np.asarray, dict(variables))
    whole = jax.tree.map(np.asarray, {"seed": np.uint32(seed), "step": np.int32(0)})
    return TrainState(
        **whole,
        params=host["params"],
        batch_stats=host.get("batch_stats", {}),
        opt_state={},
        target={},
        method=jax.tree.map(np.asarray, method),
    )


def with_optimizer(
    state: TrainState, section: Section, total: int, rates: Mapping[str, float] | None = None
) -> tuple[TrainState, optax.GradientTransformation]:
    """The section's optimiser and schedule over `total` steps (`rates`: see `by_part`), and the state with its part."""
    tx = by_part(section.optimizer(section.schedule(total)), rates or {})
    opt_state = jax.tree.map(np.asarray, jax.jit(tx.init)(state.params))
    return dataclasses.replace(state, opt_state=opt_state), tx


def resident(job: Job) -> Resident:
    """The training images and observed labels, for the devices' memory."""
    return Resident(job.dataset.train_images, job.dataset.observed)


def order(
    job: Job, batch_size: int, probabilities: np.ndarray | None = None, num_examples: int | None = None
) -> Batches:
    """The stage's batches, of as many examples as its data set has or of `num_examples`."""
    return batches(
        len(job.dataset.observed) if num_examples is None else num_examples,
        batch_size,
        probabilities,
        job.seed,
        f"{job.name}/order",
    )


def run_training(job: Job, ready: Prepared, evaluate: Callable[[TrainState], dict[str, float]]) -> Trained:
    """The loop, with this job's checkpoints, metrics file and signals."""
    checkpoints = Checkpoints(job.directory / CHECKPOINTS, job.card)
    writer = Writer(job.directory, job.tensorboard)
    return train(job.name, ready, job.devices, checkpoints, writer, evaluate, job.interrupts)


def summed(networks: list[dict[str, Any]]) -> dict[str, Any]:
    """What a stage of several networks says of their summaries as one."""
    names = ("parameters", "steps", "examples_seen", "train_seconds")
    total = {name: sum(network[name] for network in networks) for name in names}
    return {**total, "images_per_second": total["examples_seen"] / max(total["train_seconds"], 1e-9)}


def summarise(job: Job, trained: Trained, plan: Plan, results: dict[str, Any]) -> dict[str, Any]:
    """What every training stage says in its summary, and its own `results`."""
    state = trained.state
    return {
        "steps": plan.total,
        "batch_size": plan.batch_size,
        "examples_seen": plan.total * plan.batch_size,
        "parameters": int(sum(np.size(leaf) for leaf in flatten(state.params).values())),
        **results,
        "train_seconds": trained.seconds,
        "images_per_second": trained.images_per_second,
        "params_sha256": arrays_sha256(flatten([state.params, state.batch_stats, state.method, state.target])),
    }
