"""Pseudo-labels by hand, what is said of them, and the whole stage on digits."""

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from helpers.tables import shown

from lt_noisy.config.resolve import default, resolve, section
from lt_noisy.data import pools
from lt_noisy.data.dataset import Dataset, Part
from lt_noisy.errors import UserError
from lt_noisy.runs import run
from lt_noisy.runs.training_set import load
from lt_noisy.stages import pseudo_label, unlabelled
from lt_noisy.stages.base import Input

LOGITS = np.log([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.5, 0.5, 0.0001], [0.2, 0.2, 0.6]]).astype(np.float32)


def test_argmax_keeps_all_without_a_threshold():
    said = pseudo_label.assign(LOGITS, "argmax", 0.0)
    assert said.targets.tolist() == [0, 1, 0, 2] and said.targets.dtype == np.int32
    assert said.kept.all() and said.kept.dtype == bool
    np.testing.assert_allclose(said.confidence, [0.7, 0.6, 0.5 / 1.0001, 0.6], rtol=1e-6)


def test_threshold_and_soft_targets():
    said = pseudo_label.assign(LOGITS, "soft", 0.65)
    assert said.kept.tolist() == [True, False, False, False]
    np.testing.assert_allclose(said.targets, np.exp(LOGITS) / np.exp(LOGITS).sum(-1, keepdims=True), rtol=1e-5)
    assert said.targets.dtype == np.float32
    at = pseudo_label.assign(np.zeros((2, 4), np.float32), "argmax", 0.25)
    assert at.kept.all()  # at the threshold is kept
    far = pseudo_label.assign(np.array([[2000.0, -2000, 0]], np.float32), "soft", 1.0)
    assert far.targets.tolist() == [[1.0, 0.0, 0.0]] and far.kept.all()


def _training_set(train, test, clean):
    empty = np.zeros(0, np.int64)
    return Dataset(train, clean, clean, np.arange(len(clean)), test, empty, ("a", "b", "c"), None)


def test_figures_by_hand():
    """Six images, one irrelevant and one not kept; class 2 has no pseudo-label."""
    images = np.zeros((0, 2, 2, 1), np.uint8)
    dataset = _training_set(images, images, np.repeat([0, 1, 2], [200, 50, 5]))
    predictions, labels = np.array([0, 0, 1, 1, 0, 2]), np.array([0, 2, 1, 0, -1, 2])
    kept = np.array([1, 1, 1, 1, 1, 0], bool)
    figures = pseudo_label.describe(predictions, kept, np.linspace(0.5, 1, 6), labels, dataset)
    json.dumps(figures, allow_nan=False)
    assert (figures["images"], figures["relevant"], figures["irrelevant"]) == (6, 5, 1)
    assert (figures["images_kept"], figures["relevant_kept"], figures["irrelevant_kept"]) == (5 / 6, 4 / 5, 1.0)
    assert figures["counts"] == [3, 2, 0] and figures["confidence"] == pytest.approx(0.75)
    assert figures["precision"] == [1 / 3, 1 / 2, None]
    assert figures["group_precision"] == {"many": 1 / 3, "medium": 1 / 2, "few": None}
    assert figures["labels"]["accuracy"] == 2 / 4
    assert figures["labels"]["per_class_accuracy"] == [1 / 2, 1.0, 0.0]
    assert figures["labels"]["groups"]["few"]["accuracy"] == 0.0

    nothing = pseudo_label.describe(predictions, labels < 0, np.ones(6), labels, dataset)
    assert nothing["labels"] is None and nothing["relevant_kept"] == 0
    table = shown("pseudo_label", pseudo_labels={**nothing, "in_training": 0, "in_test": 7})
    for text in ("6, 16.67 % of them kept", "100.00 % of 1", "that are test images too", "1 0 0"):
        assert text in table
    assert "that are training images" not in table

    unknown = pseudo_label.describe(predictions, kept, np.ones(6), np.full(6, pools.UNKNOWN), dataset)
    json.dumps(unknown, allow_nan=False)
    assert (unknown["relevant"], unknown["irrelevant"], unknown["labels"]) == (0, 0, None)
    assert unknown["counts"] == [3, 2, 0] and unknown["precision"] == [None] * 3
    assert "accuracy" not in shown("pseudo_label", pseudo_labels=unknown)


def test_images_of_the_pool_that_are_training_or_test_images():
    pictures = np.random.default_rng(0).integers(0, 256, (9, 2, 2, 1)).astype(np.uint8)
    dataset = _training_set(pictures[:4], pictures[3:6], np.array([0, 1, 2, 0]))
    assert pseudo_label.duplicates(pictures[[0, 2, 3, 4, 8]], dataset) == {"in_training": 3, "in_test": 2}


# The whole stage


def make_config(**fields):
    c = default()
    c.dataset = "digits(test_per_class=20)"
    c.longtail = "exponential(ratio=10, n_max=30)"
    c.model = "resnet8(width=4)"
    c.devices = 1
    c.stages = ("base", "pseudo_label")
    cadence = {f"{name}_every": "percent(100)" for name in ("log", "eval", "save")}
    c.base = section("supervised", length="steps(20)", batch_size=32, augment="digits()", **cadence)
    c.pseudo_label = section("pseudo_label", **fields)
    return c


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run")
    other = "halves(digits(test_per_class=30))"
    fields = {"times": 2.0, "ratio": 3.0, "irrelevant": 0.2, "irrelevant_source": other, "threshold": 0.2}
    c = make_config(**fields)
    run.run(c, str(workdir))
    return c, workdir


def make_job(c, workdir):
    """What a supervised stage that trains on the pseudo-labels knows of its job, and their stage as its input."""
    resolved = resolve(c)
    _, dataset = load(resolved, workdir)
    stage = Input(workdir / "pseudo_label", resolved.stages[1].section, resolved.stages[1].texts, {})
    return SimpleNamespace(name="joint", training_set=dataset, dataset=dataset, seed=resolved.fields.seed), stage


def test_the_whole_stage(finished):
    c, workdir = finished
    arrays = np.load(workdir / "pseudo_label" / "pseudo_labels.npz")
    training = np.load(workdir / "manifest.npz")
    total = 2 * len(training["ids"])
    strange = arrays["ids"] < 0
    assert len(np.unique(arrays["ids"])) == total and strange.sum() == round(0.2 * total)
    assert not np.isin(arrays["ids"], training["ids"]).any()
    np.testing.assert_array_equal(arrays["kept"], arrays["confidence"] >= 0.2)
    block = json.loads((workdir / "pseudo_label" / "summary.json").read_text())["pseudo_labels"]
    assert block["images"] == total and sum(block["counts"]) == arrays["kept"].sum()

    job, stage = make_job(c, workdir)
    assert unlabelled.size(job, stage) == total
    extra = unlabelled.read(job, stage)
    np.testing.assert_array_equal(extra.targets, arrays["targets"])
    np.testing.assert_array_equal(extra.kept, arrays["kept"])
    train = job.training_set.source.train
    rows = np.array([np.flatnonzero(train.ids == i)[0] for i in arrays["ids"][~strange]])
    np.testing.assert_array_equal(extra.images[~strange], train.images(rows))  # images fit their targets
    right = arrays["targets"][~strange] == train.labels[rows]
    assert block["labels"]["accuracy"] == pytest.approx(right[arrays["kept"][~strange]].mean())


def test_what_was_written_for_another_pool_or_is_damaged_is_refused(finished, tmp_path):
    c, workdir = finished
    job, stage = make_job(c, workdir)
    with pytest.raises(UserError, match=r"config.joint: .*pseudo_labels.npz is of another pool"):
        unlabelled.read(SimpleNamespace(**{**vars(job), "seed": 1}), stage)
    shutil.copytree(workdir / "pseudo_label", tmp_path / "pseudo_label")
    damaged = stage._replace(directory=tmp_path / "pseudo_label")
    path = damaged.directory / "pseudo_labels.npz"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match=f"cannot be read .*; remove {damaged.directory} to make it again"):
        unlabelled.read(job, damaged)


def test_the_identity_is_that_of_the_pool(finished):
    c, workdir = finished

    def pool(**fields):
        for name, value in fields.items():
            c.pseudo_label[name] = value
        job, stage = make_job(c, workdir)
        job.name, job.inputs = "pseudo_label", {"init": SimpleNamespace(section=SimpleNamespace(data=Part.MANIFEST))}
        return pseudo_label.check(job, stage.section)

    first = pool()
    assert len(first["pool_sha256"]) == 64 and pool(threshold=0.9, targets="soft") == first
    assert pool(irrelevant_source="digits(test_per_class=30)") != first  # the same ids, other images
    assert pool(times=1.0) != first


@pytest.mark.parametrize(
    ("fields", "base", "message"),
    [
        ({"targets": "hard"}, {}, "pseudo_label.targets is argmax or soft, not 'hard'"),
        ({"threshold": 1.5}, {}, "pseudo_label.threshold is a probability in .0, 1., not 1.5"),
        ({"times": 50.0}, {}, "pseudo_label: class 0: .* wanted, the pool has 1"),
        ({"pool": "npz(path='no.npz')"}, {}, "config.pseudo_label: no.npz does not exist"),
        ({"init": "pretrain"}, {}, "'pretrain' is not an earlier stage"),
        ({}, {"data": "full()"}, "pseudo_label.init: that stage is trained on full.., not on the run's manifest"),
    ],
)
def test_refused_before_any_stage_starts(tmp_path, fields, base, message):
    c = make_config(**fields)
    c.base.update(base)
    with pytest.raises(UserError, match=message) as caught:
        run.run(c, str(tmp_path))
    assert "\n" not in str(caught.value) and not (tmp_path / "base").exists()


def test_a_threshold_that_keeps_nothing_is_refused(finished):
    _, workdir = finished
    c = make_config(times=1.0, threshold=1.0)
    c.again, c.stages = c.pseudo_label, ("base", "again")  # the base is finished already
    with pytest.raises(UserError, match=r"config.again.threshold: 1 keeps none of 118 images \(largest confidence 0\."):
        run.run(c, str(workdir))
