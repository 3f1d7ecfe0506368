"""The classifier of a finished run, ready for images: what was trained, read again without its training data."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from lt_noisy.augment.base import evaluate_batch
from lt_noisy.config.fields import fields_of
from lt_noisy.config.resolve import Resolved, RunFields, Stage, default, resolve, section
from lt_noisy.config.spec import Call, parse
from lt_noisy.data.dataset import Dataset
from lt_noisy.data.images import DTYPES, Images, kind_of
from lt_noisy.data.sources.base import Source, Split
from lt_noisy.errors import UserError
from lt_noisy.finished.run import FinishedRun, FinishedStage
from lt_noisy.models import vectors
from lt_noisy.models.convolution import as_elsewhere
from lt_noisy.precision import to_float
from lt_noisy.progress import Progress
from lt_noisy.runs.jobs import make_job
from lt_noisy.stages import supervised
from lt_noisy.stages.base import WITH_HEAD, Job
from lt_noisy.stages.features import Extractor
from lt_noisy.stages.origin import Origin, origin, required
from lt_noisy.stages.prediction import compile_predict, part_variables, prepared_shape
from lt_noisy.stages.reference import Reference, read_reference
from lt_noisy.stages.representation import Features, encoder_features, encoder_program
from lt_noisy.training import parallel
from lt_noisy.training.checkpoint import final
from lt_noisy.training.interrupt import Interrupts

PyTree = Any
Forward = Callable[[Images, Progress | None], np.ndarray]


class Fit(NamedTuple):
    """How pictures of any size become images of a network.

    Attributes:
      resize: the shorter side is resized to so many pixels before the centre is cut out; 0: to the image's size.
      stretched: whether the whole picture is resized in its place, without keeping the aspect.
    """

    resize: int = 0
    stretched: bool = False


class Network(NamedTuple):
    """A finished classifier.

    Attributes:
      stage: the name of the stage that trained it.
      class_names: C names.
      image_shape: (H, W, C) of the images that it takes, uint8; (D,) of vectors, float32.
      fit: how pictures become its images.
      reference: features of its training images; None where the stage left none.
      forward: images [N, ...] -> float32 [N, C + D], logits and features side by side.
    """

    stage: str
    class_names: tuple[str, ...]
    image_shape: tuple[int, ...]
    fit: Fit
    reference: Reference | None
    forward: Forward

    def __call__(self, images: Images, progress: Progress | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Logits float32 [N, C] and features float32 [N, D] of images as `image_shape` says."""
        found = self.forward(images, progress)
        return found[:, : len(self.class_names)], found[:, len(self.class_names) :]


def default_stage(run: FinishedRun) -> str:
    """The last finished stage that has a classifier of its own."""
    known = [stage.name for stage in run.stages if stage.kind in WITH_HEAD]
    if not known:
        there = ", ".join(f"{stage.name} ({stage.kind})" for stage in run.stages) or "no stage yet"
        raise UserError(f"{run.directory}: no finished stage holds a classifier (it has {there})")
    return known[-1]


class _Parts(NamedTuple):
    """What the classifier of a stage consists of.

    Attributes:
      job: of the classifier; on the output of a `features` stage its images are vectors.
      stage: that trained it.
      encoder: the encoder before it, where it works on that output, and the job of that.
    """

    job: Job
    stage: Stage
    encoder: tuple[Job, Origin] | None


def _parts(run: FinishedRun, name: str) -> _Parts:
    """The parts of the classifier that a stage trained; the empty name for `default_stage`."""
    name = name or default_stage(run)
    if (kind := run.stage(name).kind) not in WITH_HEAD:
        raise UserError(f"{run.directory / name} is a {kind} stage, which holds no classifier ({', '.join(WITH_HEAD)})")
    if run.stage(name).of_other_data:
        raise UserError(f"{run.directory / name} learnt the classes of another data set, which the run does not name")
    resolved = resolved_again(run)
    by_name = {stage.name: stage for stage in resolved.stages}
    stage, read = by_name[name], _features_stage(by_name, by_name[name])
    if read is None:
        return _Parts(_job(run, resolved, stage, run.image_shape), stage, None)
    before = _job(run, resolved, read, run.image_shape)
    return _Parts(_on_vectors(run, resolved, stage), stage, (before, required(before, read.section)))


def load_network(run: FinishedRun, name: str = "", few: bool = False) -> Network:
    """The classifier that a finished stage trained.

    Args:
      name: of the stage; empty for `default_stage`.
      few: whether it will mostly see few images at a time (`stages.prediction.compile_predict`).

    Raises:
      UserError: the stage holds no classifier, or what it needs is not there any more.
    """
    job, stage, encoder = _parts(run, name)
    if encoder is None:
        forward = _classifier(job, stage, few)
    else:
        extracted = encoder_features(*encoder)
        forward = _after(extracted, _classifier(job, stage, few))
    reference = read_reference(run.directory / stage.name)
    fit = fit_of(parse(run.config["dataset"]))
    return Network(stage.name, run.class_names, run.image_shape, fit, reference, forward)


def fit_of(dataset: Call) -> Fit:
    """How the pictures of a data set became its images."""
    resize = dataset.kwargs.get("resize")
    if isinstance(resize, int):
        return Fit(resize, dataset.name == "tfds" and bool(dataset.kwargs.get("size")) and not resize)
    nested = [value for value in (*dataset.args, *dataset.kwargs.values()) if isinstance(value, Call)]
    return max(map(fit_of, nested), default=Fit())


class Traceable(NamedTuple):
    """The forward pass of a finished classifier as one pure function, for programs that trace it.

    Attributes:
      apply: images [B, ...] as the run's `image_shape` says -> logits float32 [B, C], features float32 [B, D]; the
        weights are constants of it, and its convolutions plain ones, on a CPU too.
      rounded: whether the features are of float16, as exact as those that the classifier learnt from.
    """

    apply: Callable[[jax.Array], tuple[jax.Array, jax.Array]]
    rounded: bool


def traceable(run: FinishedRun, name: str = "") -> Traceable:
    """What `load_network` computes, as a function; raises what that does."""
    job, stage, encoder = _parts(run, name)
    classify, weights = _program(job, stage)
    before = None if encoder is None else encoder_program(*encoder)

    def apply(images: jax.Array) -> tuple[jax.Array, jax.Array]:
        with as_elsewhere():
            if before is not None:  # a compiler may leave out a conversion to float16 and back
                images = lax.reduce_precision(before.apply(before.variables, images), 5, 10)
            return classify(weights, images)

    return Traceable(apply, before is not None)


def resolved_again(run: FinishedRun) -> Resolved:
    """The config of a run, bound anew for another machine: what decides no result has its default.

    So have fields that are newer than the run.
    """
    config, of_run = default(), fields_of(RunFields)
    for key, value in run.config.items():
        if key in of_run and not of_run[key].identity:
            continue
        value = tuple(value) if isinstance(value, list) else value
        if isinstance(value, Mapping):
            fields: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in value.items()}
            config[key] = section(**fields)
        else:
            config[key] = value
    return resolve(config)


def _features_stage(stages: Mapping[str, Stage], stage: Stage) -> Stage | None:
    """The `features` stage on whose output a stage works; None where it works on images."""
    start = stages.get(stage.inputs.get("init", ""))
    if start is None or start.texts["kind"] == "features":
        return start
    return _features_stage(stages, start)


def _job(run: FinishedRun, resolved: Resolved, stage: Stage, shape: tuple[int, ...]) -> Job:
    """What the stage was given, with no image in its data set."""
    devices = parallel.make(resolved.fields.parallel, resolved.fields.devices)
    nothing, labels = np.zeros((0, *shape), DTYPES[kind_of(shape)]), np.zeros(0, np.int32)
    split = Split(labels.astype(np.int64), labels, lambda rows: nothing)
    source = Source(split, split, run.class_names)
    dataset = Dataset(nothing, labels, labels, split.ids, nothing, labels, run.class_names, source)
    return make_job(resolved, stage, run.directory, dataset, dataset, devices, Interrupts())


def _on_vectors(run: FinishedRun, resolved: Resolved, stage: Stage) -> Job:
    """The job of a stage on the features of another, of which only the checkpoint says how wide they are."""
    width = final(run.directory / stage.name)[1]["image_shape"]
    return _job(run, resolved, stage, tuple(width))._replace(encoder=vectors.identity())


def _program(job: Job, stage: Stage) -> tuple[Callable[[PyTree, jax.Array], tuple[jax.Array, jax.Array]], PyTree]:
    """The trained network of a stage, `apply(variables, images) -> (logits, features)`, and its variables."""
    net, augment = supervised.classifier(job, stage.section.head), stage.section.augment

    def apply(variables: PyTree, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        x = evaluate_batch(augment, images)
        found: Any = net.apply(variables, x, train=False, method="features_and_logits")
        features, logits = found
        return to_float(logits), to_float(features)

    return apply, part_variables(job, net, job.directory, augment, ("encoder", "head"))


def _classifier(job: Job, stage: Stage, few: bool) -> Forward:
    """The trained network of a stage, logits and features side by side."""
    apply, variables = _program(job, stage)
    weights = job.devices.replicate(variables)

    def both(variables: PyTree, images: jax.Array) -> jax.Array:
        return jnp.concatenate(apply(variables, images), axis=-1)

    predict = compile_predict(job.devices, both, prepared_shape(job, stage.section.augment), few)
    return lambda images, progress: predict(weights, images, progress)


def _after(extract: Features, classify: Forward) -> Forward:
    """Both, with the features in between as exact as `data.row_cache` has them in training."""

    def forward(images: Images, progress: Progress | None) -> np.ndarray:
        features = extract(images, progress).astype(np.float16).astype(np.float32)
        return classify(features, Progress("the classifier on the features", len(features)))

    return forward


def trained_features(run: FinishedRun, stage: FinishedStage, dataset: Dataset) -> np.ndarray | None:
    """Features float32 [N, D] of a data set's training images, by the encoder that a stage of the run starts from.

    That has seen no labels where the stage judges them out of sample. A stage from scratch has none: then it is that of
    the run's classifier; None without one.
    """
    resolved = resolved_again(run)
    by_name = {stage.name: stage for stage in resolved.stages}
    bound = by_name[stage.name]
    job = _job(run, resolved, bound, run.image_shape)
    if (read := _features_stage(by_name, bound)) is not None:
        extractor = Extractor(_job(run, resolved, read, run.image_shape), read.section, dataset.source)
        assert dataset.source_rows is not None
        return extractor.read("train", dataset.source_rows)
    if (start := origin(job, bound.section)) is not None:
        return encoder_features(job, start)(dataset.train_images)
    if not any(finished.kind in WITH_HEAD for finished in run.stages):
        return None
    return load_network(run)(dataset.train_images)[1]
