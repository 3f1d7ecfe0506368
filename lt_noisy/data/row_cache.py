"""Vectors by row on the disk, filled as they are made: what a kill leaves is gone on from."""

import fcntl
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from lt_noisy.data.cache import root
from lt_noisy.errors import UserError, say

Shapes = Mapping[str, tuple[tuple[int, ...], Any]]


class RowCache:
    """A vector float16 [D] for each of N rows, and which of them are there; beside the cache of decoded images.

    What cannot be written to the disk stays in memory. Two processes that fill the same rows write the same numbers.

    Args:
      key: plain JSON values that settle every bit of the vectors.
      rows: N.
      width: D.
    """

    def __init__(self, key: Mapping[str, Any], rows: int, width: int):
        text = json.dumps(dict(key), sort_keys=True)
        place = root() / "features" / hashlib.sha256(text.encode()).hexdigest()[:32]
        shapes = {"vectors": ((rows, width), np.float16), "there": ((rows,), np.bool_)}
        self._arrays: dict[str, np.ndarray] = {}
        why = "cannot be read"
        try:
            place.mkdir(parents=True, exist_ok=True)
            with open(place / ".lock", "w") as lock:  # two that make the files each would take the other's away
                fcntl.flock(lock, fcntl.LOCK_EX)
                self._arrays = _opened(place, shapes) or _made(place, shapes)
                (place / "key.json").write_text(text)
        except OSError as error:
            why = error.strerror
        if not self._arrays:  # of others it may be read; what is added then stays in memory
            self._arrays = _opened(place, shapes, "c")
        if not self._arrays:
            say(f"note: features are kept in memory alone, and made anew after a kill ({place}: {why})")
            self._arrays = {name: np.zeros(*shape) for name, shape in shapes.items()}

    def there(self, rows: np.ndarray) -> np.ndarray:
        """bool [n], which of these rows (int [n]) have been written."""
        return np.asarray(self._arrays["there"][rows])

    def read(self, rows: np.ndarray) -> np.ndarray:
        """float32 [n, D] of rows that are there."""
        return np.asarray(self._arrays["vectors"][rows], np.float32)

    def write(self, rows: np.ndarray, vectors: np.ndarray) -> None:
        """Keeps float [n, D]; the rows are there once their numbers are on the disk.

        Raises:
          UserError: a number that float16 does not hold.
        """
        with np.errstate(over="ignore"):
            small = vectors.astype(np.float16)
        if not np.isfinite(small).all():
            raise UserError(f"features of up to {np.abs(vectors).max():.3g} do not fit float16: the encoder is damaged")
        for name, values in (("vectors", small), ("there", True)):
            array = self._arrays[name]
            array[rows] = values
            if isinstance(array, np.memmap):
                array.flush()


def _opened(place: Path, shapes: Shapes, mode: Literal["r+", "c"] = "r+") -> dict[str, np.ndarray]:
    """The arrays that are there; none where one is missing or damaged."""
    arrays: dict[str, np.ndarray] = {}
    for name, (shape, dtype) in shapes.items():
        try:
            arrays[name] = np.lib.format.open_memmap(place / f"{name}.npy", mode=mode)
        except (OSError, ValueError, EOFError):
            return {}
        if arrays[name].shape != shape or arrays[name].dtype != dtype:
            return {}
    return arrays


def _made(place: Path, shapes: Shapes) -> dict[str, np.ndarray]:
    """New arrays of zeros, in the place of what may be there."""
    for name, (shape, dtype) in shapes.items():
        temporary = place / f".{name}.npy"
        try:
            np.lib.format.open_memmap(temporary, mode="w+", dtype=dtype, shape=shape).flush()
            if hasattr(os, "posix_fallocate"):  # a full disk is then an error here, and not a signal later
                with open(temporary, "r+b") as file:
                    os.posix_fallocate(file.fileno(), 0, os.path.getsize(temporary))
        except OSError:
            temporary.unlink(missing_ok=True)  # and is no longer full
            raise
        os.replace(temporary, place / f"{name}.npy")
    return _opened(place, shapes)
