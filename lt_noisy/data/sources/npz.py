"""Images and labels from one `.npz` file."""

import numpy as np

from lt_noisy.data.sources.arrays import Arrays, class_names, ids_of, int32_labels, labels_of, read
from lt_noisy.data.sources.base import FromArrays, Load, Source, Split, in_memory
from lt_noisy.data.sources.channels import unified
from lt_noisy.data.sources.findings import Finding
from lt_noisy.errors import UserError
from lt_noisy.files import user_path


def npz(path: str) -> Load:
    """Arrays from one `.npz` file, held in memory.

    Keys: train_images, test_images uint8 [N, H, W] or [N, H, W, 1 or 3], in colour where either is; train_labels,
    test_labels integer [N] from 0; train_ids integer [N], unique (optional, else the row). The number of classes is the
    largest training label + 1, each of which has training images, and classes are named by their numbers.
    """
    path = str(user_path(path))

    def examined() -> tuple[Source, list[Finding]]:
        arrays, findings = read(path, ("train_images", "train_labels", "test_images", "test_labels")), []
        train, test = (_split(path, name, arrays, findings) for name in ("train", "test"))
        if arrays["train_images"].shape[1:3] != arrays["test_images"].shape[1:3]:
            raise UserError(f"{path}: train_images and test_images differ in height or width")
        names = class_names(path, arrays["train_labels"], arrays["test_labels"], findings)
        return unified(Source(train, test, names)), findings

    return FromArrays(examined)


def _split(path: str, name: str, arrays: Arrays, findings: list[Finding]) -> Split:
    key = f"{name}_images"
    images = arrays[key]
    if images.dtype != np.uint8 or images.ndim not in (3, 4) or images.shape[3:] not in ((), (1,), (3,)):
        raise UserError(
            f"{path}: {key} is {images.dtype} {list(images.shape)}; it must be uint8 [N, H, W] or [N, H, W, 1 or 3]"
        )
    if not len(images):
        raise UserError(f"{path}: {key} is empty")
    labels = int32_labels(labels_of(path, name, arrays, len(images)))
    return in_memory(ids_of(path, name, arrays, key, findings), labels, images)
