"""Batch order: a pure function of the step; every row once an epoch; balanced draws are balanced."""

import numpy as np
import pytest

from lt_noisy import rng
from lt_noisy.data.batches import Epoch, batches, check_batches, grouped
from lt_noisy.errors import UserError
from lt_noisy.rebalance.sampling import class_balanced


def _rows(at, steps):
    return np.concatenate([at(step)["rows"] for step in steps])


def test_an_epoch_sees_each_row_once():
    at = batches(103, 10, None, seed=0, purpose="order")
    first, second = _rows(at, range(10)), _rows(at, range(10, 20))
    assert len(set(first)) == len(first) == 100
    assert len(set(second)) == 100 and not np.array_equal(first, second)
    assert set(first) != set(second)  # other rows are left over


def test_order_depends_on_step_seed_and_purpose_only():
    at = batches(50, 10, None, 0, "order")
    forwards = [at(step)["rows"].copy() for step in range(12)]
    again = batches(50, 10, None, 0, "order")
    for step in (11, 3, 7, 3, 0):  # asked for in any order, as after a resume
        np.testing.assert_array_equal(again(step)["rows"], forwards[step])
    for other in (batches(50, 10, None, 1, "order"), batches(50, 10, None, 0, "other")):
        assert not np.array_equal(other(0)["rows"], forwards[0])


def test_balanced_sampling_draws_every_class_alike():
    labels = np.repeat(np.arange(3, dtype=np.int32), (900, 90, 10))
    at = batches(1000, 100, class_balanced().probabilities(labels, 3), 0, "order")
    drawn = np.bincount(labels[_rows(at, range(100))], minlength=3) / 10_000
    np.testing.assert_allclose(drawn, 1 / 3, atol=0.02)  # 4 standard deviations


def test_grouped_is_the_same_steps_stacked():
    at = batches(50, 10, None, 0, "order")
    stacked = grouped(at, 3, 4)
    assert stacked["rows"].shape == stacked["weights"].shape == (4, 10)
    np.testing.assert_array_equal(stacked["rows"][2], at(5)["rows"])
    assert grouped(at, 3, 1)["rows"].shape == (10,)


@pytest.mark.parametrize(
    ("batch", "devices", "says"), [(0, 1, "between 1 and"), (51, 1, "50 training"), (10, 4, "4 devices")]
)
def test_batches_that_do_not_fit(batch, devices, says):
    with pytest.raises(UserError, match=f"config.finetune.batch_size: .*{says}"):
        check_batches(50, batch, False, devices, "config.finetune")
    assert check_batches(50, 12, False, 4, "x") == Epoch(steps=4, last=12)


def test_a_last_batch_is_of_what_is_left_over():
    assert check_batches(12_406, 128, True, 2, "x") == Epoch(97, 118)
    assert check_batches(50, 10, True, 2, "x") == Epoch(5, 10)  # nothing is
    with pytest.raises(UserError, match=r"finetune.keep_last: the last batch of 50 images has 2, .* among 4 devices"):
        check_batches(50, 12, True, 4, "config.finetune")


@pytest.mark.parametrize("balanced", [False, True])
def test_three_epochs_with_their_last_batches(balanced):
    """Against the rows of each step written out: 22 a epoch in steps of 8, 8 and 6."""
    p = np.linspace(1, 3, 22) / np.linspace(1, 3, 22).sum() if balanced else None
    expected = []
    for epoch in range(3):
        generator = rng.generator(5, "order", epoch)
        rows = generator.choice(22, 22, p=p) if balanced else generator.permutation(22)
        expected += [rows[:8], rows[8:16], rows[16:]]
    at = batches(22, 8, p, 5, "order", keep_last=True)
    for step in (*range(9), 7, 2):  # and in any order, as after a resume
        np.testing.assert_array_equal(at(step)["rows"], expected[step])
        np.testing.assert_array_equal(at(step)["weights"], np.ones(len(expected[step]), np.float32))
