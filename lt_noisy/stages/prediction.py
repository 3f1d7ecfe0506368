"""Networks on whole image sets, in evaluation mode."""

from collections.abc import Callable
from typing import TypeVar

import jax
import numpy as np

from lt_noisy.stages.base import Job, PyTree
from lt_noisy.training.state import TrainState

T = TypeVar("T")
EVAL_BATCH = 512
Predict = Callable[[PyTree, np.ndarray], np.ndarray]


def compile_predict(job: Job, fn: Callable[[PyTree, jax.Array], jax.Array]) -> Predict:
    """Compiles `fn(variables, images uint8 [B, ...]) -> [B, D]` once, for image sets of any size.

    Returns:
      `predict(variables, images uint8 [N, ...]) -> float32 [N, D]` on the host, `variables` on the devices.
    """
    size = -(-EVAL_BATCH // job.devices.num_devices) * job.devices.num_devices
    forward = job.devices.compile_map(fn)

    def predict(variables: PyTree, images: np.ndarray) -> np.ndarray:
        blocks = []
        for start in range(0, len(images), size):
            block = images[start : start + size]
            padding = [(0, size - len(block))] + [(0, 0)] * (images.ndim - 1)
            blocks.append(forward(variables, np.pad(block, padding)))  # dispatched ahead, fetched below
        return np.concatenate([job.devices.gather(block) for block in blocks])[: len(images)]

    return predict


def once_per_step(job: Job, compute: Callable[[TrainState], T]) -> Callable[[TrainState], T]:
    """`compute` of a state on the devices, done once for the last step, which is both watched and summarised."""
    latest: dict[int, T] = {}

    def cached(state: TrainState) -> T:
        step = int(job.devices.fetch(state.step))
        if step not in latest:
            result = compute(state)
            latest.clear()
            latest[step] = result
        return latest[step]

    return cached
