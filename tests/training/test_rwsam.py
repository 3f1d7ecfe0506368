"""(rw)SAM against a float64 step and by hand."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers.step_cases import distance, in_precision

from lt_noisy.config.spec import bind
from lt_noisy.training import parallel
from lt_noisy.training.optim import ASCENTS, descend
from lt_noisy.training.state import TrainState

LR, RHO = 0.1, 0.5


def _logistic(params, batch):
    """log(1 + exp(-y x.p)) of each example, p spread over two leaves: the norm is over both."""
    p = jnp.concatenate([params["a"], params["b"]])
    return jax.nn.softplus(-batch["y"] * jnp.matmul(batch["x"], p, precision="highest"))


def _squares(params, batch):
    """p_j^2 / 2: example j sees parameter j alone."""
    return 0.5 * (batch["x"] @ jnp.concatenate([params["a"], params["b"]])) ** 2


def _state(a, b):
    params = {"a": np.array(a, np.float32), "b": np.array(b, np.float32)}
    old = {"seen": np.zeros(len(a), np.float32)}
    return TrainState(np.zeros((), np.uint32), np.zeros((), np.int32), params, old, optax.sgd(LR).init(params), {}, old)


@functools.cache
def _compiled(per_example, ascent, devices):
    ascent = bind(ascent, ASCENTS, "ascent")

    def step(state, data, batch):
        def losses(params, batch_stats):
            seen = {"seen": params["a"]}  # tells which pass it is of
            running = {"seen": batch_stats["seen"] / 2 + params["a"]}
            return per_example(params, batch), (running, seen, {"first": (params["a"][0], jnp.ones(()))})

        return descend(state, optax.sgd(LR), losses, batch["weights"], ascent, batch.get("ascent_weights"))

    mesh = parallel.make("jit", devices)
    return mesh, step, mesh.compile_step(step)


def _descend(state, per_example, batch, ascent="none()", devices=1):
    """One step on the devices: (state after it, its sums), on the host."""
    mesh, step, call = _compiled(per_example, ascent, devices)
    totals = parallel.zeros(step, state, {}, batch)
    return mesh.fetch(call(*mesh.replicate((state, totals, {})), batch))


def _batch(size=8):
    generator = np.random.default_rng(0)
    return {
        "x": generator.normal(size=(size, 3)).astype(np.float32),
        "y": generator.choice([-1, 1], size).astype(np.float32),
        "weights": generator.uniform(0.5, 2, size).astype(np.float32),
        "ascent_weights": generator.uniform(1, 70, size).astype(np.float32),
    }


def _without(batch, name):
    return {k: v for k, v in batch.items() if k != name}


START = ([1.0, -0.5], [0.3])


def _reference(batch, adaptive):
    """The step on `_logistic` from START in float64: ascent along the weighted gradient, descent on the plain mean."""
    p = np.concatenate(START)

    def gradient(p, weights):
        slopes = -batch["y"] / (1 + np.exp(batch["y"] * (batch["x"].astype(np.float64) @ p)))
        return (weights * slopes) @ batch["x"].astype(np.float64) / weights.sum()

    weights = batch["weights"].astype(np.float64)
    g = gradient(p, weights * batch.get("ascent_weights", 1.0))
    eps = RHO * p**2 * g / np.linalg.norm(p * g) if adaptive else RHO * g / np.linalg.norm(g)
    return p - LR * gradient(p + eps, weights)


def _flat(params):
    return np.concatenate([params["a"], params["b"]])


@pytest.mark.parametrize("adaptive", [False, True])
@pytest.mark.parametrize("weights", ["none", "ones", "random"])
def test_is_the_float64_step(weights, adaptive):
    """Weights of 1, or none at all, are SAM; any others are rwSAM."""
    batch = _batch() if weights == "random" else _without(_batch(), "ascent_weights")
    expected = _reference(batch, adaptive)
    if weights == "ones":
        batch["ascent_weights"] = np.ones(8, np.float32)
    state, _ = _descend(_state(*START), _logistic, batch, f"sam(rho={RHO}, {adaptive=})")
    np.testing.assert_allclose(_flat(state.params), expected, rtol=1e-5)
    plain, _ = _descend(_state(*START), _logistic, _without(batch, "ascent_weights"))
    assert np.abs(_flat(state.params) - _flat(plain.params)).max() > 1e-3  # an ascent that does nothing is seen


@pytest.mark.parametrize("adaptive", [False, True])
@pytest.mark.parametrize("factor", [1e-3, 8.0, 1e4])
def test_rescaling_the_weights_changes_nothing(factor, adaptive):
    batch, ascent = _batch(), f"sam(rho={RHO}, {adaptive=})"
    scaled = {**batch, "ascent_weights": np.float32(factor) * batch["ascent_weights"]}
    one, other = (_descend(_state(*START), _logistic, b, ascent)[0].params for b in (batch, scaled))
    np.testing.assert_allclose(_flat(other), _flat(one), rtol=1e-5)


@pytest.mark.parametrize("adaptive", [False, True])
def test_rho_0_is_plain_descent(adaptive):
    """Whatever the weights: the descent is on the unweighted loss."""
    batch = _batch()
    state, _ = _descend(_state(*START), _logistic, batch, f"sam(rho=0.0, {adaptive=})")
    plain, _ = _descend(_state(*START), _logistic, _without(batch, "ascent_weights"))
    np.testing.assert_allclose(_flat(state.params), _flat(plain.params), rtol=1e-6)


def test_weights_without_an_ascent_choose_nothing():
    batch = _batch()
    weighted, plain = (_descend(_state(*START), _logistic, b)[0] for b in (batch, _without(batch, "ascent_weights")))
    np.testing.assert_allclose(_flat(weighted.params), _flat(plain.params), rtol=1e-6)


@pytest.mark.parametrize(
    ("adaptive", "weights", "ascent_norm", "raised"),
    [
        # g = (-6, 8) / 11, ||g|| = 10 / 11, eps = 0.5 (-0.6, 0.8)
        (False, [3.0, 8.0], 10 / 11, [-2.3, 1.4]),
        # g = (-6, 16) / 19, |p| g = (-12, 16) / 19, eps = 0.5 |p| (-0.6, 0.8)
        (True, [3.0, 16.0], np.sqrt(292) / 19, [-2.6, 1.4]),
    ],
)
def test_two_parameters_by_hand(adaptive, weights, ascent_norm, raised):
    """l_j = p_j^2 / 2 at p = (-2, 1): g = (-2 w_1, w_2) / (w_1 + w_2), and (p + eps) / 2 is what descends."""
    batch = {"x": np.eye(2, dtype=np.float32), "weights": np.ones(2, np.float32)}
    batch["ascent_weights"] = np.array(weights, np.float32)
    state, sums = _descend(_state([-2.0], [1.0]), _squares, batch, f"sam(rho={RHO}, {adaptive=})")
    descends = np.array(raised) / 2
    np.testing.assert_allclose(_flat(state.params), [-2 - LR * descends[0], 1 - LR * descends[1]], rtol=1e-5)
    np.testing.assert_allclose(sums["loss"], (1.25, 1), rtol=1e-5)  # (4 + 1) / 2 / 2: unweighted, where p is
    np.testing.assert_allclose(sums["ascent_norm"], (ascent_norm, 1), rtol=1e-5)
    np.testing.assert_allclose(sums["grad_norm"], (np.linalg.norm(descends), 1), rtol=1e-5)
    assert sums["nonfinite"][0] == 0


def test_all_but_the_gradient_is_of_the_clean_pass():
    batch = _batch()
    state, sums = _descend(_state(*START), _logistic, batch, f"sam(rho={RHO})")
    _, plain_sums = _descend(_state(*START), _logistic, _without(batch, "ascent_weights"))
    for seen in (state.batch_stats, state.method):
        np.testing.assert_array_equal(seen["seen"], np.float32(START[0]))
    both, _ = _descend(_state(*START), _logistic, batch, f"sam(rho={RHO}, statistics=both)")
    np.testing.assert_array_equal(both.method["seen"], np.float32(START[0]))
    np.testing.assert_allclose(_flat(both.params), _flat(state.params), rtol=1e-6)
    assert sums["first"] == (START[0][0], 1)
    np.testing.assert_allclose(sums["loss"], plain_sums["loss"], rtol=1e-5)
    assert np.abs(sums["grad_norm"][0] - plain_sums["grad_norm"][0]) > 1e-3
    assert int(state.step) == 1 and "ascent_norm" not in plain_sums


@pytest.mark.parametrize(("statistics", "running"), [("clean", -2.0), ("both", -2.0 / 2 - 2.3)])
def test_running_statistics_by_hand(statistics, running):
    """The example of two parameters, whose first goes from -2 to -2.3; statistics are halved and the pass's added."""
    batch = {"x": np.eye(2, dtype=np.float32), "weights": np.ones(2, np.float32)}
    batch["ascent_weights"] = np.array([3.0, 8.0], np.float32)
    state, _ = _descend(_state([-2.0], [1.0]), _squares, batch, f"sam(rho={RHO}, statistics={statistics})")
    np.testing.assert_allclose(state.batch_stats["seen"], [running], rtol=1e-6)


@pytest.mark.parametrize("adaptive", [False, True])
def test_no_gradient_is_no_step(adaptive):
    """Where the gradient is 0, and for the adaptive one every parameter, there is no direction: nothing moves."""
    batch = {"x": np.eye(2, dtype=np.float32), "weights": np.ones(2, np.float32)}
    batch["ascent_weights"] = np.array([1.0, 70.0], np.float32)
    state, sums = _descend(_state([0.0], [0.0]), _squares, batch, f"sam(rho={RHO}, {adaptive=})")
    np.testing.assert_array_equal(_flat(state.params), [0, 0])
    assert sums["nonfinite"][0] == 0 and sums["ascent_norm"][0] == 0


@pytest.mark.parametrize("adaptive", [False, True])
def test_one_ascent_for_all_devices(x64, adaptive):
    """Weights differ by orders of magnitude between the devices; a direction per device would be seen."""
    batch = {**_batch(), "ascent_weights": np.repeat([1.0, 10, 100, 1000], 2)}
    start, batch = in_precision((_state(*START), batch))
    one, four = (_descend(start, _logistic, batch, f"sam(rho={RHO}, {adaptive=})", n) for n in (1, 4))
    assert distance(four[0].params, one[0].params) < 1e-9 and distance(four[1], one[1]) < 1e-9
    np.testing.assert_allclose(_flat(one[0].params), _reference(batch, adaptive), rtol=1e-6)  # START is float32
