"""What a stage that predicts its training images writes and says of their labels."""

from typing import Any

import numpy as np

from lt_noisy import label_quality
from lt_noisy.stages import common


def write_quality(job: common.Job, logits: np.ndarray, fold: np.ndarray | None = None) -> dict[str, Any]:
    """Writes `label_quality.npz` into the job's directory; returns the block `label_quality` of its summary.

    Args:
      logits: float [N, C] of the job's training images, in evaluation mode.
      fold: int [N], where the logits are out of sample: row i is from a network trained without the images of
        fold[i]. None where one network was trained on all of them.

    Returns:
      What `label_quality.score` does, with `out_of_sample` and `confident_learning` (None without cleanlab).

    The file holds what `label_quality.quality` returns, with `ids` int64 [N], `observed` int32 [N] and, out of sample,
    `fold` int32 [N].
    """
    dataset = job.dataset
    arrays = label_quality.quality(logits, dataset.observed, job.seed)
    folds = {} if fold is None else {"fold": fold.astype(np.int32)}
    path = job.directory / "label_quality.npz"
    common.write_arrays(path, ids=dataset.ids, observed=dataset.observed, **arrays, **folds)
    clean_counts = np.bincount(dataset.clean, minlength=dataset.num_classes)
    return {
        **label_quality.score(arrays, dataset.observed, dataset.clean, clean_counts),
        "out_of_sample": fold is not None,
        "confident_learning": label_quality.confident_learning(arrays, dataset.observed, dataset.clean),
    }
