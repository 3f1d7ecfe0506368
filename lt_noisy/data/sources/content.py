"""Ids and test images of files, by what is in them: no name, no neighbour and no class folder moves them."""

import hashlib
from collections import Counter
from collections.abc import Sequence

import numpy as np

from lt_noisy.data.by_class import rows_by_class


def ids_of(contents: Sequence[bytes]) -> np.ndarray:
    """int64 [N], at least 0: 63 bits of a hash of each file's content and, of equal files, of its number among them."""
    seen: Counter[bytes] = Counter()
    ids = np.empty(len(contents), np.int64)
    for row, content in enumerate(contents):
        ids[row] = _number(content, f"id, copy {seen[content]}")
        seen[content] += 1
    return ids


def copies(contents: Sequence[bytes], rows: np.ndarray) -> list[np.ndarray]:
    """Groups of equal content among `rows` (int [n]) of the N `contents`: int [2 or more] each, in their order."""
    groups: dict[bytes, list[int]] = {}
    for row in rows:
        groups.setdefault(contents[row], []).append(int(row))
    return [np.array(group) for group in groups.values() if len(group) > 1]


def held_out(contents: Sequence[bytes], labels: np.ndarray, num_classes: int, percent: int) -> np.ndarray:
    """Which files are test images, bool [N]: those whose hash is among the lowest `percent` of what a hash can be.

    So about that share of each class, not exactly; a smaller percentage is part of a larger one, and copies of a file
    are on one side. Of a class that would be without test images, or without training images, the file nearest to the
    threshold changes sides, and its copies in the class with it where they leave others.

    Args:
      contents: the SHA-256 of each file's bytes.
      labels: int [N] in [0, num_classes); a class of fewer than 2 has no test image.
      percent: in 1..99.
    """
    hashes = np.array([_number(content, "test split") for content in contents], np.int64)
    is_test = hashes < percent * (2**63 // 100)
    for rows in rows_by_class(labels, np.arange(len(labels)), num_classes):
        if len(rows) < 2:
            is_test[rows] = False
            continue
        own, chosen = hashes[rows], is_test[rows]
        if not chosen.any():
            chosen = own == own.min()
        if chosen.all():
            chosen = own < own.max()
        if not chosen.any():  # the class is copies of one image
            chosen = np.arange(len(rows)) == 0
        is_test[rows] = chosen
    return is_test


def _number(content: bytes, purpose: str) -> int:
    """63 bits, of their own for every purpose."""
    return int.from_bytes(hashlib.sha256(purpose.encode() + b"\0" + content).digest()[:8], "big") >> 1
