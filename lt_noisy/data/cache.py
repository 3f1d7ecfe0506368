"""Decoded data on the disk, so that a later start decodes nothing.

Arrays lie under `$LT_NOISY_CACHE`, else `$XDG_CACHE_HOME/lt_noisy/data`, else `~/.cache/lt_noisy/data`, in a directory
per key; whoever needs the room removes them. What was quick to make is not kept.
"""

import contextlib
import hashlib
import json
import os
import pathlib
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

DIRECTORY = "LT_NOISY_CACHE"  # environment
WORTH_SECONDS = 2.0

Arrays = dict[str, np.ndarray]


def cached(key: Mapping[str, Any], make: Callable[[], Arrays]) -> Arrays:
    """What `make()` gives, from the disk where an earlier call with this key left it: mapped into memory, read-only.

    A cache that cannot be written or read is no error: the arrays are made again.

    Args:
      key: plain JSON values that settle every bit of the arrays.
      make: makes the arrays, by name.
    """
    return renewed(key, lambda found: make() if found is None else found)


def renewed(key: Mapping[str, Any], renew: Callable[[Arrays | None], Arrays]) -> Arrays:
    """What `renew(found)` makes of what an earlier call with this key left, or of None; kept in its place.

    Args:
      key: plain JSON values that name the place.
      renew: returns `found` itself where that still holds.
    """
    text = json.dumps(key, sort_keys=True)
    place = root() / hashlib.sha256(text.encode()).hexdigest()[:32]
    found = None
    with contextlib.suppress(OSError, EOFError, ValueError):
        before = place.stat()
        if (place / "key.json").read_text() == text:
            opened = {file.stem: np.load(file, mmap_mode="r") for file in sorted(place.glob("*.npy"))}
            if os.path.samestat(before, place.stat()):  # another process may have put its own there meanwhile
                found = opened
    began = time.monotonic()
    arrays = renew(found)
    if arrays is not found and time.monotonic() - began >= WORTH_SECONDS:
        with contextlib.suppress(OSError):
            _store(place, text, arrays)
    return arrays


def root() -> pathlib.Path:
    """Where everything of it lies."""
    given = os.environ.get(DIRECTORY)
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return pathlib.Path(given or os.path.join(home, "lt_noisy", "data"))


def _store(place: pathlib.Path, text: str, arrays: Arrays) -> None:
    """Puts them in place whole, by rename; of two processes that make the same, one is in time."""
    place.parent.mkdir(parents=True, exist_ok=True)
    for left in place.parent.glob(".making-*"):  # by a process that was killed, where it is old
        with contextlib.suppress(OSError):
            if time.time() - left.stat().st_mtime > 86400:
                shutil.rmtree(left, ignore_errors=True)
    temporary = pathlib.Path(tempfile.mkdtemp(prefix=".making-", dir=place.parent))
    try:
        for name, array in arrays.items():
            with open(temporary / f"{name}.npy", "wb") as file:
                np.save(file, array, allow_pickle=False)
                file.flush()
                os.fsync(file.fileno())
        (temporary / "key.json").write_text(text)
        if place.exists():  # of another time, damaged, or another process's of just now; never seen in part
            os.rename(place, temporary / "before")
        os.rename(temporary, place)
        shutil.rmtree(place / "before", ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
