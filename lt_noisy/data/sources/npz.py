"""Images and labels from one `.npz` file."""

import zipfile
from typing import IO

import numpy as np

from lt_noisy.data.memory import check_fits
from lt_noisy.data.sources.base import Load, Source, Split, in_memory, listed
from lt_noisy.data.sources.channels import unified
from lt_noisy.errors import UserError, first_line
from lt_noisy.files import user_path


def npz(path: str) -> Load:
    """Arrays from one `.npz` file, held in memory.

    Keys: train_images, test_images uint8 [N, H, W] or [N, H, W, 1 or 3], in colour where either is; train_labels,
    test_labels integer [N] from 0; train_ids integer [N], unique (optional, else the row). The number of classes is the
    largest training label + 1, each of which has training images, and classes are named by their numbers.
    """
    path = str(user_path(path))

    def load() -> Source:
        try:
            with open(path, "rb") as file:
                _check_fits(path, file)
                arrays = dict(np.load(file, allow_pickle=False))
        except UserError:
            raise
        except FileNotFoundError:
            raise UserError(f"{path} does not exist") from None
        except Exception as error:  # a broken archive raises anything from OSError to zlib.error
            raise UserError(f"{path} is not a readable .npz file: {first_line(error)}") from None
        for key in ("train_images", "train_labels", "test_images", "test_labels"):
            if key not in arrays:
                raise UserError(f"{path} has no array {key!r} (it has {', '.join(arrays) or 'none'})")
        train = _array_split(path, "train", arrays)
        test = _array_split(path, "test", arrays)
        if arrays["train_images"].shape[1:3] != arrays["test_images"].shape[1:3]:
            raise UserError(f"{path}: train_images and test_images differ in height or width")
        num_classes = int(train.labels.max()) + 1
        empty = np.setdiff1d(np.arange(num_classes), train.labels)
        if len(empty):  # nothing could be learnt of it, and its prior would be 0
            raise UserError(
                f"{path}: train_labels: no image of {len(empty)} of the {num_classes} classes ({listed(empty)}); "
                "labels must be 0..C-1 without gaps"
            )
        if test.labels.max() >= num_classes:
            most = f"train_labels only 0..{num_classes - 1}"
            raise UserError(f"{path}: test_labels holds class {test.labels.max()}, {most}")
        return unified(Source(train, test, tuple(map(str, range(num_classes)))))

    return load


def _check_fits(path: str, file: IO[bytes]) -> None:
    """Refuses arrays that memory does not hold; their sizes are in the archive's directory."""
    with zipfile.ZipFile(file) as archive:
        check_fits(1, (sum(member.file_size for member in archive.infolist()),), path)
    file.seek(0)


def _array_split(path: str, name: str, arrays: dict[str, np.ndarray]) -> Split:
    images, labels = arrays[f"{name}_images"], arrays[f"{name}_labels"]
    ids = arrays.get(f"{name}_ids", np.arange(len(labels)))
    if images.dtype != np.uint8 or images.ndim not in (3, 4) or images.shape[3:] not in ((), (1,), (3,)):
        raise UserError(
            f"{path}: {name}_images is {images.dtype} {list(images.shape)}; "
            "it must be uint8 [N, H, W] or [N, H, W, 1 or 3]"
        )
    for key, array in ((f"{name}_labels", labels), (f"{name}_ids", ids)):
        if array.shape != (len(images),) or array.dtype.kind not in "iu":
            raise UserError(f"{path}: {key} is {array.dtype} {list(array.shape)}; it must be integer [{len(images)}]")
    if not len(images):
        raise UserError(f"{path}: {name}_images is empty")
    if labels.min() < 0:
        raise UserError(f"{path}: {name}_labels holds {labels.min()}; labels count from 0")
    if len(np.unique(ids)) < len(ids):
        raise UserError(f"{path}: {name}_ids holds duplicates; each image needs its own id")
    return in_memory(ids, labels, images)
