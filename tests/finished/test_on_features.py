"""A classifier on the features of an earlier stage: what it is used by gives what its training measured."""

import numpy as np
import pytest

from lt_noisy.config.resolve import default, section
from lt_noisy.config.spec import parse
from lt_noisy.data.sources import SOURCES
from lt_noisy.errors import UserError
from lt_noisy.finished.export.facts import gather, prepared
from lt_noisy.finished.network import load_network
from lt_noisy.finished.run import read_run
from lt_noisy.runs.run import run as run_config

TRAIN = {"length": "steps(3)", "batch_size": 8, "schedule": "cosine(lr=0.05)", "save_every": "steps(3)"}
NORMALISED = "normalise(mean=(0.4,), std=(0.2,))"


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Its head learns from normalised features."""
    c = default()
    c.dataset = "digits(test_per_class=5)"
    c.longtail = "explicit((4, 4, 4, 4, 4, 4, 4, 4, 4, 4))"
    c.model, c.devices = "resnet8(width=4)", 1
    c.stages = ("base", "features", "head", "balanced")
    c.base = section("supervised", augment="none()", **TRAIN)
    c.features = section("features", init="base")
    c.head = section("supervised", init="features", augment=NORMALISED, **TRAIN)
    c.balanced = section("classifier", init="head")
    directory = tmp_path_factory.mktemp("run")
    run_config(c, str(directory))
    return read_run(directory)


def test_its_network_is_the_encoder_of_that_stage_and_the_head(finished):
    test = SOURCES[parse(finished.config["dataset"]).name](test_per_class=5)().test
    logits, _ = load_network(finished, "head")(test.images(np.arange(len(test.ids))))
    accuracy = (logits.argmax(-1) == test.labels).mean()
    assert accuracy == pytest.approx(finished.stage("head").summary["test"]["accuracy"])
    assert prepared(finished, "head") == (
        "in the graph: pixels / 255, then the encoder of stage features, then the deterministic part of "
        "normalise(mean=(0.4,), std=(0.2,))"
    )


def test_a_later_stage_prepares_the_features_as_the_head_had_them(finished):
    tested, again = finished.stage("head").summary["test"], finished.stage("balanced").summary["base_test"]
    assert again["balanced_accuracy"] == pytest.approx(tested["balanced_accuracy"])


def test_a_network_that_is_not_within_a_stage_is_one_line(finished):
    with pytest.raises(UserError, match=r"base/fold0: there is no such network \(there are none\)"):
        gather(finished, "base/fold0")
