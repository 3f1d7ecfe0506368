"""Directories of finished runs, as runs leave them, without training: of few classes and of a thousand."""

import json
import pathlib
from typing import Any

import numpy as np

from lt_noisy.config.resolve import default, resolve, section
from lt_noisy.data import manifest as manifests
from lt_noisy.data.manifest import Manifest
from lt_noisy.evaluation import label_quality
from lt_noisy.evaluation.classification import classification, label_noise
from lt_noisy.files import write_arrays, write_json
from lt_noisy.runs.card import config_texts

CODE = {"commit": "0123456789abcdef0123", "changed": False, "sources_sha256": "ab" * 32}
MADE = {"code": CODE, "versions": {"jax": "0.10.2"}, "machine": {"device": "cpu", "devices": 1}}


def names_of(num_classes):
    """Class names that need escaping: what HTML, Markdown, LaTeX and Matplotlib's formulas take for their own."""
    odd = ["<b>&amp;\"'", "a|b`c`*d*", "$x_1$ 50%", "line\nend", "bad\udcff", "\\~^{}#", "[link](http://example.com)"]
    return [odd[c] if c < len(odd) else f"class {c}" for c in range(num_classes)]


def write_run(
    directory: pathlib.Path,
    seed: int = 0,
    counts: tuple[int, ...] = (130, 60, 40, 25, 15, 12, 8, 6),
    wrong: float = 0.3,
    loss: str = "cross_entropy()",
    test_per_class: int = 6,
    pretrained: bool = True,
    features: bool = True,
) -> pathlib.Path:
    """A run of `pretrain`, `train` and `noise_model` on examples of these clean counts; returns its directory.

    Args:
      wrong: share of wrong labels; 0 for a set whose truth is not known.
      loss: of `train`.
      pretrained: whether there is the stage `pretrain`.
      features: whether `train` has left `reference.npz`.
    """
    generator, num_classes = np.random.default_rng(seed), len(counts)
    names = names_of(num_classes)
    c = default()
    c.seed = seed
    c.model = "resnet8(width=4)"
    c.stages = ("pretrain", "train", "noise_model")[0 if pretrained else 1 :]
    if pretrained:
        c.pretrain = section("self_supervised")
    c.train = section("supervised", loss=loss, init="pretrain" if pretrained else "none()")
    c.noise_model = section("transition", init="train")
    config = json.loads(json.dumps(config_texts(resolve(c))))
    directory.mkdir(parents=True)
    write_json(directory / "run.json", {"config": config, "class_names": names, "image_shape": [8, 8, 1]})

    clean = np.repeat(np.arange(num_classes), counts).astype(np.int32)
    moved = generator.random(len(clean)) < wrong
    moved[:2] = wrong > 0, False  # some of both
    shifts = generator.integers(1, num_classes, len(clean))
    observed = np.where(moved, (clean + shifts) % num_classes, clean).astype(np.int32)
    ids = (10 + 3 * generator.permutation(len(clean))).astype(np.int64)
    recipe = {"num_classes": num_classes, "class_names": names, "seed": seed, "nominal_rate": wrong}
    recipe |= {"noise_before_longtail": False, "dataset": config["dataset"], "longtail": "none()", "noise": "none()"}
    manifests.save(Manifest(ids, clean, observed, recipe), directory)

    if pretrained:
        representation = {"knn_balanced_bank": 0.5 + 0.1 * seed, "knn_longtailed_bank": 0.4, "effective_rank": 12.5}
        representation |= {"knn_initial": 0.3, "knn_pixels": None, "collapsed": False}
        representation |= {"channel_std": 0.1, "channel_std_ideal": 0.125}
        lines = [{"step": 10 * i, "loss": 3 / i, "knn_balanced_bank": 0.1 * i, "grad_norm": 1.0} for i in (1, 2, 3)]
        _stage(directory / "pretrain", {"representation": representation, "steps": 30, "parameters": 1234}, lines)

    def logits_for(labels: np.ndarray) -> np.ndarray:
        """Right more often where a class has more examples."""
        logits = generator.normal(size=(len(labels), num_classes)).astype(np.float32)
        logits[np.arange(len(labels)), labels] += 1 + np.log10(np.asarray(counts))[labels]
        return logits

    labels = np.repeat(np.arange(num_classes), test_per_class)
    test = classification(logits_for(labels), labels, np.asarray(counts), names)
    logits = logits_for(clean)
    arrays = label_quality.quality(logits, observed, seed)
    quality = label_quality.score(arrays, observed, clean, np.asarray(counts))
    figures = ("accuracy", "balanced_accuracy", "nll")
    last = {"step": 40, **{f"test_{k}": test[k] for k in figures}}
    summary: dict[str, Any] = {
        "steps": 40,
        "parameters": 4321,
        "test": test,
        "selection": {"evaluations": 2, "last": last, "oracle_best_on_test": last},
        "train": label_noise(logits, observed, clean),
        "label_quality": {**quality, "out_of_sample": False, "confident_learning": None},
    }
    _stage(directory / "train", summary, [{**last, "step": 20, "loss": 2.0, "accuracy": 0.4}, {**last, "loss": 1.5}])
    write_arrays(directory / "train" / "label_quality.npz", ids=ids, observed=observed, **arrays)
    if features:
        centres = 3 * generator.normal(size=(num_classes, 16))
        rows = centres[clean] + generator.normal(size=(len(clean), 16))
        write_arrays(
            directory / "train" / "reference.npz", features=rows.astype(np.float16), ids=ids, observed=observed
        )

    matrix = np.full((num_classes, num_classes), 0.2 / (num_classes - 1))
    np.fill_diagonal(matrix, 0.8)
    figures = {"oracle": False, "estimated_rate": 0.2, "realised_rate": wrong, "mean_absolute_error": 0.01}
    figures |= {"total_variation": 0.1, "clean_prior_total_variation": 0.02, "observed_prior_total_variation": 0.03}
    _stage(directory / "noise_model", {"transition": figures}, None)
    write_arrays(directory / "noise_model" / "transition.npz", ids=ids, matrix=matrix, clean_counts=np.asarray(counts))
    return directory


def _stage(directory: pathlib.Path, summary: dict[str, Any], lines: list[dict[str, Any]] | None) -> None:
    directory.mkdir()
    times = {"wall_seconds": 2.5, "train_seconds": 1.5, "images_per_second": 100.0} if lines else {"wall_seconds": 0.5}
    write_json(directory / "summary.json", {"stage": directory.name, **summary, **times, **MADE})
    if lines:
        (directory / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
