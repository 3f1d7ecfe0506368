"""The comparison of equal blocks, compiled one by one and in a scan: that both are the same network."""

import jax
import numpy as np
import scanned_blocks


def test_both_forms_are_one_network(x64):
    rng = np.random.default_rng(0)
    x, blocks = rng.normal(size=(2, 4, 4, 3)), scanned_blocks.BLOCKS
    weights = {f"kernel{at}": rng.normal(size=(blocks, 3, 3, 3, 3)) for at in (1, 2)}
    weights |= {f"scale{at}": rng.normal(size=(blocks, 3)) for at in (1, 2)}
    x, weights = jax.tree.map(jax.numpy.asarray, (x, weights))
    found, scanned = (form(x, weights) for form in (scanned_blocks._one_by_one, scanned_blocks._scanned))
    np.testing.assert_allclose(found, scanned, rtol=1e-10)
    assert found.shape == x.shape and np.ptp(found) > 0


def test_the_table_says_how_long_a_scan_pays():
    row = {"group": "4 x 4", "seconds_to_compile": {"one by one": 3.0, "scanned": 1.0}}
    slower = {**row, "milliseconds": {"one by one": 100.0, "scanned": 150.0}}
    faster = {**row, "milliseconds": {"one by one": 100.0, "scanned": 90.0}}
    text = scanned_blocks.show([slower, faster])
    assert "40 steps" in text and "any length" in text
