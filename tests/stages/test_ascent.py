"""What follows the clean pass of an ascent through the step of self-supervised training: target, queue, statistics."""

import functools
import itertools
from types import SimpleNamespace

import flax.linen as nn
import jax
import numpy as np
import pytest

from lt_noisy.augment import AUGMENTS
from lt_noisy.collectives import AXIS
from lt_noisy.config.durations import DURATIONS
from lt_noisy.config.spec import bind
from lt_noisy.errors import UserError
from lt_noisy.objectives import OBJECTIVES
from lt_noisy.stages import self_supervised
from lt_noisy.stages.base import Input
from lt_noisy.training import parallel
from lt_noisy.training.optim import ASCENTS, OPTIMIZERS
from lt_noisy.training.schedules import SCHEDULES

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
        workers=0,
        dataset=dataset,
        training_set=dataset,
        inputs=inputs,
    )


def _section(objective, ascent="none()", ascent_weights="none()"):
    steps = bind("steps(5)", DURATIONS, "length")
    return SimpleNamespace(
        init="none()",
        objective=bind(objective, OBJECTIVES, "objective"),
        ascent=bind(ascent, ASCENTS, "ascent"),
        ascent_weights=ascent_weights,
        augment=bind("flip()", AUGMENTS, "augment"),
        optimizer=bind("sgd()", OPTIMIZERS, "optimizer"),
        schedule=bind("constant(lr=0.5)", SCHEDULES, "schedule"),
        batch_size=8,
        keep_last=False,
        normalises=lambda job: "",
        length=steps,
        log_every=steps,
        eval_every=steps,
        save_every=steps,
        keep_newest=2,
        keep_every=steps,
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
