"""The representation that a finished stage has learnt: its encoder's features, and what they are worth."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, cast

import flax.linen as nn
import jax
import numpy as np

from lt_noisy.augment.base import Augment, evaluate_batch
from lt_noisy.config.spec import table
from lt_noisy.data.dataset import Dataset
from lt_noisy.data.images import DTYPES, Images, Stored, kind_of
from lt_noisy.data.sources.base import split_images
from lt_noisy.errors import UserError
from lt_noisy.estimate import neighbours
from lt_noisy.estimate.neighbours import Vectors
from lt_noisy.evaluation.representation import balanced_bank, collapse, knn_predict
from lt_noisy.hashing import arrays_sha256
from lt_noisy.progress import Progress
from lt_noisy.stages.base import Job
from lt_noisy.stages.origin import Origin, augmentation, encoder_shapes, encoder_variables
from lt_noisy.stages.prediction import compile_predict, features_of, once_per_step, prepared_shape
from lt_noisy.training.state import TrainState

PyTree = Any


class Features(Protocol):
    """images uint8 [N, H, W, C] -> float32 [N, D], on the host."""

    def __call__(self, images: Images, progress: Progress | None = None) -> np.ndarray: ...


@dataclasses.dataclass(frozen=True)
class Knn:
    """`knn_predict` with its settings: `(bank [M, D], labels int [M], queries [Q, D], num_classes) -> int [Q]`."""

    k: int
    temperature: float

    def __call__(
        self, bank: np.ndarray | Vectors, labels: np.ndarray, queries: np.ndarray | Vectors, num_classes: int
    ) -> np.ndarray:
        return knn_predict(bank, labels, queries, num_classes, self.k, self.temperature)


def knn(k: int = 200, temperature: float = 0.1) -> Knn:
    """Weighted kNN: cosine similarity, weights exp(sim / temperature), `k` neighbours.

    References:
      Wu et al. (2018).
    """
    if k < 1 or not temperature > 0:
        raise UserError(f"k is at least 1 and temperature positive, not {k}, {temperature}")
    return Knn(k, temperature)


def none() -> None:
    """Nothing is watched: neither neighbours of features and pixels nor a collapse."""
    return None


NEAREST = table({"knn": knn})
MONITORS = table({"none": none, **NEAREST})
# By monitor and content: the same in all stages of a run, and at 3072 pixels dearer than all else that is watched.
_PIXEL_ACCURACIES: dict[tuple[Knn, str], float] = {}


class EncoderProgram(NamedTuple):
    """The encoder that a stage starts from, as a function of images.

    Attributes:
      apply: `apply(variables, images uint8 [B, ...]) -> float32 [B, D]`, in evaluation mode.
      variables: on the host.
      shape: of one image as the network has it.
    """

    apply: Callable[[PyTree, jax.Array], jax.Array]
    variables: PyTree
    shape: tuple[int, ...]


def encoder_program(job: Job, start: Origin) -> EncoderProgram:
    """The encoder of a finished stage, or of pretrained weights, behind the deterministic part of its augmentation."""
    augment = augmentation(start)
    encoder = job.encoder(job.dtype, job.norm_axis)
    shape = prepared_shape(job, augment)

    def apply(variables: PyTree, images: jax.Array) -> jax.Array:
        return cast(jax.Array, encoder.apply(variables, evaluate_batch(augment, images), train=False))

    return EncoderProgram(apply, encoder_variables(job, start, encoder_shapes(job, shape)), shape)


def encoder_features(job: Job, start: Origin) -> Features:
    """The features of a finished stage's encoder, or of pretrained weights, in evaluation mode on un-augmented images.

    Of a `features` stage they are what the job's data set has in place of images.
    """
    program = encoder_program(job, start)
    weights = job.devices.replicate(program.variables)
    predict = compile_predict(job.devices, program.apply, program.shape)
    return lambda images, progress=None: predict(weights, images, progress)


class Bank:
    """Labelled images that neighbours are looked for in: balanced, as many as the training set has.

    They are drawn from the full training split; where they are the training images, those serve.

    Attributes:
      labels: int [N].
      shared: whether the training images serve.
    """

    def __init__(self, dataset: Dataset, seed: int):
        self._dataset, full = dataset, dataset.source.train
        self._rows = balanced_bank(full.best_labels, dataset.num_classes, len(dataset.ids), seed)
        self.labels = full.best_labels[self._rows]
        self.shared = np.array_equal(full.ids[self._rows], dataset.ids)

    def images(self) -> Images:
        """uint8 [N, H, W, C]; they stay on the disk where the training images do."""
        own = self._dataset.train_images
        return own if self.shared else split_images(self._dataset.source.train, self._rows, isinstance(own, Stored))


def watch_bytes(job: Job, monitor: Knn | None) -> int:
    """About how many bytes of the host a monitor takes beside the images of the run, the network's features left out.

    A bank of its own, and what the neighbours of the pixels take: vectors of the bank, twice while they are scaled, and
    of the test images, and a block of scores; that is the same for any number of images. Nothing of stored images.
    """
    if monitor is None or isinstance(job.dataset.train_images, Stored):
        return 0
    images, tests = job.dataset.train_images, job.dataset.test_images
    width = math.prod(images.shape[1:])
    held = [4 * width * Vectors(len(array), width, lambda rows: rows).held for array in (images, tests)]
    own = 0 if Bank(job.dataset, job.seed).shared else images.nbytes
    return own + 2 * held[0] + held[1] + 4 * neighbours.BLOCK * min(neighbours.TILE, len(images))


class Representation:
    """Watches the features of a network in training: kNN accuracy, spread, and what they are compared with.

    Labels and test images go to these figures only.
    """

    def __init__(self, job: Job, monitor: Knn, augment: Augment, net: nn.Module):
        self._job, self._monitor = job, monitor
        self._predict = compile_predict(job.devices, features_of(net, augment))
        self._pixels = compile_predict(
            job.devices, lambda _, images: evaluate_batch(augment, images).reshape(len(images), -1)
        )
        bank = Bank(job.dataset, job.seed)
        self._bank, self._bank_labels = bank.images(), bank.labels
        self._latest = once_per_step(job, self._look)

    def _test_and_bank(self, state: TrainState) -> tuple[np.ndarray, np.ndarray]:
        variables = state.variables
        return self._predict(variables, self._job.dataset.test_images), self._predict(variables, self._bank)

    def _knn(self, queries: np.ndarray | Vectors, bank: np.ndarray | Vectors, labels: np.ndarray) -> float:
        dataset = self._job.dataset
        predictions = self._monitor(bank, labels, queries, dataset.num_classes)
        return float(np.mean(predictions == dataset.test_labels))

    def _look(self, state: TrainState) -> tuple[np.ndarray, dict[str, Any]]:
        """The features of the test images, and the figures."""
        queries, bank = self._test_and_bank(state)
        return queries, {"knn_balanced_bank": self._knn(queries, bank, self._bank_labels), **collapse(queries)}

    def _pixel_accuracy(self) -> float | None:
        """None of stored images, which are read once for each block of vectors, and are many and large."""
        dataset = self._job.dataset
        if isinstance(dataset.train_images, Stored):
            return None
        arrays = {
            "queries": dataset.test_images,
            "bank": self._bank,
            "test_labels": dataset.test_labels,
            "bank_labels": self._bank_labels,
            "prepared": self._pixels({}, _every_value(dataset.test_images.shape[1:])),
        }
        content = self._monitor, arrays_sha256(arrays)
        if content not in _PIXEL_ACCURACIES:
            queries, bank = (self._prepared(images) for images in (dataset.test_images, self._bank))
            _PIXEL_ACCURACIES[content] = self._knn(queries, bank, self._bank_labels)
        return _PIXEL_ACCURACIES[content]

    def _prepared(self, images: Images) -> Vectors:
        """Pixels as the network gets them, which are many times as large as the images and are never all there."""
        return Vectors(len(images), math.prod(images.shape[1:]), lambda rows: self._pixels({}, images[rows]))

    def figures(self, state: TrainState) -> dict[str, Any]:
        """kNN accuracy and collapse of a state on the devices."""
        return self._latest(state)[1]

    def summary(self, first: TrainState, last: TrainState) -> dict[str, Any]:
        """The figures of the `last` state, with a long-tailed bank too, beside two baselines.

        Args:
          first: the initial state, on the host; its kNN accuracy is `knn_initial`, that of the pixels as the network
            gets them (normalised) `knn_pixels`, None where images are streamed.
          last: the final state, on the devices.
        """
        dataset = self._job.dataset
        queries, figures = self._latest(last)
        longtailed = self._predict(last.variables, dataset.train_images)
        initial = self._test_and_bank(self._job.devices.replicate(first))
        return {
            **figures,
            "knn_longtailed_bank": self._knn(queries, longtailed, dataset.clean),
            "knn_initial": self._knn(*initial, self._bank_labels),
            "knn_pixels": self._pixel_accuracy(),
        }


def _every_value(shape: tuple[int, ...]) -> np.ndarray:
    """Images [256, *shape] of one value each: what the deterministic part of an augmentation does to them."""
    values = np.arange(256, dtype=DTYPES[kind_of(shape)])
    return np.broadcast_to(values.reshape(-1, *(1 for _ in shape)), (256, *shape))
