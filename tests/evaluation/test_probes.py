"""Probes against scipy, a float64 loop and hand-made cases."""

import functools
import json

import numpy as np
import pytest
from scipy.optimize import minimize

from lt_noisy import rng
from lt_noisy.config.spec import bind
from lt_noisy.errors import UserError
from lt_noisy.evaluation import probes
from lt_noisy.evaluation.classification import accuracies, classification
from lt_noisy.evaluation.probes import LINEAR, evaluate_probes, few_shot, logistic, relative_gap, sgd
from lt_noisy.evaluation.representation import knn_predict

RNG = np.random.default_rng(0)


def blobs(per_class, classes=(0, 1, 2), spread=0.05, dim=5):
    """Separable classes: a corner each, and noise. Features float32 and labels, shuffled."""
    labels = RNG.permutation(np.repeat(classes, per_class))
    return (np.eye(dim)[labels] + spread * RNG.normal(size=(len(labels), dim))).astype(np.float32), labels


def one_hot(labels, num_classes):
    return np.eye(num_classes)[labels]


def softmax(logits):
    p = np.exp(logits - logits.max(-1, keepdims=True))
    return p / p.sum(-1, keepdims=True)


# --- linear probes --------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", ["logistic()", "sgd()", "sgd(lr=1.0, epochs=20, batch_size=7)"])
def test_separable_blobs_are_separated(spec):
    train, test = blobs(30), blobs(20)
    logits = bind(spec, LINEAR, "probe")(*train, test[0], 3, 0)
    assert logits.shape == (60, 3)
    assert (logits.argmax(-1) == test[1]).all()


@pytest.mark.parametrize(("classes", "c"), [((0, 1, 2), 0.3), ((0, 1, 2), 0.02), ((0, 1), 0.3)])
def test_logistic_minimises_its_objective(classes, c):
    """On overlapping classes, against scipy on the softmax objective as the docstring has it."""
    (x, y), (queries, _) = blobs(15, classes, spread=0.8, dim=3), blobs(5, classes, spread=0.8, dim=3)
    x = x * [1, 10, 0.1] + 3  # what standardising takes away
    queries = queries * [1, 10, 0.1] + 3
    mean, std = x.mean(0), x.std(0)
    z, num_classes = (x - mean) / std, len(classes)
    targets = one_hot(y, num_classes)

    def objective(flat):
        weights, biases = flat[: 3 * num_classes].reshape(3, num_classes), flat[3 * num_classes :]
        p = softmax(z @ weights + biases)
        error = c * (p - targets)
        value = 0.5 * (weights**2).sum() - c * np.log((p * targets).sum(-1)).sum()
        return value, np.concatenate([(weights + z.T @ error).ravel(), error.sum(0)])

    solved = minimize(objective, np.zeros(4 * num_classes), jac=True, method="L-BFGS-B", options={"gtol": 1e-9}).x
    assert np.abs(objective(solved)[1]).max() < 1e-4
    expected = (queries - mean) / std @ solved[: 3 * num_classes].reshape(3, num_classes) + solved[3 * num_classes :]
    got = logistic(c)(x, y, queries, num_classes, 0)
    assert got.dtype == np.float64
    assert np.abs(softmax(expected) - 1 / num_classes).max() > 0.1  # something was learnt
    np.testing.assert_allclose(softmax(got), softmax(expected), atol=5e-3)


def test_logistic_keeps_what_few_steps_reached():
    train, test = blobs(20, spread=0.8), blobs(10, spread=0.8)
    assert np.ptp(logistic(max_steps=1)(*train, test[0], 3, 0)) < np.ptp(logistic()(*train, test[0], 3, 0))


@pytest.mark.parametrize("present", [(0, 2, 3), (1, 4)])
@pytest.mark.parametrize("factory", [logistic, sgd])
def test_classes_without_examples_are_not_predicted(factory, present):
    train, test = blobs(20, present), blobs(10, present)
    logits = factory()(*train, test[0], 5, 0)
    assert logits.shape == (len(test[0]), 5) and np.isfinite(logits).all()
    assert (logits.argmax(-1) == test[1]).all()
    missing = [c for c in range(5) if c not in present]
    assert (logits[:, missing].max(-1) < logits.max(-1)).all()
    if factory is logistic:
        np.testing.assert_allclose(logits[:, missing].max(-1), logits[:, list(present)].min(-1) - 50)
    report = classification(logits, test[1], np.ones(5), [str(c) for c in range(5)])
    assert report["accuracy"] == 1.0


@pytest.mark.parametrize("batch_size", [7, 100])
def test_sgd_against_a_loop(batch_size):
    """Float64, momentum and the two drops written out; 20 examples, 10 epochs; the last 4 of 200 are left over."""
    (x, y), (queries, _) = blobs(10, (0, 1), spread=0.5, dim=3), blobs(4, (0, 1), dim=3)
    got = sgd(lr=2.0, epochs=10, batch_size=batch_size)(x, y, queries, 3, 4)
    assert got.dtype == np.float32
    batch = min(batch_size, 20)
    order = np.concatenate([rng.generator(4, "probe", epoch).permutation(20) for epoch in range(10)])
    parameters = start_of(x, 4)
    velocity = [np.zeros_like(p) for p in parameters]
    steps = 200 // batch
    for step in range(steps):
        rows = order[step * batch : (step + 1) * batch]
        lr = 2.0 if step < 0.6 * steps else 0.2 if step < 0.8 * steps else 0.02
        error = (softmax(x[rows] @ parameters[0] + parameters[1]) - one_hot(y[rows], 3)) / batch
        for i, gradient in enumerate((x[rows].T @ error, error.sum(0))):
            velocity[i] = 0.9 * velocity[i] + gradient
            parameters[i] = parameters[i] - lr * velocity[i]
    np.testing.assert_allclose(got, queries @ parameters[0] + parameters[1], atol=2e-4)


def start_of(x, seed):
    """Where training starts."""
    begun = probes.start(x.shape[1], 3, rng.stream(seed, "probe"))
    assert not any(momentum.any() for momentum in begun.momentum)
    return [np.asarray(part, np.float64) for part in begun.params]


def test_sgd_starts_small():
    weights, biases = start_of(np.zeros((2, 2000), np.float32), 0)
    assert weights.std() == pytest.approx(0.01, rel=0.05) and abs(weights.mean()) < 1e-3
    assert (biases == 0).all()


def test_sgd_is_a_function_of_the_seed():
    train, test = blobs(10), blobs(5)
    fit = sgd(lr=1.0, epochs=2, batch_size=4)
    first = fit(*train, test[0], 3, 7)
    np.testing.assert_array_equal(first, fit(*train, test[0], 3, 7))
    assert np.abs(first - fit(*train, test[0], 3, 8)).max() > 1e-3


def test_sgd_that_diverges_names_its_rate():
    x, y = blobs(10)
    with pytest.raises(UserError, match=r"not finite at lr=1e\+38: lower lr"):
        sgd(lr=1e38)(1000 * x, y, x, 3, 0)


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("logistic(c=0.0)", "probe: logistic: c must be a finite number above 0, not 0.0"),
        ("logistic(max_steps=0)", "max_steps must be at least 1, not 0"),
        ("sgd(lr=0)", "lr must be a finite number above 0, not 0.0"),
        ("sgd(epochs=0)", "epochs must be at least 1, not 0"),
        ("sgd(batch_size=0)", "batch_size must be at least 1, not 0"),
    ],
)
def test_bad_settings(spec, says):
    with pytest.raises(UserError, match=says):
        bind(spec, LINEAR, "probe")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"train_y": np.zeros(4, int) + 2}, "at least 2 classes, not of class 2 alone"),
        ({"train_y": np.array([0, 1])}, r"not \[4, 2\], \[2\] and \[3, 2\]"),
        ({"test_x": np.zeros((3, 5))}, r"not \[4, 2\], \[4\] and \[3, 5\]"),
        ({"test_x": np.zeros((0, 2))}, r"and \[0, 2\]"),
        ({"train_y": np.array([0, 1, 2, 3])}, r"labels must be in \[0, 3\), but they span 0 to 3"),
        ({"train_x": np.full((4, 2), np.nan)}, "4 of 4 rows of training features are not finite"),
        ({"test_x": np.array([[0, 0], [np.inf, 0], [0, 0]])}, "1 of 3 rows of test features .* row 1"),
    ],
)
@pytest.mark.parametrize("factory", [logistic, sgd])
def test_bad_input_to_a_fit(factory, change, says):
    arguments = {"train_x": np.ones((4, 2)), "train_y": np.array([0, 1, 2, 0]), "test_x": np.zeros((3, 2))}
    with pytest.raises(UserError, match=says):
        factory()(**(arguments | change), num_classes=3, seed=0)


# --- few-shot -------------------------------------------------------------------------------------


def test_few_shot_counts():
    """Class 1 gives all of its two, class 3 has none."""
    labels = RNG.permutation(np.repeat([0, 1, 2], [40, 2, 9]))
    rows = few_shot(labels, 4, shots=5, seed=0, draw=0)
    assert rows.dtype == np.int64 and (np.diff(rows) > 0).all()
    assert np.bincount(labels[rows], minlength=4).tolist() == [5, 2, 5, 0]
    assert set(few_shot(labels, 4, shots=2, seed=0, draw=0)) < set(rows)


def test_few_shot_is_a_function_of_seed_and_draw():
    labels = np.arange(300) % 3
    rows = few_shot(labels, 3, 10, seed=4, draw=1)
    np.testing.assert_array_equal(rows, few_shot(labels, 3, 10, seed=4, draw=1))
    assert set(rows) != set(few_shot(labels, 3, 10, seed=5, draw=1))
    assert set(rows) != set(few_shot(labels, 3, 10, seed=4, draw=2))


@pytest.mark.parametrize(
    ("labels", "shots", "says"),
    [([0, 1], 0, "shots must be at least 1, not 0"), ([], 1, "there are none"), ([0, 3], 1, "span 0 to 3")],
)
def test_bad_input_to_few_shot(labels, shots, says):
    with pytest.raises(UserError, match=says):
        few_shot(np.array(labels, int), 3, shots, seed=0, draw=0)


# --- all of them ----------------------------------------------------------------------------------


KNN = functools.partial(knn_predict, k=3, temperature=0.1)


def noisy_problem():
    train, test = blobs([20, 20, 2], spread=0.6), blobs(20, spread=0.6)
    return {
        "linear": logistic(),
        "knn": KNN,
        "train_x": train[0],
        "train_y": train[1],
        "test_x": test[0],
        "test_y": test[1],
        "train_counts": np.array([200, 50, 3]),
        "class_names": ["a", "b", "c"],
        "seed": 5,
    }


def test_evaluate_probes_is_its_parts():
    problem = noisy_problem()
    x, y, queries, labels = (problem[key] for key in ("train_x", "train_y", "test_x", "test_y"))
    report = evaluate_probes(**problem, shots=(0, 3), repeats=4)
    json.dumps(report, allow_nan=False)
    assert list(report) == ["all", "3"]

    about_classes = problem["train_counts"], problem["class_names"]
    assert report["all"] == {
        "train_size": 42,
        "linear": classification(logistic()(x, y, queries, 3, 5), labels, *about_classes),
        "knn": accuracies(KNN(x, y, queries, 3), labels, *about_classes),
    }
    assert report["all"]["linear"]["groups"]["few"]["num_classes"] == 1

    assert report["3"]["train_size"] == 3 + 3 + 2
    runs = {"linear": [], "knn": []}
    for draw in range(4):
        rows = few_shot(y, 3, 3, seed=5, draw=draw)
        guesses = {
            "linear": logistic()(x[rows], y[rows], queries, 3, 5).argmax(-1),
            "knn": KNN(x[rows], y[rows], queries, 3),
        }
        for name, guess in guesses.items():
            runs[name].append(np.mean([(guess[labels == c] == c).mean() for c in range(3)]))
    for name, values in runs.items():
        assert len(set(values)) > 1
        assert report["3"][name]["runs"] == pytest.approx(values)
        assert report["3"][name]["mean"] == pytest.approx(sum(values) / 4)
        assert report["3"][name]["std"] ** 2 == pytest.approx(sum((v - np.mean(values)) ** 2 for v in values) / 3)


def test_one_draw_has_no_standard_deviation():
    report = evaluate_probes(**noisy_problem(), shots=(1,), repeats=1)
    assert list(report) == ["1"]
    assert report["1"]["knn"]["std"] is None
    assert report["1"]["knn"]["runs"] == [report["1"]["knn"]["mean"]]


@pytest.mark.parametrize(
    ("shots", "repeats", "says"),
    [
        ((), 1, r"not \(\)"),
        ((1, 1), 1, r"distinct whole numbers, 0 for all rows, not \(1, 1\)"),
        ((0, -1), 1, r"not \(0, -1\)"),
        ((0.5,), 1, r"not \(0.5,\)"),
        ((0,), 0, "repeats must be at least 1, not 0"),
    ],
)
def test_bad_input_to_evaluate_probes(shots, repeats, says):
    with pytest.raises(UserError, match=says):
        evaluate_probes(**noisy_problem(), shots=shots, repeats=repeats)


def test_relative_gap_by_hand():
    assert relative_gap(0.8, 0.6) == pytest.approx(0.25)
    assert relative_gap(0.5, 0.6) == pytest.approx(-0.2)
    with pytest.raises(UserError, match=r"needs a balanced accuracy above 0, not 0\.0"):
        relative_gap(0.0, 0.5)
