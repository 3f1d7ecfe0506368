"""What each stage of a run is given, and what makes it the same as one that stands finished."""

import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

from lt_noisy import processes
from lt_noisy.config.identity import stage_identity
from lt_noisy.config.resolve import Resolved, Stage
from lt_noisy.data.dataset import Dataset, choose, read_by
from lt_noisy.data.images import described, kind_of
from lt_noisy.errors import UserError, prefixed
from lt_noisy.hashing import json_sha256
from lt_noisy.stages.base import Input, Job
from lt_noisy.stages.features import Extractor, featured, on_features
from lt_noisy.training import parallel, profile
from lt_noisy.training.interrupt import Interrupts


class Work(NamedTuple):
    """A stage, what it is given, its identity, and what was measured for that (`config.identity.stage_identity`)."""

    stage: Stage
    job: Job
    identity: Mapping[str, Any]
    measured: Mapping[str, Any] = {}


def make_jobs(
    resolved: Resolved,
    dataset: Dataset,
    workdir: pathlib.Path,
    devices: parallel.Jit | parallel.Pmap,
    interrupts: Interrupts,
) -> list[Job]:
    """One job a stage, in order; a stage that asks for other data than the run's `dataset` gets that.

    Raises:
      UserError: a stage that learns from labels, on images of one class; a model of something else than the data.
    """
    _check_model(resolved, dataset.train_images.shape[1:])
    chosen = {stage.texts["data"]: stage for stage in resolved.stages if "data" in stage.texts}
    datasets = {text: _chosen(stage, dataset) for text, stage in chosen.items()}
    for stage in resolved.stages:
        own = datasets.get(stage.texts.get("data"), dataset)
        if own.num_classes < 2 and stage.kind.labels(stage.section):
            raise UserError(f"config.{stage.name}: it learns from labels, and the images are all of one class")
    jobs = {
        stage.name: make_job(
            resolved, stage, workdir, datasets.get(stage.texts.get("data"), dataset), dataset, devices, interrupts
        )
        for stage in resolved.stages
    }
    return _on_features(resolved, jobs)


def _on_features(resolved: Resolved, jobs: Mapping[str, Job]) -> list[Job]:
    """The jobs, with features in place of images where a stage starts from a `features` stage, or from such a stage."""
    made_by = {stage.name: stage for stage in resolved.stages if stage.texts["kind"] == "features"}
    extractors: dict[tuple[str, int], Extractor] = {}  # by stage and source
    made: dict[tuple[str, int], Dataset] = {}  # by stage and data set
    found = []

    def extractor(name: str, dataset: Dataset) -> Extractor:
        key = name, id(dataset.source)
        if key not in extractors:
            with prefixed(f"config.{name}.init"):
                extractors[key] = Extractor(jobs[name]._replace(dataset=dataset), made_by[name].section, dataset.source)
        return extractors[key]

    def with_features(name: str, dataset: Dataset) -> Dataset:
        key = name, id(dataset)
        if key not in made:
            made[key] = featured(dataset, extractor(name, dataset))
        return made[key]

    for stage in resolved.stages:
        job, start = jobs[stage.name], stage.inputs.get("init")
        if start in made_by and stage.name not in made_by:
            made_by[stage.name] = made_by[start]
            name = made_by[start].name
            datasets = with_features(name, job.dataset), with_features(name, job.training_set)
            job = on_features(job, datasets, extractor(name, job.dataset), resolved.fields.feed)
        found.append(job)
    return found


def _chosen(stage: Stage, dataset: Dataset) -> Dataset:
    """What a stage's `data` means in a run on `dataset`."""
    with prefixed(f"config.{stage.name}.data"):
        return choose(stage.section.data, dataset)


def _check_model(resolved: Resolved, shape: tuple[int, ...]) -> None:
    """Refuses an encoder of images for vectors, and of vectors for images."""
    takes = resolved.fields.model(resolved.fields.precision, resolved.fields.batch_norm).takes
    if takes != kind_of(shape):
        instead = "identity() or mlp()" if takes == "images" else "a resnet"
        raise UserError(
            f"config.model: {resolved.texts['model']} takes {takes}, and the data are {described(shape)}; set {instead}"
        )


def make_job(
    resolved: Resolved,
    stage: Stage,
    workdir: pathlib.Path,
    dataset: Dataset,
    training_set: Dataset,
    devices: parallel.Jit | parallel.Pmap,
    interrupts: Interrupts,
) -> Job:
    """What `stage` is given in this run, to work on `dataset`; its card is still empty.

    Args:
      training_set: the run's own, which `dataset` is too unless the stage chose another.
    """
    fields = resolved.fields
    return Job(
        name=stage.name,
        directory=workdir / stage.name,
        seed=fields.seed,
        encoder=fields.model,
        dtype=fields.precision,
        norm_axis=fields.batch_norm,
        devices=devices,
        steps_per_call=fields.steps_per_call,
        dataset=dataset,
        training_set=training_set,
        inputs=_inputs(resolved, stage, workdir),
        card={},
        interrupts=interrupts,
        workers=fields.feed.workers,
        trackers=fields.trackers,
    )


def traced(works: list[Work], steps: profile.Steps, workdir: pathlib.Path) -> list[Work]:
    """The same works, one of which traces steps of its training into `profile/` in the workdir.

    Raises:
      UserError: there are no such steps.
    """
    steps = profile.placed(steps, {w.stage.name: w.measured["steps"] for w in works if "steps" in w.measured})
    trace = profile.Trace(steps, workdir.absolute() / profile.DIRECTORY / f"process_{processes.index()}")
    return [w._replace(job=w.job._replace(trace=trace)) if w.stage.name == steps.stage else w for w in works]


def _inputs(resolved: Resolved, stage: Stage, workdir: pathlib.Path) -> dict[str, Input]:
    """The stages that `stage` reads by field, with those they read in turn."""
    stages = {stage.name: stage for stage in resolved.stages}
    inputs = {}
    for field, name in stage.inputs.items():
        read = stages[name]
        own = _inputs(resolved, read, workdir)
        of_features = read.texts["kind"] == "features" or ("init" in own and own["init"].of_features)
        inputs[field] = Input(workdir / name, read.section, read.texts, own, of_features)
    return inputs


def identified(resolved: Resolved, jobs: list[Job]) -> list[Work]:
    """Each stage with its job and identity.

    Raises:
      UserError: what a stage's `check` finds that does not fit its data.
    """
    works: list[Work] = []
    hashes: dict[str, str] = {}  # of identities, by stage
    data: dict[int, dict[str, str]] = {}  # `Dataset.hashes`, once for each data set
    for stage, job in zip(resolved.stages, jobs, strict=True):
        measured = stage.kind.check(job, stage.section)
        if id(job.dataset) not in data:
            data[id(job.dataset)] = job.dataset.hashes()
        identity = stage_identity(
            resolved,
            stage,
            measured,
            job.devices.num_devices,
            read_by(data[id(job.dataset)], stage.kind.labels(stage.section)),
            {name: hashes[name] for name in stage.inputs.values()},
        )
        hashes[stage.name] = json_sha256(identity)
        works.append(Work(stage, job, identity, measured))
    return works
