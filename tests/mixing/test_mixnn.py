"""MixNN's parts by hand and by identity; the phases of the stage."""

from types import SimpleNamespace

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from lt_noisy import stages
from lt_noisy.collectives import AXIS
from lt_noisy.config.fields import bind_section, new_section
from lt_noisy.config.spec import bind
from lt_noisy.data.dataset import Dataset
from lt_noisy.data.feed import Cuts
from lt_noisy.data.images import Stored
from lt_noisy.data.sources.base import Source, Split
from lt_noisy.errors import UserError
from lt_noisy.estimate.clean_probability import clean_probability
from lt_noisy.estimate.neighbours import nearest_in_set
from lt_noisy.losses import cross_entropy
from lt_noisy.mixing import mixnn, mixup
from lt_noisy.training import parallel

GENERATOR = np.random.default_rng(0)


def _on(devices, fn, *arrays):
    """`fn` per device on arrays split over this many; outputs joined."""
    mesh = parallel.make("jit", devices).mesh
    split = PartitionSpec(AXIS)
    return jax.jit(jax.shard_map(fn, mesh=mesh, in_specs=split, out_specs=split, check_vma=False))(*arrays)


def test_shares_by_hand():
    clean = jnp.array([[0.9, 0.3], [0.0, 0.5], [0.0, 0.0]], jnp.float32)
    np.testing.assert_allclose(mixnn.shares(clean), [[0.75, 0.25], [0, 1], [1, 0]], atol=1e-6)
    three = mixnn.shares(jnp.array([[0.5, 0.25, 0.25]]))
    np.testing.assert_allclose(three, [[0.5, 0.25, 0.25]], atol=1e-6)


def test_itself_as_neighbour_is_plain_soft_target_cross_entropy():
    """With p = 1 everywhere, and every example its own neighbour, nothing is mixed: loss and gradient."""
    x = GENERATOR.normal(size=(6, 5)).astype(np.float32)
    targets = GENERATOR.dirichlet(np.ones(3), 6).astype(np.float32)
    kernel = GENERATOR.normal(size=(5, 3)).astype(np.float32)

    def mixnn_loss(kernel):
        weights = mixnn.shares(jnp.ones((6, 2)))
        both = [mixnn.mixed(jnp.stack([v, v], 1), weights) for v in (x, targets)]
        return cross_entropy(both[0] @ kernel, both[1]).mean()

    def plain(kernel):
        z = x.astype(np.float64) @ kernel
        return -(targets * (z - np.log(np.exp(z).sum(-1, keepdims=True)))).sum(-1).mean()

    z = x.astype(np.float64) @ kernel
    p = np.exp(z) / np.exp(z).sum(-1, keepdims=True)
    value, gradient = jax.value_and_grad(mixnn_loss)(kernel)
    np.testing.assert_allclose(value, plain(kernel), rtol=1e-5)
    np.testing.assert_allclose(gradient, x.T @ (p - targets) / 6, rtol=1e-4, atol=1e-6)


def test_mixed_targets_are_the_mix_of_the_neighbours_losses():
    logits = GENERATOR.normal(size=(4, 3)).astype(np.float32)
    t = GENERATOR.dirichlet(np.ones(3), (4, 2)).astype(np.float32)
    w = mixnn.shares(jnp.asarray(GENERATOR.uniform(size=(4, 2)), jnp.float32))
    separately = sum(w[:, k] * cross_entropy(logits, t[:, k]) for k in range(2))
    np.testing.assert_allclose(cross_entropy(logits, mixnn.mixed(t, w)), separately, rtol=1e-5)


def test_the_released_mixup_loss_is_linear_in_the_probability():
    logits = jnp.log(jnp.array([[0.7, 0.2, 0.1]]))
    np.testing.assert_allclose(
        mixnn.linear(logits, jnp.array([[0.6, 0.4, 0.0]])), [-(0.6 * 0.7 + 0.4 * 0.2)], rtol=1e-6
    )
    assert np.isfinite(
        jax.grad(lambda f: mixnn.linear(f, jnp.array([[1.0, 0, 0]]))[0])(jnp.array([[-200.0, 200, 0]]))
    ).all()


@pytest.mark.parametrize("devices", [1, 4])
def test_targets_follow_the_predictions_in_closed_form(devices):
    """After n corrections with the same p: m^n t + (1 - m^n) p on the rows of the batch, nothing elsewhere."""
    targets = np.eye(3, dtype=np.float32)[[0, 1, 2, 0, 1, 2, 0, 1, 2, 0]]
    rows = np.array([7, 2, 5, 0], np.int32)
    logits = GENERATOR.normal(size=(4, 3)).astype(np.float32)

    def correct(table, rows, logits, now):
        table = mixnn.corrected(table[0], rows, logits, 0.9, now[0])
        return mixnn.corrected(table, rows, logits, 0.9, now[0])[None]

    for now in (True, False):
        everywhere = np.broadcast_to(targets, (devices, 10, 3))
        out = np.asarray(_on(devices, correct, everywhere, rows, logits, np.full(devices, now)))
        p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
        expected = targets.copy()
        if now:
            expected[rows] = 0.81 * targets[rows] + 0.19 * p
        np.testing.assert_allclose(out, np.broadcast_to(expected, out.shape), rtol=1e-5, atol=1e-7)


def test_mixup_mixes_images_targets_and_weights_alike(x64):
    """Recovered from the mix itself; on 4 devices as on 1; a partner of weight 0 leaves no label."""
    images, targets, weights = np.arange(8.0).reshape(8, 1, 1, 1) ** 2, np.eye(8), np.ones(8)
    weights[3] = 0

    def mixed(images, targets, weights):
        return mixup.mixup(alpha=1.0)(jax.random.key(3), images, targets, weights)

    x, t, w = map(np.asarray, _on(1, mixed, images, targets, weights))
    lam = jax.random.beta(jax.random.fold_in(jax.random.key(3), 1), 1.0, 1.0)
    partner = np.asarray(jax.random.permutation(jax.random.fold_in(jax.random.key(3), 0), 8))
    assert 0.05 < lam < 0.95 and (partner != np.arange(8)).any()
    np.testing.assert_allclose(x[:, 0, 0, 0], lam * images.ravel() + (1 - lam) * images.ravel()[partner], rtol=1e-9)
    np.testing.assert_allclose(w, lam * weights + (1 - lam) * weights[partner], rtol=1e-9)
    contributions = (w[:, None] * t).sum(0)  # every example weighs in the batch what it weighed before
    np.testing.assert_allclose(contributions, weights, rtol=1e-9, atol=1e-12)
    for ours, theirs in zip(_on(4, mixed, images, targets, weights), (x, t, w), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9)


@pytest.mark.parametrize(
    ("table", "text", "said"),
    [
        (mixnn.NEIGHBOURS, "in_batch(k=1)", "from 2 to 64"),
        (mixup.MIXES, "mixup(alpha=0.0)", "alpha is above 0"),
    ],
)
def test_bad_input(table, text, said):
    with pytest.raises(UserError, match=said):
        bind(text, table, "config.mixnn")


class _Encoder(nn.Module):
    """The least that has BatchNorm."""

    @nn.compact
    def __call__(self, x, train):
        return nn.BatchNorm(not train)(nn.Dense(5)(x.reshape(len(x), -1)))


@pytest.fixture(scope="module")
def job():
    """40 images of 3 classes on one device, 4 steps of 10 an epoch; what a stage asks of its job."""
    images = GENERATOR.integers(0, 256, (40, 4, 4, 1), dtype=np.uint8)
    labels = GENERATOR.integers(0, 3, 40).astype(np.int32)
    split = Split(np.arange(40), labels, lambda rows: images[rows])
    source = Source(split, split, ("a", "b", "c"))
    dataset = Dataset(images, labels, labels, np.arange(40), images, labels, ("a", "b", "c"), source)
    return SimpleNamespace(
        name="mixnn",
        seed=0,
        inputs={},
        dataset=dataset,
        training_set=dataset,
        devices=parallel.make("jit", 1),
        encoder=lambda dtype, axis: _Encoder(),
        dtype=np.float32,
        norm_axis=None,
        steps_per_call=1,
        workers=0,
    )


def section(**changed):
    """A bound section of ten epochs."""
    values = {"warmup": 3, "correct_from": 5, "correct_every": 2, "length": "epochs(10)", "batch_size": 10}
    values = {**values, "augment": "none()", "schedule": "constant(lr=0.1)", **changed}
    return bind_section(new_section(stages.mixnn.Section, values, "mixnn"), stages.mixnn.Section, "config.mixnn")[0]


def test_phases_begin_with_their_epochs(job):
    """Epochs from 1: mixup in epoch 3 (step 8), transition in 5, MixNN from 6 on; one without an epoch is left out."""

    def begins(**changed):
        ready = stages.mixnn.prepare(job, section(**changed))
        assert stages.mixnn.check(job, section(**changed)) == {"steps": 40}
        return [phase.begin for phase in ready.phases[1:]]

    assert begins() == [8, 16, 20]
    assert begins(warmup=1) == [16, 20]  # which starts with mixup
    assert begins(warmup=5) == [16, 20]
    assert begins(correct_from=0) == [8]
    assert begins(batch_size=12, keep_last=True) == [8, 16, 20]  # 12, 12, 12 and 4
    with pytest.raises(UserError, match="neighbours: k=5, a batch has 4 examples"):
        stages.mixnn.check(job, section(batch_size=12, keep_last=True, neighbours="in_batch(k=5)"))
    for changed in (
        {"correct_from": 10},
        {"warmup": 6},
        {"warmup": 0},
        {"correct_from": 0, "warmup": 11},
        {"momentum": 1.5},
        {"history": 0},
    ):
        with pytest.raises(UserError, match="mixnn"):
            stages.mixnn.check(job, section(**changed))


def one_step(job, ready, at):
    """The state after step `at` from the initial one, and the means of the step's sums."""
    step = [p.step for p in ready.phases if p.begin <= at][-1]
    batch = ready.batches(at)
    state = ready.state.replace(step=np.int32(at))
    totals = parallel.zeros(step, state, ready.data, batch)
    return job.devices.compile_step(step)(*job.devices.replicate((state, totals, ready.data)), batch)


def test_targets_are_corrected_in_the_epochs_that_are_due(job):
    """From epoch `correct_from` on, in every multiple of `correct_every`: here 6, not 5, and only the batch's rows."""
    ready = stages.mixnn.prepare(job, section())
    for at, due in ((16, False), (20, True), (24, False), (28, True)):
        after, _ = one_step(job, ready, at)
        moved = np.flatnonzero((np.asarray(after.method["targets"]) != ready.state.method["targets"]).any(-1))
        np.testing.assert_array_equal(moved, np.sort(ready.batches(at)["rows"]) if due else [])


def test_running_statistics_take_in_the_images_as_they_are_too(job):
    """Mixup leaves the mean of a linear layer over the batch alone, so one step counts it twice; warm-up once."""
    ready = stages.mixnn.prepare(job, section())
    for at, passes in ((0, 1), (8, 2), (16, 2)):
        after, _ = one_step(job, ready, at)
        rows = ready.batches(at)["rows"]
        flat = job.dataset.train_images[rows].reshape(10, -1) / np.float32(255)
        dense = ready.state.params["encoder"]["Dense_0"]
        mean = (flat @ np.asarray(dense["kernel"]) + np.asarray(dense["bias"])).mean(0)
        running = after.batch_stats["encoder"]["BatchNorm_0"]["mean"]
        np.testing.assert_allclose(running, (1 - 0.99**passes) * mean, rtol=1e-4, atol=1e-7)


def test_an_epoch_that_corrects_targets_uses_them_at_once(job):
    """Nothing mixed, nothing left of the old targets: the loss is the entropy of the network's own predictions."""
    ready = stages.mixnn.prepare(job, section(momentum=0.0, neighbours="none()"))
    for at, due in ((20, True), (24, False)):
        after, totals = one_step(job, ready, at)
        rows = ready.batches(at)["rows"]
        p = np.asarray(after.method["targets"], np.float64)[rows]
        total, count = totals["loss"]
        if due:
            np.testing.assert_allclose(total / count, -(p * np.log(p)).sum(-1).mean(), rtol=1e-5)
        else:
            np.testing.assert_array_equal(p, np.eye(3)[job.dataset.observed[rows]])


def test_the_mixture_sees_the_losses_of_the_epochs_start(job):
    """Against NumPy: evaluation mode, hard targets, min-max normalised, the mean of two epochs; else untouched."""
    ready = stages.mixnn.prepare(job, section(history=2, neighbours="in_set(k=3)"))
    state = job.devices.replicate(ready.state)
    assert ready.refresh(4, state) is state and ready.refresh(9, state) is state  # warm-up; inside an epoch
    net = ready.net
    seen = []
    for at in (8, 12):
        state = ready.refresh(at, state)
        logits = net.apply(state.variables, job.dataset.train_images / np.float32(255), train=False)
        p = np.exp(np.asarray(logits, np.float64))
        losses = -np.log(p[np.arange(40), job.dataset.observed] / p.sum(-1))
        seen.append((losses - losses.min()) / np.ptp(losses))
        np.testing.assert_allclose(state.method["clean"], clean_probability(np.mean(seen, 0), 0), atol=1e-4)
        # Other losses in the next epoch.
        state = state.replace(params=jax.tree.map(lambda x: x * -0.7, state.params))
    assert not np.asarray(state.method["neighbours"]).any()  # not asked for yet
    state = ready.refresh(20, state)
    features, _ = net.apply(
        state.variables,
        job.dataset.train_images / np.float32(255),
        train=False,
        method=type(net).features_and_logits,
    )
    np.testing.assert_array_equal(state.method["neighbours"], nearest_in_set(np.asarray(features), 2))


def test_neighbours_in_the_whole_set_are_cut_from_their_whole_pictures():
    """By draws of their own for each neighbour, from the step on at which they are mixed."""

    def part(rows, cut, draws):
        return (50 * (rows % 5) + 40 * draws[:, 0]).astype(np.uint8).reshape(-1, 1, 1, 1)

    images = Stored(lambda rows: np.zeros((len(rows), 1, 1, 1), np.uint8), np.arange(9), (1, 1, 1), part)
    job = SimpleNamespace(dataset=SimpleNamespace(train_images=images))
    section = SimpleNamespace(neighbours=SimpleNamespace(whole_set=True), correct_from=2)
    near, cuts = stages.mixnn.Near(), Cuts(lambda *_: None, 0, "cut")
    near.rows = np.array([[1, 2], [3, 3], [4, 0]])
    more = stages.mixnn.near_images(job, section, 5, near, cuts)
    batch = {"rows": np.array([1, 0])}
    assert more(9, batch) == {}
    found = more(10, batch)["near_images"]
    assert found.shape == (2, 2, 1, 1, 1) and (found[..., 0, 0, 0] // 50 == [[3, 3], [1, 2]]).all()
    assert found[0, 0] != found[0, 1] and (more(10, batch)["near_images"] == found).all()
    assert (more(11, batch)["near_images"] != found).any()
    whole = stages.mixnn.near_images(job, section, 5, near, None)
    assert (whole(10, batch)["near_images"] == 0).all()
