"""What a plan has in place of what is not there: images, and what earlier stages would have left.

All of it has the shape that it would have in the run, and is empty: of images no memory is taken.
"""

import dataclasses
import pathlib
from typing import Any

import numpy as np

from lt_noisy import files
from lt_noisy.config.resolve import Resolved, Stage
from lt_noisy.config.spec import parse
from lt_noisy.data import given, longtail, noise
from lt_noisy.data.by_class import one_hot
from lt_noisy.data.dataset import Dataset
from lt_noisy.data.images import DTYPES, kind_of
from lt_noisy.data.published import published_counts, published_form
from lt_noisy.data.sources.base import Source, Split
from lt_noisy.errors import UserError
from lt_noisy.runs.planning.request import Given
from lt_noisy.stages import unlabelled
from lt_noisy.stages.base import Job
from lt_noisy.training.checkpoint import CHECKPOINTS, Checkpoints
from lt_noisy.training.state import TrainState


def source(train: int, test: int, classes: int, shape: tuple[int, ...], pictures: bool) -> Source:
    """A source of so many examples, equally many of each class as far as that goes.

    Args:
      shape: of an image, [H, W, C], or [D] of a vector.
      pictures: whether the images are parts of larger pictures, which can be cut.
    """

    def blank(rows: np.ndarray) -> np.ndarray:
        return np.broadcast_to(np.zeros((), DTYPES[kind_of(shape)]), (len(rows), *shape))

    def split(count: int) -> Split:
        rows = np.arange(count)
        read_cut = (lambda rows, cut, draws: blank(rows)) if pictures else None
        labels = (rows % classes).astype(np.int32)
        return Split(rows, labels, blank, content=lambda rows: "blank", read_cut=read_cut)

    return Source(split(train), split(test), tuple(f"class {c}" for c in range(classes)))


def known_source(text: str) -> Source | None:
    """The source of a data set's spec by what is published of it; None where that is not enough."""
    spec = parse(text)
    counts, form = published_counts(spec), published_form(spec)
    if "train" not in counts or form is None:
        return None
    return source(counts["train"], counts.get("test", 0), *form, pictures=bool(spec.kwargs.get("size")))


def with_data(resolved: Resolved, asked: Given | None) -> tuple[Resolved, str]:
    """The config with data that need not be there, and where what is known of them comes from.

    Without `asked` that is what is published of the data set; where nothing is, it is read as a run reads it.

    Raises:
      UserError: the shape of an image is asked for and not known.
    """
    fields, text = resolved.fields, resolved.texts["dataset"]
    if asked is not None:
        shape = asked.shape or _shape(text)
        known = source(asked.examples, 0, asked.classes, shape, pictures=len(shape) == 3)
        nothing = {"longtail": longtail.none(), "noise": noise.none(), "manifest": given.none(), "validation": 0.0}
        fields, origin = dataclasses.replace(fields, dataset=lambda: known, **nothing), "given"
        resolved = resolved._replace(stages=tuple(map(_to_the_end, resolved.stages)))  # nothing is held out to stop by
    elif fields.manifest is None and (known := known_source(text)) is not None:  # or labels that fit none
        fields, origin = dataclasses.replace(fields, dataset=lambda: known), "as published"
    else:
        return resolved, "read"
    return resolved._replace(fields=fields, stages=tuple(map(_without_reading, resolved.stages))), origin


def _to_the_end(stage: Stage) -> Stage:
    """The stage over its planned length."""
    if not getattr(stage.section, "early_stopping", 0):
        return stage
    return stage._replace(section=dataclasses.replace(stage.section, early_stopping=0))


def _shape(text: str) -> tuple[int, ...]:
    spec = parse(text)
    form = published_form(spec._replace(kwargs={**spec.kwargs, "classes": 1}))
    if form is None:
        raise UserError(f"--examples: how large the images of {text} are is not known; add --shape=224x224x3")
    return form[1]


def _without_reading(stage: Stage) -> Stage:
    """The stage with data sets of its own by what is published of them, where that is enough."""
    known = known_source(stage.texts["data"]) if "data" in stage.texts else None
    if known is None:
        return stage
    return stage._replace(section=dataclasses.replace(stage.section, data=lambda: known))


def with_inputs(job: Job) -> Job:
    """The job without what changes no shape, and with a pool that nobody has to read.

    A network that starts from another's encoder (`init`) has the shapes of one from scratch.
    """
    inputs = {field: stage for field, stage in job.inputs.items() if field != "init"}
    if "pseudo" in inputs:
        read = inputs["pseudo"]
        inputs["pseudo"] = read._replace(section=with_pool(job, read.section))
    return job._replace(inputs=inputs, dataset=_without_features(job.dataset))


def _without_features(dataset: Dataset) -> Dataset:
    """The data set with numbers, which take no memory, in the place of features that nobody has computed."""
    images, tests = dataset.train_images, dataset.test_images
    if dataset.source.train.shape is None:  # it is of a split of features alone
        return dataset
    zero = np.zeros(1, images.dtype)
    return dataset._replace(
        train_images=np.broadcast_to(zero, images.shape), test_images=np.broadcast_to(zero, tests.shape)
    )


def with_pool(job: Job, section: Any) -> Any:
    """The section of a `pseudo_label` stage with a pool of as many images; one of all there are has to be read."""
    if not section.times:
        return section
    dataset = job.training_set
    count, shape = round(section.times * len(dataset.ids)), dataset.train_images.shape[1:]
    known = source(count, 0, dataset.num_classes, shape, pictures=True)._replace(class_names=dataset.class_names)
    nothing = {"times": 0.0, "ratio": 1.0, "irrelevant": 0.0, "irrelevant_source": None}
    return dataclasses.replace(section, pool=lambda: known, **nothing)


def write(job: Job, stage: Stage) -> None:
    """Arrays as a stage without a network leaves them for later ones, in the job's directory."""
    dataset, section, kind = job.dataset, stage.section, stage.texts["kind"]
    count, classes = len(dataset.ids), dataset.num_classes
    if kind == "density":
        _arrays(job, "weights", ids=dataset.ids, weights=np.ones(count, np.float32))
    elif kind == "cluster":
        clusters = np.arange(count, dtype=np.int32) % section.partition.clusters
        _arrays(job, "clusters", ids=dataset.ids, clusters=clusters)
    elif kind == "transition":
        matrix, counts = np.full((classes, classes), 1 / classes), np.full(classes, count / classes)
        _arrays(job, "transition", ids=dataset.ids, matrix=matrix, clean_counts=counts)
    elif kind == "pseudo_label":
        ids = unlabelled.pool(job, with_pool(job, section), job.name).ids
        targets = np.arange(len(ids), dtype=np.int32) % classes
        soft = section.targets == "soft"
        _arrays(
            job,
            "pseudo_labels",
            ids=ids,
            targets=one_hot(targets, classes) if soft else targets,
            kept=np.ones(len(ids), bool),
            confidence=np.ones(len(ids), np.float32),
        )


def _arrays(job: Job, name: str, **arrays: np.ndarray) -> None:
    job.directory.mkdir(parents=True, exist_ok=True)
    files.write_arrays(job.directory / f"{name}.npz", **arrays)


def write_network(directory: pathlib.Path, state: TrainState) -> None:
    """The last checkpoint of a network, for a stage that learns from it."""
    checkpoints = Checkpoints(directory / CHECKPOINTS, {})
    try:
        checkpoints.save(0, {"state": state}, 0.0)
    finally:
        checkpoints.close()
