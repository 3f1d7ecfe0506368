"""The published linear probe: its images against PIL, its training against a float64 loop, its figures by hand."""

import numpy as np
import pytest
from PIL import Image

from lt_noisy import rng
from lt_noisy.errors import UserError
from lt_noisy.evaluation import oracle_probe, probes
from lt_noisy.evaluation.oracle_probe import liu

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (23, 8, 8, 3)).astype(np.uint8)
LABELS = RNG.integers(0, 3, 23)
TESTS, TEST_LABELS = RNG.integers(0, 256, (18, 8, 8, 3)).astype(np.uint8), RNG.integers(0, 3, 18)


def features(images):
    """The mean of each row of pixels: float32 [N, 8]."""
    return images.mean((2, 3), dtype=np.float32) / 255


def run(epochs, seed):
    return liu(lr=2.0, epochs=epochs, batch_size=5)(features, IMAGES, LABELS, TESTS, TEST_LABELS, 3, seed)


@pytest.mark.parametrize("shape", [(32, 32, 3), (8, 8, 1), (15, 22, 3)])
def test_test_images_are_enlarged_and_cropped_as_by_pil(shape):
    height, width, channels = shape
    image = RNG.integers(70, 186, shape).astype(np.uint8)  # at no edge beyond 0 or 255, where PIL clips after each axis
    large = Image.fromarray(image[..., 0] if channels == 1 else image).resize(
        (int(width * 8 / 7), int(height * 8 / 7)), Image.Resampling.BICUBIC
    )
    top, left = round((large.height - height) / 2), round((large.width - width) / 2)
    expected = np.asarray(large.crop((left, top, left + width, top + height))).reshape(shape)
    got = oracle_probe.middle(image[None])[0]
    assert got.dtype == np.uint8
    assert np.abs(got.astype(int) - expected).max() <= 1  # PIL rounds after each axis too


def test_cifars_last_16_test_images_are_left_out():
    assert oracle_probe._whole_batches(10_000, 256) == 9_984
    assert oracle_probe._whole_batches(255, 256) == 255


def test_training_against_a_loop():
    """Whole batches of a new permutation each epoch, on images drawn anew, the rate dropped after 3 and 4 of 5."""
    weights, biases = (np.asarray(p, np.float64) for p in probes.start(8, 3, rng.stream(4, "probe")).params)
    velocity, expected = [0.0, 0.0], []
    tests = features(oracle_probe.middle(TESTS[:15])).astype(np.float64)
    for epoch in range(5):
        x = features(oracle_probe._augmented(IMAGES, 4, epoch)).astype(np.float64)
        order = rng.generator(4, "probe", epoch).permutation(23)
        for rows in order[:20].reshape(4, 5):
            logits = x[rows] @ weights + biases
            p = np.exp(logits - logits.max(-1, keepdims=True))
            error = (p / p.sum(-1, keepdims=True) - np.eye(3)[LABELS[rows]]) / 5
            velocity = [0.9 * v + g for v, g in zip(velocity, (x[rows].T @ error, error.sum(0)), strict=True)]
            rate = 2.0 * (1.0, 1.0, 1.0, 0.1, 0.01)[epoch]
            weights, biases = weights - rate * velocity[0], biases - rate * velocity[1]
        expected.append(np.mean((tests @ weights + biases).argmax(-1) == TEST_LABELS[:15]))
    got = run(5, seed=4)
    np.testing.assert_allclose(got["by_epoch"], expected, atol=1e-12)
    assert got["best_on_test"] == max(expected) and got["last"] == expected[-1] and got["test_images"] == 15
    assert got["at_epoch"] == 1 + expected.index(max(expected))
    assert len(set(expected)) > 1  # else nothing was selected


def test_images_are_drawn_anew_each_epoch_whatever_the_block(monkeypatch):
    one, two = (oracle_probe._augmented(IMAGES, 0, epoch) for epoch in range(2))
    assert (one != two).any() and (one != oracle_probe._augmented(IMAGES, 1, 0)).any()
    monkeypatch.setattr(oracle_probe, "_BLOCK", 10)
    np.testing.assert_array_equal(oracle_probe._augmented(IMAGES, 0, 0), one)


def test_bad_settings_are_refused():
    for settings in ({"lr": 0.0}, {"lr": float("inf")}, {"epochs": 0}, {"batch_size": 0}):
        with pytest.raises(UserError, match=next(iter(settings))):
            liu(**settings)
    with pytest.raises(UserError, match="lower lr"):
        liu(lr=1e38, epochs=1)(lambda x: 1e3 * features(x), IMAGES, LABELS, TESTS, TEST_LABELS, 3, 0)
