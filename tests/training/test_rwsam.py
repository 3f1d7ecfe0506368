"""(rw)SAM against a float64 step and by hand; and what follows the clean pass: target network, queue, statistics."""

import functools
import itertools
from types import SimpleNamespace

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers.step_cases import distance, in_precision

from lt_noisy.augment import AUGMENTS
from lt_noisy.collectives import AXIS
from lt_noisy.config.durations import DURATIONS
from lt_noisy.config.spec import bind
from lt_noisy.errors import UserError
from lt_noisy.objectives import OBJECTIVES
from lt_noisy.stages import self_supervised
from lt_noisy.stages.base import Input
from lt_noisy.training import parallel
from lt_noisy.training.optim import ASCENTS, OPTIMIZERS, descend
from lt_noisy.training.schedules import SCHEDULES
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


# --- through the step of self-supervised training ---------------------------------------------------


BYOL, MOCO = "byol(momentum=0.6, hidden=8, size=4)", "moco(momentum=0.8, queue=32, hidden=8, size=4)"


class _Encoder(nn.Module):
    """The least that has a kernel and BatchNorm."""

    @nn.compact
    def __call__(self, x, train):
        x = nn.Dense(6)(x.reshape(len(x), -1))
        return nn.relu(nn.BatchNorm(not train, momentum=0.9, axis_name=AXIS, use_fast_variance=False)(x))


def _job(shape=(4, 4, 1), **inputs):
    images = np.random.default_rng(0).integers(0, 256, (24, *shape), dtype=np.uint8)
    dataset = SimpleNamespace(train_images=images, observed=np.zeros(24, np.int32), ids=np.arange(24), num_classes=2)
    return SimpleNamespace(
        name="pretrain",
        seed=0,
        encoder=lambda dtype, norm_axis: _Encoder(),
        dtype=np.float32,
        norm_axis=AXIS,
        devices=parallel.make("jit", 1),
        steps_per_call=1,
        multiple=1,
        dataset=dataset,
        training_set=dataset,
        inputs=inputs,
    )


def _section(objective, ascent="none()", ascent_weights="none()"):
    steps = bind("steps(5)", DURATIONS, "length")
    return SimpleNamespace(
        objective=bind(objective, OBJECTIVES, "objective"),
        ascent=bind(ascent, ASCENTS, "ascent"),
        ascent_weights=ascent_weights,
        augment=bind("flip()", AUGMENTS, "augment"),
        optimizer=bind("sgd()", OPTIMIZERS, "optimizer"),
        schedule=bind("constant(lr=0.5)", SCHEDULES, "schedule"),
        batch_size=8,
        keep_last=False,
        length=steps,
        log_every=steps,
        eval_every=steps,
        save_every=steps,
    )


@functools.cache
def _stepper(objective, ascent="none()"):
    """(first state, `advance(state) -> (state, sums)`), both on the host."""
    ready, devices = self_supervised.prepare(_job(), _section(objective, ascent)), parallel.make("jit", 1)
    step = ready.phases[0].step
    call = devices.compile_step(step)
    totals = parallel.zeros(step, ready.state, ready.data, ready.batches(0))

    def advance(state, **more):
        batch = {**ready.batches(int(state.step)), **more}
        return devices.fetch(call(*devices.replicate((state, totals, ready.data)), batch))

    return ready.state, advance


@pytest.mark.parametrize(
    ("objective", "decay"),
    [
        (BYOL, lambda k: 1 - 0.4 * (np.cos(np.pi * k / 5) + 1) / 2),
        (MOCO, lambda k: 0.8),
    ],
)
def test_target_is_an_average_of_the_parameters_history(objective, decay):
    """After K steps: d_0 ... d_K-1 p_0 + sum over j of (1 - d_j) d_j+1 ... d_K-1 p_j+1, in float64."""
    state, advance = _stepper(objective)
    history = [state]
    for _ in range(5):
        history.append(advance(history[-1])[0])
    d = np.array([decay(k) for k in range(5)])
    shares = [np.prod(d)] + [(1 - d[j]) * np.prod(d[j + 1 :]) for j in range(5)]
    np.testing.assert_allclose(sum(shares), 1)
    assert set(state.target["params"]) == {"encoder", "projector"}
    for part, tree in history[5].target["params"].items():
        past = [jax.tree.leaves(s.params[part]) for s in history]
        for i, leaf in enumerate(jax.tree.leaves(tree)):
            average = sum(share * leaves[i].astype(np.float64) for share, leaves in zip(shares, past, strict=True))
            np.testing.assert_allclose(leaf, average, rtol=1e-5, atol=1e-6)
    moved = [jax.tree.leaves(s.params["encoder"])[-1] for s in history]
    assert all(np.abs(b - a).max() > 1e-3 for a, b in itertools.pairwise(moved[1:]))
    # Its own statistics: the network's while the parameters are, in the first step, and others later.
    stats = [[jax.tree.leaves(tree["encoder"]) for tree in (s.target["batch_stats"], s.batch_stats)] for s in history]
    np.testing.assert_allclose(*(np.stack(leaves) for leaves in stats[1]), rtol=1e-5)
    assert np.abs(np.subtract(*(np.stack(leaves) for leaves in stats[5]))).max() > 1e-3


def test_statistics_of_both_passes_are_those_of_two_passes_in_a_row():
    """At rho 0 both passes are the clean one: as two plain steps from the same parameters."""
    objective = "simsiam(size=8, hidden=4)"
    (state, plain), (_, both) = _stepper(objective), _stepper(objective, "sam(rho=0.5, statistics=both)")
    clean, _ = plain(state)
    after, _ = both(state)
    _, unmoved = _stepper(objective, "sam(rho=0.0, statistics=both)")
    same, _ = unmoved(state)
    twice, _ = plain(clean.replace(params=state.params, step=state.step))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(b, a, rtol=1e-5, atol=1e-6), twice.batch_stats, same.batch_stats
    )
    assert _spread(after.batch_stats, same.batch_stats) > 1e-3


@pytest.mark.parametrize("objective", [MOCO, BYOL])
def test_rwsam_moves_the_parameters_alone(objective):
    """Queue, keys, statistics and loss are the clean pass's; the target follows the new parameters, once."""
    (state, plain), (_, ascending) = _stepper(objective), _stepper(objective, "sam(rho=0.5)")
    for _ in range(2):  # moco has negatives from its second step
        state, _ = plain(state)
    weights = np.linspace(1, 70, 8, dtype=np.float32)
    base, base_sums = plain(state)
    others = [ascending(state, ascent_weights=w) for w in (weights, weights[::-1])]
    for ascended, sums in others:
        clean = [(s.method, s.batch_stats, s.target["batch_stats"]) for s in (base, ascended)]
        jax.tree.map(lambda a, b: np.testing.assert_allclose(b, a, rtol=1e-5, atol=1e-6), *clean)
        np.testing.assert_allclose(sums["loss"], base_sums["loss"], rtol=1e-5)
        assert _spread(*(s.target["params"]["encoder"] for s in (base, ascended))) > 1e-5
    params = [s.params["encoder"] for s in (base, *(s for s, _ in others))]
    assert all(_spread(params[i], params[j]) > 1e-4 for i, j in ((0, 1), (0, 2), (1, 2)))


def _spread(a, b):
    """The largest difference between two trees."""
    return max(jax.tree.leaves(jax.tree.map(lambda x, y: float(np.abs(x - y).max()), a, b)))


def test_weights_follow_their_rows(tmp_path):
    weights = np.random.default_rng(0).uniform(1, 70, 24).astype(np.float32)
    section = _section("simclr(hidden=8, size=4)", "sam()", "density")
    job = _job(ascent_weights=Input(tmp_path, None, {}, {}))
    np.savez(tmp_path / "weights.npz", ids=np.arange(24), weights=weights)
    ready = self_supervised.prepare(job, section)
    for step in (0, 4):
        batch = ready.batches(step)
        np.testing.assert_array_equal(batch["ascent_weights"], weights[batch["rows"]])
    np.savez(tmp_path / "weights.npz", ids=np.arange(24)[::-1], weights=weights)
    with pytest.raises(UserError, match="another training set"):
        self_supervised.prepare(job, section)
    np.savez(tmp_path / "weights.npz", ids=np.arange(24), weights=weights)
    content = bytearray((tmp_path / "weights.npz").read_bytes())
    content[content.index(weights.tobytes())] ^= 1
    for damaged in (bytes(content), content[:100]):
        (tmp_path / "weights.npz").write_bytes(damaged)
        with pytest.raises(UserError, match="cannot be read"):
            self_supervised.prepare(job, section)


@pytest.mark.parametrize(
    ("section", "shape", "message"),
    [
        (("simclr()", "none()", "density"), (4, 4, 1), "config.pretrain.ascent_weights: .* set ascent="),
        (("moco(queue=15)",), (4, 4, 1), "config.pretrain.objective: .*queue=15 is shorter than the 16 keys"),
        (("rotation()",), (4, 6, 1), "config.pretrain.objective: .*square images"),
    ],
)
def test_sections_that_do_not_fit_are_one_line(section, shape, message):
    with pytest.raises(UserError, match=message) as error:
        self_supervised.check(_job(shape), _section(*section))
    assert "\n" not in str(error.value)
