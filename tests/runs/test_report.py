"""What a run shows at its end."""

from helpers.tables import shown

COLLAPSE = {"channel_std": 0.001, "channel_std_ideal": 0.125, "effective_rank": 1.2, "collapsed": True}
TRAINED = {"parameters": 1234, "steps": 10, "train_seconds": 1.0, "images_per_second": 50.0}


def test_a_collapsed_run_says_so():
    knn = {"knn_balanced_bank": 0.1, "knn_initial": 0.3, "knn_pixels": 0.25, "knn_longtailed_bank": 0.1}
    text = shown("self_supervised", **TRAINED, representation={**knn, **COLLAPSE})
    assert "COLLAPSED" in text and " 30.00 %" in text
    healthy = {**COLLAPSE, "collapsed": False}
    assert "COLLAPSED" not in shown("self_supervised", **TRAINED, representation={**knn, **healthy})

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
