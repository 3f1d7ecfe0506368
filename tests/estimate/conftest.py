"""Searches among neighbours in blocks small enough for small cases to take several."""

import pytest

from lt_noisy.estimate import density, neighbours


@pytest.fixture
def blocks(monkeypatch):
    """`blocks(queries, rows)` sets how many of each meet at once; what was compiled with other sizes is forgotten."""

    def forget():
        for program in (
            neighbours._search,
            neighbours._nearest_others,
            density._neighbour_square,
            density._log_kernel_sum,
        ):
            program.clear_cache()

    def use(block, tile):
        monkeypatch.setattr(neighbours, "BLOCK", block)
        monkeypatch.setattr(neighbours, "TILE", tile)
        forget()

    yield use
    forget()
