"""Searches among neighbours in blocks small enough for small cases to take several."""

import jax
import pytest

from lt_noisy.estimate import neighbours


@pytest.fixture
def blocks(monkeypatch):
    """`blocks(queries, rows)` sets how many of each meet at once; what was compiled with other sizes is forgotten."""

    def use(block, tile):
        monkeypatch.setattr(neighbours, "BLOCK", block)
        monkeypatch.setattr(neighbours, "TILE", tile)
        jax.clear_caches()

    yield use
    jax.clear_caches()
