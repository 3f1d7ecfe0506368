"""What a run shows at its end."""

from types import SimpleNamespace

import numpy as np
import pytest
from helpers.tables import shown

from lt_noisy.config.resolve import default, resolve, section
from lt_noisy.data.manifest import Manifest
from lt_noisy.data.sources.base import Source, Split
from lt_noisy.runs import report
from lt_noisy.stages import rows

COLLAPSE = {"channel_std": 0.001, "channel_std_ideal": 0.125, "effective_rank": 1.2, "collapsed": True}
TRAINED = {"parameters": 1234, "steps": 10, "train_seconds": 1.0, "images_per_second": 50.0}


def test_a_collapsed_run_says_so():
    knn = {"knn_balanced_bank": 0.1, "knn_initial": 0.3, "knn_pixels": 0.25, "knn_longtailed_bank": 0.1}
    text = shown("self_supervised", **TRAINED, representation={**knn, **COLLAPSE})
    assert "COLLAPSED" in text and " 30.00 %" in text
    healthy = {**COLLAPSE, "collapsed": False}
    assert "COLLAPSED" not in shown("self_supervised", **TRAINED, representation={**knn, **healthy})

    assert "kNN" not in shown("self_supervised", **TRAINED)  # monitor='none()'

    expert = {"images": 20, "batch_size": 5, "steps": 4, "collapsed": True}
    assert "expert 0: 20 images" in (text := shown("experts", **TRAINED, experts=[expert]))
    assert "COLLAPSED" in text


def test_stages_that_train_nothing_have_their_own_figures():
    density = {"oracle": True, "spearman": None, "range": 12.5, "effective_share": 0.5}
    clusters = {"sizes": [3, 4], "purity": 0.75, "adjusted_mutual_information": 0.25}
    shots = {"mean": 0.5, "std": None}
    probes = {"1": {"linear": shots, "knn": {**shots, "std": 0.01}}}
    for text, expected in (
        (shown("density", wall_seconds=2.0, density=density), ("density: 2 s", "12.5", "an oracle")),
        (shown("cluster", clusters=clusters), ("3 4", " 75.00 %")),
        (shown("probe", probes=probes, collapse=COLLAPSE), ("linear probe, 1 per class", " 50.00 % +- 1.00")),
    ):
        for part in expected:
            assert part in text


def _header(longtail, sizes, **values):
    """The lines of a header by their names, of a training set of classes of these sizes."""
    labels = np.repeat(np.arange(len(sizes)), sizes).astype(np.int32)
    images = np.zeros((len(labels), 2, 2, 1), np.uint8)
    split = Split(np.arange(len(labels)), labels, lambda rows: images[rows])
    source = Source(split, split, tuple("abc"))
    config = default()
    config.longtail, config.stages, config.train = longtail, ("train",), section("supervised")
    config.update(values)
    resolved = resolve(config)
    rows = resolved.fields.longtail(labels, split.ids, 3, 0)
    rows = rows if resolved.fields.manifest is None else rows[:8]
    manifest = Manifest(split.ids[rows], labels[rows], labels[rows], {"noise": "none()"})
    dataset = SimpleNamespace(num_classes=3, train_images=images, test_labels=labels, source=source, validation=None)
    dataset.test_images = images
    job = SimpleNamespace(devices=SimpleNamespace(num_devices=1), steps_per_call=1)
    works = [SimpleNamespace(job=job, stage=stage) for stage in resolved.stages]
    lines = report.header("x", resolved, manifest, dataset, works, "runs/x").splitlines()
    return {line[:10].strip(): line[10:] for line in lines}


def test_a_head_class_that_is_small_is_noted():
    """n, n / 5^0.5, n / 5: 5 + 2 + 1 of 101 images; for the sizes 48, 48, 5 the last bounds n at 29: 29 + 12 + 5."""
    lines = _header("exponential(ratio=5.0)", (5, 48, 48))
    assert lines["train set"].startswith("8 images")
    assert "with the largest class as its head the profile would keep 46 images: set its order=by_size" in lines["note"]
    assert "note" not in _header("exponential(ratio=5.0, order=by_size)", (5, 48, 48))
    assert lines["wrong"].startswith("not known")


@pytest.mark.parametrize(
    ("longtail", "sizes"),
    [
        ("exponential(ratio=10)", (48, 48, 48)),  # 48 + 15 + 4 of 144 are as many as there can be
        ("exponential(ratio=5.0, n_max=5)", (5, 48, 48)),  # asked for
        ("exponential(ratio=5.0)", (25, 48, 48)),  # 25 + 11 + 5, more than half of 48 + 21 + 9
        ("explicit(counts=(1, 1, 1))", (5, 48, 48)),
        ("none()", (5, 48, 48)),
        ("balanced(exponential(ratio=5.0))", (5, 48, 48)),  # of 46, 16 or 15 a class, class 0 has too few
    ],
)
def test_a_long_tail_is_no_cause_for_a_note(longtail, sizes):
    assert "note" not in _header(longtail, sizes)


def test_a_given_manifest_has_no_profile_to_note():
    lines = _header("none()", (5, 48, 48), manifest="file(path='runs/a')")
    assert lines["train set"] == "8 images: file(path='runs/a')" and "note" not in lines


def _tested(recalls, counts, names):
    groups = {"many": {"accuracy": 0.5, "num_classes": 0}}
    whole = {"accuracy": 0.5, "balanced_accuracy": 0.5, "nll": 1.0, "ece": 0.1, "groups": groups}
    return {**whole, "per_class_accuracy": recalls, "train_counts": counts, "class_names": names}


def test_the_rarest_classes_and_the_worst_of_the_others_are_named():
    """Rarest first, equal ones by label; one that is not tested is none of them; a long name keeps its column."""
    recalls = [0.9, 0.1, 0.8, None, 0.0, 0.25, 0.7, 0.05]
    counts = [500, 300, 4, 1, 4, 9, 60, 300]
    names = ["cat", "dog", "lynx", "yeti", "a wildcat with a very long name", "ocelot", "lion", "fox"]
    found = [row for row in rows.test_rows(_tested(recalls, counts, names)) if "(" in row[0]]
    assert [(title.strip(), value.strip()) for title, value in found] == [
        ("rarest: lynx (4)", "80.00 %"),
        ("rarest: a wildcat with ... (4)", "0.00 %"),
        ("rarest: ocelot (9)", "25.00 %"),
        ("worst of the others: fox (300)", "5.00 %"),
        ("worst of the others: dog (300)", "10.00 %"),
        ("worst of the others: lion (60)", "70.00 %"),
    ]
    assert all(len(title) < 40 for title, _ in found)
    few = rows.test_rows(_tested(recalls[:6], counts[:6], names[:6]))  # the groups say as much
    old = rows.test_rows({k: v for k, v in _tested(recalls, counts, names).items() if k != "train_counts"})
    assert not [title for title, _ in (*few, *old) if "rarest" in title]


def test_a_stage_that_stopped_early_says_so():
    early = {"planned_steps": 40, "evaluations_without_a_better_one": 3}
    text = shown("self_supervised", **TRAINED, stopped_early=early)
    assert "10 steps, 1 s, 50 images/s; stopped early, 40 were planned: no better on validation in 3" in text
