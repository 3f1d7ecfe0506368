"""The representation that a finished stage has learnt: its encoder's features, and what they are worth."""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from lt_noisy.augment.base import Augment, evaluate_batch
from lt_noisy.config.spec import table
from lt_noisy.errors import UserError
from lt_noisy.evaluation.representation import balanced_bank, collapse, knn_predict
from lt_noisy.hashing import arrays_sha256
from lt_noisy.precision import to_float
from lt_noisy.stages.base import Input, Job
from lt_noisy.stages.prediction import compile_predict, once_per_step, part_variables
from lt_noisy.training.state import TrainState

PyTree = Any
Features = Callable[[np.ndarray], np.ndarray]  # images uint8 [N, H, W, C] -> float32 [N, D], on the host


@dataclasses.dataclass(frozen=True)
class Knn:
    """`knn_predict` with its settings: `(bank [M, D], labels int [M], queries [Q, D], num_classes) -> int [Q]`."""

    k: int
    temperature: float

    def __call__(self, bank: np.ndarray, labels: np.ndarray, queries: np.ndarray, num_classes: int) -> np.ndarray:
        return knn_predict(bank, labels, queries, num_classes, self.k, self.temperature)


def knn(k: int = 200, temperature: float = 0.1) -> Knn:
    """Weighted kNN: cosine similarity, weights exp(sim / temperature), `k` neighbours.

    References:
      Wu et al. (2018).
    """
    if k < 1 or not temperature > 0:
        raise UserError(f"k is at least 1 and temperature positive, not {k}, {temperature}")
    return Knn(k, temperature)


MONITORS = table({"knn": knn})
# By monitor and content: the same in all stages of a run, and at 3072 pixels dearer than all else that is watched.
_PIXEL_ACCURACIES: dict[tuple[Knn, str], float] = {}


class _Encoder(nn.Module):
    encoder: nn.Module

    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        return to_float(self.encoder(x, train=train))


def encoder_features(job: Job, stage: Input) -> Features:
    """The features of a finished stage's encoder, in evaluation mode on un-augmented images."""
    net = _Encoder(job.encoder(job.dtype, job.norm_axis))
    weights = job.devices.replicate(part_variables(job, net, stage.directory, ("encoder",)))
    augment = stage.section.augment
    predict = compile_predict(job, lambda v, images: net.apply(v, evaluate_batch(augment, images), train=False))
    return lambda images: predict(weights, images)


class Representation:
    """Watches the features of a network in training: kNN accuracy, spread, and what they are compared with.

    Labels and test images go to these figures only. The bank is balanced and of the size of the training set, drawn
    from the full training split.
    """

    def __init__(self, job: Job, monitor: Knn, augment: Augment, net: nn.Module):
        self._job, self._monitor = job, monitor
        self._predict = compile_predict(job, features_of(net, augment))
        self._pixels = compile_predict(job, lambda _, images: evaluate_batch(augment, images).reshape(len(images), -1))
        dataset = job.dataset
        full = dataset.source.train
        rows = balanced_bank(full.labels, dataset.num_classes, len(dataset.ids), job.seed)
        self._bank, self._bank_labels = full.images(rows), full.labels[rows]
        self._latest = once_per_step(job, self._look)

    def _test_and_bank(self, state: TrainState) -> tuple[np.ndarray, np.ndarray]:
        variables = state.variables
        return self._predict(variables, self._job.dataset.test_images), self._predict(variables, self._bank)

    def _knn(self, queries: np.ndarray, bank: np.ndarray, labels: np.ndarray) -> float:
        dataset = self._job.dataset
        predictions = self._monitor(bank, labels, queries, dataset.num_classes)
        return float(np.mean(predictions == dataset.test_labels))

    def _look(self, state: TrainState) -> tuple[np.ndarray, dict[str, Any]]:
        """The features of the test images, and the figures."""
        queries, bank = self._test_and_bank(state)
        return queries, {"knn_balanced_bank": self._knn(queries, bank, self._bank_labels), **collapse(queries)}

    def _pixel_accuracy(self) -> float:
        dataset = self._job.dataset
        queries, bank = (self._pixels({}, images) for images in (dataset.test_images, self._bank))
        labels = {"test_labels": dataset.test_labels, "bank_labels": self._bank_labels}
        content = self._monitor, arrays_sha256({"queries": queries, "bank": bank, **labels})
        if content not in _PIXEL_ACCURACIES:
            _PIXEL_ACCURACIES[content] = self._knn(queries, bank, self._bank_labels)
        return _PIXEL_ACCURACIES[content]

    def figures(self, state: TrainState) -> dict[str, Any]:
        """kNN accuracy and collapse of a state on the devices."""
        return self._latest(state)[1]

    def summary(self, first: TrainState, last: TrainState) -> dict[str, Any]:
        """The figures of the `last` state, with a long-tailed bank too, beside two baselines.

        Args:
          first: the initial state, on the host; its kNN accuracy is `knn_initial`, that of the pixels as the network
            gets them (normalised) `knn_pixels`.
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


def features_of(net: nn.Module, augment: Augment) -> Callable[[PyTree, jax.Array], PyTree]:
    """`fn(variables, images uint8 [B, ...]) -> features [B, D]` of a network that has `features`."""
    return lambda variables, images: net.apply(variables, evaluate_batch(augment, images), method="features")
