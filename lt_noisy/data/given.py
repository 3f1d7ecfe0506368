"""Training sets that are given rather than drawn: a manifest, or the label files of another codebase."""

from collections.abc import Callable, Sequence

import numpy as np

from lt_noisy.config.spec import table
from lt_noisy.data import manifest as manifests
from lt_noisy.data.by_class import rows_of
from lt_noisy.data.label_files import read_numbers
from lt_noisy.data.manifest import Manifest
from lt_noisy.errors import UserError
from lt_noisy.files import user_path

# given(ids int64 [M], labels int32 [M], class names) of a training split, its labels the cleanest known -> the manifest
Given = Callable[[np.ndarray, np.ndarray, Sequence[str]], Manifest]


def none() -> None:
    """The training set is built from the recipe."""
    return None


def file(path: str) -> Given:
    """The training set is the manifest at `path` (a directory that holds one, or its .npz or .json file)."""
    path = str(user_path(path))
    return lambda ids, labels, class_names: manifests.load(path)


def import_labels(path: str, key: str = "", ids: str = "", ids_key: str = "") -> Given:
    """The training set has the labels of another codebase's file, and perhaps its choice of examples.

    Clean labels are the data set's own. Forms of the files: `label_files.read_numbers`.

    Args:
      path: observed labels. With as many entries as `ids` entry i is the label of the example `ids[i]`, so that a file
        in another order (CIFAR-N's for TFDS) comes with its order map; else entry i is that of the example with id i
        (the original index of CIFAR, as in DivideMix and RoLT).
      key: the name of the labels in the file; none where it holds one list.
      ids: the examples that are kept; all of them by default.
      ids_key: their name in that file.

    Raises:
      UserError: when the data is there: a file that is not there or holds something else, an id that the data does not
        have or that comes twice, a label that is no class.
    """

    def given(known: np.ndarray, labels: np.ndarray, class_names: Sequence[str]) -> Manifest:
        observed = read_numbers(path, key)
        chosen = read_numbers(ids, ids_key) if ids else np.sort(known)
        if not len(chosen):
            raise UserError(f"import_labels: {ids} is empty: it keeps no example")
        rows = rows_of(chosen, known)
        strange = chosen[rows < 0]
        if len(strange):
            raise UserError(f"import_labels: {ids or path}: the data has no example with id {strange[0]}")
        if len(np.unique(chosen)) < len(chosen):
            raise UserError(f"import_labels: {ids} names an example twice")
        if not (ids and len(observed) == len(chosen)):
            beyond = chosen[(chosen < 0) | (chosen >= len(observed))]
            if len(beyond):
                raise UserError(
                    f"import_labels: {path} has labels for ids 0..{len(observed) - 1}, the data has id {beyond[-1]}"
                )
            observed = observed[chosen]
        wrong = np.flatnonzero((observed < 0) | (observed >= len(class_names)))
        if len(wrong):
            raise UserError(
                f"import_labels: {path} gives id {chosen[wrong[0]]} label {observed[wrong[0]]}, "
                f"the data has 0..{len(class_names) - 1}"
            )
        recipe = {
            "labels": path,
            "key": key,
            "ids": ids,
            "ids_key": ids_key,
            "num_classes": len(class_names),
            "class_names": list(class_names),
            "seed": 0,
            "nominal_rate": None,
            "noise_before_longtail": False,
        }
        return Manifest(chosen, labels[rows].astype(np.int32), observed.astype(np.int32), recipe)

    return given


MANIFESTS = table({"none": none, "file": file, "import_labels": import_labels})
