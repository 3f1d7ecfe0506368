"""What a classifier's features of its training images are like: the reference that tells of what is unlike them."""

import pathlib
from typing import Any, NamedTuple

import flax.linen as nn
import numpy as np
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import normalize

from lt_noisy import files, processes
from lt_noisy.augment.base import Augment
from lt_noisy.data.images import subset
from lt_noisy.evaluation.representation import balanced_bank
from lt_noisy.stages.base import Job
from lt_noisy.stages.prediction import compile_predict, features_of

PyTree = Any

_MOST = 5000  # training images; and of test images to set the threshold by
_ALIKE = 0.99  # the share of test images that are taken for like the training images
_FILE = "reference.npz"


class Reference(NamedTuple):
    """Features of some training images, of as equally many of each class as there are.

    Attributes:
      features: float16 [n, D], of length 1: only their directions count.
      ids: int64 [n].
      observed: int32 [n].
      threshold: the distance beyond which an image is unlike them.
    """

    features: np.ndarray
    ids: np.ndarray
    observed: np.ndarray
    threshold: float

    def distances(self, features: np.ndarray) -> np.ndarray:
        """float64 [N] in [0, 2], of features [N, D]: 1 - cosine similarity to the nearest training image.

        References:
          Sun et al., "Out-of-distribution detection with deep nearest neighbors" (2022), sec. 3. Ours is the first
          neighbour (theirs the k-th): the rarest class may have one image.
        """
        return _distances(self.features, features)


def _distances(bank: np.ndarray, features: np.ndarray) -> np.ndarray:
    units, queries = _units(bank), _units(features)
    # Of unit vectors: |a - b|^2 = 2 - 2 cos.
    nearest, _ = NearestNeighbors(n_neighbors=1, algorithm="brute").fit(units).kneighbors(queries)
    return nearest[:, 0] ** 2 / 2


def _units(features: np.ndarray) -> np.ndarray:
    """float64 [N, D], the features scaled to length 1."""
    return np.asarray(normalize(np.asarray(features, np.float64)))


def write_reference(job: Job, net: nn.Module, augment: Augment, variables: PyTree) -> None:
    """Writes `reference.npz` into the job's directory.

    The threshold is the distance that 1 % of (up to 5,000) test images exceed: training images are nearer to each other
    than new ones are to them. No label of a test image is read, and nothing that is reported depends on it.

    Args:
      variables: of the net, on the devices.
    """
    dataset = job.dataset
    rows = balanced_bank(dataset.observed, dataset.num_classes, min(len(dataset.ids), _MOST), job.seed)
    tests = np.linspace(0, len(dataset.test_labels) - 1, min(len(dataset.test_labels), _MOST)).astype(np.int64)
    features = compile_predict(job.devices, features_of(net, augment))
    bank = _units(features(variables, subset(dataset.train_images, rows))).astype(np.float16)
    seen = features(variables, subset(dataset.test_images, tests))

    def write() -> None:
        threshold = np.quantile(_distances(bank, seen), _ALIKE)
        ids, observed = dataset.ids[rows], dataset.observed[rows]
        files.write_arrays(job.directory / _FILE, features=bank, ids=ids, observed=observed, threshold=threshold)

    processes.once(write)


def read_reference(directory: pathlib.Path) -> Reference | None:
    """The reference of a finished stage; None where it left none."""
    if not (directory / _FILE).exists():
        return None
    features, ids, observed, threshold = files.load_arrays(
        directory / _FILE, "features", "ids", "observed", "threshold"
    )
    return Reference(features, ids, observed, float(threshold))
