"""The steps that a run would train by, compiled for devices that nobody owns, and what they cost."""

import contextlib
import importlib.util
import os
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lt_noisy.augment.base import Augment
from lt_noisy.config.resolve import Stage
from lt_noisy.errors import UserError, first_line
from lt_noisy.runs.planning.accelerators import Accelerator
from lt_noisy.stages import self_supervised, supervised
from lt_noisy.stages.base import Job
from lt_noisy.stages.origin import augmentation, encoder_shapes
from lt_noisy.stages.prediction import prepared_shape
from lt_noisy.training import cost, parallel
from lt_noisy.training.cost import Cost
from lt_noisy.training.loop import Prepared
from lt_noisy.weights.pretrained import Pretrained

PyTree = Any
# Nothing is run, so that no machine code needs to be good.
_FAST = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
# What libtpu would else ask a TPU's host for, or say that it cannot; no TPU is there that processes had to share.
_NO_TPU = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}


class Program(NamedTuple):
    """The step of one phase of a stage.

    Attributes:
      steps: how often it runs.
      batch: examples of a device in it.
      pictures: that the host decodes for a device's part of the batch, 0 where they are in its memory.
      at: `at(batch)`, its cost with so many examples of a device; compiled when first asked for.
    """

    steps: int
    batch: int
    pictures: int
    at: Callable[[int], Cost]


class TooLarge(Exception):
    """The compiler says itself that the memory of a device does not hold a program."""


def devices(count: int, compiler: str, accelerator: Accelerator) -> parallel.Jit:
    """So many devices to compile for: of the CPU, as which every machine can be divided, or of a TPU by its compiler.

    Raises:
      UserError: JAX is in use already with fewer of them; there is no compiler for TPUs.
    """
    with contextlib.suppress(RuntimeError):  # JAX is in use already, with the devices that it has
        jax.config.update("jax_platforms", "cpu")
        jax.config.update("jax_num_cpu_devices", count if compiler == "cpu" else 1)
    if compiler == "tpu":
        return parallel.Jit(_of_tpu(count, accelerator))
    there = jax.devices("cpu")
    if len(there) < count:
        raise UserError(f"--devices={count}: JAX is in use already, with {len(there)} devices; plan in a new process")
    return parallel.Jit(there[:count])


def _of_tpu(count: int, accelerator: Accelerator) -> list[Any]:
    from jax.experimental import topologies

    if importlib.util.find_spec("libtpu") is None:
        raise UserError("--compiler=tpu takes the compiler of TPUs, which needs none: pip install '.[tpu]'")
    assert accelerator.topology is not None
    for variable, value in _NO_TPU.items():
        os.environ.setdefault(variable, value)
    name, dimensions = accelerator.topology
    mesh = "x".join(map(str, grid(count, dimensions)))
    try:
        found = topologies.get_topology_desc(f"{name}:{mesh}", "tpu")
    except (RuntimeError, ValueError) as error:
        raise UserError(f"--compiler=tpu: no mesh {mesh} of {name}: {first_line(error)[:200]}") from None
    return list(found.devices)[:count]


def grid(count: int, dimensions: int) -> list[int]:
    """The sides of the smallest mesh of powers of two, a host's 2 x 2 at least, that has so many devices."""
    sides = [2, 2] + [1] * (dimensions - 2)
    while np.prod(sides) < count:
        sides[len(sides) - 1 - sides[::-1].index(min(sides))] *= 2
    return sides


def prepared(job: Job, stage: Stage) -> tuple[int, Prepared] | None:
    """How many networks a stage trains one after the other, and one of them; None where it trains none.

    The experts of `experts` share the steps of one network on all images, so that they are planned as that.

    Raises:
      UserError: what a run refuses of such a stage.
    """
    kind, section = stage.texts["kind"], stage.section
    if stage.kind.prepare is None and kind not in ("experts", "cross_fit"):
        return None
    stage.kind.check(job, section)
    if stage.kind.prepare is not None:
        return 1, stage.kind.prepare(job, section)
    if kind == "experts":
        return 1, self_supervised.prepare_objective(job, section, ascent=None)
    count = len(job.dataset.ids)
    others = job.dataset.rows(np.arange(count - count // section.folds))
    return section.folds, supervised.prepare(job._replace(dataset=others), section)


def programs(name: str, ready: Prepared, on: parallel.Jit) -> list[Program]:
    """The steps of all phases of a stage."""
    begins = [phase.begin for phase in ready.phases] + [ready.plan.total]
    state, data = shapes(ready.state), shapes(ready.data)
    found = []
    for phase, end in zip(ready.phases, begins[1:], strict=True):
        if (steps := min(end, ready.plan.total) - phase.begin) > 0:
            batch = shapes(ready.batches(phase.begin))
            size, images = len(batch["rows"]) // on.num_devices, batch.get("images")
            decoded = () if images is None or images.ndim < 4 else images.shape[: images.ndim - 3]  # [B], or [B, views]
            pictures = int(np.prod(decoded)) // on.num_devices if decoded else 0
            found.append(Program(steps, size, pictures, _costs(name, phase.step, state, data, batch, on)))
    return found


def _costs(
    name: str, step: parallel.Step, state: PyTree, data: PyTree, batch: PyTree, on: parallel.Jit
) -> Callable[[int], Cost]:
    known: dict[int, Cost] = {}

    def at(size: int) -> Cost:
        if size not in known:
            sized = jax.tree.map(lambda x: resized(x, size * on.num_devices), batch)
            try:
                lowered = on.lower_step(step, state, data, sized)
            except ValueError as error:  # `data.batches.fetch_images`
                raise UserError(f"config.{name}: its step cannot be planned: {first_line(error)}") from None
            known[size] = cost.cost(_compiled(lowered, on), on.num_devices)
        return known[size]

    return at


def _compiled(lowered: jax.stages.Lowered, on: parallel.Jit) -> jax.stages.Compiled:
    on_cpu = on.mesh.devices.flat[0].platform == "cpu"
    try:
        return lowered.compile(compiler_options=_FAST if on_cpu else None)
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" in str(error):
            raise TooLarge(first_line(error)) from None
        raise


def resized(x: jax.ShapeDtypeStruct, size: int) -> jax.ShapeDtypeStruct:
    """An array [B, ...] of another B."""
    return jax.ShapeDtypeStruct((size, *x.shape[1:]), x.dtype)


def shapes(tree: PyTree) -> PyTree:
    """The shapes of host arrays."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(np.shape(x), np.asarray(x).dtype), tree)


def encoder_flops(job: Job, start: Pretrained) -> float:
    """Operations of one image through an encoder of pretrained weights."""
    shape = prepared_shape(job, augmentation(start))
    encoder, image = job.encoder(job.dtype, job.norm_axis), jax.ShapeDtypeStruct((1, *shape), jnp.float32)
    forward = jax.jit(lambda variables, x: encoder.apply(variables, x, train=False))
    return float(dict(forward.lower(encoder_shapes(job, shape), image).cost_analysis() or {})["flops"])


def forward_flops(job: Job, augment: Augment, ready: Prepared) -> float:
    """Operations of one image through a stage's network in evaluation mode."""
    image = jax.ShapeDtypeStruct((1, *prepared_shape(job, augment)), jnp.float32)

    def forward(variables: PyTree, x: jax.Array) -> PyTree:
        return ready.net.apply(variables, x, train=False)

    analysis = jax.jit(forward).lower(shapes(ready.state.variables), image).cost_analysis()
    return float(dict(analysis or {})["flops"])
