"""Augmentation of vectors: four operations take them, all others refuse them in one line."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lt_noisy import augment, rng
from lt_noisy.augment import base as aug
from lt_noisy.config.spec import bind
from lt_noisy.errors import UserError

VECTORS = np.random.default_rng(0).normal(size=(64, 40)).astype(np.float32)
OF_VECTORS = {"none": "none()", "normalise": "normalise((0.5,), (2.0,))", "noise": "noise(0.1)", "dropout": "dropout()"}


def build(text):
    return bind(text, augment.AUGMENTS, "augment")


def test_vectors_are_taken_as_they_are():
    key, positions = rng.stream(0, "augment"), jnp.arange(64)
    for out in (
        aug.augment_batch(build("none()"), key, VECTORS, positions),
        aug.evaluate_batch(build("compose(noise(), dropout())"), VECTORS),
    ):
        np.testing.assert_array_equal(out, VECTORS)
    found = aug.evaluate_batch(build(OF_VECTORS["normalise"]), VECTORS)
    np.testing.assert_allclose(found, (VECTORS - 0.5) / 2, atol=1e-6)
    noisy = aug.augment_batch(build("noise(0.1)"), key, VECTORS, positions) - VECTORS
    assert abs(np.std(noisy) - 0.1) < 0.01 and abs(np.mean(noisy)) < 0.01
    dropped = np.asarray(aug.augment_batch(build("dropout(0.25)"), key, VECTORS, positions))
    assert abs(np.mean(dropped == 0) - 0.25) < 0.03
    np.testing.assert_array_equal(dropped[dropped != 0], VECTORS[dropped != 0])


@pytest.mark.parametrize("name", sorted(augment.AUGMENTS.keys() - OF_VECTORS.keys() - {"compose"}))
def test_what_changes_images_refuses_vectors(name):
    arguments = {"jitter": "0.4, 0.4, 0.4, 0.1", "cutout": "2", "resize": "8"}
    op = build(f"{name}({arguments.get(name, '')})")
    with pytest.raises(UserError, match=r"it changes images, and the data are vectors of 40; write none\(\)"):
        op.train(jax.random.key(0), VECTORS[0])
    with pytest.raises(UserError, match="it changes images"):
        build("normalise((0.1, 0.2, 0.3), (1.0, 1.0, 1.0))").evaluate(VECTORS[0])


def test_views_of_vectors_are_independent():
    first, second = aug.views(build("noise(0.1)"), rng.stream(0, "views"), VECTORS, jnp.arange(64))
    assert first.shape == second.shape == VECTORS.shape and (first != second).all()
