"""Stage `features`: an encoder once over all images; what starts from it works on its features in their place.

The features of an image are kept on the disk by source, weights and preparation (`data.row_cache`), so that every run
with the same ones, whatever its long tail, noise and seed, finds them there; a stage that asks for more rows, such as
the full split, has those computed.
"""

import dataclasses
import functools
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from lt_noisy import processes, revision
from lt_noisy.config.fields import stage_ref
from lt_noisy.data.dataset import Dataset
from lt_noisy.data.feed import Feed, room_here, stays_resident
from lt_noisy.data.images import Stored, identity
from lt_noisy.data.row_cache import RowCache
from lt_noisy.data.sources.base import Source, Split, identity_of, split_images
from lt_noisy.errors import UserError
from lt_noisy.evaluation.representation import collapse
from lt_noisy.hashing import arrays_sha256
from lt_noisy.models import vectors
from lt_noisy.progress import Progress
from lt_noisy.stages import training
from lt_noisy.stages.base import ENCODERS, Job, Kind
from lt_noisy.stages.origin import augmentation, encoder_shapes, encoder_variables, required, weights_read
from lt_noisy.stages.prediction import prepared_shape
from lt_noisy.stages.representation import Features, encoder_features
from lt_noisy.stages.rows import Rows, collapse_rows
from lt_noisy.training.state import flatten
from lt_noisy.weights.pretrained import PRETRAINED, Pretrained

_FIRST = 64  # rows after which what was computed is on the disk; then as many as take about
_SECONDS = 10.0
_CODE = ("lt_noisy.augment.operations", "lt_noisy.data.boxes", "lt_noisy.weights.names")  # beside the encoder's own


@dataclasses.dataclass(frozen=True)
class Section:
    """The fields of a `features` stage."""

    # Whose encoder: weights, or an earlier stage.
    init: str | Pretrained = stage_ref("pretrain", tuple(k for k in ENCODERS if k != "features"), table=PRETRAINED)


class Extractor:
    """The features of a source's images, computed where they are not on the disk yet.

    Attributes:
      width: D.
    """

    def __init__(self, job: Job, section: Section, source: Source):
        self._job, self._start = job, required(job, section)
        self._splits = {"train": source.train, "test": source.test}
        self._augment = augmentation(self._start)
        self._shape = prepared_shape(job, self._augment)
        encoder = job.encoder(job.dtype, job.norm_axis)
        image = jax.ShapeDtypeStruct((1, *self._shape), np.float32)
        variables = encoder_shapes(job, self._shape)
        self.width = jax.eval_shape(lambda v, x: encoder.apply(v, x, train=False), variables, image).shape[-1]
        self._caches: dict[str, RowCache] = {}
        self._features: Features | None = None
        self._weights = ""
        self._lock = threading.Lock()

    def split(self, name: str) -> Split:
        """The split of this name with features, float32 [n, D], in place of its images."""
        split = self._splits[name]
        return split._replace(
            images=lambda rows: self.read(name, rows),
            content=lambda rows: _of_pixels(split, rows),
            read_cut=None,
            shape=(self.width,),
        )

    def read(self, name: str, rows: np.ndarray) -> np.ndarray:
        """float32 [n, D] of these rows (int [n]) of a split; what is missing is computed.

        Several processes compute together, in `fill` alone: they read rows of their own, each at its own time.
        """
        if not len(rows):
            return np.empty((0, self.width), np.float32)
        with self._lock:
            cache = self._cache(name)
            missing = np.unique(rows[~cache.there(rows)])
            if len(missing) and processes.count() > 1:
                raise UserError(
                    f"config.{self._job.name}: these features are not there, and only one process adds some"
                )
            self._compute(name, missing)
            return cache.read(rows)

    def fill(self, wanted: Mapping[str, list[np.ndarray]]) -> int:
        """Computes what is missing of these rows of the splits, by all processes together; returns how many rows."""
        number = 0
        for name, parts in wanted.items():
            rows = np.unique(np.concatenate(parts)) if parts else np.zeros(0, np.int64)
            # Where processes have disks of their own, what one of them lacks.
            missing = rows[processes.gather(~self._cache(name).there(rows)).any(0)]
            self._compute(name, missing)
            number += len(missing)
        self._features = None  # what it holds on the devices
        return number

    def _compute(self, name: str, missing: np.ndarray) -> None:
        if not len(missing):
            return
        cache, split = self._cache(name), self._splits[name]
        if self._features is None:
            self._features = encoder_features(self._job, self._start)
        progress = Progress(f"{self._job.name}: {name} images", len(missing))
        begin, size = 0, _FIRST
        while begin < len(missing):
            started, block = time.perf_counter(), missing[begin : begin + size]
            cache.write(block, self._features(split_images(split, block, True), progress))
            begin += len(block)
            seconds = processes.once(functools.partial(_seconds_since, started))  # of all the same
            size = 2 * size if seconds < _SECONDS / 2 else max(size // 2, 1) if seconds > 2 * _SECONDS else size

    def _cache(self, name: str) -> RowCache:
        if name not in self._caches:
            split, encoder = self._splits[name], self._job.encoder(self._job.dtype, None)
            key = {
                "images": _of_pixels(split, np.arange(len(split.ids))),
                "encoder": self._encoder(),
                "shown": [repr(self._shape), _constants(self._augment.evaluate, self._job)],
                "precision": np.dtype(self._job.dtype).name,
                "code": revision.sources_sha256(type(encoder).__module__, *_CODE),
                "computed by": [jax.__version__, jax.default_backend(), jax.devices()[0].device_kind],
            }
            self._caches[name] = RowCache(key, len(split.ids), self.width)
        return self._caches[name]

    def _encoder(self) -> str:
        """What its weights are."""
        if not self._weights:
            variables = encoder_variables(self._job, self._start, encoder_shapes(self._job, self._shape))
            self._weights = arrays_sha256(flatten(variables)) + repr(self._job.encoder(self._job.dtype, None))
        return self._weights


def _seconds_since(started: float) -> float:
    return time.perf_counter() - started


def _of_pixels(split: Split, rows: np.ndarray) -> str:
    return identity_of(split, rows, Stored(split.images, rows, split.images(rows[:1]).shape[1:]))


def _constants(evaluate: Callable[[jax.Array], jax.Array], job: Job) -> str:
    """What the deterministic part of an augmentation makes of one picture, which tells two of them apart."""
    shape = job.dataset.train_images.shape[1:]
    ramp = np.linspace(0, 1, int(np.prod(shape)), dtype=np.float32).reshape(shape)
    shown = np.round(np.asarray(jax.jit(evaluate)(ramp), np.float64), 4)
    return arrays_sha256({"shown": shown + 0.0})


def on_features(job: Job, datasets: tuple[Dataset, Dataset], extractor: Extractor, feed: Feed) -> Job:
    """The job on features in place of images, with an encoder that leaves them as they are.

    They are in memory once the stage begins (`Job.arrived`), unless they are too many: nothing is computed before.

    Args:
      datasets: the job's data set and the run's training set, with features.
    """

    def arrived(dataset: Dataset) -> Dataset:
        extractor.fill(_rows(dataset))
        images, tests = dataset.train_images, dataset.test_images
        on_host = images.nbytes + tests.nbytes
        if not processes.once(lambda: stays_resident(feed, on_host, images.nbytes, room_here())):
            return dataset
        held = dataset.validation
        return dataset._replace(
            train_images=images[:], test_images=tests[:], validation=held and held._replace(images=held.images[:])
        )

    dataset, training_set = datasets
    return job._replace(dataset=dataset, training_set=training_set, encoder=vectors.identity(), arrived=arrived)


def featured(dataset: Dataset, extractor: Extractor) -> Dataset:
    """The data set with features that are read when they are asked for."""
    train, test = extractor.split("train"), extractor.split("test")

    def stored(split: Split, rows: np.ndarray | None) -> Stored:
        assert rows is not None  # known of whatever `dataset.select` made
        return Stored(split.images, rows, (extractor.width,))

    held = dataset.validation
    return dataset._replace(
        train_images=stored(train, dataset.source_rows),
        test_images=stored(test, np.arange(len(dataset.test_labels))),
        source=dataset.source._replace(train=train, test=test),
        validation=held and held._replace(images=stored(train, held.source_rows)),
    )


def _rows(dataset: Dataset) -> dict[str, list[np.ndarray]]:
    """The rows of the splits that a data set has."""
    held = dataset.validation
    train = [rows for rows in (dataset.source_rows, held and held.source_rows) if rows is not None]
    return {"train": train, "test": [np.arange(len(dataset.test_labels))]}


def check(job: Job, section: Section) -> dict[str, str]:
    """Refuses weights that do not fit, and images that the encoder cannot take."""
    read, start = weights_read(job, section), required(job, section)
    if not isinstance(start, Pretrained) and start.of_features:
        raise UserError(f"config.{job.name}.init: that stage works on features itself; name one with an encoder")
    training.check_images(job, augmentation(start).evaluate, f"config.{job.name}.init")
    return read


def run(job: Job, section: Section) -> dict[str, Any]:
    """Computes what the disk does not have of the training set, the held-out part and the test set."""
    extractor = Extractor(job, section, job.dataset.source)
    began = time.perf_counter()
    computed = extractor.fill(_rows(job.dataset))
    seconds = time.perf_counter() - began
    dataset = featured(job.dataset, extractor)
    test = dataset.test_images[:]
    return {
        "train_images": len(dataset.ids),
        "test_images": len(test),
        "width": extractor.width,
        "computed": computed,
        "images_per_second": computed / seconds if computed else None,
        "features_sha256": identity(dataset.train_images),
        "collapse": collapse(test),
        **({"prepared": section.init.preprocessing.describe()} if isinstance(section.init, Pretrained) else {}),
    }


def rows(summary: Mapping[str, Any]) -> Rows:
    """How many, how fast, and whether they have collapsed."""
    speed = summary["images_per_second"]
    found = f"{summary['computed']:,}" + ("" if speed is None else f" ({speed:.0f} images/s)")
    prepared = [("images prepared to", summary["prepared"])] if "prepared" in summary else []
    return [
        ("features", f"{summary['width']} of {summary['train_images']:,} + {summary['test_images']:,} images"),
        ("computed, the others were there", found),
        *prepared,
        *collapse_rows(summary["collapse"]),
    ]


KIND = Kind(Section, run, rows, check)
