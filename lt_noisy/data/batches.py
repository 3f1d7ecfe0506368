"""Which rows a step sees, and the images it sees them through.

Batch order is a function of the step (Philox of seed and epoch), so there is no iterator to save: a resumed
run asks for the next step's rows. Images are uint8 in device memory, gathered by row, or come with the batch (`feed`).
"""

import functools
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lt_noisy import processes, rng
from lt_noisy.errors import UserError

Batches = Callable[[int], dict[str, np.ndarray]]


class Resident(NamedTuple):
    """What stays in the devices' memory.

    Attributes:
      images: uint8 [N, H, W, C]; None where batches bring them.
      labels: [N, ...].
      rows: int32 [N], where the image of each example is in `images`, if those are of several seeds; None: at its row.
    """

    images: np.ndarray | jax.Array | None
    labels: np.ndarray | jax.Array
    rows: np.ndarray | jax.Array | None = None


class Epoch(NamedTuple):
    """How an epoch is cut into batches.

    Attributes:
      steps: batches of an epoch.
      last: examples of the last one, over all devices; of the batch size, unless a short one is kept.
    """

    steps: int
    last: int

    def examples(self, batch_size: int) -> int:
        """Examples in all of its batches."""
        return (self.steps - 1) * batch_size + self.last


def cut(num_examples: int, batch_size: int, keep_last: bool) -> Epoch:
    """An epoch of whole batches, and where `keep_last` of what they leave over, as one short batch."""
    whole, rest = divmod(num_examples, batch_size)
    return Epoch(whole + 1, rest) if keep_last and rest else Epoch(whole, batch_size)


def check_batches(num_examples: int, batch_size: int, keep_last: bool, num_devices: int, where: str) -> Epoch:
    """`cut`, for the section `where`; refuses a batch that no epoch holds or that the devices cannot share."""
    if batch_size < 1 or batch_size > num_examples:
        raise UserError(f"{where}.batch_size: {batch_size} is not between 1 and the {num_examples} training images")
    if batch_size % num_devices:
        raise UserError(f"{where}.batch_size: {batch_size} does not divide among {num_devices} devices")
    epoch = cut(num_examples, batch_size, keep_last)
    if epoch.last % num_devices:
        raise UserError(
            f"{where}.keep_last: the last batch of {num_examples} images has {epoch.last}, which do not divide among "
            f"{num_devices} devices; set keep_last=False, another batch_size or fewer config.devices"
        )
    return epoch


def epoch_order(num_examples: int, probabilities: np.ndarray | None, seed: int, purpose: str, epoch: int) -> np.ndarray:
    """Rows int32 [N] in the order of one epoch: a permutation, or N draws with replacement."""
    generator = rng.generator(seed, purpose, epoch)
    if probabilities is None:
        return generator.permutation(num_examples).astype(np.int32)
    return generator.choice(num_examples, num_examples, p=probabilities).astype(np.int32)


def batches(
    num_examples: int,
    batch_size: int,
    probabilities: np.ndarray | None,
    seed: int,
    purpose: str,
    keep_last: bool = False,
) -> Batches:
    """`step -> {"rows": int32 [B], "weights": float32 [B]}`.

    The rows an epoch leaves over (N mod B) are dropped, and another epoch leaves out others; or they are a last, short
    batch of their own. Without replacement, no row comes twice in a batch.

    Args:
      probabilities: float [N] to draw with replacement, or None for a permutation per epoch.
      purpose: names the stream of random numbers, so that two stages see different orders.
      keep_last: whether an epoch ends with the short batch.
    """
    epoch_steps = cut(num_examples, batch_size, keep_last).steps
    weights = np.ones(batch_size, np.float32)

    @functools.lru_cache(maxsize=2)  # several threads ask at once, around the end of an epoch for both
    def order(epoch: int) -> np.ndarray:
        return epoch_order(num_examples, probabilities, seed, purpose, epoch)

    def batch_of(step: int) -> dict[str, np.ndarray]:
        epoch, position = divmod(step, epoch_steps)
        rows = order(epoch)[position * batch_size :][:batch_size]
        return {"rows": rows, "weights": weights[: len(rows)]}

    return batch_of


def part(size: int) -> slice:
    """This process's part of a batch of so many examples, over all devices."""
    own = size // processes.count()
    return slice(processes.index() * own, (processes.index() + 1) * own)


def own(batch_of: Batches) -> Batches:
    """Of every batch this process's part, in the order of the processes; leaves [B / P, ...]."""
    if processes.count() == 1:
        return batch_of

    def own_of(step: int) -> dict[str, np.ndarray]:
        batch = batch_of(step)
        return {name: values[part(len(values))] for name, values in batch.items()}

    return own_of


def grouped(batch_of: Batches, step: int, steps_per_call: int) -> dict[str, np.ndarray]:
    """The batches of one call, or this process's parts of them: leaves [B, ...], of several steps [steps, B, ...]."""
    if steps_per_call == 1:
        return batch_of(step)
    return jax.tree.map(lambda *leaves: np.stack(leaves), *[batch_of(step + i) for i in range(steps_per_call)])


def fetch(data: Resident, batch: Mapping[str, jax.Array]) -> tuple[jax.Array, jax.Array]:
    """Images uint8 [B, H, W, C] and labels [B, ...] of the batch's rows, inside the compiled step."""
    return fetch_images(data, batch["rows"], batch.get("images")), jnp.take(data.labels, batch["rows"], axis=0)


def fetch_images(data: Resident, rows: jax.Array, given: jax.Array | None = None) -> jax.Array:
    """Images uint8 [B, H, W, C] of `rows`: those `given` with the batch, or gathered."""
    if given is not None:
        return given
    if data.images is None:
        raise ValueError("images are neither in memory nor with the batch")
    return jnp.take(data.images, rows if data.rows is None else jnp.take(data.rows, rows), axis=0)
