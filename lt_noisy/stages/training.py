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
from lt_noisy.data.batches import Batches, Epoch, Resident, batches, check_batches
from lt_noisy.errors import UserError
from lt_noisy.hashing import arrays_sha256
from lt_noisy.stages.base import Job
from lt_noisy.system import GIB
from lt_noisy.training import parallel
from lt_noisy.training.checkpoint import CHECKPOINTS, Checkpoints
from lt_noisy.training.loop import Plan, Prepared, Trained, train
from lt_noisy.training.optim import OPTIMIZERS, Optimizer, by_part
from lt_noisy.training.schedules import SCHEDULES, BuildSchedule
from lt_noisy.training.state import TrainState, flatten
from lt_noisy.training.writer import Writer

PyTree = Any


@dataclasses.dataclass(frozen=True)
class Section:
    """The fields of every training.

    `keep_last`: whether an epoch ends with what its whole batches leave over, as a short batch of its real size, or
    leaves that out (another in each epoch). The programs of Cao et al. (2019) and Yang & Xu (2020) keep it, PyTorch's
    default: 97 steps an epoch of 12,406 images at batch 128, not 96.
    """

    length: Duration = spec("epochs(100)", DURATIONS)
    batch_size: int = plain(128)  # over all devices
    keep_last: bool = plain(False)
    augment: Augment = spec("cifar()", AUGMENTS)
    optimizer: Optimizer = spec("sgd()", OPTIMIZERS)
    schedule: BuildSchedule = spec("cosine(lr=0.1)", SCHEDULES)
    log_every: Duration = spec("epochs(1)", DURATIONS, identity=False)
    eval_every: Duration = spec("percent(10)", DURATIONS, identity=False)
    save_every: Duration = spec("percent(10)", DURATIONS, identity=False)


def _where(job: Job) -> str:
    return f"config.{job.name.partition('/')[0]}"


def check_epoch(job: Job, section: Section, examples: int) -> Epoch:
    """How the section cuts an epoch of so many examples; refuses batches that the devices or a call cannot take."""
    where, size = _where(job), section.batch_size
    epoch = check_batches(examples, size, section.keep_last, job.devices.num_devices, where)
    if epoch.last < size and job.steps_per_call > 1:
        raise UserError(
            f"{where}.keep_last: a last batch of {epoch.last} images runs in a call of its own; set "
            f"config.steps_per_call=1 (it is {job.steps_per_call}) or keep_last=False"
        )
    return epoch


def make_plan(job: Job, section: Section, more: int = 0) -> Plan:
    """Turns the section's durations into steps; refuses a batch or an interval that does not fit.

    Args:
      more: examples that the stage has beside those of its data set.
    """
    where, size = _where(job), section.batch_size
    epoch = check_epoch(job, section, len(job.dataset.observed) + more)
    clock = Clock(epoch.steps, epoch.examples(size) / epoch.steps, 0, job.steps_per_call)
    total = section.length(clock, f"{where}.length")
    clock = clock._replace(total=total)
    cadence = {
        name: min(getattr(section, name)(clock, f"{where}.{name}"), total)
        for name in ("log_every", "eval_every", "save_every")
    }
    return Plan(total, **cadence, steps_per_call=job.steps_per_call, batch_size=size, epoch=epoch)


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
    """The shape of `apply(image)` for the job's images; refuses, as `where`, images that it does not take."""
    image = jax.ShapeDtypeStruct(job.dataset.train_images.shape[1:], jnp.float32)
    try:
        return jax.eval_shape(apply, image).shape
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
    state: TrainState, section: Section, plan: Plan, rates: Mapping[str, float] | None = None
) -> tuple[TrainState, optax.GradientTransformation]:
    """The section's optimiser and schedule over the plan (`rates`: see `by_part`), and the state with its part."""
    tx = by_part(section.optimizer(section.schedule(plan.total, plan.epoch.steps)), rates or {})
    opt_state = jax.tree.map(np.asarray, jax.jit(tx.init)(state.params))
    return dataclasses.replace(state, opt_state=opt_state), tx


def resident(job: Job) -> Resident:
    """The training images and observed labels, for the devices' memory."""
    return Resident(job.dataset.train_images, job.dataset.observed)


def order(
    job: Job, section: Section, probabilities: np.ndarray | None = None, num_examples: int | None = None
) -> Batches:
    """The stage's batches, of as many examples as its data set has or of `num_examples`."""
    return batches(
        len(job.dataset.observed) if num_examples is None else num_examples,
        section.batch_size,
        probabilities,
        job.seed,
        f"{job.name}/order",
        section.keep_last,
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
        "examples_seen": plan.examples_seen,
        "parameters": int(sum(np.size(leaf) for leaf in flatten(state.params).values())),
        **results,
        "train_seconds": trained.seconds,
        "images_per_second": trained.images_per_second,
        "params_sha256": arrays_sha256(flatten([state.params, state.batch_stats, state.method, state.target])),
    }
