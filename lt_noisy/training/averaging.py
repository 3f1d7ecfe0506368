"""The exponential moving average of a network's weights, which is evaluated and handed on in place of the last ones."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lt_noisy.errors import require
from lt_noisy.precision import to_float
from lt_noisy.training.parallel import Step
from lt_noisy.training.state import AVERAGE, TrainState

PyTree = Any


def check(decay: float, where: str) -> None:
    """Refuses a decay outside [0, 1), as `where`."""
    require(0 <= decay < 1, f"{where}: a decay is at least 0 (no average) and below 1, not {decay}")


def averaged(state: TrainState, decay: float, *steps: Step) -> tuple[TrainState, tuple[Step, ...]]:
    """The state with the average, begun at its own weights, and the steps that update it; both as they are at decay 0.

    a <- a + (1 - d) (w - a) of parameters and BatchNorm statistics after each step; d = min(decay, (1 + k) / (10 + k))
    with k steps before it, the warm-up of TensorFlow's `ExponentialMovingAverage(num_updates)`: without one a decay of
    0.999 is mostly the first weights for a thousand steps. Written as a difference it leaves what is frozen exactly as
    it is.

    Args:
      state: the initial state, on the host.
      decay: in [0, 1).
      steps: per-device steps.
    """
    if not decay:
        return state, steps
    # Copies: the average is donated beside the parameters, and may share no buffer with them.
    state = dataclasses.replace(state, target={**state.target, AVERAGE: jax.tree.map(np.copy, state.variables)})
    return state, tuple(_following(step, decay) for step in steps)


def _following(step: Step, decay: float) -> Step:
    def followed(state: TrainState, data: PyTree, batch: PyTree) -> tuple[TrainState, PyTree]:
        after, sums = step(state, data, batch)
        taken = to_float(state.step)
        rate = 1 - jnp.minimum(to_float(decay), (1 + taken) / (10 + taken))
        average = jax.tree.map(lambda a, w: a + rate.astype(a.dtype) * (w - a), state.target[AVERAGE], after.variables)
        return dataclasses.replace(after, target={**after.target, AVERAGE: average}), sums

    return followed
