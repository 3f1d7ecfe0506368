"""Labels judged out of sample: how the folds are drawn, and a run that is killed between them."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from lt_noisy.config.resolve import default, section
from lt_noisy.errors import UserError
from lt_noisy.evaluation.label_quality import quality, score
from lt_noisy.runs import run
from lt_noisy.stages import STAGES, cross_fit, supervised


def test_folds_are_stratified_and_follow_the_ids():
    observed = np.repeat([0, 1, 2, 3], [103, 20, 3, 1])  # two classes with fewer images than folds
    ids = np.random.default_rng(0).permutation(1000)[: len(observed)]
    fold = cross_fit.assign_folds(observed, ids, 5, 0, "folds")
    assert fold.dtype == np.int32
    assert np.ptp(np.bincount(fold, minlength=5)) <= 1
    for c in range(4):
        assert np.ptp(np.bincount(fold[observed == c], minlength=5)) <= 1
    assert np.bincount(fold).argmax() == 0  # the spare images: `check` looks at the smallest training set
    order = np.random.default_rng(1).permutation(len(ids))
    np.testing.assert_array_equal(cross_fit.assign_folds(observed[order], ids[order], 5, 0, "folds"), fold[order])
    assert not np.array_equal(cross_fit.assign_folds(observed, ids, 5, 1, "folds"), fold)


@pytest.mark.parametrize("folds", [-1, 1, 9])
def test_number_of_folds_fits_the_data(folds):
    job = SimpleNamespace(name="judge", dataset=SimpleNamespace(ids=np.arange(8)))
    with pytest.raises(UserError, match=rf"config.judge.folds is 2 to 8, the number of images, not {folds}"):
        cross_fit.check(job, SimpleNamespace(folds=folds))


class _Killed(Exception):
    pass


def _config():
    c = default()
    c.dataset = "digits(test_per_class=120)"
    c.noise = "symmetric(rate=0.3)"
    c.model = "resnet8(width=4)"
    c.devices = 1
    c.stages = ("judge",)
    c.judge = section(
        "cross_fit", folds=2, length="steps(12)", batch_size=32, augment="none()", schedule="cosine(lr=0.1)"
    )
    return c


def test_a_run_judges_every_label_by_a_network_that_has_not_seen_it(tmp_path, monkeypatch, capsys):
    """Killed after the first fold and started again: that fold is not trained twice."""
    seen, predicted = {}, {}
    prepare, predict_logits = supervised.prepare, supervised.predict_logits

    def watched_prepare(job, section):
        seen[job.name] = job.dataset.ids
        return prepare(job, section)

    def watched_predict(job, net, augment):
        if job.name == "judge/fold_1" and "judge/fold_1" not in predicted:
            predicted[job.name] = None
            raise _Killed
        predict = predict_logits(job, net, augment)

        def recorded(variables, images):
            predicted[job.name] = predict(variables, images)
            return predicted[job.name]

        return recorded

    monkeypatch.setattr(supervised, "prepare", watched_prepare)
    monkeypatch.setattr(supervised, "predict_logits", watched_predict)
    with pytest.raises(_Killed):
        run.run(_config(), str(tmp_path))
    metrics = [(tmp_path / f"judge/fold_{k}/metrics.jsonl").read_text() for k in range(2)]
    assert not (tmp_path / "judge/label_quality.npz").exists()
    first = predicted["judge/fold_0"]

    run.run(_config(), str(tmp_path))
    np.testing.assert_array_equal(predicted["judge/fold_0"], first)
    assert [(tmp_path / f"judge/fold_{k}/metrics.jsonl").read_text() for k in range(2)] == metrics

    manifest, arrays = np.load(tmp_path / "manifest.npz"), np.load(tmp_path / "judge/label_quality.npz")
    np.testing.assert_array_equal(arrays["ids"], manifest["ids"])
    np.testing.assert_array_equal(arrays["observed"], manifest["observed_labels"])
    for k in range(2):
        rows = arrays["fold"] == k
        assert set(seen[f"judge/fold_{k}"]) == set(arrays["ids"][~rows])
        expected = quality(predicted[f"judge/fold_{k}"], arrays["observed"][rows], seed=0)
        for name in ("loss", "margin", "suggested", "probabilities"):
            np.testing.assert_array_equal(arrays[name][rows], expected[name])

    summary = json.loads((tmp_path / "judge/summary.json").read_text())
    block = summary["label_quality"]
    counts = np.bincount(manifest["clean_labels"], minlength=10)
    told = score(arrays, manifest["observed_labels"], manifest["clean_labels"], counts)
    assert {name: block[name] for name in told} == told
    assert block["out_of_sample"] is True and block["folds"] == 2
    assert summary["steps"] == 24 and [n["steps"] for n in summary["networks"]] == [12, 12]
    assert summary["networks"][1]["held_out_images"] == (arrays["fold"] == 1).sum()
    assert "precision" in capsys.readouterr().out


def test_folds_take_no_stage_that_knows_labels():
    """`init` is for `test_config.py`; what else a supervised stage may read is not there."""
    assert set(STAGES["cross_fit"].inputs) == {"init"}
