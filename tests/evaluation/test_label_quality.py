"""Label quality by hand, beside cleanlab, and out of sample through a whole run."""

import csv
import importlib.util
import json
from types import SimpleNamespace

import numpy as np
import pytest
from helpers.tables import shown
from scipy.stats import spearmanr
from sklearn import metrics

from lt_noisy.errors import UserError
from lt_noisy.estimate.clean_probability import clean_probability
from lt_noisy.evaluation.label_quality import against_flags, confident_learning, quality, score
from lt_noisy.stages.quality import write_quality

OBSERVED = np.array([0, 0, 0, 0, 1, 1, 2, 2])
CLEAN = np.array([0, 0, 1, 2, 1, 0, 2, 0])
COUNTS = np.array([150, 50, 10])  # many, medium, few
ARRAYS = {
    "wrong_probability": np.array([0, 0.5, 0.5, 0.9, 0.1, 0.8, 0.1, 0.1]),  # of 3: images 3, 5 and, by its loss, 1
    "loss": np.array([0.1, 2, 1, 3, 0.2, 2.5, 0.3, 0.4]),
    "margin": np.array([0.9, 0.1, 0.2, -0.5, 0.8, -0.4, 0.7, -0.1]),
    "suggested": np.array([0, 0, 1, 1, 1, 0, 2, 0]),
}


def test_quality_by_hand():
    logits = np.log([[0.7, 0.2, 0.1], [0.7, 0.2, 0.1], [0.3, 0.3, 0.4], [0.2, 0.4, 0.4]]) + 5
    observed = np.array([0, 2, 0, 2])
    arrays = quality(logits, observed, seed=3)
    np.testing.assert_allclose(arrays["probabilities"].sum(1), 1, rtol=1e-6)
    np.testing.assert_allclose(arrays["loss"], -np.log([0.7, 0.1, 0.3, 0.4]))
    np.testing.assert_allclose(arrays["margin"], [0.5, -0.6, -0.1, 0], atol=1e-12)
    np.testing.assert_array_equal(arrays["suggested"], [0, 0, 2, 1])
    order = np.argsort(arrays["loss"])
    posterior = 1 - clean_probability(arrays["loss"], seed=3)
    np.testing.assert_array_equal(arrays["wrong_probability"][order], np.maximum.accumulate(posterior[order]))
    assert {name: array.dtype.name for name, array in arrays.items()} == {
        "loss": "float64",
        "margin": "float64",
        "wrong_probability": "float64",
        "suggested": "int32",
        "probabilities": "float32",
    }


def test_quality_of_certain_models_is_finite():
    arrays = quality(np.array([[200.0, -200], [200, -200], [-200, 200]]), np.array([0, 1, 1]), seed=0)
    assert all(np.isfinite(array).all() for array in arrays.values())
    np.testing.assert_array_equal(arrays["loss"], [0, 400, 0])
    np.testing.assert_array_equal(arrays["margin"], [1, -1, 1])


def test_score_by_hand():
    result = score(ARRAYS, OBSERVED, CLEAN, COUNTS)
    assert result["images"] == 8 and result["wrong_labels"] == 4 and result["flagged"] == 3
    assert result["estimated_rate"] == pytest.approx(3 / 8) and result["true_rate"] == 0.5
    assert result["precision"] == pytest.approx(2 / 3) and result["recall"] == 0.5
    assert result["suggested_accuracy"] == 0.5  # image 5 is found as 0, image 3 is not as 2
    assert result["wrong_probability"]["auroc"] == 13.5 / 16
    assert result["wrong_probability"]["average_precision"] == pytest.approx((1 + 1 + 3 / 4 + 4 / 7) / 4)
    assert result["loss"]["auroc"] == 14 / 16
    assert result["margin"]["auroc"] == 15 / 16
    json.dumps(result, allow_nan=False)


def test_groups_are_those_of_the_observed_class():
    groups = score(ARRAYS, OBSERVED, CLEAN, COUNTS)["groups"]
    assert list(groups) == ["many", "medium", "few"]
    many, medium, few = groups.values()
    assert [g["images"] for g in groups.values()] == [4, 2, 2] and all(g["num_classes"] == 1 for g in groups.values())
    assert (many["wrong_labels"], many["flagged"], many["precision"], many["recall"]) == (2, 2, 0.5, 0.5)
    assert many["suggested_accuracy"] == 0 and many["auroc"] == 3.5 / 4
    assert many["estimated_rate"] == pytest.approx(1.9 / 4)
    assert (medium["precision"], medium["recall"], medium["auroc"], medium["suggested_accuracy"]) == (1, 1, 1, 1)
    assert (few["flagged"], few["precision"], few["recall"], few["suggested_accuracy"]) == (0, None, 0, None)
    assert few["auroc"] == 0.5


def test_what_does_not_exist_is_none():
    result = score(ARRAYS, OBSERVED, OBSERVED, np.array([150, 50, 0]))
    assert result["true_rate"] == 0 and result["precision"] == 0  # 3 are flagged for nothing
    assert result["recall"] is None and result["suggested_accuracy"] is None
    for name in ("wrong_probability", "loss", "margin"):
        assert result[name] == {"auroc": None, "average_precision": None}
    all_wrong = score(ARRAYS, OBSERVED, (OBSERVED + 1) % 3, COUNTS)
    assert all_wrong["loss"]["auroc"] is None and all_wrong["recall"] == 3 / 8
    thirds = score(ARRAYS, OBSERVED, CLEAN, np.array([0, 200, 300]))["groups"]  # no medium class, so thirds too
    assert thirds["medium"]["images"] == 0 and thirds["medium"]["true_rate"] is None
    assert thirds["head_third"]["images"] == 2 and thirds["tail_third"]["images"] == 4
    json.dumps([result, all_wrong, thirds], allow_nan=False)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: quality(np.zeros((3, 1)), np.zeros(3, int), 0), "at least two classes, not 1"),
        (lambda: quality(np.zeros((3, 2)), np.array([0, 1, 2]), 0), r"labels must be in \[0, 2\)"),
        (lambda: quality(np.full((1, 2), np.nan), np.zeros(1, int), 0), "1 of 1 rows of logits are not finite"),
        (lambda: score(ARRAYS, OBSERVED, CLEAN[:5], COUNTS), r"must all be \[N\] .* not \[8\], \[8\], \[5\]"),
        (lambda: score(ARRAYS, OBSERVED, CLEAN, COUNTS[:2]), r"labels must be in \[0, 2\)"),
        (lambda: confident_learning(ARRAYS, OBSERVED[:5], CLEAN), r"must all be \[N\]"),
    ],
)
def test_bad_input_is_one_line(call, message):
    with pytest.raises(UserError, match=message) as error:
        call()
    assert "\n" not in str(error.value)


def _noisy(classes, num_classes=6, size=600):
    """(arrays, observed, clean): labels among `classes`, a third redrawn, and a good model's probabilities."""
    generator = np.random.default_rng(0)
    clean = generator.choice(classes, size)
    observed = np.where(generator.random(size) < 0.3, generator.choice(classes, size), clean)
    logits = generator.normal(size=(size, num_classes)) + 3 * np.eye(num_classes)[clean]
    return quality(logits, observed, seed=0), observed, clean


def test_without_cleanlab_there_is_no_confident_learning(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert confident_learning(*_noisy([0, 2, 3])) is None


def test_confident_learning_is_cleanlabs():
    cleanlab_filter = pytest.importorskip("cleanlab.filter")
    arrays, observed, clean = _noisy(range(6))
    wrong = observed != clean
    issues = cleanlab_filter.find_label_issues(observed, arrays["probabilities"], n_jobs=1)
    expected = {
        "issues": issues.sum(),
        "precision": (issues & wrong).sum() / issues.sum(),
        "recall": (issues & wrong).sum() / wrong.sum(),
        "auroc": metrics.roc_auc_score(wrong, 1 - arrays["probabilities"][np.arange(600), observed]),
    }
    found = confident_learning(arrays, observed, clean)
    assert found.pop("average_precision") > 0.9
    assert found == pytest.approx(expected) and found["precision"] > 0.8 and found["recall"] > 0.8


def test_loss_and_margin_rank_as_cleanlabs_scores_do():
    """Its self-confidence is p_y, its normalised margin p_y less the largest other p, moved into [0, 1]."""
    rank = pytest.importorskip("cleanlab.rank")
    arrays, observed, _ = _noisy(range(6))
    p = arrays["probabilities"].astype(np.float64)
    methods = ("self_confidence", "normalized_margin")
    scores = {name: rank.get_label_quality_scores(observed, p, method=name) for name in methods}
    np.testing.assert_allclose(np.exp(-arrays["loss"]), scores["self_confidence"], atol=1e-6)
    np.testing.assert_allclose((arrays["margin"] + 1) / 2, scores["normalized_margin"], atol=1e-6)
    for ours, theirs in zip((-arrays["loss"], arrays["margin"]), scores.values(), strict=True):
        assert spearmanr(ours, theirs).statistic > 1 - 1e-6


def test_confident_learning_without_some_classes():
    """Classes that no label names, or that name one image, change nothing for the others, and are no warning."""
    cleanlab_filter = pytest.importorskip("cleanlab.filter")
    arrays, observed, clean = _noisy([0, 2, 3])
    present = arrays["probabilities"][:, [0, 2, 3]]
    issues = cleanlab_filter.find_label_issues(np.searchsorted([0, 2, 3], observed), present, n_jobs=1)
    found = confident_learning(arrays, observed, clean)
    assert found["issues"] == issues.sum() and found["recall"] > 0.8
    observed[0] = 5
    assert confident_learning(arrays, observed, clean)["issues"] > 0
    assert confident_learning(arrays, np.zeros(600, int), clean) is None
    json.dumps(found, allow_nan=False)


def test_every_stage_writes_what_it_says(tmp_path):
    generator = np.random.default_rng(0)
    logits = generator.normal(size=(8, 3)).astype(np.float32)
    train = SimpleNamespace(ids=np.arange(24), files=tuple(f"cat/{i}.jpg" for i in range(24)))
    flags = np.array([1, 0, -1, 0, 1, -1, 0, 0], np.int8)
    clean = np.array([0, 1, 1, 2, 1, 1, 2, 0])  # other counts than the observed labels have
    dataset = SimpleNamespace(
        ids=np.arange(8) * 3,
        observed=OBSERVED,
        clean=clean,
        num_classes=3,
        flags=flags,
        class_names=("cat", "dog", "=1+1"),
        source=SimpleNamespace(train=train),
    )
    job = SimpleNamespace(directory=tmp_path, dataset=dataset, seed=1, name="finetune")
    block = write_quality(job, logits)
    arrays = dict(np.load(tmp_path / "label_quality.npz"))
    expected = quality(logits, OBSERVED, seed=1)
    assert sorted(arrays) == sorted([*expected, "ids", "observed"])
    for name, array in {**expected, "ids": dataset.ids, "observed": OBSERVED}.items():
        np.testing.assert_array_equal(arrays[name], array)
    lines = list(csv.reader((tmp_path / "suspects.csv").read_text(encoding="utf-8-sig").splitlines()))
    order = np.argsort(-expected["loss"])[: round(expected["wrong_probability"].sum())]
    wrong, flagged = clean != OBSERVED, np.isin(np.arange(8), order)
    order = order[expected["suggested"][order] != OBSERVED[order]]
    assert lines[0] == ["id", "file", "label", "suggested", "wrong_probability"] and len(lines) == 1 + len(order) > 1
    worst = order[0]
    names = dataset.class_names
    assert lines[1][:2] == [str(3 * worst), f"cat/{3 * worst}.jpg"]
    inert = [name.replace("=", "'=") for name in (names[OBSERVED[worst]], names[expected["suggested"][worst]])]
    assert lines[1][2:4] == inert and "'=1+1" in {cell for line in lines for cell in line}
    assert float(lines[1][4]) == pytest.approx(expected["wrong_probability"][worst], abs=1e-4)
    assert block.pop("out_of_sample") is False
    said, known = block.pop("flags"), flags >= 0
    assert said == {
        "images": 6,
        "wrong_labels": 2,
        "auroc": pytest.approx(metrics.roc_auc_score(flags[known], expected["wrong_probability"][known])),
        "average_precision": pytest.approx(
            metrics.average_precision_score(flags[known], expected["wrong_probability"][known])
        ),
        "precision_at": {},
    }
    confident = block.pop("confident_learning")
    assert (confident is None) == (importlib.util.find_spec("cleanlab") is None)
    groups = block.pop("groups")
    assert [groups[name]["images"] for name in ("few", "head_third", "middle_third")] == [8, 2, 4]  # by clean counts
    suspicion = {**{name: expected[name] for name in ("wrong_probability", "loss")}, "margin": -expected["margin"]}
    assert block == {
        "images": 8,
        "wrong_labels": 4,
        "flagged": flagged.sum(),
        "estimated_rate": pytest.approx(expected["wrong_probability"].mean()),
        "true_rate": 0.5,
        "precision": pytest.approx(metrics.precision_score(wrong, flagged)),
        "recall": pytest.approx(metrics.recall_score(wrong, flagged)),
        "suggested_accuracy": pytest.approx((expected["suggested"] == clean)[wrong & flagged].mean()),
        **{
            name: {
                "auroc": pytest.approx(metrics.roc_auc_score(wrong, values)),
                "average_precision": pytest.approx(metrics.average_precision_score(wrong, values)),
            }
            for name, values in suspicion.items()
        },
    }


def test_the_head_of_the_list_against_published_flags():
    suspicion = np.linspace(0, 1, 90)
    flags = np.where(suspicion > 0.8, 1, 0)
    flags[:30] = -1
    arrays = {"wrong_probability": suspicion, "loss": suspicion}
    found = against_flags(arrays, flags)
    assert found["images"] == 60 and found["auroc"] == 1 and list(found["precision_at"]) == ["25", "50"]
    assert found["precision_at"] == {"25": 18 / 25, "50": 18 / 50}
    assert against_flags(arrays, np.full(90, -1)) == {
        "images": 0,
        "wrong_labels": 0,
        "auroc": None,
        "average_precision": None,
        "precision_at": {},
    }


def test_report_shows_the_figures():
    other = {"issues": 7, "precision": 0.25, "recall": None, "auroc": 0.8125, "average_precision": 0.5}
    block = {**score(ARRAYS, OBSERVED, CLEAN, COUNTS), "out_of_sample": True, "confident_learning": None}
    table = shown("cross_fit", label_quality=block)
    for text in (
        "out of sample",
        " 37.50 % (true 50.00 %)",
        "66.67 % precision, 50.00 % recall (3 images)",
        "0.844, 0.875, 0.938",
    ):
        assert text in table
    assert "confident" not in table
    block |= {"confident_learning": other, "out_of_sample": False}
    table = shown("cross_fit", label_quality=block)
    assert "in sample" in table and "25.00 % precision, - recall (7 images)" in table
