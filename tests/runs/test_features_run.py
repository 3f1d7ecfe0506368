"""Vectors through the program: from memory and streamed the same bits; one line for what is of images alone."""

import numpy as np
import pytest
from helpers import layouts
from helpers.commands import by_way_of_mlir, metrics_of, run, summary_of

FEATURES = ["--config=tests/helpers/features_config.py"]
MLP = ["--config.model=mlp(hidden=8)", "--config.stages=('pretrain', 'mixnn')"]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """The vectors, and others of which a pool is made."""
    root = tmp_path_factory.mktemp("vectors")
    layouts.features(root)
    source = f"features(path='{root}/features.npz')"
    return [f"--config.dataset={source}", f"--config.labels.pool={source}"]


def done(env, workdir, *overrides):
    finished = run(env, workdir, *overrides, config=FEATURES)
    assert finished.returncode == 0, finished.stderr
    assert "Warning" not in finished.stderr
    return finished.stdout


def test_a_linear_classifier_on_vectors(env, dataset, tmp_path):
    out = done(env, tmp_path, *dataset)
    assert "30 training and 30 test vectors 6, 3 classes" in out and "30 vectors (3 of them held out)" in out
    assert "6.7 % of the labels (2)" in out
    base = summary_of(tmp_path, "base")
    assert base["parameters"] == 6 * 3 + 3 and base["test"]["balanced_accuracy"] > 0.6
    assert summary_of(tmp_path, "probe")["probes"]["all"]["linear"]["balanced_accuracy"] > 0.8
    assert np.load(tmp_path / "folds" / "label_quality.npz")["ids"].size == 27
    # Its encoder has nothing to learn: what it gives are the vectors, and pre-training changes none.
    seen = summary_of(tmp_path, "pretrain")["representation"]
    assert seen["knn_pixels"] == seen["knn_initial"] == seen["knn_balanced_bank"]


def test_a_perceptron_on_vectors_in_memory_and_streamed(env, dataset, tmp_path):
    env = by_way_of_mlir(env)
    done(env, tmp_path / "resident", *dataset, *MLP, "--config.feed=resident()")
    out = done(env, tmp_path / "streamed", *dataset, *MLP, "--config.feed=streamed(workers=2)")
    assert "of vectors, read from their source step by step by 2 thread(s)" in out
    for stage in ("pretrain", "mixnn"):
        ours, theirs = (summary_of(tmp_path / name, stage) for name in ("streamed", "resident"))
        assert ours["params_sha256"] == theirs["params_sha256"]
        assert ours["identity_sha256"] == theirs["identity_sha256"]
        assert metrics_of(tmp_path / "streamed", stage) == metrics_of(tmp_path / "resident", stage)
    assert summary_of(tmp_path / "resident", "mixnn")["parameters"] == 6 * 8 + 2 * 8 + 8 * 3 + 3


BAD = {
    "a network of images": ("--config.model=resnet8()", "config.model: resnet8(width=16, init='kaiming') takes images"),
    "operations on images": (
        "--config.base.augment=cifar()",
        "config.base.augment: it changes images, and the data are vectors of 6; write none(), or noise(...)",
    ),
    "random ones": ("--config.folds.augment=flip()", "config.folds.augment: it changes images"),
    "parts of pictures": (
        "--config.base.augment=compose(whole_crop(), flip())",
        "config.base.augment: it changes images, and the data are vectors of 6; write none(), or noise(...)",
    ),
    "windows of them": ("--config.folds.augment=whole_window()", "config.folds.augment: it changes images"),
    "views of images": ("--config.pretrain.augment=simclr_cifar()", "config.pretrain.augment: it changes images"),
    "what turns images": (
        "--config.pretrain.objective=rotation()",
        "config.pretrain.objective: rotation by 90 degrees needs square images, not 6",
    ),
    "a protocol of images": ("--config.probe.oracle=liu()", "config.probe.oracle: it changes images"),
    "a probe on images": (
        "--config.probe.data=digits()",
        "config.probe.data: a data set of images of 8x8x1 cannot stand beside the run's vectors of 6",
    ),
    "images": (
        "--config.dataset=digits()",
        "config.model: identity() takes vectors, and the data are images of 8x8x1; set a resnet",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_of_images_alone_is_one_line_before_work_starts(case, dataset, tmp_path, capsys, monkeypatch):
    import main

    override, says = BAD[case]
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "cache"))
    assert main.main(["main.py", *FEATURES, *dataset, override, f"--workdir={tmp_path / 'run'}"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and says in error
    assert len(error.strip().splitlines()) == 1
    assert not list((tmp_path / "run").glob("*/metrics.jsonl"))
