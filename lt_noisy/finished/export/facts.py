"""What a run's files say of one of its networks: the facts behind a model card."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lt_noisy.config.spec import parse
from lt_noisy.data import manifest as manifests
from lt_noisy.data.images import kind_of
from lt_noisy.errors import UserError
from lt_noisy.files import load_arrays
from lt_noisy.finished.network import Fit, fit_of
from lt_noisy.finished.run import FinishedRun, FinishedStage
from lt_noisy.stages.reference import read_reference


class Facts(NamedTuple):
    """What is known of a network.

    Attributes:
      run: that trained it.
      stage: that trained it.
      network: its name in the run: that of the stage, or such as `folds/fold_0`.
      clean_counts: int [C], training images by their clean labels; where nobody knows those, by the given ones.
      observed_counts: int [C], by the labels that it learnt from.
      reads_labels: whether it learnt from labels at all.
      noise_rate: the share of training labels that are known to be wrong; None where nobody knows.
      corrections: how many labels somebody corrected or dropped before it was trained.
      manifest_sha256: of the training set.
      test: of the stage's summary, the figures on test images; {} where it has none.
      estimates: (stage, share of wrong labels that it estimates, whether it judged labels that it had not learnt from).
      threshold: the distance beyond which an image is unlike the training images; None where nobody measured it.
    """

    run: FinishedRun
    stage: FinishedStage
    network: str
    clean_counts: np.ndarray
    observed_counts: np.ndarray
    noise_rate: float | None
    reads_labels: bool
    corrections: int
    manifest_sha256: str
    test: Mapping[str, Any]
    estimates: tuple[tuple[str, float, bool], ...]
    threshold: float | None

    @property
    def kind(self) -> str:
        """`images` or `vectors`."""
        return kind_of(self.run.image_shape)

    @property
    def fit(self) -> Fit:
        """How pictures become images."""
        return fit_of(parse(self.run.config["dataset"]))


def gather(run: FinishedRun, network: str) -> Facts:
    """The facts of a network of a run.

    Args:
      network: a finished stage, or a network within one, such as `folds/fold_0`.

    Raises:
      UserError: there is no such stage, or the manifest is not there.
    """
    stage = run.stage(Path(network).parts[0])
    manifest = manifests.load(run.directory)
    judged = stage.directory / "label_quality.npz"
    # Without what was held out, where the stage says what it learnt from.
    learnt = load_arrays(judged, "ids")[0] if judged.exists() else manifest.ids
    if network != stage.name and network not in (within := _networks(stage)):
        raise UserError(
            f"{run.directory / network}: there is no such network (there are {', '.join(within) or 'none'})"
        )
    if stage.kind == "cross_fit" and network != stage.name:  # nor from the fold that it judges
        (fold,) = load_arrays(judged, "fold")
        learnt = learnt[fold != int(network.rpartition("_")[2])]
    own = np.isin(manifest.ids, learnt)
    clean, observed = manifest.clean_labels[own], manifest.observed_labels[own]
    reference = read_reference(run.directory / network)
    return Facts(
        run=run,
        stage=stage,
        network=network,
        clean_counts=np.bincount(clean, minlength=manifest.num_classes),
        observed_counts=np.bincount(observed, minlength=manifest.num_classes),
        reads_labels=stage.kind not in ("self_supervised", "experts", "distil"),
        noise_rate=float((clean != observed).mean()) if manifests.truth_known(manifest) else None,
        corrections=int(manifest.recipe.get("corrections", 0)),
        manifest_sha256=manifests.digest(manifest),
        test=stage.summary.get("test", {}) if network == stage.name else {},
        estimates=tuple(_estimates(run)),
        threshold=None if reference is None else reference.threshold,
    )


def _networks(stage: FinishedStage) -> list[str]:
    """Those within a stage of several, such as `folds/fold_0`."""
    each = stage.summary.get("networks") or stage.summary.get("experts") or []
    return [f"{stage.name}/{network['stage']}" for network in each]


def _estimates(run: FinishedRun) -> list[tuple[str, float, bool]]:
    found = [(stage.name, stage.summary.get("label_quality") or {}) for stage in run.stages]
    return [
        (name, float(figures["estimated_rate"]), bool(figures["out_of_sample"]))
        for name, figures in found
        if figures.get("estimated_rate") is not None
    ]


def prepared(run: FinishedRun, stage: str) -> str:
    """How a stage's images are prepared for its network, in words."""
    steps = [] if kind_of(run.image_shape) == "vectors" else ["pixels / 255"]
    by_name = {each.name: each for each in run.stages}
    before = by_name.get(stage)
    while before is not None and before.kind != "features":
        before = by_name.get(before.texts.get("init", ""))
    if before is not None:
        seen = before.summary.get("prepared")  # of weights; else its images are prepared as those of its own encoder
        steps.append(f"the encoder of stage {before.name}" + (f" on images of {seen}" if seen else ""))
    if (augment := run.stage(stage).texts["augment"]) != "none()":
        steps.append(f"the deterministic part of {augment}")
    return "in the graph: " + (", then ".join(steps) or "nothing")
