"""SHA-256 of arrays, and of what JSON holds."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np


def array_sha256(array: Any) -> str:
    """SHA-256 of one array: dtype, shape and bytes."""
    array = np.ascontiguousarray(array)
    digest = hashlib.sha256(f"{array.dtype.str}{array.shape}".encode())
    digest.update(array.reshape(-1).view(np.uint8).data if array.size else b"")
    return digest.hexdigest()


def json_sha256(value: Any) -> str:
    """SHA-256 of a JSON-ready value, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def arrays_sha256(arrays: Mapping[str, Any]) -> str:
    """SHA-256 over named arrays on the host, in the order of their names."""
    named = sorted((name, array_sha256(array)) for name, array in arrays.items())
    return hashlib.sha256(repr(named).encode()).hexdigest()
