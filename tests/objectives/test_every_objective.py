"""What all objectives of the table have in common."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import objective_cases as cases

EVERYTHING = cases.everything()
CONTRASTING = {"simclr": True, "moco": False, "byol": False, "simsiam": False, "rotation": False}


def _seen(text):
    """A batch, its losses, and the state after it: a queue is not empty any more."""
    outputs = cases.outputs(text)
    losses, state = cases.run(text, outputs, cases.start(text))[0]
    return outputs, losses, state


@pytest.mark.parametrize("text", EVERYTHING)
def test_a_loss_for_every_image_and_a_state_that_keeps_its_structure(text):
    before = cases.start(text)
    _, losses, after = _seen(text)
    assert (losses.shape, losses.dtype) == ((cases.BATCH,), np.float32)
    assert jax.tree.structure(before) == jax.tree.structure(after)
    for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)


@pytest.mark.parametrize("text", EVERYTHING)
def test_every_head_starts_as_the_argument_says(text):
    """PyTorch's |w| <= 1 / sqrt(fan_in); Kaiming's and Flax's normal weights go beyond it."""
    x = jnp.zeros((2, 64))
    for init, inside in (("torch", True), ("kaiming", False), ("lecun", False)):
        objective = cases.bound(f"{text.removesuffix(')')}, init={init})".replace("(, ", "("))
        for build in filter(None, (objective.projector, objective.predictor)):
            head = build(jnp.float32, None)
            width = 64 if build is objective.projector else 8
            layers = head.init(jax.random.key(0), x[:, :width], train=True)["params"]
            kernels = [layer["kernel"] for name, layer in layers.items() if name.startswith("dense")]
            assert kernels and head.start == init
            assert all((np.abs(kernel).max() <= len(kernel) ** -0.5) == inside for kernel in kernels)


@pytest.mark.parametrize("text", EVERYTHING)
def test_the_second_step_compiles_nothing(text):
    outputs, _, state = _seen(text)
    cases.run(text, outputs, state, step=1)
    assert cases.compiled(text)._cache_size() == 1


@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e4, 1e15])
@pytest.mark.parametrize("text", EVERYTHING)
def test_finite_at_outputs_of_any_size(text, scale):
    outputs, _, state = _seen(text)
    scaled = jax.tree.map(lambda x: scale * x, outputs)
    for outputs in (scaled, scaled._replace(targets=jax.tree.map(jnp.negative, scaled.targets))):
        (losses, _), gradient = cases.run(text, outputs, state, step=1)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((losses, gradient)))


@pytest.mark.parametrize("text", EVERYTHING)
def test_an_image_of_weight_0_has_no_gradient(text):
    """But as a candidate in the losses of others; and the gradient is the weighted mean of every image's own."""
    outputs, _, state = _seen(text)
    weights = np.array([1, 2, 0, 1, 0.5, 3])
    _, gradient = cases.run(text, outputs, state, weights, step=1)

    def has_gradient(image):
        return any(np.any(leaf[image]) for leaf in jax.tree.leaves(gradient))

    own = [cases.run(text, outputs, state, only, step=1)[1] for only in np.eye(cases.BATCH)]
    candidate = any(np.any(leaf[2]) for image in (0, 1, 3, 4, 5) for leaf in jax.tree.leaves(own[image]))
    assert candidate == CONTRASTING.get(text.partition("(")[0], candidate)
    assert has_gradient(3) and has_gradient(2) == candidate
    expected = jax.tree.map(lambda *leaves: np.average(leaves, axis=0, weights=weights), *own)
    for ours, theirs in zip(jax.tree.leaves(gradient), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("text", [text for text in EVERYTHING if cases.bound(text).target])
def test_keys_of_the_target_network_get_no_gradient(text):
    outputs, _, state = _seen(text)
    (losses, _), gradient = cases.run(text, outputs, state, step=1)
    assert losses.any() and not any(np.any(leaf) for leaf in gradient.targets)
