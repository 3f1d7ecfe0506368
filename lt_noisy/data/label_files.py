"""Label files of other codebases: whole numbers in an array file, a JSON list, or a text file."""

import json
import pickle
from pathlib import Path
from typing import IO, Any

import numpy as np

from lt_noisy.errors import UserError, first_line
from lt_noisy.files import read_array, user_path


def read_numbers(path: str, key: str = "") -> np.ndarray:
    """Whole numbers int64 [N] of a file.

    Args:
      path: `.npy` or `.npz`: integers, or floats without a fraction, [N] or [N, 1], in an `.npy` also a dict of such
        arrays (the official CIFAR-N files); `.json`: a list of numbers, or an object of such lists (DivideMix, RoLT);
        any other ending: text with a number on each line.
      key: which of several arrays; none where there is one.

    Raises:
      UserError: no such file or array, something else in it, a number that is not whole.
    """
    file, where = user_path(path), f"{path}, {key}" if key else path
    try:
        found = _read(file, path, key)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{where} cannot be read as labels: {first_line(error)}") from None
    if found.ndim == 2 and found.shape[1] == 1:
        found = found[:, 0]
    if found.ndim != 1 or found.dtype.kind not in "iuf":
        raise UserError(f"{where} is {found.dtype} {list(found.shape)}; it must be integer [N]")
    if found.dtype.kind == "f" and not (np.isfinite(found).all() and (found == np.rint(found)).all()):
        row = int(np.flatnonzero(~np.isfinite(found) | (found != np.rint(found)))[0])
        raise UserError(f"{where}: entry {row} is {found[row]}, no whole number")
    found = found.astype(np.float64) if found.dtype.kind == "f" else found  # of half precision 2**63 is infinite
    beyond = np.flatnonzero((found < -(2**63)) | (found >= 2**63))
    if len(beyond):
        raise UserError(f"{where}: entry {beyond[0]} is {found[beyond[0]]}, which is out of range")
    return found.astype(np.int64)


def _read(file: Path, path: str, key: str) -> np.ndarray:
    if file.suffix == ".json":
        return _chosen(json.loads(file.read_text(encoding="utf-8-sig")), path, key)
    if file.suffix == ".npy":
        with open(file, "rb") as opened:
            stored = _pickled(opened)
        if stored is not None:
            return _chosen(stored, path, key)
    if file.suffix in (".npy", ".npz"):
        return read_array(path, key)
    return _chosen([_number(text) for text in file.read_text(encoding="utf-8-sig").split()], path, key)


def _number(text: str) -> int | float:
    """A number as it is written: as a float an id of 63 bits would be another one."""
    try:
        return number if abs(number := int(text)) < 2**63 else float(text)
    except ValueError:
        return float(text)


def _chosen(found: Any, path: str, key: str) -> np.ndarray:
    """The numbers themselves, or those called `key` in a mapping."""
    if isinstance(found, dict):
        if key not in found:
            raise UserError(f"{path} has no {key!r} (it has {', '.join(map(str, found))})")
        return np.asarray(found[key])
    if key:
        raise UserError(f"{path} has no {key!r}: it holds one list")
    return np.asarray(found)


class _Arrays(pickle.Unpickler):
    """Reads arrays in plain containers, and runs nothing that a file names beside them."""

    def find_class(self, module: str, name: str) -> Any:
        known = {"_reconstruct", "ndarray", "dtype", "scalar", "encode"}
        if module.partition(".")[0] in ("numpy", "_codecs") and name in known:
            return super().find_class(module, name)
        raise ValueError(f"it holds {module}.{name}, which is no array")


def _pickled(file: IO[bytes]) -> Any:
    """What an `.npy` file holds as an object, such as a dict of arrays; None where it holds an array proper."""
    version = np.lib.format.read_magic(file)
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}.get(version)
    if read is None or not read(file)[2].hasobject:
        return None
    try:
        found = _Arrays(file).load()
    except (pickle.UnpicklingError, EOFError, AttributeError, ImportError) as error:
        raise ValueError(first_line(error)) from None
    return found.item() if isinstance(found, np.ndarray) and found.shape == () else found
