"""What the tests of the objectives share: a spec for every table entry, a batch for it, and its loss on one device."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from helpers.loss_cases import on_one_device
from helpers.step_cases import entry

from lt_noisy.augment.base import none
from lt_noisy.collectives import AXIS, positions, share
from lt_noisy.config.spec import bind
from lt_noisy.method import Context
from lt_noisy.objectives import OBJECTIVES
from lt_noisy.objectives.base import Objective, Outputs

BATCH = 6
CONTEXT = Context(num_classes=2, num_examples=40, batch_size=BATCH, counts=np.zeros(2, np.int64))


def small(name: str, **arguments) -> str:
    """The spec of a table entry with these arguments and otherwise sizes that compile and run in no time."""
    return entry(OBJECTIVES, name, **{"hidden": 16, "size": 8, "queue": 40, **arguments})


def everything() -> list[str]:
    """A spec for each table entry, and variants with code of their own."""
    return [*map(small, OBJECTIVES), small("moco", symmetric=False), small("rotation", every=True)]


@functools.cache
def bound(text: str) -> Objective:
    """The objective that the spec says."""
    return bind(text, OBJECTIVES, "objective")


def outputs(text: str) -> Outputs:
    """What networks might make of a batch, normally distributed: the heads' sizes for the objective's views."""
    objective, generator = bound(text), np.random.default_rng(0)
    projected = _width(objective.projector, 4)

    def normal(views, width):
        return tuple(jnp.asarray(generator.normal(size=(BATCH, width)), float) for _ in views)

    return Outputs(
        normal(objective.online, projected),
        objective.predictor and normal(objective.online, _width(objective.predictor, projected)),
        normal(objective.target, projected),
    )


def _width(build, width: int) -> int:
    """The length of what a head makes of vectors of this length."""
    head, x = build(None, AXIS), jnp.zeros((BATCH, width))
    return jax.eval_shape(lambda: head.init_with_output(jax.random.key(0), x, train=False)[0]).shape[-1]


@functools.cache
def targets(text: str) -> Any:
    """The targets of the task's views, or None."""
    images = np.zeros((BATCH, 4, 4, 1), np.uint8)
    make = functools.partial(bound(text).views, none(), jax.random.key(0))
    return on_one_device(lambda images: make(images, positions(BATCH))[1], images)


def start(text: str) -> Any:
    """The first state of the method."""
    return jax.tree.map(jnp.asarray, bound(text).method.init(CONTEXT))


@functools.cache
def compiled(text: str):
    """(outputs, state, weights, step) -> ((losses, new state), gradient of the weighted mean by the outputs)."""

    def total(outputs, state, weights, step):
        def apply(outputs, state, weights):
            rows = jnp.arange(BATCH, dtype=jnp.int32)
            losses, new_state = bound(text).method.apply(state, outputs, targets(text), rows, step)
            return share(losses, weights), losses, new_state

        mean, losses, new_state = on_one_device(apply, outputs, state, weights)
        return mean, (losses, new_state)

    return jax.jit(lambda *args: jax.grad(total, has_aux=True)(*args)[::-1])


def run(text: str, outputs: Outputs, state: Any, weights: Any = None, step: int = 0):
    """(losses [B], new state) of one step, and the gradient of their weighted mean by the outputs."""
    weights = jnp.ones(BATCH) if weights is None else jnp.asarray(weights, float)
    return compiled(text)(outputs, state, weights, jnp.int32(step))
