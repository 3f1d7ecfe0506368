"""Stage `distil`: one network that learns what a base network and K experts say of each image.

References:
  Tian et al., "Divide and Contrast" (2021).
"""

import dataclasses
import pathlib
from typing import Any, NamedTuple, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from lt_noisy import rng
from lt_noisy.augment import AUGMENTS
from lt_noisy.augment.base import Augment, augment_batch
from lt_noisy.collectives import positions
from lt_noisy.config.fields import plain, spec, stage_ref
from lt_noisy.data.batches import Resident, fetch
from lt_noisy.errors import UserError
from lt_noisy.models.heads import MLP
from lt_noisy.objectives.base import normalise
from lt_noisy.stages import representation, self_supervised, training
from lt_noisy.stages.base import Job, Kind, Training, read_arrays
from lt_noisy.stages.prediction import part_variables, prepared_shape
from lt_noisy.training.loop import Phase, Prepared
from lt_noisy.training.optim import descend
from lt_noisy.training.parallel import Step
from lt_noisy.training.state import TrainState

PyTree = Any


@dataclasses.dataclass(frozen=True)
class Section(training.Section):
    """The fields of a `distil` stage."""

    base: str = stage_ref("pretrain", ("self_supervised",), optional=True)  # none() is a control
    experts: str = stage_ref("experts", ("experts",), optional=True)  # none() is a control
    hidden: int = plain(512)  # of the regression heads
    monitor: representation.Knn | None = spec("knn()", representation.MONITORS)  # none(): nothing is watched
    augment: Augment = spec("simclr_cifar()", AUGMENTS)

    def normalises(self, job: Job) -> str:
        """Its regression heads do."""
        return "the regression heads"


class Teachers(NamedTuple):
    """Variables of the finished networks that teach, in evaluation mode: base (or None) and experts (or none)."""

    base: PyTree
    experts: tuple[PyTree, ...]


class Data(NamedTuple):
    """What the step gathers from: images, the cluster int32 [N] of each, and the teachers."""

    resident: Resident
    clusters: np.ndarray | jax.Array
    teachers: Teachers


class Student(nn.Module):
    """Encoder, projector and regression heads: images -> (one [B, D] per head), float32.

    Attributes:
      heads: each a two-layer MLP with BatchNorm on its hidden layer (ours: the template only says regression heads).
    """

    encoder: nn.Module
    projector: nn.Module
    heads: tuple[nn.Module, ...]

    def __call__(self, x: jax.Array, train: bool) -> tuple[jax.Array, ...]:
        """What each head predicts of its teacher."""
        z = self.projector(self.encoder(x, train=train), train=train)
        return tuple(head(z, train=train) for head in self.heads)


def distillation(
    regressions: tuple[jax.Array, ...], base: jax.Array | None, experts: tuple[jax.Array, ...], clusters: jax.Array
) -> jax.Array:
    """0.5 ||r_b - z_b||^2 + 0.5 ||r_k - z_k||^2 per image, float32 [B], k its cluster.

    Tian et al. 2021, "Divide and Contrast". Teachers' outputs are L2-normalised and get no gradient, the student's are
    neither; there is no temperature. Without a base, or without experts, that term is left out.

    Args:
      regressions: [B, D] of each head: the base's first where there is a base, then one per expert.
      base: projections [B, D] of the base, or None.
      experts: projections [B, D] of every expert, or none.
      clusters: int [B].
    """
    teachers = [jax.lax.stop_gradient(normalise(z)) for z in ([] if base is None else [base]) + list(experts)]
    errors = jnp.stack([0.5 * jnp.sum((r - z) ** 2, axis=-1) for r, z in zip(regressions, teachers, strict=True)])
    if not experts:
        return errors[0]
    expert_error = jnp.take_along_axis(errors[len(teachers) - len(experts) :], clusters[None], axis=0)[0]
    return expert_error if base is None else errors[0] + expert_error


def make_step(
    net: Student,
    teacher: self_supervised.Network,
    tx: optax.GradientTransformation,
    augment: Augment,
    name: str,
) -> Step:
    """The per-device step of distillation: one view an image, the same for student and teachers.

    Every expert sees the whole batch and the answer of an image's own one is picked: K + 1 forward passes, but no
    shape that depends on the data.
    """

    def step(state: TrainState, data: Data, batch: Any) -> tuple[TrainState, dict]:
        rows = batch["rows"]
        images, _ = fetch(data.resident, batch)
        clusters = jnp.take(data.clusters, rows)
        key = rng.stream(state.seed, f"{name}/augment", state.step)
        x = augment_batch(augment, key, images, positions(len(rows)))

        def project(variables: PyTree) -> jax.Array:
            # A pair only with `mutable`.
            return cast(jax.Array, teacher.apply(variables, x, train=False, method=type(teacher).project))

        base = None if data.teachers.base is None else project(data.teachers.base)
        experts = tuple(project(variables) for variables in data.teachers.experts)

        def losses(params, batch_stats):
            variables = {"params": params, "batch_stats": batch_stats}
            regressions, changed = net.apply(variables, x, train=True, mutable=["batch_stats"])
            return distillation(regressions, base, experts, clusters), (
                changed.get("batch_stats", {}),
                state.method,
                {},
            )

        return descend(state, tx, losses, batch["weights"])

    return step


def check(job: Job, section: Section) -> dict[str, int]:
    """Refuses teachers that do not fit each other or the data; returns the stage's length."""
    if not job.inputs:
        raise UserError(f"config.{job.name}: base and experts are both 'none()', so that nothing teaches")
    objectives = sorted({stage.texts["objective"] for stage in job.inputs.values()})
    if len(objectives) > 1:
        raise UserError(f"config.{job.name}: base and experts differ in their objective: {' and '.join(objectives)}")
    if section.hidden < 1:
        raise UserError(f"config.{job.name}.hidden is at least 1, not {section.hidden}")
    _check_prepared(job, section.augment)
    return {"steps": training.check(job, section).total}


def _check_prepared(job: Job, augment: Augment) -> None:
    """Refuses teachers that learnt from images which were prepared otherwise than the student's are."""
    shape = job.dataset.train_images.shape[1:]
    ramp = np.linspace(0, 1, int(np.prod(shape)), dtype=np.float32).reshape(shape)
    own = np.asarray(augment.evaluate(jnp.asarray(ramp)))
    for field, stage in job.inputs.items():
        seen = np.asarray(stage.section.augment.evaluate(jnp.asarray(ramp)))
        if seen.shape != own.shape or not np.allclose(seen, own, rtol=1e-4, atol=1e-4):
            raise UserError(
                f"config.{job.name}.augment: its deterministic part (normalise, resize, colour) is not that of "
                f"{stage.directory.name}, which teaches it as {field}"
            )


def _teachers(job: Job, net: self_supervised.Network) -> tuple[Teachers, np.ndarray]:
    """The finished networks, and the cluster int32 [N] of each image (zeros without experts)."""

    augment = next(iter(job.inputs.values())).section.augment

    def read(directory: pathlib.Path) -> PyTree:
        return part_variables(job, net, directory, augment, self_supervised.TARGET_PARTS)

    base = read(job.inputs["base"].directory) if "base" in job.inputs else None
    if "experts" not in job.inputs:
        return Teachers(base, ()), np.zeros(len(job.dataset.ids), np.int32)
    experts = job.inputs["experts"]
    clusters = read_arrays(job, experts.inputs["clusters"].directory, "clusters")
    directories = [experts.directory / f"expert_{k}" for k in range(clusters.max() + 1)]
    return Teachers(base, tuple(read(directory) for directory in directories)), clusters


def prepare(job: Job, section: Section) -> Prepared:
    """Reads the teachers; builds the student (encoder and projector as theirs, from scratch) and its step."""
    plan = training.make_plan(job, section)
    encoder = job.encoder(job.dtype, job.norm_axis)
    objective = next(iter(job.inputs.values())).section.objective
    teacher = self_supervised.build(encoder, objective, job.dtype, job.norm_axis)
    teachers, clusters = _teachers(job, teacher)
    size = teacher.projector.sizes[-1]
    count = len(teachers.experts) + (teachers.base is not None)
    head = MLP((section.hidden, size), norm=True, dtype=job.dtype, norm_axis=job.norm_axis)
    net = Student(encoder, teacher.projector, tuple(head.clone() for _ in range(count)))
    state = training.initial_state(net, prepared_shape(job, section.augment), job.seed, job.name, {})
    state, tx = training.with_optimizer(state, section, plan)
    step = make_step(net, teacher, tx, section.augment, job.name)
    resident, order = training.feed(job, training.order(job, section), plan, training.cuts(job, section))
    return Prepared(net, state, (Phase(0, step),), order, plan, Data(resident, clusters, teachers))


KIND = Kind(
    Section,
    Training(prepare, self_supervised.watched),
    self_supervised.rows,
    check,
    watch_bytes=self_supervised.watch_bytes,
)
