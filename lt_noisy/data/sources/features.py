"""Vectors and labels from one `.npz` file: features of a network that was trained elsewhere."""

import numpy as np

from lt_noisy.data.images import DTYPES
from lt_noisy.data.sources.arrays import (
    Arrays,
    check_labels,
    class_names,
    ids_of,
    int32_labels,
    integers,
    labels_of,
    read,
)
from lt_noisy.data.sources.base import FromArrays, Load, Source, Split, in_memory, numbered
from lt_noisy.data.sources.findings import Finding
from lt_noisy.errors import UserError
from lt_noisy.files import user_path


def features(path: str) -> Load:
    """Vectors in place of images, with ids and labels, from one `.npz` file held in memory.

    For `identity()` or `mlp()` as the model: features of a pre-trained network, embeddings, measurements. All that
    works on labels works on them; operations on images and networks for images are refused.

    Keys: train_features, test_features float16, float32 or float64 [N, D], finite, read as float32; train_labels,
    test_labels integer [N] from 0; train_ids, test_ids integer [N], unique (optional, else the row); clean_labels
    integer [N], the true classes of the training vectors, which metrics alone see (optional); class_names, texts [C]
    (optional, else the numbers). The number of classes is that of the names, or the largest training label + 1; each
    class has training vectors.

    Args:
      path: the file.

    Raises:
      UserError: at load, no such file or array, an array of another dtype or shape, a number that is not finite (its
        row is named), labels out of range, ids that come twice.
    """
    path = str(user_path(path))

    def examined() -> tuple[Source, list[Finding]]:
        arrays, findings = read(path, ("train_features", "train_labels", "test_features", "test_labels")), []
        train, test = (_split(path, name, arrays, findings) for name in ("train", "test"))
        widths = [arrays[f"{name}_features"].shape[1] for name in ("train", "test")]
        if widths[0] != widths[1]:
            raise UserError(f"{path}: train_features are vectors of {widths[0]}, test_features of {widths[1]}")
        given = _given_names(path, arrays)
        labels = arrays["train_labels"], arrays["test_labels"]
        names = class_names(path, *labels, findings, names=given, what="vector")
        if "clean_labels" in arrays:
            clean = integers(path, "clean_labels", arrays["clean_labels"], len(train.labels))
            owner = "class_names" if given else "train_labels"
            check_labels(path, "clean_labels", clean, findings, count=len(names), names=owner)
            train = train._replace(clean=int32_labels(clean))
        return Source(train, test, names), findings

    return FromArrays(examined)


def _split(path: str, name: str, arrays: Arrays, findings: list[Finding]) -> Split:
    key, given = f"{name}_features", arrays[f"{name}_features"]
    if given.dtype.kind != "f" or given.dtype.itemsize > 8 or given.ndim != 2 or not given.shape[1]:
        raise UserError(f"{path}: {key} is {given.dtype} {list(given.shape)}; it must be float16, 32 or 64 [N, D]")
    if not len(given):
        raise UserError(f"{path}: {key} is empty")
    with np.errstate(over="ignore"):  # of float64; it is told below
        vectors = np.ascontiguousarray(given, DTYPES["vectors"])
    broken = np.flatnonzero(~np.isfinite(vectors).all(1))
    if len(broken):
        more = f", and of {len(broken) - 1} more" if len(broken) > 1 else ""
        text = f"{path}: {key}: a number in row {broken[0]}{more} is not finite as float32"
        entries = tuple({"files": [f"{key}[{row}]"]} for row in broken.tolist())
        findings.append(Finding("not finite", True, text, entries))
    labels = int32_labels(labels_of(path, name, arrays, len(vectors)))
    return in_memory(ids_of(path, name, arrays, key, findings), labels, vectors)


def _given_names(path: str, arrays: Arrays) -> tuple[str, ...]:
    """The names, or none."""
    given = arrays.get("class_names", np.zeros(0, "U"))
    if given.dtype.kind != "U" or given.ndim != 1:
        raise UserError(f"{path}: class_names is {given.dtype} {list(given.shape)}; it must be texts [C]")
    return numbered(list(map(str, given)))
