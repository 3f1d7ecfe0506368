"""Re-balanced classifiers: identities, cases by hand, scikit-learn, another optimiser; and the stage once."""

import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.optimize import minimize
from sklearn.neighbors import NearestCentroid

from lt_noisy.config.resolve import default, section
from lt_noisy.config.spec import bind
from lt_noisy.data.dataset import DATA
from lt_noisy.errors import UserError
from lt_noisy.evaluation.selection import balanced_accuracy
from lt_noisy.rebalance.base import Head, Known, Rebalanced, Rebalancing
from lt_noisy.rebalance.posthoc import CLASSIFIERS, TAUS, tune
from lt_noisy.runs.run import run
from lt_noisy.stages import classifier

RNG = np.random.default_rng(0)
OBSERVED = np.repeat([0, 1, 2, 3], [40, 20, 10, 5])


def known(observed=OBSERVED, num_classes=4, dim=6, unit_features=False, clean_counts=None):
    """A random head over features that overlap."""
    features = RNG.normal(size=(len(observed), dim)) + 2 * np.eye(dim)[observed]
    head = Head(RNG.normal(size=(dim, num_classes)), RNG.normal(size=num_classes), unit_features)
    return Known(head, features.astype(np.float32), observed, clean_counts)


def fit(spec, what):
    rebalanced = bind(spec, CLASSIFIERS, "method").fit(what)
    json.dumps(rebalanced.details, allow_nan=False)
    return rebalanced


# --- tau-normalised -------------------------------------------------------------------------------


@pytest.mark.parametrize("unit_features", [False, True])
@pytest.mark.parametrize("spec", ["tau_normalised(tau=0.0)", "posthoc(tau=0.0)"])
def test_tau_zero_is_the_classifier_itself(spec, unit_features):
    what = known(unit_features=unit_features)
    got = fit(spec, what).logits(what.features)
    assert np.abs(what.head.bias).min() > 0
    np.testing.assert_array_equal(got, what.head.logits(what.features))


def test_tau_one_makes_all_norms_one_and_has_no_bias():
    what = known()
    logits = fit("tau_normalised()", what).logits
    kernel = logits(np.eye(6))  # features that read the weights off
    np.testing.assert_allclose(np.linalg.norm(kernel, axis=0), 1)
    np.testing.assert_allclose((kernel * what.head.kernel).sum(0), np.linalg.norm(what.head.kernel, axis=0))
    np.testing.assert_array_equal(logits(np.zeros((1, 6))), np.zeros((1, 4)))


def test_tau_half_by_hand_and_a_class_of_zero_weights():
    head = Head(np.array([[3.0, 0.0, 0.0], [4.0, 9.0, 0.0]]), np.array([7.0, 7.0, 7.0]))
    rebalanced = fit("tau_normalised(tau=0.5)", Known(head, np.zeros((3, 2)), np.arange(3)))
    np.testing.assert_allclose(rebalanced.logits(np.array([[1.0, 1.0]])), [[7 / math.sqrt(5), 3, 0]])
    assert rebalanced.details["scales"] == pytest.approx([5**-0.5, 1 / 3, 1])


# --- nearest class mean ---------------------------------------------------------------------------


def test_ncm_by_hand():
    """Centre (1, 1); directions (+-1, 0) and (0, +-1); class 0 is east and north, 1 west, 2 south, 3 without."""
    features = np.array([[5.0, 1], [1, 3], [-3, 1], [1, -1]])
    head = Head(np.zeros((2, 4)), np.zeros(4))
    rebalanced = fit("ncm()", Known(head, features, np.array([0, 0, 1, 2])))
    queries = np.array([[2.0, 2], [1.0, -9], [0, 1], [1, 1]])
    root = math.sqrt(0.5)
    expected = [[1, -root, -root], [-root, 0, 1], [-root, 1, 0], [0, 0, 0]]
    got = rebalanced.logits(queries)
    np.testing.assert_allclose(got[:, :3], expected, atol=1e-15)
    assert np.isfinite(got).all() and (got[:, 3] < -1).all()
    assert rebalanced.details == {"classes_with_examples": 3}


def test_ncm_against_scikit_learn():
    what, other = known(), known()
    x, q = what.features.astype(np.float64), other.features.astype(np.float64)
    z, zq = ((v - x.mean(0)) / np.linalg.norm(v - x.mean(0), axis=1, keepdims=True) for v in (x, q))
    reference = NearestCentroid().fit(z, what.observed)
    # Between unit vectors the nearest is the one of the largest cosine.
    reference.centroids_ /= np.linalg.norm(reference.centroids_, axis=1, keepdims=True)
    got = fit("ncm()", what).logits(other.features).argmax(-1)
    np.testing.assert_array_equal(got, reference.predict(zq))
    assert len(np.unique(got)) == 4


# --- learnable weight scaling ---------------------------------------------------------------------


def balanced_loss(scales, what, weight_decay):
    """As the docstring has it, class by class, without log-softmax or gradient."""
    total, present = 0.0, np.unique(what.observed)
    for c in present:
        x = what.features[what.observed == c].astype(np.float64)
        exponents = np.exp(scales * (x @ what.head.kernel + what.head.bias))
        total += np.mean(np.log(exponents.sum(1)) - np.log(exponents[:, c])) / len(present)
    return total + weight_decay / 2 * np.sum(np.square(scales))


@pytest.mark.parametrize("observed", [OBSERVED, np.repeat([0, 1, 3], [40, 10, 5])], ids=["all", "class 2 without"])
def test_lws_against_another_optimiser(observed):
    what = known(observed)
    rebalanced = fit("lws(weight_decay=0.01)", what)
    options = {"xatol": 1e-9, "fatol": 1e-14, "maxiter": 20000, "maxfev": 20000}
    solved = minimize(balanced_loss, np.ones(4), args=(what, 0.01), method="Nelder-Mead", options=options)
    scales = np.array(rebalanced.details["scales"])
    np.testing.assert_allclose(scales, solved.x, atol=1e-5)
    assert np.ptp(scales) > 0.1
    assert rebalanced.details["largest_gradient"] < 1e-6
    np.testing.assert_allclose(rebalanced.logits(what.features), scales * what.head.logits(what.features))


def test_lws_of_separable_classes_is_finite_and_at_its_optimum():
    """The classifier is right everywhere, so that only weight decay holds the scale; classes are alike, so is it."""
    what = Known(
        Head(np.eye(3), np.zeros(3)), np.repeat(np.eye(3), [50, 5, 1], axis=0), np.repeat(range(3), [50, 5, 1])
    )
    rebalanced = fit("lws()", what)
    scales = np.array(rebalanced.details["scales"])
    np.testing.assert_allclose(scales, scales[0], rtol=1e-4)
    s = scales[0]  # d/ds of log(1 + 2 exp(-s)) + 3/2 weight_decay s^2
    assert s > 2 and abs(-2 / (math.exp(s) + 2) + 3 * 5e-4 * s) < 1e-6


# --- post-hoc logit adjustment --------------------------------------------------------------------


@pytest.mark.parametrize("tau", [0.5, 1.0, 3.0])
def test_posthoc_with_a_uniform_prior_is_the_identity(tau):
    what = known(np.arange(40) % 4)
    got = fit(f"posthoc(tau={tau})", what).logits(what.features)
    np.testing.assert_array_equal(got, what.head.logits(what.features))


def test_posthoc_by_hand():
    """log pi up to a constant; class 2, without examples, counts as having one."""
    head = Head(np.eye(3), np.zeros(3))
    what = Known(head, np.eye(3), np.repeat([0, 1], [8, 2]), clean_counts=np.array([5.0, 4.0, 1.0]))
    queries = np.array([[1.0, 0.0, -2.0]])
    got = fit("posthoc(tau=2.0)", what).logits(queries)
    np.testing.assert_allclose(got, [[1, 2 * math.log(4), -2 + 2 * math.log(8)]])
    corrected = fit("posthoc(tau=2.0, prior=corrected)", what).logits(queries)
    np.testing.assert_allclose(corrected, [[1, 2 * math.log(1.25), -2 + 2 * math.log(5)]])


def test_a_corrected_prior_takes_an_estimate():
    with pytest.raises(UserError, match="prior=corrected takes an estimate"):
        fit("posthoc(prior=corrected)", known())


def test_tau_keeps_the_prior_that_was_chosen():
    what = known(clean_counts=np.array([1.0, 2.0, 3.0, 4.0]))
    moved = bind("posthoc(prior=corrected)", CLASSIFIERS, "method").with_tau(0.5)
    assert moved.reads_clean_counts
    expected = fit("posthoc(tau=0.5, prior=corrected)", what).logits(what.features)
    np.testing.assert_array_equal(moved.fit(what).logits(what.features), expected)


# --- tuning ---------------------------------------------------------------------------------------


def shifted(tau):
    """Two classes by one number x: class 1 where x + tau > 1."""
    return Rebalancing(
        lambda _: Rebalanced(lambda x: np.concatenate([0 * x, x + tau - 1.0001], axis=1), {}), with_tau=shifted
    )


def test_tune_takes_the_best_and_ties_go_to_the_smallest():
    """Class 1 lies above 0.45. Two of class 0 at 0.55 are lost from tau = 0.5 on, which accuracy would not accept."""
    x = np.array([0.0] * 6 + [0.55] * 2 + [0.46, 0.7])[:, None]
    observed = np.array([0] * 8 + [1] * 2)
    accuracies = [np.mean([np.mean((x[observed == c, 0] + tau > 1.0001) == c) for c in (0, 1)]) for tau in TAUS]
    tau, accuracy = tune(shifted, known(), x, observed, balanced_accuracy)
    assert (tau, accuracy) == (0.6, pytest.approx(0.875)) and accuracy == pytest.approx(max(accuracies))
    assert accuracies.count(max(accuracies)) > 1
    assert max(TAUS, key=lambda t: np.mean((x[:, 0] + t > 1.0001) == observed)) == 0.4


def test_balanced_accuracy_in_tune_is_over_the_classes_present():
    """All validation labels are 1: the recall of class 0 does not exist, and is not taken as 0."""
    x, observed = np.array([[0.9], [0.75]]), np.array([1, 1])
    assert tune(shifted, known(), x, observed, balanced_accuracy) == (0.3, 1.0)


# --- bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("tau_normalised(tau=-1)", "tau must be a finite number, at least 0, not -1.0"),
        ("posthoc(tau=1e999)", "tau must be a finite number, at least 0, not inf"),
        (
            "posthoc(prior=correct)",
            r"posthoc\(prior=...\) is observed or corrected, not correct, did you mean 'corrected'",
        ),
        ("lws(weight_decay=0)", "weight_decay must be a finite number above 0, not 0.0"),
        ("tau_normalized()", "unknown name 'tau_normalized', did you mean 'tau_normalised'"),
    ],
)
def test_bad_settings(spec, says):
    with pytest.raises(UserError, match=says):
        bind(spec, CLASSIFIERS, "method")


@pytest.mark.parametrize("unit_features", [False, True])
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_features_that_are_not_finite(name, unit_features):
    what = known(unit_features=unit_features)
    broken = what.features.copy()
    broken[[3, 5], 0] = np.nan
    with pytest.raises(UserError, match=r"2 of 75 rows of features are not finite \(the first: row 3\)"):
        fit(f"{name}()", what).logits(broken)


@pytest.mark.parametrize(
    ("method", "transition", "data", "says"),
    [
        ("ncm()", False, "full", r"that stage is trained on full\(\), not on the run's manifest\(\)"),
        ("posthoc(prior=corrected)", False, "manifest", "needs a `transition` stage"),
        ("posthoc()", True, "manifest", "only posthoc.* reads it; set it to 'none"),
    ],
)
def test_what_does_not_fit_together(method, transition, data, says):
    base = SimpleNamespace(section=SimpleNamespace(data=DATA[data]()), texts={"data": f"{data}()"})
    inputs = {"init": base} | ({"transition": None} if transition else {})
    job = SimpleNamespace(name="balanced", inputs=inputs)
    with pytest.raises(UserError, match=rf"config\.balanced\.\w+: .*{says}"):
        classifier.check(job, SimpleNamespace(method=bind(method, CLASSIFIERS, "method")))


# --- the stage ------------------------------------------------------------------------------------

METHODS = {
    "ncm": ("linear", "ncm()"),
    "lws": ("linear", "lws(weight_decay=0.01)"),
    "posthoc": ("linear", "posthoc(prior=corrected)"),
    "tau": ("cosine", "tau_normalised()"),
}


@pytest.fixture(scope="module")
def summaries(tmp_path_factory):
    """Two heads on one encoder after a few steps, and every method on one of them."""
    c = default()
    c.dataset, c.longtail, c.noise = "digits(test_per_class=30)", "exponential(ratio=10)", "symmetric(rate=0.2)"
    c.validation, c.model, c.devices = 0.2, "resnet8(width=4)", 1
    c.stages = ("linear", "cosine", "transition", *METHODS)
    rare = dict.fromkeys(("log_every", "eval_every", "save_every"), "percent(100)")
    training = {"length": "steps(60)", "batch_size": 32, "augment": "digits()", **rare}
    c.linear = section("supervised", **training)
    head = {"head": "cosine(scale=10)", "freeze_encoder": True}
    c.cosine = section("supervised", init="linear", **head, **training)
    c.transition = section("transition", init="linear", estimator="oracle()")
    for name, (init, method) in METHODS.items():
        c[name] = section("classifier", init=init, method=method)
    c.posthoc.transition = "transition"
    workdir = tmp_path_factory.mktemp("run")
    run(c, str(workdir))
    return {name: json.loads((workdir / name / "summary.json").read_text()) for name in c.stages}


@pytest.mark.parametrize("name", METHODS)
def test_the_stage_starts_from_the_finished_classifier(summaries, name):
    """Encoder and head, read apart and put together in float64, are the network; every method but one moves it."""
    summary, base = summaries[name], summaries[METHODS[name][0]]
    assert base["test"]["balanced_accuracy"] > 0.3
    for figure in ("balanced_accuracy", "last_three_classes"):
        assert summary["base_test"][figure] == base["test"][figure]
    assert summary["train"]["wrong_labels"] == base["train"]["wrong_labels"]
    moved = summary["test"]["confusions"] != base["test"]["confusions"]
    assert moved == (name != "tau")  # a cosine classifier has equal norms already


def test_what_the_methods_did(summaries):
    details = {name: summaries[name]["classifier"] for name in METHODS}
    np.testing.assert_allclose(details["tau"]["scales"], 0.1)
    assert details["ncm"] == {"classes_with_examples": 10}
    assert details["lws"]["largest_gradient"] < 1e-6 and np.ptp(details["lws"]["scales"]) > 0.01
    clean = np.exp(-np.array(details["posthoc"]["offsets"]))  # of the largest class: the oracle's counts
    assert clean.argmax() == 0 and clean[-1] == pytest.approx(0.1, abs=0.03)
    linear, posthoc = (
        sum(number for _, predicted, number in summaries[name]["test"]["confusions"] if predicted >= 7)
        for name in ("linear", "posthoc")
    )
    assert posthoc > linear  # predictions of the rarest classes


def test_tuned_stands_beside_the_headline(summaries):
    assert [name for name in METHODS if "tuned" in summaries[name]] == ["posthoc", "tau"]
    tuned = summaries["posthoc"]["tuned"]
    assert tuned["tau"] in TAUS and 0 < tuned["validation_balanced_accuracy"] < 1
    same = tuned["test"] == summaries["posthoc"]["test"]
    assert same == (tuned["tau"] == 1.0)
    assert summaries["posthoc"]["classifier"]["tau"] == 1.0
