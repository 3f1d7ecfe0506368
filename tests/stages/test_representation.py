"""What is watched of a representation: the pixels' figure, made once for whatever has the same pixels."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest

from lt_noisy.augment import AUGMENTS
from lt_noisy.config.spec import bind
from lt_noisy.data.dataset import Dataset
from lt_noisy.data.sources.base import Source, Split
from lt_noisy.estimate import neighbours
from lt_noisy.evaluation.representation import knn_predict
from lt_noisy.stages import representation
from lt_noisy.training import parallel

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (20, 4, 4, 1)).astype(np.uint8)
LABELS = np.repeat([0, 1], 10).astype(np.int32)


def job(images=IMAGES, test_labels=LABELS[::2]):
    train = Split(np.arange(20), LABELS, lambda rows: images[rows])
    test = Split(np.arange(10), test_labels, lambda rows: images[::2][rows])
    source = Source(train, test, ("a", "b"))
    dataset = Dataset(images, LABELS, LABELS, train.ids, images[::2], test_labels, source.class_names, source)
    return SimpleNamespace(dataset=dataset, devices=parallel.make("jit", 1), seed=0)


@pytest.fixture
def monitor(monkeypatch):
    """A monitor that counts its calls, and no figures from before."""
    monkeypatch.setattr(representation, "_PIXEL_ACCURACIES", {})

    def knn(bank, labels, queries, num_classes):
        knn.calls += 1
        return knn_predict(bank, labels, queries, num_classes, k=3)

    knn.calls = 0
    return knn


def pixel_accuracy(job, monitor, augment="none()"):
    return representation.Representation(job, monitor, bind(augment, AUGMENTS, "augment"), None)._pixel_accuracy()


def test_the_pixels_figure_is_made_once_for_the_same_pixels(monitor):
    """Another augmentation of the same deterministic part is the same; the bank is all of these 20 images."""
    unit = IMAGES.reshape(20, -1) / 255
    expected = np.mean(knn_predict(unit, LABELS, unit[::2], 2, k=3) == LABELS[::2])
    assert pixel_accuracy(job(), monitor) == pixel_accuracy(job(), monitor, "crop(pad=1)") == expected
    assert monitor.calls == 1


def test_the_pixels_figure_is_never_of_something_else(monitor):
    pixel_accuracy(job(), monitor)
    others = [
        (job(images=255 - IMAGES), "none()"),
        (job(test_labels=1 - LABELS[::2]), "none()"),
        (job(), "normalise((0.5,), (0.25,))"),
    ]
    for calls, (other, augment) in enumerate(others, 2):
        pixel_accuracy(other, monitor, augment)
        assert monitor.calls == calls
    pixel_accuracy(job(), representation.Knn(k=1, temperature=0.1))
    assert monitor.calls == 4 and len(representation._PIXEL_ACCURACIES) == 5


def test_two_stages_that_ask_for_the_same_monitor_have_the_same():
    one, two = (bind("knn(k=5)", representation.MONITORS, "monitor") for _ in range(2))
    assert one == two != bind("knn(k=6)", representation.MONITORS, "monitor") and hash(one) == hash(two)


def test_the_bank_is_the_training_images_where_they_are_all_there_is():
    whole = job().dataset
    bank = representation.Bank(whole, 0)
    assert bank.shared and bank.images() is whole.train_images and bank.labels.tolist() == LABELS.tolist()
    part = whole.rows(np.arange(0, 20, 2))
    bank = representation.Bank(part, 0)
    assert not bank.shared and np.bincount(bank.labels).tolist() == [5, 5] and len(bank.images()) == 10


def test_the_memory_of_a_monitor_grows_with_a_bank_of_its_own_alone(monkeypatch):
    monkeypatch.setattr(neighbours, "HELD", 4 * 16 * 3)  # three vectors of 16 pixels at a time
    monitor = representation.Knn(k=1, temperature=0.1)
    assert representation.watch_bytes(job(), None) == 0
    few = representation.watch_bytes(job(), monitor)
    assert few == 3 * 4 * 16 * 3 + 4 * neighbours.BLOCK * 20
    part = job()
    part.dataset = part.dataset.rows(np.arange(10))
    assert representation.watch_bytes(part, monitor) == 3 * 4 * 16 * 3 + 4 * neighbours.BLOCK * 10 + IMAGES[:10].nbytes


def test_pixels_are_never_all_in_memory(monitor, monkeypatch):
    expected = pixel_accuracy(job(), monitor)
    monkeypatch.setattr(neighbours, "HELD", 4 * 16 * 3)
    monkeypatch.setattr(representation, "_PIXEL_ACCURACIES", {})
    sizes, read = [], representation.Representation._prepared

    def recorded(self, images):
        vectors = read(self, images)
        return dataclasses.replace(vectors, read=lambda rows: (sizes.append(len(rows)), vectors.read(rows))[1])

    monkeypatch.setattr(representation.Representation, "_prepared", recorded)
    assert pixel_accuracy(job(), monitor) == expected
    assert max(sizes) == 3 and sum(sizes) == 10 + 4 * 20  # the queries in four portions, the bank for each of them
