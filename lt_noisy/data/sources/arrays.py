"""What sources in one `.npz` file share: reading it, and what is asked of labels and ids.

What has another form is refused at once; what is wrong in arrays that can be read is put into `findings`. Arrays are
checked as they are stored, whatever integers those are, and cast then: a cast wraps what it cannot hold.
"""

import zipfile
from collections.abc import Sequence
from typing import IO

import numpy as np

from lt_noisy.data.memory import check_bytes
from lt_noisy.data.sources.base import listed
from lt_noisy.data.sources.findings import Finding, repeated_ids
from lt_noisy.data.sources.one_label import refuse_array
from lt_noisy.errors import UserError, first_line

Arrays = dict[str, np.ndarray]
_MOST = {dtype: np.iinfo(dtype).max for dtype in (np.int32, np.int64)}


def read(path: str, needed: Sequence[str]) -> Arrays:
    """The arrays of a file, those that are needed among them.

    Raises:
      UserError: no such file, one that is broken or does not fit in memory, a missing array.
    """
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
    for key in needed:
        if key not in arrays:
            raise UserError(f"{path} has no array {key!r} (it has {', '.join(arrays) or 'none'})")
    return arrays


def _check_fits(path: str, file: IO[bytes]) -> None:
    """Refuses arrays that memory does not hold; their sizes are in the archive's directory."""
    with zipfile.ZipFile(file) as archive:
        needed = sum(member.file_size for member in archive.infolist())
    check_bytes(needed, f"{path} takes", "all of it must fit")
    file.seek(0)


def integers(path: str, key: str, array: np.ndarray, length: int) -> np.ndarray:
    """`array`, once it is known to be integer [length]."""
    if array.shape != (length,) or array.dtype.kind not in "iu":
        raise UserError(f"{path}: {key} is {array.dtype} {list(array.shape)}; it must be integer [{length}]")
    return array


def labels_of(path: str, name: str, arrays: Arrays, length: int) -> np.ndarray:
    """The labels integer [length] of the split `name`."""
    key = f"{name}_labels"
    refuse_array(f"{path}: {key}", arrays[key], length)
    return integers(path, key, arrays[key], length)


def ids_of(path: str, name: str, arrays: Arrays, key: str, findings: list[Finding]) -> np.ndarray:
    """The ids integer [N] of the split `name`, whose examples are `arrays[key]`; the rows where it has none."""
    length = len(arrays[key])
    ids = integers(path, f"{name}_ids", arrays.get(f"{name}_ids", np.arange(length)), length)
    if len(np.unique(ids)) < length:
        rows = [f"{key}[{row}]" for row in range(length)]
        text = f"{path}: {name}_ids holds duplicates; each example needs its own id"
        findings += filter(None, [repeated_ids(ids.tolist(), rows, text)])
    beyond = np.flatnonzero(ids > _MOST[np.int64]).tolist()
    if beyond:
        text = f"{path}: {name}_ids holds {ids[beyond[0]]} in row {beyond[0]}; ids are at most {_MOST[np.int64]}"
        entries = tuple({"id": int(ids[row]), "files": [f"{key}[{row}]"]} for row in beyond)
        findings.append(Finding("id out of range", True, text, entries))
    return ids


def int32_labels(stored: np.ndarray) -> np.ndarray:
    """Labels int32 [N]; -1, which is no class's, in place of what that does not hold."""
    held = (stored >= 0) & (stored <= _MOST[np.int32])
    labels = np.full(len(stored), -1, np.int32)
    labels[held] = stored[held]
    return labels


def class_names(
    path: str,
    train: np.ndarray,
    test: np.ndarray,
    findings: list[Finding],
    names: tuple[str, ...] = (),
    what: str = "image",
) -> tuple[str, ...]:
    """The names of the classes: `names`, or the numbers up to the largest label.

    A label below 0, or of no class of `names`, is a finding, and so is a class without training examples. Without names
    a label that is not below the number of training examples is one too, for some class would be without any: names are
    not made up to such a label, which may be any number.

    Args:
      train: labels int [N], as they are stored.
      test: the same of the test images.
      names: C, if there are any.
      what: one example is called.
    """
    limit, owner = (len(names), "class_names") if names else (len(train), f"{len(train)} training {what}s can have")
    for key, labels in (("train_labels", train), ("test_labels", test)):
        check_labels(path, key, labels, findings, count=limit, names=owner)
    largest, most = (int(labels[labels < limit].astype(np.int64).max(initial=-1)) for labels in (train, test))
    count = len(names) or largest + 1
    if not names:
        names = tuple(map(str, range(max(count, most + 1))))
    empty = np.setdiff1d(np.arange(count), train)
    if len(empty):  # nothing could be learnt of it, and its prior would be 0
        text = (
            f"{path}: train_labels: no {what} of {len(empty)} of the {count} classes ({listed(empty)}); "
            "labels must be 0..C-1 without gaps"
        )
        findings.append(_empty(text, [names[c] for c in empty]))
    if len(names) > count:
        text = f"{path}: test_labels holds class {most}, train_labels only 0..{count - 1}"
        findings.append(_empty(text, names[count:]))
    return names


def check_labels(
    path: str, key: str, labels: np.ndarray, findings: list[Finding], count: int = 0, names: str = "class_names"
) -> None:
    """Finds labels below 0, and those that are none of `count` classes, where that is known, as `names` has it."""
    rows = np.flatnonzero((labels < 0) | (labels >= count if count else False))
    if not len(rows):
        return
    first = labels[rows[0]]
    text = f"class {first}, {names} only 0..{count - 1}" if first >= 0 else f"{first}; labels count from 0"
    entries = tuple({"files": [f"{key}[{row}]"], "label": int(labels[row])} for row in rows.tolist())
    findings.append(Finding("label without a class", True, f"{path}: {key} holds {text}", entries))


def _empty(text: str, names: Sequence[str]) -> Finding:
    return Finding("class without images", True, text, tuple({"class": name, "files": []} for name in names))
