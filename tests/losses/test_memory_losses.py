"""ELR and SELC: closed forms, float64 gradients, copies of a row in a batch, any number of devices."""

import jax
import numpy as np
import pytest
from helpers.loss_cases import (
    CONTEXT,
    LABELS,
    LOGITS,
    SOFT,
    C,
    at,
    gradient,
    log_p,
    numeric_gradient,
    on_one_device,
    run,
    values,
)
from helpers.step_cases import distance, in_precision
from jax.sharding import AxisType, PartitionSpec

from lt_noisy import collectives
from lt_noisy.config.spec import bind
from lt_noisy.errors import UserError
from lt_noisy.losses import factory
from lt_noisy.losses.table import LOSSES

P = np.exp(log_p())
CLIPPED = np.clip(P, 1e-4, 1 - 1e-4)
SHARE = CLIPPED / CLIPPED.sum(-1, keepdims=True)
ROWS = np.array([7, 300, 12, 537, 0, 99, 41, 8])
COPIES = np.array([3, 9, 3, 5, 9, 3, 0, 1])  # 3 three times, 9 twice


def visits(text, number, rows=ROWS, logits=LOGITS, targets=LABELS, first=0):
    """(losses, state) of the last of `number` steps with the same batch."""
    state = None
    for k in range(number):
        losses, state = run(text, logits, targets, state=state, rows=rows, step=first + k)
    return np.asarray(losses), jax.tree.map(np.asarray, state)


# --- ELR ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [1, 3])
def test_elr_target_after_visits_with_constant_p(number):
    """t_k = (1 - beta^k) p / sum p; the k-th loss already uses it. Other rows are as they were."""
    losses, state = visits("elr(beta=0.6, lam=2.0)", number)
    target = (1 - 0.6**number) * SHARE
    np.testing.assert_allclose(state["targets"][ROWS], target, rtol=1e-5)
    expected = -at(log_p()) + 2 * np.log(1 - (target * CLIPPED).sum(-1))
    np.testing.assert_allclose(losses, expected, rtol=1e-4, atol=1e-5)
    assert not np.delete(state["targets"], ROWS, axis=0).any()


@pytest.mark.parametrize("targets", [LABELS, SOFT], ids=["hard", "soft"])
def test_elr_gradient_against_float64(targets):
    """The target is a constant of the backward pass; so is a p that is clipped."""
    _, state = visits("elr", 2)
    target = 0.7 * state["targets"][ROWS].astype(np.float64) + 0.3 * SHARE
    labels = np.eye(C)[targets] if targets.ndim == 1 else targets

    def reference(logits):
        p = np.clip(np.exp(log_p(logits)), 1e-4, 1 - 1e-4)
        return -(labels * log_p(logits)).sum(-1) + 3 * np.log(1 - (target * p).sum(-1))

    got = gradient("elr", targets=targets, state=state, rows=ROWS)
    np.testing.assert_allclose(got, numeric_gradient(reference), rtol=1e-4, atol=1e-5)


def test_elr_without_regularisation_is_cross_entropy():
    np.testing.assert_array_equal(values("elr(lam=0)"), values("cross_entropy"))


def test_elr_stays_finite_when_it_has_become_certain():
    extreme = np.where(np.eye(C)[LABELS] == 1, -200, 200).astype(np.float32)
    extreme[:4] = -extreme[:4]
    losses, state = visits("elr(beta=0.0, lam=7.0)", 3, logits=extreme)
    assert np.isfinite(losses).all()
    assert np.isfinite(gradient("elr(beta=0.0, lam=7.0)", extreme, state=state, rows=ROWS)).all()


# --- SELC -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("targets", [LABELS, SOFT], ids=["hard", "soft"])
def test_selc_target_after_visits_with_constant_p(targets):
    """t_k = m^k target + (1 - m^k) p; the k-th loss already uses it, as a constant."""
    losses, state = visits("selc(momentum=0.8, start=0.0)", 3, targets=targets)
    given = np.eye(C)[targets] if targets.ndim == 1 else targets
    target = 0.8**3 * given + (1 - 0.8**3) * P
    kept = state["keep"][ROWS][:, None] * given + state["rest"][ROWS]
    np.testing.assert_allclose(kept, target, rtol=1e-5)
    np.testing.assert_allclose(losses, -(target * log_p()).sum(-1), rtol=1e-5)
    fourth = 0.8 * target + 0.2 * P
    got = gradient("selc(momentum=0.8, start=0.0)", targets=targets, state=state, rows=ROWS)
    np.testing.assert_allclose(got, P - fourth, atol=2e-6)
    assert (np.delete(state["keep"], ROWS) == 1).all() and not np.delete(state["rest"], ROWS, axis=0).any()


def test_selc_is_cross_entropy_until_its_start():
    """Of 10 steps at start 0.4, steps 0 to 3 leave the memory alone."""
    losses, state = visits("selc(start=0.4)", 4)
    np.testing.assert_array_equal(losses, values("cross_entropy"))
    assert (state["keep"] == 1).all() and not state["rest"].any()
    losses, state = run("selc(start=0.4)", state=state, rows=ROWS, step=4)
    np.testing.assert_allclose(np.asarray(state["keep"])[ROWS], 0.9, rtol=1e-6)
    assert (np.asarray(losses) != values("cross_entropy")).any()


# --- many steps beside the papers' algorithms in float64 -------------------------------------------


def _visited(steps):
    """(rows, logits) of steps that visit half of 16 rows each, with logits that move."""
    generator = np.random.RandomState(2)
    for _ in range(steps):
        yield generator.permutation(16)[:8], 3 * generator.standard_normal((8, C))


def test_twelve_steps_of_elr(x64):
    """Liu et al. (2020), equations 6 and 9, as released: p clipped, normalised, averaged before it is used."""
    loss, given = bind("elr(beta=0.7, lam=3.0)", LOSSES, "loss"), np.arange(16) % C
    state = {"targets": np.zeros((16, C))}
    memory = np.zeros((16, C))
    apply = jax.jit(lambda *args: on_one_device(loss.apply, *args))
    for step, (rows, logits) in enumerate(_visited(12)):
        losses, state = apply(state, logits, given[rows], rows, step)
        p = np.clip(np.exp(log_p(logits)), 1e-4, 1 - 1e-4)
        memory[rows] = 0.7 * memory[rows] + 0.3 * p / p.sum(1, keepdims=True)
        expected = -at(log_p(logits), given[rows]) + 3 * np.log(1 - (memory[rows] * p).sum(1))
        np.testing.assert_allclose(losses, expected, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(state["targets"], memory, rtol=1e-13)


def test_ten_epochs_of_selc(x64):
    """Lu & He (2022), equation 6: from the third epoch of ten on t <- 0.9 t + 0.1 p, then cross-entropy to t."""
    loss, given = bind("selc(momentum=0.9, start=0.2)", LOSSES, "loss"), np.arange(16) % C
    state = {"keep": np.ones(16), "rest": np.zeros((16, C)), "start": 2 * 2}  # two steps an epoch
    targets = np.eye(C)[given]
    apply = jax.jit(lambda *args: on_one_device(loss.apply, *args))
    generator = np.random.RandomState(2)
    for step in range(20):
        rows = np.arange(8) + 8 * (step % 2)
        logits = 3 * generator.standard_normal((8, C))
        losses, state = apply(state, logits, given[rows], rows, step)
        if step >= 4:
            targets[rows] = 0.9 * targets[rows] + 0.1 * np.exp(log_p(logits))
        np.testing.assert_allclose(losses, -(targets[rows] * log_p(logits)).sum(1), rtol=1e-12)
    kept = np.asarray(state["keep"])[:, None] * np.eye(C)[given] + state["rest"]
    np.testing.assert_allclose(kept, targets, rtol=1e-13)


# --- copies of a row, several devices --------------------------------------------------------------


def memory_of(text, state):
    """Running targets [N, C] without the part that is the given label."""
    return state["targets"] if text.startswith("elr") else state["rest"]


@pytest.mark.parametrize("text", ["elr(beta=0.7)", "selc(momentum=0.7, start=0.0)"])
def test_copies_of_a_row_are_one_visit_with_their_mean_in_any_order(text):
    logits, labels = LOGITS.copy(), LABELS[COPIES % 8]
    losses, state = visits(text, 1, COPIES, logits, labels)
    source = SHARE if text.startswith("elr") else P
    for row in (3, 9, 5):
        np.testing.assert_allclose(memory_of(text, state)[row], 0.3 * source[row == COPIES].mean(0), rtol=1e-5)
    order = np.array([5, 4, 7, 1, 0, 6, 2, 3])
    shuffled, other = visits(text, 1, COPIES[order], logits[order], labels[order])
    np.testing.assert_allclose(shuffled, losses[order], rtol=1e-6)
    for ours, theirs in zip(jax.tree.leaves(state), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)


@pytest.mark.parametrize("text", ["elr(beta=0.7)", "selc(momentum=0.7, start=0.0)"])
def test_every_device_ends_with_the_memory_of_one(x64, text):
    """Two steps whose batches hold copies, on 1 and 4 devices; the state of each of the four is looked at."""
    loss = bind(text, LOSSES, "loss")
    data, whole = PartitionSpec(collectives.AXIS), PartitionSpec()

    def two_steps(state, logits, labels, rows):
        _, state = loss.apply(state, logits, labels, rows, 0)
        losses, state = loss.apply(state, -logits, labels, rows, 1)
        return losses, jax.tree.map(lambda leaf: leaf[None], state)

    def on(devices):
        mesh = jax.make_mesh(
            (devices,), (collectives.AXIS,), axis_types=(AxisType.Auto,), devices=jax.devices()[:devices]
        )
        mapped = jax.shard_map(
            two_steps, mesh=mesh, in_specs=(whole, data, data, data), out_specs=(data, data), check_vma=False
        )
        state, logits = in_precision((loss.init(CONTEXT._replace(num_examples=12)), LOGITS))
        return jax.tree.map(np.asarray, jax.jit(mapped)(state, logits, LABELS[COPIES % 8], COPIES))

    (losses, state), (four_losses, four_states) = on(1), on(4)
    assert distance(four_losses, losses) < 1e-9
    for one, each in zip(jax.tree.leaves(state), jax.tree.leaves(four_states), strict=True):
        assert len(each) == 4
        assert distance(each[:1], one) < 1e-9
        np.testing.assert_array_equal(each, np.broadcast_to(each[:1], each.shape))


# --- refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["elr", "selc"])
def test_a_memory_that_is_too_large_is_refused_before_it_is_allocated(text):
    loss = bind(text, LOSSES, "loss")
    assert loss.memory
    huge = CONTEXT._replace(num_examples=10**12, num_classes=10**6)  # could not be allocated
    with pytest.raises(UserError, match=rf"^{text}: a memory of {10**12} examples x {10**6} numbers takes .* GiB") as e:
        loss.init(huge)
    assert "\n" not in str(e.value)


@pytest.mark.parametrize(
    ("device", "host", "where"), [(799, 10**9, "a device has"), (None, 799, "the host has free"), (800, 800, "")]
)
def test_a_memory_takes_at_most_half_of_what_is_free(monkeypatch, device, host, where):
    monkeypatch.setattr(factory.system, "device_bytes", lambda: device)
    monkeypatch.setattr(factory.system, "available_bytes", lambda: host)
    if not where:
        return factory.check_memory("elr", 10, 10)
    with pytest.raises(UserError, match=rf"10 examples x 10 numbers takes .* and {where} .* may take half"):
        factory.check_memory("elr", 10, 10)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("elr(beta=1)", r"loss: elr: beta must be in \[0, 1\), not 1.0"),
        ("elr(lam=-1)", "loss: elr: lam must be a finite number, at least 0, not -1.0"),
        ("selc(momentum=1.1)", r"loss: selc: momentum must be in \[0, 1\], not 1.1"),
        ("selc(start=-0.1)", "loss: selc: start must be a fraction of the stage, 0 to 1, not -0.1"),
    ],
)
def test_bad_arguments_are_one_line(text, says):
    with pytest.raises(UserError, match=says) as error:
        bind(text, LOSSES, "loss")
    assert "\n" not in str(error.value)
