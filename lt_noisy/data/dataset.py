"""The data of one run in host memory: what a manifest selects from a source, and the test set."""

import hashlib
from typing import NamedTuple

import numpy as np

from lt_noisy.data.sources import Source
from lt_noisy.state import array_sha256


class Dataset(NamedTuple):
    """Training images in manifest order, and everything to evaluate against.

    Attributes:
      train_images: uint8 [N, H, W, C].
      observed: int32 [N], the labels that training sees.
      clean: int32 [N], for metrics only.
      ids: int64 [N].
      test_images: uint8 [M, H, W, C].
      test_labels: int32 [M].
      class_names: C names.
      source: where it came from, for banks drawn from the full training split.
    """

    train_images: np.ndarray
    observed: np.ndarray
    clean: np.ndarray
    ids: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    class_names: tuple[str, ...]
    source: Source

    @property
    def num_classes(self) -> int:
        """C."""
        return len(self.class_names)

    def identity(self, reads_labels: bool) -> dict[str, str]:
        """Hashes of what a stage reads: images, ids and test set, and the observed labels if it reads them."""
        content = {
            "images": array_sha256(self.train_images),
            "ids": array_sha256(self.ids),
            # Not read by training, but the summary of a finished stage reports on it.
            "test": hashlib.sha256(
                (array_sha256(self.test_images) + array_sha256(self.test_labels)).encode()
            ).hexdigest(),
        }
        return {**content, "observed_labels": array_sha256(self.observed)} if reads_labels else content
