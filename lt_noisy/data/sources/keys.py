"""What of the records of a TensorFlow Datasets set is read: image, labels, what is said of them, and an id."""

import re
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from lt_noisy.errors import UserError, did_you_mean


class Keys(NamedTuple):
    """What of a record is read: the names of its image, of its label, and of the label that is given in training.

    `flagged`: whether `is_clean` says of each label if it is right.
    """

    image: str
    label: str
    given: str
    flagged: bool

    def facts(self, record: dict[str, Any]) -> tuple[int, int, int, int | None]:
        """The given label, the true one, the flag (`Split.flags`), the trailing integer of its `id`."""
        flag = int(not record["is_clean"]) if self.flagged else -1
        return int(record[self.given]), int(record[self.label]), flag, _trailing_integer(record.get("id"))

    def columns(self, facts: Iterable[tuple[int, int, int, int | None]]) -> dict[str, np.ndarray]:
        """The facts of all records as arrays: `labels`, `ids`, and `clean` and `flags` where there are any."""
        given, true, flags, numbers = map(list, zip(*facts, strict=True))
        columns = {"labels": np.asarray(given, np.int32), "ids": _ids(numbers)}
        if self.given != self.label:
            columns["clean"] = np.asarray(true, np.int32)
        if self.flagged:
            columns["flags"] = np.asarray(flags, np.int8)
        return columns


def keys_of(builder: Any, name: str, label: str = "") -> Keys:
    """What is read of a set, once it is sure that it has that; `label` names another label to train on."""
    features = dict(builder.info.features.items())
    keys = builder.info.supervised_keys or ("image", "label")
    image, own = (features.get(key) if isinstance(key, str) else None for key in keys)
    is_set = (type(image).__name__, type(own).__name__) == ("Image", "ClassLabel")
    if not is_set or getattr(image, "np_dtype", None) != np.uint8:
        listing = ", ".join(f"{key}: {type(feature).__name__}" for key, feature in sorted(features.items()))
        raise UserError(f"tfds {name!r} is not a set of 8-bit images with one class label (it has {listing})")
    classes = own.num_classes  # pyright: ignore[reportOptionalMemberAccess] (of a set there is one)
    # Sorted, for TFDS keeps features in an order that differs from process to process.
    labels = sorted(key for key, feature in features.items() if getattr(feature, "num_classes", None) == classes)
    if label and label not in labels:
        known = f"{did_you_mean(label, labels)} (it has {', '.join(labels)})"
        raise UserError(f"tfds {name!r} has no label {label!r}{known}")
    return Keys(*keys, given=label or keys[1], flagged="is_clean" in features)


def _ids(numbers: list[int | None]) -> np.ndarray:
    """The numbers int64 [N], or the rows where one is missing or comes twice."""
    numbered = None not in numbers and len(set(numbers)) == len(numbers)
    return np.asarray(numbers if numbered else np.arange(len(numbers)), np.int64)


def _trailing_integer(value: Any) -> int | None:
    if not isinstance(value, (bytes, int, np.integer)):
        return None
    match = re.search(r"\d{1,18}$", value.decode(errors="replace") if isinstance(value, bytes) else str(value))
    return int(match.group()) if match else None
