"""Data of other kinds than one class per image: several labels, a number to predict, boxes. All of it is refused."""

import re
from collections.abc import Iterable, Sequence

import numpy as np

from lt_noisy.errors import UserError

SUPPORTED = "one class per image is supported; several labels, numbers to predict (regression) and boxes are not"
_SEPARATORS = ("|", ";", ",")
_LIST = re.compile(r"""\[\s*(\]|['"\d].*\])""", re.DOTALL)
_NUMBERS = re.compile(r"\d+(\s*,\s*\d+)+")
_BOXES = ({"images", "labels"}, {"images", "annotations"}, {"jpegimages", "annotations"})  # YOLO, COCO, Pascal VOC


def refuse_array(where: str, labels: np.ndarray, length: int) -> None:
    """Refuses the labels of `length` examples that are of another kind.

    Args:
      labels: as they are stored.
    """
    if labels.ndim == 2 and len(labels) == length and labels.shape[1] > 1 and np.isin(labels, (0, 1)).all():
        if (labels.sum(1) == 1).all():
            raise UserError(f"{where} is one-hot {list(labels.shape)}; give the classes: labels.argmax(1)")
        raise UserError(f"{where} marks several classes of an image {list(labels.shape)}: {SUPPORTED}")
    if labels.shape == (length,) and labels.dtype.kind == "f" and (labels != np.rint(labels)).any():
        raise UserError(f"{where} holds numbers such as {labels[labels != np.rint(labels)][0]:g}: {SUPPORTED}")


def refuse_texts(where: str, labels: Iterable[str]) -> None:
    """Refuses labels of a table that are lists of classes, or numbers with a fraction, hardly one of which comes twice.

    Args:
      labels: of all rows.
    """
    rows = [label for label in labels if label]
    known = set(rows)
    if lists := [label for label in known if _LIST.fullmatch(label.strip())]:
        raise UserError(f"{where} holds lists such as {min(lists)!r}: {SUPPORTED}")
    for separator in _SEPARATORS:
        joined = [label for label in known if separator in label and (separator != "," or _NUMBERS.fullmatch(label))]
        if joined and _are_combinations(joined, known, separator):
            raise UserError(f"{where} holds several classes in one, such as {min(joined)!r}: {SUPPORTED}")
    numbers = [_number(label) for label in known]
    few = 4 * len(known) <= len(rows)  # classes, which are called by numbers
    if not few and None not in numbers and any(n != round(n) for n in numbers if n is not None):
        fraction = min(label for label in known if not (_number(label) or 0.0).is_integer())
        raise UserError(f"{where} holds numbers such as {fraction!r}: {SUPPORTED}")


def _are_combinations(joined: Sequence[str], known: set[str], separator: str) -> bool:
    """Whether the parts of most joined labels come in other labels too: a class may be called `a|b`."""
    seen: dict[str, int] = {}
    for label in known:
        for part in {part.strip() for part in label.split(separator)}:
            seen[part] = seen.get(part, 0) + 1
    shared = [all(seen[part.strip()] > 1 for part in label.split(separator)) for label in joined]
    return 2 * sum(shared) > len(joined)


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if np.isfinite(value) else None


def refuse_columns(where: str, rows: Sequence[dict[str, str]], label: str) -> None:
    """Refuses a table without the column `label` whose columns mark classes with 0 and 1."""
    if not rows or label in rows[0]:
        return
    marked = [name for name in rows[0] if all(row[name] in ("0", "1") for row in rows)]
    if len(marked) > 1:
        raise UserError(
            f"{where} has no column {label!r} but marks classes ({', '.join(marked[:4])}, ...): {SUPPORTED}"
        )


def refuse_folders(root: object, names: Iterable[str]) -> None:
    """Refuses folders as data sets of boxes have them."""
    lower = {name.lower() for name in names}
    if any(boxes <= lower <= boxes | {"imagesets", "segmentationclass", "segmentationobject"} for boxes in _BOXES):
        raise UserError(f"{root} is laid out as a data set of boxes ({', '.join(sorted(names))}): {SUPPORTED}")
