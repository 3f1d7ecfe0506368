"""Neighbours and class means on features, against loops written from the papers."""

from collections import defaultdict

import numpy as np
import pytest

from lt_noisy.errors import UserError
from lt_noisy.rebalance.base import Head, Known
from lt_noisy.rebalance.posthoc import CLASSIFIERS


def known(features, observed, classes):
    return Known(Head(np.zeros((features.shape[1], classes)), np.zeros(classes)), features, observed)


def blobs(seed=0, per_class=(60, 40, 20), wrong=0.3, spread=0.6):
    """Features around one corner a class, true labels, and labels of which a share is wrong."""
    rng = np.random.RandomState(seed)
    clean = np.repeat(np.arange(len(per_class)), per_class)
    features = np.eye(len(per_class), 5)[clean] + spread * rng.standard_normal((len(clean), 5)) / 2
    observed = np.where(rng.uniform(size=len(clean)) < wrong, rng.randint(0, len(per_class), len(clean)), clean)
    return features, clean, observed


def wann_by_loops(features, observed, queries, k_min, k_max):
    """Di Salvo et al. (2024), sec. 3, example by example."""

    def nearest(x, without=None):
        order = np.argsort(np.linalg.norm(features - x, axis=1), kind="stable")
        return [i for i in order if i != without]

    sizes = []
    for i, x in enumerate(features):
        near = nearest(x, i)
        fitting = (k for k in range(k_min, k_max, 2) if np.bincount(observed[near[:k]]).argmax() == observed[i])
        sizes.append(next(fitting, k_max))
    found = []
    for x in queries:
        near = nearest(x)
        votes = defaultdict(float)
        for i in near[: sizes[near[0]]]:
            votes[observed[i]] += 1 / sizes[i]
        found.append([votes[c] for c in range(observed.max() + 1)])
    return np.array(found)


def test_wann_is_the_papers():
    features, _, observed = blobs()
    queries = blobs(1)[0]
    logits = CLASSIFIERS["wann"](k_min=3, k_max=9).fit(known(features, observed, 3)).logits(queries)
    votes = wann_by_loops(features, observed, queries, 3, 9)
    shares = votes / votes.sum(-1, keepdims=True)
    np.testing.assert_allclose(logits, np.log(np.maximum(shares, 1e-3)), rtol=1e-9)


def test_reliable_neighbours_outvote_the_others():
    """Under wrong labels the votes are better than those of the nearest neighbour."""
    features, _, observed = blobs(2, (150, 150, 150), 0.4, 0.4)
    queries, true, _ = blobs(3, (50, 50, 50), 0.0, 0.4)
    fitted = CLASSIFIERS["wann"]().fit(known(features, observed, 3))
    one = CLASSIFIERS["wann"](k_min=1, k_max=2).fit(known(features, observed, 3))
    accuracy, nearest = ((each.logits(queries).argmax(-1) == true).mean() for each in (fitted, one))
    assert accuracy > 0.95 > nearest + 0.1 and 11 <= fitted.details["mean_neighbours"] <= 51


def test_prototypes_leave_out_what_is_far():
    """Of wrong labels most, of right ones few; the means are then nearer to those of the true labels."""
    features, clean, observed = blobs(4, (200, 100, 50), 0.3, 0.3)
    fitted = CLASSIFIERS["prototypes"]().fit(known(features, observed, 3))
    assert fitted.details["held_for_clean"] == pytest.approx((observed == clean).mean(), abs=0.05)
    queries, true, _ = blobs(5, (30, 30, 30), 0.0, 0.3)
    ideal, plain = (
        CLASSIFIERS["ncm"]().fit(known(features, labels, 3)).logits(queries) for labels in (clean, observed)
    )
    ours = fitted.logits(queries)
    assert np.abs(ours - ideal).mean() < 0.6 * np.abs(plain - ideal).mean()
    assert (ours.argmax(-1) == true).mean() > 0.95


def test_small_and_empty_classes_and_equal_features():
    features, observed = np.ones((6, 2)), np.array([0, 0, 0, 0, 2, 2])
    logits = CLASSIFIERS["prototypes"]().fit(known(features, observed, 3)).logits(features)
    assert np.isfinite(logits).all() and (logits[:, 1] == -50).all()
    assert np.isfinite(CLASSIFIERS["wann"](1, 3).fit(known(features, observed, 3)).logits(features)).all()


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: CLASSIFIERS["wann"](k_min=4), "k_min=4 must be odd"),
        (lambda: CLASSIFIERS["wann"](k_min=11, k_max=11), "k_max=11 larger"),
        (lambda: CLASSIFIERS["prototypes"](rounds=0), "rounds=0 must be at least 1"),
    ],
)
def test_what_is_refused(make, says):
    with pytest.raises(UserError, match=says):
        make()
