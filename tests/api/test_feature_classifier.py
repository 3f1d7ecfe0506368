"""The robust losses as a scikit-learn classifier."""

import pickle

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer
from sklearn.utils.estimator_checks import check_estimator

import lt_noisy as lt


def test_scikit_learn_finds_no_fault():
    failed = [r for r in check_estimator(lt.FeatureClassifier(), on_fail=None, on_skip=None) if r["status"] == "failed"]
    assert [(r["check_name"], str(r["exception"])) for r in failed] == []


def blobs(counts, seed=0, spread=1.0):
    """Points around corners, so many of each class."""
    generator = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(counts)), counts)
    return 2 * np.eye(len(counts))[labels] + spread * generator.normal(size=(len(labels), len(counts))), labels


def test_cross_entropy_is_logistic_regression():
    """Full batches of plain cross-entropy end where scikit-learn's solver does."""
    from sklearn.linear_model import LogisticRegression

    X, y = blobs((40, 60, 50))
    X = X / X.std(0)  # as the classifier scales it, so that both decay the same weights
    ours = lt.FeatureClassifier("cross_entropy()", epochs=400, batch_size=1000, learning_rate=1.0, weight_decay=1e-2)
    theirs = LogisticRegression(C=1 / (1e-2 * len(X)), tol=1e-10, max_iter=10_000).fit(X, y)
    ours.fit(X, y)
    np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(X), atol=2e-4)
    np.testing.assert_allclose(
        ours.coef_ @ X.mean(0) + ours.intercept_, theirs.decision_function(X.mean(0)[None])[0], atol=2e-3
    )


def test_logit_adjustment_lifts_the_tail():
    X, y = blobs((400, 40, 8), spread=1.3)
    test_X, test_y = blobs((200, 200, 200), seed=1, spread=1.3)

    def tail(loss):
        found = lt.FeatureClassifier(loss, random_state=0).fit(X, y).predict(test_X)
        return (found == test_y)[test_y == 2].mean()

    assert tail("logit_adjusted()") > tail("cross_entropy()") + 0.1


def test_a_robust_loss_finds_wrong_labels_out_of_sample():
    X, clean = blobs((100, 100, 100), spread=0.6)
    observed = clean.copy()
    observed[::10] = (observed[::10] + 1) % 3
    names = np.array(["ant", "bee", "fly"])
    given = cross_val_predict(lt.FeatureClassifier(random_state=0), X, names[observed], method="predict_proba")
    assert ((given.argmax(-1) != observed) == (clean != observed)).mean() > 0.95


def test_a_loss_with_a_memory_and_a_pipeline():
    X, y = blobs((60, 60, 60))
    found = make_pipeline(Normalizer(), lt.FeatureClassifier("elr(beta=0.7, lam=3.0)", random_state=1)).fit(X, y)
    assert found.score(X, y) > 0.8
    again = pickle.loads(pickle.dumps(found))
    np.testing.assert_array_equal(again.predict_proba(X), found.predict_proba(X))
    assert clone(found[-1]).get_params() == found[-1].get_params()


def test_the_order_is_that_of_the_seed():
    X, y = blobs((60, 60))
    first, same, other = (lt.FeatureClassifier(batch_size=16, epochs=3, random_state=s).fit(X, y) for s in (0, 0, 1))
    np.testing.assert_array_equal(first.coef_, same.coef_)
    assert not np.array_equal(first.coef_, other.coef_)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [({"epochs": 0}, "at least 1"), ({"batch_size": 0}, "at least 1"), ({"learning_rate": 1e9}, "are not finite")],
)
def test_settings_that_cannot_be(settings, expected):
    X, y = blobs((9, 9))
    with pytest.raises(ValueError, match=expected):
        lt.FeatureClassifier("cross_entropy()", **settings).fit(1e3 * X, y)


BAD_LOSSES = {
    "gcee(q=0.7)": "did you mean 'gce'",
    "gce(q=2)": "q",
    "forward()": "reads the estimate of a stage",
    "ldam()": "takes the logits of a cosine classifier",
}


@pytest.mark.parametrize("loss", BAD_LOSSES)
def test_a_loss_that_is_none_is_a_value_error(loss):
    X, y = blobs((4, 4))
    with pytest.raises(ValueError) as error:
        lt.FeatureClassifier(loss).fit(X, y)
    assert BAD_LOSSES[loss] in str(error.value)
