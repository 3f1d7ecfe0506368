"""Estimates of the transition matrix: where the answer is known, by hand, and as a stage."""

import json
import pathlib
from types import SimpleNamespace

import numpy as np
import pytest
from helpers.tables import shown
from scipy.optimize import minimize

from lt_noisy import files
from lt_noisy.config.spec import bind
from lt_noisy.data.dataset import DATA, Dataset
from lt_noisy.data.noise import transition_matrix
from lt_noisy.errors import UserError
from lt_noisy.estimate.transition import TRANSITIONS, TransitionEstimate, clean_prior, confident_joint, describe
from lt_noisy.stages import transition as stage
from lt_noisy.stages.base import Input, read_arrays

RNG = np.random.default_rng(0)
T = np.array([[0.8, 0.2, 0.0], [0.1, 0.6, 0.3], [0.2, 0.0, 0.8]])


def estimator(text):
    return bind(text, TRANSITIONS, "config.noise.estimator")


def noisy(clean_counts, matrix=T):
    """Clean and observed labels whose joint counts are exactly clean_counts * matrix."""
    joint = np.rint(np.array(clean_counts)[:, None] * matrix).astype(int)
    pairs = [(i, j) for i in range(len(joint)) for j in range(len(joint)) for _ in range(joint[i, j])]
    clean, observed = RNG.permutation(pairs).T
    return clean, observed


def perfect(clean, matrix=T, sure=0.5):
    """P(observed | x) where this share of the examples is surely of its class and the rest is torn between all."""
    classes = len(matrix)
    posterior = np.eye(classes)[clean]
    torn = RNG.random(len(clean)) > sure
    posterior[torn] = 0.5 * posterior[torn] + 0.5 * RNG.dirichlet(np.ones(classes), torn.sum())
    return posterior @ matrix


# --- anchor ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("text", ["anchor()", "anchor(percentile=100.0)", "anchor(95)"])
def test_anchor_recovers_the_matrix_and_the_clean_counts_from_perfect_posteriors(text, dtype):
    clean, observed = noisy((500, 300, 200))
    found = estimator(text).estimate(perfect(clean).astype(dtype), observed, clean)
    np.testing.assert_allclose(found.matrix, T, atol=1e-6)
    np.testing.assert_allclose(found.clean_counts, [500, 300, 200], atol=1e-2)


def test_anchor_takes_the_example_at_the_percentile():
    """Of p(0 | x) = 0, 0.1, ..., 1 in shuffled order the 70th percentile is 0.7, the 79th too; of p(1 | x) likewise."""
    p = RNG.permutation(np.linspace(0, 1, 11))
    p = np.stack([p, 1 - p], axis=1)
    observed = np.arange(11) % 2
    for percentile, share in ((70, 0.7), (79, 0.7), (80, 0.8), (100, 1), (0, 0)):
        found = estimator(f"anchor({percentile})").estimate(p, observed, observed)
        np.testing.assert_allclose(found.matrix, [[share, 1 - share], [1 - share, share]], atol=1e-12)


def test_a_class_of_less_than_3_percent_has_no_anchor_at_the_97th_percentile():
    clean, observed = noisy((600, 380, 20))
    p = perfect(clean, sure=1.0)
    np.testing.assert_allclose(estimator("anchor()").estimate(p, observed, clean).matrix[2], T[1])
    np.testing.assert_allclose(estimator("anchor(100)").estimate(p, observed, clean).matrix, T)


# --- clean_prior ----------------------------------------------------------------------------------


def test_clean_prior_by_hand():
    np.testing.assert_allclose(clean_prior(np.eye(3), np.array([0.5, 0.2, 0.3])), [0.5, 0.2, 0.3], atol=1e-12)
    matrix = np.array([[0.8, 0.2], [0.2, 0.8]])
    # 0.8 a + 0.2 (1 - a) = 0.95 asks for a = 1.25: the nearest share is 1.
    np.testing.assert_allclose(clean_prior(matrix, np.array([0.95, 0.05])), [1, 0], atol=1e-12)


@pytest.mark.parametrize("seed", range(6))
def test_clean_prior_is_the_least_squares_one_of_the_simplex(seed):
    """Against a general solver, on shares that most of these matrices cannot give."""
    rng = np.random.default_rng(seed)
    matrix, shares = rng.dirichlet(np.full(5, 0.7), 5), rng.dirichlet(np.full(5, 0.3))

    def objective(pi):
        return ((matrix.T @ pi - shares) ** 2).sum()

    solved = minimize(
        objective,
        np.full(5, 0.2),
        method="SLSQP",
        bounds=[(0, 1)] * 5,
        constraints={"type": "eq", "fun": lambda pi: pi.sum() - 1},
        options={"ftol": 1e-14, "maxiter": 500},
    )
    found = clean_prior(matrix, shares)
    assert (found >= 0).all() and found.sum() == pytest.approx(1, abs=1e-12)
    assert solved.success and objective(found) <= objective(solved.x) + 1e-9
    np.testing.assert_allclose(found, solved.x, atol=1e-4)


def test_clean_prior_of_a_singular_matrix_explains_the_shares():
    matrix = np.array([[0.5, 0.5, 0], [0.5, 0.5, 0], [0, 0, 1]])
    found = clean_prior(matrix, np.array([0.3, 0.3, 0.4]))
    np.testing.assert_allclose(found @ matrix, [0.3, 0.3, 0.4], atol=1e-12)


# --- confident ------------------------------------------------------------------------------------

# Four classes, the last without a label. Thresholds: 3 / 5, 2.4 / 4, 1.5 / 3, none.
OBSERVED = np.repeat([0, 1, 2], [5, 4, 3])
PROBABILITIES = np.array(
    [
        [0.9, 0.1, 0.0, 0.0],  # 0
        [0.8, 0.1, 0.1, 0.0],  # 0
        [0.7, 0.2, 0.1, 0.0],  # 0
        [0.1, 0.8, 0.1, 0.0],  # 1
        [0.5, 0.3, 0.2, 0.0],  # of none
        [0.1, 0.9, 0.0, 0.0],  # 1
        [0.2, 0.7, 0.1, 0.0],  # 1
        [0.6, 0.4, 0.0, 0.0],  # 0: at the threshold
        [0.3, 0.4, 0.0, 0.3],  # of none
        [0.0, 0.1, 0.9, 0.0],  # 2
        [0.3, 0.3, 0.4, 0.0],  # of none
        [0.1, 0.0, 0.2, 0.7],  # of none: no label says 3
    ]
)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_confident_joint_by_hand(dtype):
    joint = confident_joint(PROBABILITIES.astype(dtype), OBSERVED)
    assert joint.tolist() == [[3, 1, 0, 0], [1, 2, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]
    found = estimator("confident()").estimate(PROBABILITIES.astype(dtype), OBSERVED, OBSERVED)
    # Rows scaled to 5, 4 and 3 labels: 15/4 5/4; 4/3 8/3; 3.
    np.testing.assert_allclose(found.clean_counts, [61 / 12, 47 / 12, 3, 0])
    expected = [[45 / 61, 16 / 61, 0, 0], [15 / 47, 32 / 47, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
    np.testing.assert_allclose(found.matrix, expected)


def test_the_confident_class_is_the_likeliest_of_those_that_reach_their_threshold():
    """Thresholds .95, .25, .165: the second example is of class 1, though .5 is its largest probability."""
    p = [[0.95, 0.03, 0.02], [0.5, 0.3, 0.2], [0.7, 0.2, 0.1], [0.6, 0.22, 0.18], [0.8, 0.05, 0.15]]
    joint = confident_joint(np.array(p), np.array([0, 1, 1, 2, 2]))
    assert joint.tolist() == np.eye(3, dtype=int).tolist()


def test_a_label_without_a_confident_example_counts_as_right():
    p = np.array([[0.9, 0, 0.1], [0.5, 0, 0.5], [0.5, 0, 0.5], [0.1, 0, 0.9]])
    observed = np.array([0, 1, 1, 2])
    assert confident_joint(p, observed).tolist() == [[1, 0, 0], [0, 0, 0], [0, 0, 1]]
    found = estimator("confident()").estimate(p, observed, observed)
    assert found.clean_counts.tolist() == [1, 2, 1] and found.matrix.tolist() == np.eye(3).tolist()


def test_confident_with_the_true_class_known_is_the_oracle():
    clean, observed = noisy((500, 300, 200))
    found = estimator("confident()").estimate(np.eye(3)[clean], observed, observed)
    truth = estimator("oracle()").estimate(np.eye(3)[clean], observed, clean)
    np.testing.assert_allclose(found.matrix, truth.matrix, atol=1e-12)
    np.testing.assert_allclose(found.clean_counts, truth.clean_counts)


def test_confident_joint_is_that_of_cleanlab():
    count = pytest.importorskip("cleanlab.count")
    clean, observed = noisy((500, 300, 200))
    p = np.exp(3 * RNG.normal(size=(1000, 3)) + 4 * np.eye(3)[clean])
    p /= p.sum(axis=1, keepdims=True)
    thresholds = count.get_confident_thresholds(observed, p)
    several = (p >= thresholds).sum(axis=1) > 1
    assert several.any() and (p.max(axis=1) >= thresholds[p.argmax(axis=1)])[several].all()  # where both agree
    joint = confident_joint(p, observed)
    assert joint.diagonal().min() > 0
    np.testing.assert_array_equal(joint, count.compute_confident_joint(observed, p, calibrate=False))
    found = estimator("confident()").estimate(p, observed, clean)
    calibrated = count.compute_confident_joint(observed, p, calibrate=True)  # in whole examples
    assert abs(found.matrix * found.clean_counts[:, None] - calibrated.T).max() < 1


# --- all ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["anchor()", "anchor(100)", "confident()", "oracle()"])
@pytest.mark.parametrize("concentration", [0.05, 1.0])
def test_every_estimate_is_stochastic_and_counts_every_example(text, concentration):
    """Class 4 is in no label, class 5 in no example; probabilities are of float32."""
    clean = RNG.integers(0, 5, 300)
    observed = RNG.integers(0, 4, 300)
    p = RNG.dirichlet(np.full(6, concentration), 300).astype(np.float32)
    found = estimator(text).estimate(p, observed, clean)
    assert found.matrix.dtype == found.clean_counts.dtype == np.float64
    assert (found.matrix >= 0).all() and (found.clean_counts >= 0).all()
    np.testing.assert_allclose(found.matrix.sum(axis=1), 1, rtol=1e-12)
    assert found.clean_counts.sum() == pytest.approx(300, rel=1e-12)
    assert found.matrix[5].tolist() == np.eye(6)[5].tolist() and found.clean_counts[5] < 1e-9


def test_only_the_oracle_reads_the_clean_labels():
    clean, observed = noisy((50, 30, 20))
    p = perfect(clean)
    for text in ("anchor()", "confident()", "oracle()"):
        made = estimator(text)
        true, other = (made.estimate(p, observed, labels).matrix for labels in (clean, 2 - clean))
        assert made.oracle == (text == "oracle()") == (true != other).any()
    found = estimator("oracle()").estimate(p, observed, clean)
    np.testing.assert_allclose(found.matrix, transition_matrix(clean, observed, 3))
    assert found.clean_counts.tolist() == [50, 30, 20]


def test_describe_by_hand():
    """True counts 4, 2, 0; realised rows (.75, .25, 0) and (0, 1, 0); class 2 has no example and no say."""
    clean, observed = np.array([0, 0, 0, 0, 1, 1]), np.array([0, 0, 0, 1, 1, 1])
    estimate = TransitionEstimate(np.array([[0.5, 0.5, 0], [0.2, 0.8, 0], [1, 0, 0]]), np.array([3.0, 2.0, 1.0]))
    found = describe(estimate, observed, clean)
    json.dumps(found, allow_nan=False)
    assert found.pop("clean_counts") == [3, 2, 1]
    assert found == {
        "estimated_rate": pytest.approx(1 - (1.5 + 1.6 + 0) / 6),
        "realised_rate": pytest.approx(1 / 6),
        "mean_absolute_error": pytest.approx((0.25 + 0.25 + 0.2 + 0.2) / 6),
        "total_variation": pytest.approx((0.25 + 0.2) / 2),
        "clean_prior_total_variation": pytest.approx(1 / 6),
        "observed_prior_total_variation": pytest.approx(1 / 6),
    }


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("anchor(101)", r"percentile=101.0 must lie in 0\.\.100"),
        ("anchor(-1)", r"percentile=-1.0 must lie in 0\.\.100"),
        ("anchor(1e999)", "percentile=inf"),
        ("confidence()", "did you mean 'confident'"),
    ],
)
def test_bad_arguments_in_a_config(text, says):
    with pytest.raises(UserError, match=says):
        estimator(text)


@pytest.mark.parametrize("text", ["anchor()", "confident()", "oracle()"])
@pytest.mark.parametrize(
    ("p", "observed", "says"),
    [
        (np.full((2, 2), 0.5), [0, 1, 1], r"not \[2, 2\], \[3\] and \[3\]"),
        (np.full(2, 0.5), [0, 1], r"probabilities are \[N, C\]"),
        (np.zeros((0, 2)), [], "N at least 1"),
        (np.array([[0.5, 0.5], [0.5, 0.6]]), [0, 1], "row 1 of the probabilities is not a distribution"),
        (np.array([[1.5, -0.5], [0.5, 0.5]]), [0, 1], "row 0 of the probabilities"),
        (np.array([[0.5, 0.5], [np.nan, 0.5]]), [0, 1], "row 1 of the probabilities"),
        (np.full((2, 2), 0.5), [0, 2], r"observed labels must be in \[0, 2\), but they span 0 to 2"),
        (np.full((2, 2), 0.5), [-1, 1], "observed labels .* span -1 to 1"),
    ],
)
def test_bad_input(text, p, observed, says):
    observed = np.array(observed, int)
    with pytest.raises(UserError, match=says) as caught:
        estimator(text).estimate(p, observed, np.zeros_like(observed))
    assert "\n" not in str(caught.value)


# --- the stage ------------------------------------------------------------------------------------


def a_job(directory, clean, observed, data="manifest"):
    """As much of a `Job` as the stage reads; `base` is the stage before it."""
    images = np.zeros((len(clean), 1, 1, 1), np.uint8)
    ids = np.arange(len(clean), dtype=np.int64) * 3
    names = ("a", "b", "c")
    dataset = Dataset(images, observed, clean, ids, images, clean, names, SimpleNamespace())
    base = Input(directory / "base", SimpleNamespace(data=DATA[data]()), {"data": f"{data}()"}, {})
    for name in ("base", "noise"):
        (directory / name).mkdir(exist_ok=True)
    return SimpleNamespace(name="noise", directory=directory / "noise", seed=7, dataset=dataset, inputs={"init": base})


def write_predictions(job, p):
    files.write_arrays(
        job.inputs["init"].directory / "label_quality.npz", ids=job.dataset.ids, probabilities=p, loss=np.zeros(len(p))
    )


@pytest.mark.parametrize("text", ["anchor(95)", "confident()", "oracle()"])
def test_the_stage_writes_what_the_estimator_says_and_how_good_it_is(tmp_path, text):
    clean, observed = noisy((500, 300, 200))
    job, p = a_job(tmp_path, clean, observed), perfect(clean).astype(np.float32)
    section = SimpleNamespace(init="base", estimator=estimator(text))
    assert stage.check(job, section) == {}
    assert stage.labels(section) == (("observed", "clean") if "oracle" in text else ("observed",))
    write_predictions(job, p)
    summary = json.loads(json.dumps(stage.run(job, section), allow_nan=False))
    matrix, clean_counts = stage.read(job.directory)
    expected = section.estimator.estimate(p, observed, clean)
    np.testing.assert_array_equal(matrix, expected.matrix)
    np.testing.assert_array_equal(clean_counts, expected.clean_counts)
    np.testing.assert_array_equal(read_arrays(job, job.directory, "transition", "clean_counts"), clean_counts)
    assert summary["transition"]["oracle"] == ("oracle" in text)
    assert summary["transition"]["realised_rate"] == pytest.approx(0.26)
    assert (summary["transition"]["total_variation"] < 1e-6) == ("confident" not in text)
    table = shown("transition", **summary)
    assert ("an oracle" in table) == ("oracle" in text)
    assert "in truth                               26.00 %" in table


def test_unusable_predictions_are_one_line(tmp_path):
    clean, observed = noisy((50, 30, 20))
    section = SimpleNamespace(init="base", estimator=estimator("confident()"))
    job, p = a_job(tmp_path, clean, observed), perfect(clean)
    path = pathlib.Path(job.inputs["init"].directory / "label_quality.npz")

    def refused(says):
        with pytest.raises(UserError, match=says) as caught:
            stage.run(job, section)
        assert "\n" not in str(caught.value) and not list(job.directory.iterdir())

    refused(r"label_quality\.npz cannot be read .* remove .*base to make it again")
    files.write_arrays(path, ids=job.dataset.ids, loss=np.zeros(100))
    refused("cannot be read .*probabilities")
    files.write_arrays(path, ids=job.dataset.ids[::-1], probabilities=p)
    refused(r"config\.noise: .* is of another training set")
    write_predictions(job, 2 * p)
    refused(r"config\.noise\.estimator: row 0 of the probabilities")
    path.write_bytes(path.read_bytes()[:500])
    refused("cannot be read")
    with pytest.raises(UserError, match=r"transition\.npz cannot be read .* remove .*noise to make it again"):
        stage.read(job.directory)
    other = a_job(tmp_path, clean, observed, data="full")
    with pytest.raises(UserError, match=r"config\.noise\.init: that stage is trained on full\(\), not on the run's"):
        stage.check(other, section)
