"""Objectives against float64 references written from the papers' formulas."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lt_noisy.collectives import AXIS
from lt_noisy.method import Context
from lt_noisy.objectives import OBJECTIVES, Outputs, negative_cosine, nt_xent
from lt_noisy.spec import UserError, bind


def _on_devices(fn, count):
    """`fn` on arrays [B, ...] split over `count` devices of the axis: outputs [B]."""

    def call(*arrays):
        split = [x.reshape(count, -1, *x.shape[1:]) for x in arrays]
        return jax.vmap(fn, axis_name=AXIS)(*split).reshape(-1)

    return call


def _views(batch=6, size=5):
    generator = np.random.default_rng(0)
    return generator.normal(size=(2, batch, size))


def _nt_xent_reference(first, second, temperature):
    """Equation 1 of Chen et al. 2020, anchor by anchor, in float64."""
    z = np.concatenate([first, second])
    z = z / np.linalg.norm(z, axis=1, keepdims=True)
    batch, losses = len(first), []
    for i in range(2 * batch):
        others = [k for k in range(2 * batch) if k != i]
        similarity = {k: z[i] @ z[k] / temperature for k in others}
        positive = similarity[(i + batch) % (2 * batch)]
        losses.append(np.log(sum(np.exp(s) for s in similarity.values())) - positive)
    return (np.array(losses[:batch]) + np.array(losses[batch:])) / 2


@pytest.mark.parametrize("devices", [1, 2, 3])
@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_nt_xent_is_equation_1(devices, temperature):
    first, second = _views()
    loss = _on_devices(lambda a, b: nt_xent(a, b, temperature), devices)(jnp.asarray(first), jnp.asarray(second))
    np.testing.assert_allclose(loss, _nt_xent_reference(first, second, temperature), rtol=1e-5)


def test_nt_xent_gradient_by_finite_differences():
    first, second = _views(batch=3, size=2)

    def total(x):
        return _on_devices(lambda a, b: nt_xent(a, b, 0.5), 1)(x, jnp.asarray(second)).sum()

    gradient = jax.grad(total)(jnp.asarray(first))
    for index in np.ndindex(first.shape):
        moved = []
        for sign in (1, -1):
            x = first.copy()
            x[index] += sign * 1e-6
            moved.append(_nt_xent_reference(x, second, 0.5).sum())
        np.testing.assert_allclose(gradient[index], (moved[0] - moved[1]) / 2e-6, atol=1e-5)


def test_nt_xent_without_similarity_is_log_of_candidates():
    """All projections equal: every candidate is as near as the positive, loss log(2B - 1)."""
    same = jnp.ones((4, 3))
    np.testing.assert_allclose(_on_devices(lambda a, b: nt_xent(a, b, 0.5), 1)(same, same), np.log(7), rtol=1e-6)


def test_nt_xent_never_forms_a_cube():
    """No intermediate of [2B, 2B, D] elements: the largest is a matrix of similarities."""
    x = jnp.zeros((32, 16))
    jaxpr = jax.make_jaxpr(_on_devices(lambda a, b: nt_xent(a, b, 0.5), 1))(x, x)
    sizes = [v.aval.size for eqn in jaxpr.eqns for v in eqn.outvars]
    assert max(sizes) <= 64 * 64


@pytest.mark.parametrize("value", [0.0, 1e-30, 1e4])
def test_finite_at_extremes(value):
    x = jnp.full((4, 3), value)
    for loss in (lambda a: nt_xent(a, -a, 0.05), lambda a: negative_cosine(a, a)):
        out, gradient = jax.value_and_grad(lambda x, loss=loss: _on_devices(loss, 1)(x).sum())(x)
        assert np.isfinite(out) and np.all(np.isfinite(gradient))


def test_negative_cosine_stops_the_target():
    p, z = _views()
    reference = -(p * z).sum(1) / np.linalg.norm(p, axis=1) / np.linalg.norm(z, axis=1)
    np.testing.assert_allclose(negative_cosine(jnp.asarray(p), jnp.asarray(z)), reference, rtol=1e-5)
    assert not np.any(jax.grad(lambda z: negative_cosine(jnp.asarray(p), z).sum())(jnp.asarray(z)))
    assert np.any(jax.grad(lambda p: negative_cosine(p, jnp.asarray(z)).sum())(jnp.asarray(p)))


def test_simsiam_is_algorithm_1():
    (z1, z2), (p1, p2) = _views(), _views()[::-1] + 0.1
    method = bind("simsiam(size=5, hidden=4)", OBJECTIVES, "o").method
    outputs = Outputs((jnp.asarray(z1), jnp.asarray(z2)), (jnp.asarray(p1), jnp.asarray(p2)))
    loss, state = method.apply(method.init(Context(2, 6, np.zeros(2))), outputs, None, None, 0)
    expected = (negative_cosine(p1, z2) + negative_cosine(p2, z1)) / 2
    np.testing.assert_allclose(loss, expected, rtol=1e-6)
    assert state == {}


@pytest.mark.parametrize("text", ["simclr(temperature=0.0)", "simclr(size=0)", "simsiam(hidden=0)"])
def test_bad_values_are_one_line(text):
    with pytest.raises(UserError) as error:
        bind(text, OBJECTIVES, "config.pretrain.objective")
    assert "\n" not in str(error.value)
