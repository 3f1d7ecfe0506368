"""Which rows a step sees, and the images it sees them through.

Batch order is a function of the step (Philox of seed and epoch), so there is no iterator to save: a resumed
run asks for the next step's rows. Data is resident: uint8 images in device memory, gathered by row.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lt_noisy import rng
from lt_noisy.errors import UserError

Batches = Callable[[int], dict[str, np.ndarray]]


class Resident(NamedTuple):
    """Images and integer labels in memory: uint8 [N, H, W, C] and int32 [N]."""

    images: np.ndarray | jax.Array
    labels: np.ndarray | jax.Array


def steps_per_epoch(num_examples: int, batch_size: int, num_devices: int, where: str) -> int:
    """Whole batches in an epoch; refuses a batch that no epoch holds or that the devices cannot share."""
    if batch_size < 1 or batch_size > num_examples:
        raise UserError(f"{where}: {batch_size} is not between 1 and the {num_examples} training images")
    if batch_size % num_devices:
        raise UserError(f"{where}: {batch_size} does not divide among {num_devices} devices")
    return num_examples // batch_size


def epoch_order(num_examples: int, probabilities: np.ndarray | None, seed: int, purpose: str, epoch: int) -> np.ndarray:
    """Rows int32 [N] in the order of one epoch: a permutation, or N draws with replacement."""
    generator = rng.generator(seed, purpose, epoch)
    if probabilities is None:
        return generator.permutation(num_examples).astype(np.int32)
    return generator.choice(num_examples, num_examples, p=probabilities).astype(np.int32)


def batches(num_examples: int, batch_size: int, probabilities: np.ndarray | None, seed: int, purpose: str) -> Batches:
    """`step -> {"rows": int32 [B], "weights": float32 [B]}`.

    The rows an epoch leaves over (N mod B) are dropped; another epoch leaves out others. Without replacement, no
    row comes twice in a batch.

    Args:
      probabilities: float [N] to draw with replacement, or None for a permutation per epoch.
      purpose: names the stream of random numbers, so that two stages see different orders.
    """
    whole = num_examples // batch_size
    weights = np.ones(batch_size, np.float32)
    current = (-1, np.zeros(0, np.int32))

    def batch_of(step: int) -> dict[str, np.ndarray]:
        nonlocal current
        epoch, position = divmod(step, whole)
        if epoch != current[0]:
            current = epoch, epoch_order(num_examples, probabilities, seed, purpose, epoch)
        return {"rows": current[1][position * batch_size :][:batch_size], "weights": weights}

    return batch_of


def grouped(batch_of: Batches, step: int, steps_per_call: int) -> dict[str, np.ndarray]:
    """The batches of one call: leaves [B, ...], or [steps_per_call, B, ...] where it takes several steps."""
    if steps_per_call == 1:
        return batch_of(step)
    return jax.tree.map(lambda *leaves: np.stack(leaves), *[batch_of(step + i) for i in range(steps_per_call)])


def fetch(data: Resident, rows: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Images uint8 [B, H, W, C] and labels int32 [B] of `rows`, inside the compiled step."""
    return jnp.take(data.images, rows, axis=0), jnp.take(data.labels, rows, axis=0)
