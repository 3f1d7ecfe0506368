"""What the training stages share: their fields, how they start, run and finish."""

import contextlib
import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from lt_noisy import rng, system
from lt_noisy.augment import AUGMENTS
from lt_noisy.augment.base import Augment
from lt_noisy.config.durations import DURATIONS, Clock, Duration
from lt_noisy.config.fields import plain, spec
from lt_noisy.data.batches import Batches, Epoch, Resident, batches, check_batches
from lt_noisy.data.boxes import DRAWS
from lt_noisy.data.feed import Cuts, More, Stream, fed
from lt_noisy.data.images import Stored, kind_of
from lt_noisy.errors import UserError, prefixed
from lt_noisy.hashing import arrays_sha256
from lt_noisy.models.vectors import Layers
from lt_noisy.stages.base import Job
from lt_noisy.stages.nonfinite import dumped
from lt_noisy.training import parallel, parameters
from lt_noisy.training.best import BEST, Best
from lt_noisy.training.checkpoint import CHECKPOINTS, Checkpoints
from lt_noisy.training.loop import Plan, Prepared, Trained, train
from lt_noisy.training.optim import OPTIMIZERS, Optimizer, by_part
from lt_noisy.training.schedules import SCHEDULES, BuildSchedule
from lt_noisy.training.state import TrainState, flatten
from lt_noisy.training.watch import Watch
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
    keep_newest: int = plain(2, identity=False)  # checkpoints, beside the one that is being written
    # Beside them stays the first checkpoint of every such stretch; of a finished stage too, where `keep` is 'last'.
    keep_every: Duration = spec("percent(100)", DURATIONS, identity=False)

    def normalises(self, job: Job) -> str:
        """Which part of the network has BatchNorm on vectors in training; the empty string where none has."""
        return "the model" if isinstance(job.encoder(job.dtype, job.norm_axis), Layers) else ""


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
    if part := section.normalises(job):
        _check_normalised(job, section, epoch, part)
    return epoch


def _check_normalised(job: Job, section: Section, epoch: Epoch, part: str) -> None:
    """Refuses batches of one example, of which BatchNorm on vectors leaves nothing.

    Where devices normalise each for itself, that is one example a device.
    """
    each = 1 if job.norm_axis else job.devices.num_devices
    if epoch.last // each >= 2:
        return
    short = epoch.last < section.batch_size
    shared = f" on {each} devices, each normalising for itself (config.batch_norm)," if each > 1 else ""
    field, instead = ("keep_last", "set it to False") if short else ("batch_size", f"give at least {2 * each}")
    raise UserError(
        f"{_where(job)}.{field}: a batch of {epoch.last}{shared} is one example, of which BatchNorm in {part} leaves "
        f"nothing; {instead}"
    )


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
        for name in ("log_every", "eval_every", "save_every", "keep_every")
    }
    if section.keep_newest < 1:
        raise UserError(f"{where}.keep_newest is at least 1, not {section.keep_newest}: a run goes on from it")
    cadence["keep_newest"] = section.keep_newest
    cadence["patience"] = getattr(section, "early_stopping", 0)  # of the sections that are evaluated on validation
    return Plan(total, **cadence, steps_per_call=job.steps_per_call, batch_size=size, epoch=epoch)


def check(job: Job, section: Section, more: int = 0) -> Plan:
    """The plan of a stage (see `make_plan`), once batch, intervals and augmentation are known to fit the data."""
    plan = make_plan(job, section, more)
    images, there = job.dataset.train_images, system.device_bytes()
    shape = images.shape[1:]
    needed = (len(job.dataset.ids) + more) * math.prod(shape) * images.dtype.itemsize
    if there is not None and needed > there and isinstance(images, np.ndarray):
        raise UserError(
            f"config.{job.name}: its {kind_of(shape)} take {needed / system.GIB:.1f} GiB, the memory of one device is "
            f"{there / system.GIB:.1f} GiB; set config.feed='streamed()'"
            + (", or give a smaller size=" if kind_of(shape) == "images" else "")
        )
    prepared = check_images(job, section.augment.evaluate, f"config.{job.name}.augment")
    augmented = check_images(job, lambda x: section.augment.train(jax.random.key(0), x), f"config.{job.name}.augment")
    check_cut(job, section)
    if prepared != augmented:
        raise UserError(f"config.{job.name}.augment: turns {shape} into {augmented}, not {prepared}")
    return plan


def check_cut(job: Job, section: Section) -> None:
    """Refuses an augmentation that cuts whole pictures where there are none to be read."""
    if (cut := section.augment.cut) is None:
        return
    where, images = f"config.{job.name}.augment", job.dataset.train_images
    stored = isinstance(images, Stored)
    if (images.read_cut if stored else job.dataset.source.train.read_cut) is None:
        raise UserError(f"{where}: there are no whole pictures to cut in this data set; use resized_crop() or crop()")
    if not stored:
        raise UserError(f"{where}: whole pictures are cut as they are read; set config.feed='streamed()'")
    with prefixed(where):
        cut(np.zeros(DRAWS), 1000, 1000, images.shape[1])


def check_images(job: Job, apply: Callable[[jax.Array], jax.Array], where: str) -> tuple[int, ...]:
    """The shape of `apply(image)` for the job's images; refuses, as `where`, images that it does not take."""
    image = jax.ShapeDtypeStruct(job.dataset.train_images.shape[1:], jnp.float32)
    with prefixed(where):
        return jax.eval_shape(apply, image).shape


def initial_state(net: nn.Module, image_shape: tuple[int, ...], seed: int, name: str, method: PyTree) -> TrainState:
    """A fresh state on the host; the optimiser's part is still empty (see `with_optimizer`)."""
    image = jnp.zeros((1, *image_shape), jnp.float32)
    init = jax.jit(lambda key: net.init(key, image, train=False), compiler_options=parallel.fast_compile_options())
    variables = init(rng.stream(seed, f"{name}/init"))
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


def cuts(job: Job, section: Section, views: int = 1, begin: int = 0) -> Cuts | None:
    """How a stage cuts whole pictures (see `Cuts`); None where its augmentation does not."""
    if section.augment.cut is None:
        return None
    return Cuts(section.augment.cut, job.seed, f"{job.name}/cut", views, begin)


def feed(job: Job, order: Batches, plan: Plan, cuts: Cuts | None, more: More | None = None) -> tuple[Resident, Batches]:
    """The training images and observed labels in the devices' memory, or the images with the batches (`data.feed`)."""
    return fed(job.dataset.train_images, job.dataset.observed, order, plan.total, job.workers, cuts, more)


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
    checkpoints, writer, best = kept_by(job, ready)
    watch = Watch(job.name, job.host_log, job.trace)
    stream = ready.batches if isinstance(ready.batches, Stream) else None
    with contextlib.nullcontext() if stream is None else contextlib.closing(stream), dumped([job], [ready]):
        trained = train(job.name, ready, job.devices, checkpoints, writer, evaluate, job.interrupts, watch, best)
        return trained if stream is None else trained._replace(waited=stream.waited)


def kept_by(job: Job, ready: Prepared) -> tuple[Checkpoints, Writer, Best]:
    """The checkpoints, the metrics file and the best evaluation of a training; its parameters are told of."""
    parameters.tell(job.name, job.directory, ready.state.params)
    checkpoints = Checkpoints(job.directory / CHECKPOINTS, job.card, ready.plan.keep_newest, ready.plan.keep_every)
    writer = Writer(job.directory, job.trackers, job.name, _texts(job))
    return checkpoints, writer, Best(job.directory, job.card)


def _texts(job: Job) -> dict[str, Any]:
    """What the config says of the run and of this stage."""
    texts = job.card.get("config", {})
    own = texts.get(job.name.partition("/")[0], {})
    return {**{name: text for name, text in texts.items() if not isinstance(text, Mapping)}, **own}


def summed(networks: list[dict[str, Any]]) -> dict[str, Any]:
    """What a stage of several networks says of their summaries as one."""
    names = ("parameters", "steps", "examples_seen", "train_seconds")
    total = {name: sum(network[name] for network in networks) for name in names}
    return {**total, "images_per_second": total["examples_seen"] / max(total["train_seconds"], 1e-9)}


def summarise(job: Job, trained: Trained, plan: Plan, results: dict[str, Any]) -> dict[str, Any]:
    """What every training stage says in its summary, and its own `results`."""
    state = trained.state
    steps = int(state.step)
    early = {"planned_steps": plan.total, "evaluations_without_a_better_one": plan.patience}
    best = {"step": trained.best, "directory": BEST}
    return {
        "steps": steps,
        **({"stopped_early": early} if steps < plan.total else {}),
        **({} if trained.best is None else {"best_weights": best}),
        "batch_size": plan.batch_size,
        "examples_seen": plan._replace(total=steps).examples_seen,
        "parameters": int(sum(np.size(leaf) for leaf in flatten(state.params).values())),
        **results,
        "train_seconds": trained.seconds,
        "images_per_second": trained.images_per_second,
        **({} if trained.waited is None else {"seconds_waiting_for_images": round(trained.waited, 3)}),
        "params_sha256": arrays_sha256(flatten([state.params, state.batch_stats, state.method, state.target])),
    }
