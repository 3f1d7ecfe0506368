"""Stage `self_supervised`: pre-training on the images alone; no label is read."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from lt_noisy import rng
from lt_noisy.augment import AUGMENTS
from lt_noisy.augment.base import Augment
from lt_noisy.collectives import AXIS, positions
from lt_noisy.config.fields import NO_STAGE, spec, stage_ref
from lt_noisy.data.batches import Batches, fetch
from lt_noisy.errors import UserError, prefixed
from lt_noisy.method import Context
from lt_noisy.objectives import OBJECTIVES
from lt_noisy.objectives.base import Decay, Objective, Outputs
from lt_noisy.stages import representation, training
from lt_noisy.stages.base import Followed, Job, Kind, Training, read_arrays
from lt_noisy.stages.origin import Origin, origin, started, weights_read
from lt_noisy.stages.prediction import prepared_shape
from lt_noisy.stages.representation import MONITORS, Knn, Representation
from lt_noisy.stages.rows import Rows, collapse_rows, percent
from lt_noisy.training.loop import Phase, Plan, Prepared, Trained
from lt_noisy.training.optim import ASCENTS, Ascent, descend, ema
from lt_noisy.training.parallel import Step
from lt_noisy.training.state import TrainState
from lt_noisy.weights.pretrained import PRETRAINED, Pretrained

PyTree = Any


@dataclasses.dataclass(frozen=True)
class Objectives(training.Section):
    """The fields of a training by an objective."""

    objective: Objective = spec("simclr()", OBJECTIVES)
    augment: Augment = spec("simclr_cifar()", AUGMENTS)

    def normalises(self, job: Job) -> str:
        """The projector or the predictor, too."""
        builds = filter(None, (self.objective.projector, self.objective.predictor))
        heads = any(build(job.dtype, job.norm_axis).norm for build in builds)
        return "the projector" if heads else super().normalises(job)


@dataclasses.dataclass(frozen=True)
class Section(Objectives):
    """The fields of a `self_supervised` stage."""

    # The stage whose encoder it starts from, or weights.
    init: str | Pretrained = stage_ref("none()", ("self_supervised",), optional=True, table=PRETRAINED)
    ascent: Ascent | None = spec("none()", ASCENTS)
    ascent_weights: str = stage_ref("none()", ("density",), optional=True)
    monitor: Knn | None = spec("knn()", MONITORS)  # none(): nothing is watched, which takes neither time nor memory


class Watched(Protocol):
    """The fields that a monitor needs of a section that reads no labels."""

    @property
    def monitor(self) -> Knn | None: ...

    @property
    def augment(self) -> Augment: ...


TARGET_PARTS = ("encoder", "projector")


class Network(nn.Module):
    """Encoder, projector and perhaps a predictor: images -> (projection, prediction or None), float32."""

    encoder: nn.Module
    projector: nn.Module
    predictor: nn.Module | None

    def __call__(self, x: jax.Array, train: bool) -> tuple[jax.Array, jax.Array | None]:
        """Projection and prediction of a batch of one view."""
        projection = self.project(x, train)
        return projection, None if self.predictor is None else self.predictor(projection, train=train)

    def project(self, x: jax.Array, train: bool) -> jax.Array:
        """The projection [B, D]."""
        return self.projector(self.encoder(x, train=train), train=train)

    def hidden(self, x: jax.Array) -> jax.Array:
        """The projector's first layer [B, D] in evaluation mode, after its ReLU."""
        return self.projector(self.encoder(x, train=False), train=False, layers=1)


def build(encoder: nn.Module, objective: Objective, dtype: Any, norm_axis: str | None) -> Network:
    """The network an objective needs around `encoder`."""
    predictor = objective.predictor and objective.predictor(dtype, norm_axis)
    return Network(encoder, objective.projector(dtype, norm_axis), predictor)


def _forward(
    net: Network, params: PyTree, stats: PyTree, views: list[jax.Array], joint: bool
) -> tuple[Outputs, PyTree]:
    """The views through the network in training mode: outputs and new BatchNorm statistics."""
    passes = [jnp.concatenate(views)] if joint else views
    outs = []
    for x in passes:
        variables = {"params": params, "batch_stats": stats}
        out, changed = net.apply(variables, x, train=True, mutable=["batch_stats"])
        outs.append(out)
        stats = changed.get("batch_stats", {})
    projections = [projection for projection, _ in outs]
    predictions = [prediction for _, prediction in outs if prediction is not None]
    if joint:
        projections = jnp.split(projections[0], len(views))
        predictions = jnp.split(predictions[0], len(views)) if predictions else []
    return Outputs(tuple(projections), tuple(predictions)), stats


def _keys(net: Network, target: PyTree, views: list[jax.Array]) -> tuple[tuple[jax.Array, ...], PyTree]:
    """The views through the target network, one by one: projections and the target with new BatchNorm statistics."""
    projections, stats = [], target.get("batch_stats", {})
    for x in views:
        variables = {"params": target["params"], "batch_stats": stats}
        out, changed = net.apply(variables, x, train=True, mutable=["batch_stats"], method=Network.project)
        projections.append(jax.lax.stop_gradient(out))
        stats = changed.get("batch_stats", {})
    # As for the network's own: with per-device BatchNorm they differ between devices until they are averaged.
    return tuple(projections), {**target, "batch_stats": jax.lax.pmean(stats, AXIS)} if views else target


def make_step(
    net: Network,
    objective: Objective,
    tx: optax.GradientTransformation,
    augment: Augment,
    name: str,
    decay: Decay | None = None,
    ascent: Ascent | None = None,
) -> Step:
    """The per-device step `(state, data, batch) -> (state, sums)` of self-supervised training.

    Args:
      decay: of the target network's average by step; None without a target network.
      ascent: where the gradient is taken (`optim.sam`). Per-example weights of its direction are
        `batch["ascent_weights"]`, where there are any. Both passes see the same views; target network and queue follow
        the clean pass only, and so do BatchNorm statistics unless the ascent says otherwise.
    """

    def step(state: TrainState, data: Any, batch: Any) -> tuple[TrainState, dict]:
        rows = batch["rows"]
        images, _ = fetch(data, batch)
        key = rng.stream(state.seed, f"{name}/augment", state.step)
        views, labels = objective.views(augment, key, images, positions(len(rows)))
        keys, target = _keys(net, state.target, [views[i] for i in objective.target])

        def losses(params, batch_stats):
            online = [views[i] for i in objective.online]
            outputs, batch_stats = _forward(net, params, batch_stats, online, objective.joint)
            outputs = outputs._replace(targets=keys)
            per_example, method = objective.method.apply(state.method, outputs, labels, rows, state.step)
            return per_example, (batch_stats, method, {})

        after, sums = descend(state, tx, losses, batch["weights"], ascent, batch.get("ascent_weights"))
        if decay is not None:
            online = {part: after.params[part] for part in target["params"]}
            average = ema(target["params"], online, decay(state.step))
            after = dataclasses.replace(after, target={**target, "params": average})
        return after, sums

    return step


def _context(job: Job, plan: Plan) -> Context:
    dataset = job.dataset
    return Context(dataset.num_classes, len(dataset.ids), plan.batch_size, np.zeros(dataset.num_classes, np.int64))


def check(job: Job, section: Section) -> dict[str, int | str]:
    """Refuses what does not fit the data; returns the stage's length."""
    if section.ascent is None and section.ascent_weights != NO_STAGE:
        raise UserError(
            f"config.{job.name}.ascent_weights: weights choose the direction of an ascent; set ascent='sam(...)'"
        )
    return {"steps": check_objective(job, section).total, **weights_read(job, section)}


def check_objective(job: Job, section: Objectives) -> Plan:
    """The plan of a training, once its objective is known to fit the data."""
    plan, objective = training.check(job, section), section.objective
    with prefixed(f"config.{job.name}.objective"):
        for batch_size in {plan.batch_size, plan.epoch.last}:
            objective.method.init(_context(job, plan)._replace(batch_size=batch_size))
        images = job.dataset.train_images
        one = jax.ShapeDtypeStruct((1, 1, *images.shape[1:]), images.dtype)  # one device, one image

        def views(images: jax.Array) -> tuple[jax.Array, ...]:
            return objective.views(section.augment, jax.random.key(0), images, jnp.arange(1))[0]

        jax.eval_shape(jax.vmap(views, axis_name=AXIS), one)
    return plan


def prepare(job: Job, section: Section) -> Prepared:
    """Builds the network the objective needs, its first state and its step."""
    return prepare_objective(job, section, section.ascent, origin(job, section))


def prepare_objective(job: Job, section: Objectives, ascent: Ascent | None, start: Origin | None = None) -> Prepared:
    """The same for any section with an objective and the training fields; `start`: what its encoder starts from."""
    objective, plan = section.objective, training.make_plan(job, section)
    net = build(job.encoder(job.dtype, job.norm_axis), objective, job.dtype, job.norm_axis)
    method = objective.method.init(_context(job, plan))
    state = training.initial_state(net, prepared_shape(job, section.augment), job.seed, job.name, method)
    state = started(job, start, state)
    if objective.target:
        groups = state.variables.items()
        parts = {group: {part: tree[part] for part in TARGET_PARTS if part in tree} for group, tree in groups}
        # Copies: the target is donated beside the parameters, and may share no buffer with them.
        state = dataclasses.replace(state, target=jax.tree.map(np.copy, parts))
    state, tx = training.with_optimizer(state, section, plan)
    decay = objective.decay and objective.decay(plan.total)
    step = make_step(net, objective, tx, section.augment, job.name, decay, ascent)
    order = training.order(job, section)
    if "ascent_weights" in job.inputs:
        order = _weighted(order, read_arrays(job, job.inputs["ascent_weights"].directory, "weights"))
    data, order = training.feed(job, order, plan, training.cuts(job, section, objective.draws))
    return Prepared(net, state, (Phase(0, step),), order, plan, data)


def _weighted(order: Batches, weights: np.ndarray) -> Batches:
    def weighted(step: int) -> dict[str, np.ndarray]:
        batch = order(step)
        return {**batch, "ascent_weights": weights[batch["rows"]]}

    return weighted


def follow(job: Job, section: Section, ready: Prepared) -> Followed:
    """Watches kNN accuracy and collapse where it is asked to, and what the objective watches."""
    return watched(job, section, ready, section.objective.watch)


def watched(
    job: Job,
    section: Watched,
    ready: Prepared,
    watch: Callable[[Any, int], dict[str, float]] = lambda method, step: {},
) -> Followed:
    """What becomes of a network that is trained without labels: its representation is watched, and summed up.

    Args:
      watch: `watch(method state on the host, step)` adds figures to the metrics file.
    """
    watcher = section.monitor and Representation(job, section.monitor, section.augment, ready.net)

    def monitor(state: TrainState) -> dict[str, float]:
        now = watcher.figures(state) if watcher else {}
        more = watch(job.devices.fetch(state.method), int(job.devices.fetch(state.step)))
        return {**{k: now[k] for k in ("knn_balanced_bank", "channel_std", "effective_rank") if k in now}, **more}

    def finish(trained: Trained) -> dict[str, Any]:
        results = {"representation": watcher.summary(ready.state, trained.device_state)} if watcher else {}
        return training.summarise(job, trained, ready.plan, results)

    return Followed(monitor, finish)


def watch_bytes(job: Job, section: Watched) -> int:
    """What the monitor of a stage without labels takes, `representation.watch_bytes`."""
    return representation.watch_bytes(job, section.monitor)


def rows(summary: Mapping[str, Any]) -> Rows:
    """kNN accuracy beside what it is compared with, and whether the representation has collapsed; or nothing."""
    figures = summary.get("representation")
    if figures is None:
        return []
    return [
        ("kNN accuracy, balanced bank", percent(figures["knn_balanced_bank"])),
        ("  before training", percent(figures["knn_initial"])),
        ("  on the pixels", percent(figures["knn_pixels"])),
        ("kNN accuracy, long-tailed bank", percent(figures["knn_longtailed_bank"])),
        *collapse_rows(figures),
    ]


KIND = Kind(Section, Training(prepare, follow), rows, check, watch_bytes=watch_bytes)
