"""Weights from a file through the program: fine-tuned, and as features that all later stages stand on."""

import errno
import json
import os
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.commands import run, started, summary_of
from helpers.weights import by_rule
from safetensors.numpy import save_file
from scipy.special import softmax

import main
from lt_noisy.data.row_cache import RowCache
from lt_noisy.data.sources import SOURCES
from lt_noisy.files import write_json
from lt_noisy.finished.export.command import export
from lt_noisy.finished.export.graph import examples
from lt_noisy.finished.export.onnx_file import onnx_call
from lt_noisy.finished.export.stablehlo_file import stablehlo_call
from lt_noisy.finished.network import load_network
from lt_noisy.finished.run import read_run
from lt_noisy.models.resnet import resnet8
from lt_noisy.stages import features
from lt_noisy.training.checkpoint import read_final
from lt_noisy.weights import names
from lt_noisy.weights.preprocessing import Preprocessing, timm_config
from lt_noisy.weights.pretrained import pretrained

NET = resnet8(width=4)(jnp.float32, None)
ON_FEATURES = ["--config=tests/helpers/pretrained_config.py:features"]
ON_WEIGHTS = ["--config=tests/helpers/pretrained_config.py:weights"]


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A file of weights by rule, for grey images of 12 pixels."""
    path = tmp_path_factory.mktemp("weights") / "net.safetensors"
    template = jax.eval_shape(lambda: NET.init(jax.random.key(0), jnp.zeros((1, 12, 12, 1)), train=False))
    zeros = {name: np.zeros(leaf.shape) for name, leaf in names.flatten(template).items()}
    shaped = names.tensors_of(names.chosen(NET, ""), zeros)
    save_file({name: by_rule(name, tensor.shape) for name, tensor in shaped.items()}, path)
    write_json(path.with_suffix(".json"), timm_config(Preprocessing((0.25,), (0.5,), 12, "bilinear"), "resnet8"))
    return path


@pytest.fixture(scope="module")
def own(env, weights, tmp_path_factory):
    """The environment of a run on the weights, with a cache of this module's own."""
    return {**env, "WEIGHTS": str(weights), "LT_NOISY_CACHE": str(tmp_path_factory.mktemp("cache"))}


def done(env, workdir, config, *overrides):
    finished = run(env, workdir, *overrides, config=config)
    assert finished.returncode == 0, finished.stderr
    assert "Warning" not in finished.stderr
    return finished.stdout


@pytest.fixture(scope="module")
def finished(own, tmp_path_factory):
    """A run of all that stands on features."""
    workdir = tmp_path_factory.mktemp("features")
    return workdir, done(own, workdir, ON_FEATURES)


def features_by_hand(weights, images):
    """What the network gives of images, through Flax alone, in float16."""
    template = jax.eval_shape(lambda: NET.init(jax.random.key(0), jnp.zeros((1, 12, 12, 1)), train=False))
    variables = pretrained(str(weights)).fill(NET, template)
    enlarged = jax.image.resize(jnp.asarray(images, jnp.float32) / 255, (len(images), 12, 12, 1), "bilinear")
    return np.asarray(NET.apply(variables, (enlarged - 0.25) / 0.5, train=False), np.float16)


def test_a_classifier_on_features_takes_pictures(finished):
    """Encoder and classifier read again, one after the other, give what the stage wrote of its training images."""
    workdir, _ = finished
    network = load_network(read_run(workdir), "finetune")
    train = SOURCES["digits"](test_per_class=5)().train
    row = {key: row for row, key in enumerate(train.ids.tolist())}
    with np.load(workdir / "finetune" / "label_quality.npz") as arrays:
        logits, features = network(train.images(np.array([row[key] for key in arrays["ids"].tolist()])))
        np.testing.assert_allclose(softmax(logits, -1), arrays["probabilities"], atol=1e-4)
    assert network.image_shape == (8, 8, 1) and network.reference.distances(features).max() < 1e-3


def test_stages_on_features_are_those_on_a_data_set_of_them(own, weights, finished, tmp_path):
    """The vectors are those by hand; as the source `features` they give the same bits in every stage."""
    workdir, _ = finished
    source = SOURCES["digits"](test_per_class=5)()
    kept = {len(vectors): vectors for vectors in map(np.load, pathlib.Path(own["LT_NOISY_CACHE"]).rglob("vectors.npy"))}
    arrays = {}
    for name, split in (("train", source.train), ("test", source.test)):
        vectors = kept[len(split.ids)]
        expected = features_by_hand(weights, split.images(np.arange(len(split.ids))))
        np.testing.assert_allclose(vectors, expected, rtol=2e-3, atol=2e-3 * np.abs(expected).max())
        arrays |= {f"{name}_features": vectors, f"{name}_labels": split.labels, f"{name}_ids": split.ids}
    np.savez(tmp_path / "vectors.npz", **arrays)
    stages = ("finetune", "folds", "mixnn")
    without = [f"--config.{stage}.init=none()" for stage in stages]
    source = f"--config.dataset=features(path='{tmp_path}/vectors.npz')"
    done(own, tmp_path, ON_FEATURES, source, *without, "--config.model=identity()", f"--config.stages={stages}")
    for stage in ("finetune", "mixnn"):
        ours, theirs = (summary_of(directory, stage) for directory in (workdir, tmp_path))
        assert ours["params_sha256"] == theirs["params_sha256"] and ours["test"] == theirs["test"]
    quality = [np.load(directory / "folds" / "label_quality.npz") for directory in (workdir, tmp_path)]
    assert all(np.array_equal(quality[0][name], quality[1][name]) for name in quality[0].files)


def test_every_run_finds_what_another_has_computed(own, finished, tmp_path):
    """Of another seed and noise a few rows more; in bits the same as without a cache."""
    workdir, _ = finished
    before = summary_of(workdir, "features")
    assert before["computed"] == before["test_images"] + before["train_images"] + summary_held_out(workdir)
    stages = ["--config.stages=('features', 'finetune')", "--config.noise=none()"]
    done(own, tmp_path / "a", ON_FEATURES, *stages)
    assert summary_of(tmp_path / "a", "features")["computed"] == 0  # the probe on the full split had all others
    done({**own, "LT_NOISY_CACHE": str(tmp_path / "empty")}, tmp_path / "b", ON_FEATURES, *stages)
    ours, theirs = (summary_of(tmp_path / name, "finetune") for name in ("a", "b"))
    assert ours["params_sha256"] == theirs["params_sha256"]


def summary_held_out(workdir):
    """How many images the run holds out: of the manifest what the training has not."""
    return len(np.load(workdir / "manifest.npz")["ids"]) - summary_of(workdir, "features")["train_images"]


def test_what_was_computed_before_a_kill_is_not_computed_again(weights, tmp_path, monkeypatch, capsys):
    """The encoder fails in its third block: the first two are on the disk, and the same command goes on behind them."""
    monkeypatch.setenv("WEIGHTS", str(weights))
    monkeypatch.setenv("LT_NOISY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(features, "_FIRST", 8)
    command = ["main.py", *ON_FEATURES, f"--workdir={tmp_path / 'run'}", "--config.stages=('features',)"]
    real, blocks = features.encoder_features, []

    def failing(job, start):
        compute = real(job, start)

        def block(images, progress=None):
            if len(blocks) == 2:
                raise MemoryError
            blocks.append(len(images))
            return compute(images, progress)

        return block

    monkeypatch.setattr(features, "encoder_features", failing)
    assert main.main(command) != 0
    monkeypatch.setattr(features, "encoder_features", real)
    assert main.main(command) == 0
    summary = summary_of(tmp_path / "run", "features")
    whole = summary["train_images"] + summary_held_out(tmp_path / "run") + summary["test_images"]
    assert blocks[0] == 8 and summary["computed"] == whole - sum(blocks)


def test_training_starts_from_the_weights(own, weights, tmp_path):
    """At a learning rate of nothing every stage ends with the encoder of the file, and MoCo's target network too."""
    stages = ("finetune", "probe", "density", "views")
    zero = [f"--config.{stage}.schedule=constant(lr=1e-30)" for stage in ("finetune", "views")]
    done(own, tmp_path, ON_WEIGHTS, *zero, f"--config.stages={stages}")
    template = jax.eval_shape(lambda: NET.init(jax.random.key(0), jnp.zeros((1, 12, 12, 1)), train=False))
    expected = names.flatten(pretrained(str(weights)).fill(NET, template))
    for directory in ("finetune", "views"):
        arrays = read_final(tmp_path / directory)
        for name, array in expected.items():
            group, _, rest = name.partition(".")
            if group == "params":
                np.testing.assert_allclose(arrays[f"state.params.encoder.{rest}"], array, atol=1e-20)
                if directory == "views":
                    target = arrays[f"state.target.params.encoder.{rest}"]
                    np.testing.assert_allclose(target, array, rtol=1e-6)
    assert "weights" in (tmp_path / "finetune" / "identity.json").read_text()


def test_what_a_stage_exports_is_what_another_starts_from(own, weights, tmp_path, capsys):
    file = tmp_path / "out.safetensors"
    stages = [
        "--config.stages=('finetune',)",
        "--config.finetune.head=linear()",
        "--config.finetune.freeze_encoder=True",
    ]
    done(own, tmp_path / "run", ON_WEIGHTS, *stages)
    exported = run(own, tmp_path, program=("main.py", "export", tmp_path / "run" / "finetune", file), config=[])
    assert exported.returncode == 2 and "unrecognized arguments: --workdir=" in exported.stderr
    assert export([str(tmp_path / "run" / "finetune"), str(file)]) == 0
    assert export([str(tmp_path / "run" / "finetune"), str(file)]) == 2  # nothing is written over
    assert "exists already" in capsys.readouterr().err
    ours, given = pretrained(str(file)), pretrained(str(weights))
    assert ours.preprocessing == given.preprocessing
    template = jax.eval_shape(lambda: NET.init(jax.random.key(0), jnp.zeros((1, 12, 12, 1)), train=False))
    found, expected = (names.flatten(each.fill(NET, template)) for each in (ours, given))
    assert all(np.array_equal(found[name], array) for name, array in expected.items())


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["no"], "error: export: the following arguments are required: file; see lt-noisy export --help"),
        (["{run}/finetune", "x.safetensors", "--format=onnx"], "error: export: unrecognized arguments: --format=onnx"),
        (["{run}/finetune", "no/x.safetensors"], "is no file in a directory that exists"),
        (
            ["{run}/finetune", "x.safetensors"],
            "has no encoder of its own; .onnx and .stablehlo take the one before it in",
        ),
        (["{run}/density", "x.safetensors"], "density has no checkpoint to start from"),
    ],
)
def test_what_cannot_be_exported(finished, capsys, arguments, says):
    assert export([argument.format(run=finished[0]) for argument in arguments]) == 2
    assert says in capsys.readouterr().err


@pytest.mark.parametrize("ending", ["onnx", "stablehlo"])
def test_a_classifier_on_features_is_exported_with_the_encoder_before_it(own, finished, tmp_path, capsys, ending):
    """Images in, logits out: what comes between is rounded as in training."""
    if ending == "onnx":
        pytest.importorskip("jax2onnx")
        pytest.importorskip("onnxruntime")
    workdir, file = finished[0], tmp_path / f"net.{ending}"
    assert export([str(workdir / "finetune"), str(file)]) == 0
    call = (onnx_call if ending == "onnx" else stablehlo_call)(file.read_bytes())
    images = examples((8, 8, 1))
    found, features = call(images), load_network(read_run(workdir), "finetune")(images)[1]
    assert np.array_equal(features, features.astype(np.float16))
    assert np.array_equal(found["features"], np.asarray(found["features"], np.float16))
    assert "its outputs are those of the run to" in capsys.readouterr().out


def test_the_plan_of_a_run_on_features(own, tmp_path):
    """The encoder's operations once an image; what stands on its features has none of them."""
    stages = "--config.stages=('features', 'finetune', 'probe')"
    flags = ["--plan", "--devices=1", "--accelerator=h100", f"--json={tmp_path}/plan.json", stages]
    finished = started("main.py", [*ON_FEATURES, *flags], own)
    assert finished.returncode == 0, finished.stderr
    features, finetune, probe = json.loads((tmp_path / "plan.json").read_text())["stages"]
    assert features["forward_images"] > 0 and features["forward_flops"] > 1e5
    assert finetune["parameters_by_part"] == {"head": 160} and finetune["forward_flops"] < 1e4
    assert probe["forward_flops"] == 0 and "parameters (head 160)" in finished.stdout


BAD = {
    "another model": (
        ON_WEIGHTS,
        ["--config.model=resnet8(width=8)"],
        "conv1.weight is 4x1x3x3, and [3, 3, 1, 8] is asked for: another network",
    ),
    "a deeper one": (ON_WEIGHTS, ["--config.model=resnet20(width=4)"], "are missing, by the naming of torchvision"),
    "no such file": (ON_WEIGHTS, ["--config.finetune.init=pretrained(path='no.safetensors')"], "does not exist"),
    "normalised otherwise": (
        ON_WEIGHTS,
        ["--config.finetune.augment=resize(12)"],
        "config.finetune.augment: the weights of init were trained on pixels that were normalised otherwise; let it "
        "have normalise((0.25,), (0.5,)) and no other",
    ),
    "another size": (
        ON_WEIGHTS,
        ["--config.folds.augment=normalise((0.25,), (0.5,))"],
        "config.folds.augment: the weights of init are for 12 pixels, the images have 8; begin it with resize(12, "
        "bilinear), or write size=8 into pretrained(...)",
    ),
    "images' operations on features": (
        ON_FEATURES,
        ["--config.finetune.augment=digits()"],
        "config.finetune.augment: it changes images, and the data are vectors of 16",
    ),
    "features of features": (
        ON_FEATURES,
        ["--config.stages=('features', 'finetune', 'again')", "--config.again.init=finetune"],
        "config.again.init: that stage works on features itself",
    ),
    "too few neighbours": (
        ON_FEATURES,
        ["--config.balanced.method=wann(k_max=100)"],
        "config.balanced.method: it takes 101 training examples or more",
    ),
    "colours for grey": (
        ON_WEIGHTS,
        ["--config.finetune.init=pretrained(path='{weights}', mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))"],
        "config.finetune.augment: the weights of init are for colours, the images are grey; write colour() into it",
    ),
    "a misspelt spec": (ON_WEIGHTS, ["--config.finetune.init=pretrain(path='x')"], "unknown name 'pretrain'"),
    "a features stage of one": (ON_FEATURES, ["--config.features.init=finetune"], "'finetune' is not an earlier stage"),
}


@pytest.mark.parametrize("case", BAD)
def test_one_line_for_what_cannot_be(weights, tmp_path, monkeypatch, capsys, case):
    config, overrides, says = BAD[case]
    monkeypatch.setenv("WEIGHTS", str(weights))
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "cache"))
    overrides = [override.format(weights=weights) for override in overrides]
    assert main.main(["main.py", *config, f"--workdir={tmp_path / 'x'}", *overrides]) == 2
    error = capsys.readouterr().err
    assert says in error and error.count("\n") == 1 and not (tmp_path / "x" / "finetune").exists()


def test_another_preparation_is_another_stage(own, weights, tmp_path):
    """What the file beside the weights says is part of what a stage is, wherever it was read from."""
    copy = tmp_path / "net.safetensors"
    copy.write_bytes(weights.read_bytes())
    found = []
    for std in (0.5, 0.25):
        write_json(copy.with_suffix(".json"), timm_config(Preprocessing((0.25,), (std,), 12, "bilinear"), "resnet8"))
        stages = "--config.stages=('features',)"
        done({**own, "WEIGHTS": str(copy)}, tmp_path / str(std), ON_FEATURES, stages)
        found.append(summary_of(tmp_path / str(std), "features"))
    assert found[0]["identity_sha256"] != found[1]["identity_sha256"]
    assert found[0]["features_sha256"] != found[1]["features_sha256"]


def test_rows_that_were_written_are_there_after_a_kill(tmp_path, monkeypatch):
    monkeypatch.setenv("LT_NOISY_CACHE", str(tmp_path))
    cache = RowCache({"a": 1}, 10, 3)
    rows, vectors = np.array([7, 2]), np.arange(6).reshape(2, 3)
    cache.write(rows, vectors)
    again, other = RowCache({"a": 1}, 10, 3), RowCache({"a": 2}, 10, 3)
    assert again.there(np.arange(10)).nonzero()[0].tolist() == [2, 7] and not other.there(np.arange(10)).any()
    assert np.array_equal(again.read(rows), vectors) and again.read(rows).dtype == np.float32
    (place,) = (path.parent for path in tmp_path.rglob("key.json") if '"a": 1' in path.read_text())
    (place / "there.npy").write_bytes(b"damaged")
    assert not RowCache({"a": 1}, 10, 3).there(np.arange(10)).any()
    monkeypatch.setenv("LT_NOISY_CACHE", "/dev/null/no")
    memory = RowCache({"a": 1}, 10, 3)
    memory.write(rows, vectors)
    assert np.array_equal(memory.read(rows), vectors)


def test_features_that_the_disk_has_no_room_for_leave_nothing_on_it(tmp_path, monkeypatch, capsys):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setenv("LT_NOISY_CACHE", str(tmp_path))
    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    cache = RowCache({"a": 1}, 10, 3)
    cache.write(np.array([1]), np.ones((1, 3)))
    assert cache.there(np.arange(3)).tolist() == [False, True, False] and list(tmp_path.rglob("*.npy")) == []
    said = capsys.readouterr().out
    assert said.startswith("note: features are kept in memory alone") and "No space left on device" in said
