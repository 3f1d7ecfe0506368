"""Files that are whole or not there: written under another name, then renamed; read with one line for what is wrong."""

import json
import os
import pathlib
import zipfile
import zlib
from typing import Any

import numpy as np

from lt_noisy.errors import UserError


def write_json(path: pathlib.Path, content: Any) -> None:
    """Writes JSON by temporary file and rename: the file is whole or not there."""
    temporary = path.with_name(path.name + ".tmp")
    with open(temporary, "w") as file:
        json.dump(content, file, indent=1, allow_nan=False)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def write_arrays(path: pathlib.Path, **arrays: np.ndarray) -> None:
    """Writes an `.npz` by temporary file and rename: the file is whole or not there."""
    temporary = path.with_name(f"tmp-{path.name}")
    np.savez(temporary, **arrays)
    os.replace(temporary, path)


def load_arrays(path: pathlib.Path, *names: str) -> list[np.ndarray]:
    """These arrays of a finished stage's `.npz`.

    Raises:
      UserError: the file is missing or damaged, or has no such array.
    """
    try:
        with open(path, "rb") as file, np.load(file) as arrays:  # np.load leaves a damaged file of its own open
            return [arrays[name] for name in names]
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{path} cannot be read ({error}); remove {path.parent} to make it again") from None


def read_array(path: str, key: str) -> np.ndarray:
    """The array of an `.npy` file (no key), or array `key` of an `.npz` file."""
    try:
        with open(path, "rb") as file:
            found = np.load(file, allow_pickle=False)
            if isinstance(found, np.ndarray):
                found = {"": found}
            if key in found:
                return found[key]
            names = ", ".join(filter(None, found)) or "one array without a name"
        raise UserError(f"{path} has no array {key!r} (it has {names})")
    except UserError:
        raise
    except FileNotFoundError:
        raise UserError(f"{path} does not exist") from None
    except Exception as error:  # a broken file raises anything from OSError to zlib.error
        raise UserError(f"{path} is not a readable array file ({type(error).__name__})") from None
