"""What a stage that predicts its training images writes and says of their labels."""

from typing import Any

import numpy as np

from lt_noisy import files, processes
from lt_noisy.evaluation import label_quality
from lt_noisy.stages.base import Job


def write_quality(job: Job, logits: np.ndarray, fold: np.ndarray | None = None) -> dict[str, Any]:
    """Writes `label_quality.npz` and `suspects.csv` into the job's directory; returns `label_quality` of its summary.

    Args:
      logits: float [N, C] of the job's training images, in evaluation mode.
      fold: int [N], where the logits are out of sample: row i is from a network trained without the images of
        fold[i]. None where one network was trained on all of them.

    Returns:
      What `label_quality.score` does, with `out_of_sample`, `confident_learning` (None without cleanlab) and, where the
      data set has flags, `flags` (`label_quality.against_flags`).

    The `.npz` holds what `label_quality.quality` returns, `ids` int64 [N], `observed` int32 [N] and, out of sample,
    `fold` int32 [N]. The `.csv` lists the labels to look at, most suspicious first (`label_quality.suspects`): id, file
    where images are files, label, suggested class, probability that the label is wrong.
    """
    return processes.once(lambda: _written(job, logits, fold))


def _written(job: Job, logits: np.ndarray, fold: np.ndarray | None) -> dict[str, Any]:
    dataset = job.dataset
    arrays = label_quality.quality(logits, dataset.observed, job.seed)
    folds = {} if fold is None else {"fold": fold.astype(np.int32)}
    path = job.directory / "label_quality.npz"
    files.write_arrays(path, ids=dataset.ids, observed=dataset.observed, **arrays, **folds)
    _write_suspects(job, arrays)
    clean_counts = np.bincount(dataset.clean, minlength=dataset.num_classes)
    return {
        **label_quality.score(arrays, dataset.observed, dataset.clean, clean_counts),
        "out_of_sample": fold is not None,
        "confident_learning": label_quality.confident_learning(arrays, dataset.observed, dataset.clean),
        **({} if dataset.flags is None else {"flags": label_quality.against_flags(arrays, dataset.flags)}),
    }


def _write_suspects(job: Job, arrays: label_quality.Arrays) -> None:
    dataset, names = job.dataset, job.dataset.class_names
    train = dataset.source.train
    paths = dict(zip(train.ids.tolist(), train.files, strict=True)) if train.files else {}

    def line(row: int) -> tuple[object, ...]:
        key, probability = int(dataset.ids[row]), arrays["wrong_probability"][row]
        labels = names[dataset.observed[row]], names[arrays["suggested"][row]]
        return key, paths.get(key, ""), *labels, f"{probability:.4f}"

    heading = ("id", "file", "label", "suggested", "wrong_probability")
    rows = label_quality.suspects(arrays, dataset.observed)
    files.write_table(job.directory / "suspects.csv", heading, map(line, rows))
