"""Early stopping that is fair: the validation split, its figure, and what is selected by it."""

import json

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score

from lt_noisy.config.spec import bind
from lt_noisy.data.dataset import hold_out, read_by, whole
from lt_noisy.data.sources import SOURCES
from lt_noisy.errors import UserError
from lt_noisy.evaluation.selection import balanced_accuracy, selected


@pytest.fixture(scope="module")
def dataset():
    """All digits, one label in four wrong; class 9 is observed three times, class 8 once."""
    data = whole(bind("digits(test_per_class=20)", SOURCES, "dataset")())
    observed = np.where(np.arange(len(data.ids)) % 4 == 0, (data.clean + 1) % 10, data.clean).astype(np.int32)
    keep = np.sort(
        np.concatenate(
            [np.flatnonzero(observed < 8), np.flatnonzero(observed == 8)[:1], np.flatnonzero(observed == 9)[:3]]
        )
    )
    return data._replace(observed=observed).rows(keep)


def test_every_observed_class_gives_its_share(dataset):
    held = hold_out(dataset, 0.2, seed=0)
    both = np.concatenate([held.ids, held.validation.ids])
    assert len(np.unique(both)) == len(both) == len(dataset.ids)
    before, taken = (np.bincount(y, minlength=10) for y in (dataset.observed, held.validation.observed))
    np.testing.assert_array_equal(taken[:8], np.round(0.2 * before[:8]))
    assert taken[8] == 0 and taken[9] == 1  # the only one of its class is not taken; of three, one is
    assert (held.validation.observed != held.validation.clean).mean() > 0.2  # as noisy as the rest


def test_the_split_follows_seed_and_ids_only(dataset):
    shuffled = dataset.rows(np.random.default_rng(0).permutation(len(dataset.ids)))
    reference = hold_out(dataset, 0.1, seed=3).validation
    ours = hold_out(shuffled, 0.1, seed=3).validation
    order = np.argsort(ours.ids)
    np.testing.assert_array_equal(ours.ids[order], np.sort(reference.ids))
    np.testing.assert_array_equal(ours.images[order], reference.images[np.argsort(reference.ids)])
    assert not np.array_equal(np.sort(hold_out(dataset, 0.1, seed=4).validation.ids), np.sort(reference.ids))
    assert hold_out(dataset, 0.0, seed=3) is dataset


def test_identity_knows_the_split(dataset):
    held = hold_out(dataset, 0.1, seed=0)
    moved = held._replace(validation=held.validation._replace(observed=held.validation.observed[::-1].copy()))
    assert read_by(held.hashes(), ("observed",)) != read_by(moved.hashes(), ("observed",))
    assert read_by(held.hashes(), ()) == read_by(moved.hashes(), ()) != read_by(dataset.hashes(), ())


def test_balanced_accuracy_is_scikit_learns_over_the_classes_named():
    generator = np.random.default_rng(0)
    logits, observed = generator.normal(size=(60, 5)), generator.integers(0, 3, 60)  # two classes named by no label
    logits[np.arange(60), observed] += 1.5
    keep = np.isin(logits.argmax(-1), np.unique(observed))
    expected = balanced_accuracy_score(observed[keep], logits.argmax(-1)[keep])
    assert balanced_accuracy(logits[keep], observed[keep]) == pytest.approx(expected, abs=1e-12)
    assert balanced_accuracy(np.eye(3), np.array([0, 1, 1])) == pytest.approx(0.75)


def test_what_each_rule_selects(tmp_path):
    lines = [
        {"step": 4, "loss": 2.0},
        {
            "step": 8,
            "loss": 1.0,
            "test_accuracy": 0.5,
            "test_balanced_accuracy": 0.6,
            "validation_balanced_accuracy": 0.3,
        },
        {
            "step": 12,
            "loss": 0.9,
            "test_accuracy": 0.7,
            "test_balanced_accuracy": 0.5,
            "validation_balanced_accuracy": 0.4,
        },
        {
            "step": 16,
            "loss": 0.8,
            "test_accuracy": 0.6,
            "test_balanced_accuracy": 0.4,
            "validation_balanced_accuracy": 0.4,
        },
    ]
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = selected(path)
    assert found.pop("evaluations") == 3
    assert {rule: figures["step"] for rule, figures in found.items()} == {
        "last": 16,
        "best_on_validation": 12,  # the first of equals
        "oracle_best_on_test": 8,
    }
    assert found["best_on_validation"]["test_accuracy"] == 0.7 and "loss" not in found["last"]
    for line in lines:
        line.pop("validation_balanced_accuracy", None)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert set(selected(path)) == {"evaluations", "last", "oracle_best_on_test"}


def test_nothing_to_hold_out_is_one_line(dataset):
    single = dataset.rows(np.unique(dataset.observed, return_index=True)[1])
    with pytest.raises(UserError, match="every class has one example"):
        hold_out(single, 0.5, seed=0)
