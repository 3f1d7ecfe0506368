"""A stage's job on 22 images of 4 x 4 pixels and the least encoder: nothing that compiles for long."""

from types import SimpleNamespace

import numpy as np
from helpers.step_cases import Dense

from lt_noisy.data.dataset import Dataset, Validation
from lt_noisy.data.sources.base import Source, Split
from lt_noisy.training import parallel
from lt_noisy.training.host_log import HostLog
from lt_noisy.training.interrupt import Interrupts
from lt_noisy.training.trackers import none

IMAGES, CLASSES = 22, 3


def job(directory, mode="jit", devices=2, images=IMAGES, steps_per_call=1, held_out=False):
    """A job in `directory`; with `held_out` its images are a validation set, too."""
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (images, 4, 4, 1), dtype=np.uint8)
    labels = generator.integers(0, CLASSES, images).astype(np.int32)
    ids = np.arange(images)
    split = Split(ids, labels, lambda rows: pixels[rows])
    validation = Validation(pixels, labels, labels, ids) if held_out else None
    source = Source(split, split, ())
    dataset = Dataset(pixels, labels, labels, ids, pixels, labels, tuple("abc"), source, validation)
    return SimpleNamespace(
        name="train",
        directory=directory,
        seed=0,
        inputs={},
        dataset=dataset,
        training_set=dataset,
        devices=parallel.make(mode, devices),
        encoder=lambda dtype, axis: Dense(),
        dtype=np.float32,
        norm_axis="data",
        steps_per_call=steps_per_call,
        workers=0,
        card={},
        interrupts=Interrupts(),
        trackers=none(),
        host_log=HostLog(),
        trace=None,
    )
