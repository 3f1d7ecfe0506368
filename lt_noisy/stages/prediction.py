"""The networks of finished stages, and networks on whole image sets, in evaluation mode."""

import collections
import math
import pathlib
from collections.abc import Callable
from typing import Any, Protocol, TypeVar, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from lt_noisy import processes
from lt_noisy.augment.base import Augment, evaluate_batch
from lt_noisy.data.batches import part
from lt_noisy.data.images import DTYPES, Images, blocks, kind_of
from lt_noisy.precision import to_float
from lt_noisy.progress import Progress
from lt_noisy.stages.base import Job
from lt_noisy.training import parallel
from lt_noisy.training.checkpoint import read_final
from lt_noisy.training.state import TrainState, transfer

T = TypeVar("T")
PyTree = Any


class Predict(Protocol):
    """`predict(variables, images uint8 [N, ...]) -> float32 [N, D]`, on the host; see `compile_predict`."""

    def __call__(self, variables: PyTree, images: Images, progress: Progress | None = None) -> np.ndarray: ...


_AHEAD = 4  # batches sent to the devices before the first of them is fetched
_MAX_IMAGES = 512  # small ones gain nothing from more
_MAX_BYTES = 6 * 2**20  # of pixels: 512 images of 64 x 64 x 3, 41 of 224 x 224 x 3


def evaluation_batch(image_shape: tuple[int, ...], num_devices: int, enlarged: bool = False) -> int:
    """Images in a batch of evaluation, by their size, so that its memory is bounded: a multiple of `num_devices`.

    Args:
      image_shape: as the network has them.
      enlarged: whether that is larger than they are stored. A CPU then takes few: what a network makes of 16 images of
        128 pixels stays in its caches, 1.4 times as fast as 128 of them on two cores (EfficientNet-Lite0).
    """
    of_one = math.prod(image_shape) * DTYPES[kind_of(image_shape)].itemsize
    most = _MAX_BYTES // 8 if enlarged and jax.default_backend() == "cpu" else _MAX_BYTES
    images = min(max(most // of_one, 1), _MAX_IMAGES)
    return -(-images // num_devices) * num_devices


def compile_predict(
    devices: parallel.Jit | parallel.Pmap,
    fn: Callable[[PyTree, jax.Array], PyTree],
    prepared: tuple[int, ...] | None = None,
    few: bool = False,
) -> Predict:
    """Compiles `fn(variables, images uint8 [B, ...]) -> [B, D]` once, for image sets of any size.

    Of several processes each reads its part of every batch, and has the outputs of all.

    Args:
      prepared: the shape of an image as the network has it, where that is not the one of the images.
      few: a set that is smaller than a batch gets one of its own size, rounded up to a power of two, and a program of
        its own: for a network that sees one image now and then.

    Returns:
      `predict(variables, images uint8 [N, ...]) -> float32 [N, D]` on the host, `variables` on the devices, with lines
      that tell how far it is: those of `progress`, or its own.
    """
    forward = devices.compile_map(fn)

    def predict(variables: PyTree, images: Images, progress: Progress | None = None) -> np.ndarray:
        shown = prepared or images.shape[1:]
        enlarged = math.prod(shown) > math.prod(images.shape[1:])
        size = evaluation_batch(shown, devices.num_devices, enlarged)
        if few:
            smallest = 1 << max(len(images) - 1, 0).bit_length()
            size = min(size, -(-smallest // devices.num_devices) * devices.num_devices)
        out = np.zeros((0, 0), np.float32)
        ahead: collections.deque[tuple[int, Any]] = collections.deque()
        told = progress or Progress(f"a network on {kind_of(images.shape[1:])}", len(images))

        def fetch() -> None:
            nonlocal out
            start, block = ahead.popleft()
            found = devices.gather(block)
            if not len(out):
                out = np.empty((len(images), *found.shape[1:]), found.dtype)
            out[start : start + size] = found[: len(images) - start]
            told.add(min(size, len(images) - start))

        for start, block in blocks(images, size, part(size)):
            padding = [(0, size // processes.count() - len(block))] + [(0, 0)] * (images.ndim - 1)
            ahead.append((start, forward(variables, np.pad(block, padding))))
            processes.poll()
            if len(ahead) > _AHEAD:
                fetch()
        while ahead:
            fetch()
        return out

    return predict


def features_of(net: nn.Module, augment: Augment) -> Callable[[PyTree, jax.Array], jax.Array]:
    """`fn(variables, images uint8 [B, ...]) -> features float32 [B, D]` of a network's `encoder`, in evaluation."""

    def encode(net: Any, x: jax.Array) -> jax.Array:
        return to_float(net.encoder(x, train=False))

    # A pair only with `mutable`.
    return lambda variables, x: cast(jax.Array, net.apply(variables, evaluate_batch(augment, x), method=encode))


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


def prepared_shape(job: Job, augment: Augment) -> tuple[int, ...]:
    """The shape of one of the job's images as a network has it, such as (H, W, C)."""
    image = jax.ShapeDtypeStruct(job.dataset.train_images.shape[1:], jnp.float32)
    return jax.eval_shape(augment.evaluate, image).shape


def part_variables(
    job: Job, net: nn.Module, directory: pathlib.Path, augment: Augment, parts: tuple[str, ...]
) -> PyTree:
    """Parameters and BatchNorm statistics of `parts` of a finished training's network, in the shape of `net`.

    Args:
      directory: of the finished training.
      augment: of it.
      parts: of `net`, such as `encoder` and `projector`.
    """
    image = jax.ShapeDtypeStruct((1, *prepared_shape(job, augment)), jnp.float32)
    shapes = jax.eval_shape(lambda x: net.init(jax.random.key(0), x, train=False), image)
    arrays = read_final(directory)
    return {
        group: {
            part: transfer(shapes[group][part], arrays, f"state.{group}.{part}")
            for part in parts
            if part in shapes.get(group, {})
        }
        for group in ("params", "batch_stats")
    }
