"""Losses against float64 references and their identities; every table entry at extreme logits."""

import inspect
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special as sp
from jax.sharding import AxisType, PartitionSpec

from lt_noisy import collectives
from lt_noisy.losses import LOSSES, lambertw0, log_prior, superloss, superloss_weight
from lt_noisy.method import Context
from lt_noisy.spec import UserError, bind

C = 5
COUNTS = np.array([400, 100, 30, 7, 1])
CONTEXT = Context(num_classes=C, num_examples=int(COUNTS.sum()), batch_size=8, counts=COUNTS)
RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(8, C)).astype(np.float32) * 3
LABELS = RNG.integers(C, size=8).astype(np.int32)
SOFT = RNG.dirichlet(np.ones(C), size=8).astype(np.float32)


def everything() -> list[str]:
    """A spec for each table entry (a nested loss is cross-entropy), and variants with code of their own."""
    specs = []
    for name, factory in LOSSES.items():
        required = [p for p in inspect.signature(factory).parameters.values() if p.default is p.empty]
        specs.append(f"{name}({', '.join('cross_entropy()' for _ in required)})")
    return [
        *specs,
        "gce(q=1.0)",
        "superloss(cross_entropy(), lam=0.25, threshold=running_mean)",
        "superloss(logit_adjusted(tau=2.0), threshold=running_mean)",
        "superloss(superloss(gce()))",
    ]


def on_one_device(apply, *args):
    """`apply` inside the axis, as a device of one sees it."""
    add, drop = (lambda x: jnp.asarray(x)[None]), (lambda x: x[0])
    mapped = jax.vmap(apply, axis_name=collectives.AXIS)
    return jax.tree.map(drop, mapped(*jax.tree.map(add, args)))


def run(text, logits=LOGITS, targets=LABELS, counts=COUNTS, state=None):
    """(per-example loss, new state) of the loss `text` says."""
    loss = bind(text, LOSSES, "loss")
    state = loss.init(CONTEXT._replace(counts=counts)) if state is None else state
    rows = jnp.arange(len(logits))
    return on_one_device(
        lambda s, o, t, r: loss.apply(s, o, t, r, jnp.int32(0)), state, jnp.asarray(logits), targets, rows
    )


def values(text, *args, **kwargs):
    return np.asarray(run(text, *args, **kwargs)[0])


def gradient(text, logits=LOGITS, targets=LABELS, counts=COUNTS):
    return np.asarray(jax.grad(lambda z: run(text, z, targets, counts)[0].sum())(jnp.asarray(logits)))


def log_p(logits=LOGITS):
    return sp.log_softmax(np.asarray(logits, np.float64), axis=-1)


def at(matrix, labels=LABELS):
    return matrix[np.arange(len(labels)), labels]


# --- every entry ----------------------------------------------------------------------------------


@pytest.mark.parametrize("text", everything())
def test_finite_at_extreme_logits(text):
    """At +-200, right and wrong by 400, int and soft targets, and with a class nobody observed."""
    extreme = np.full((4, C), -200, np.float32)
    extreme[0, 0] = extreme[1, 1] = 200
    extreme[2] = [200, 200, -200, 0, 1]
    labels = np.array([0, 0, 2, 3])
    for counts in (COUNTS, COUNTS * [1, 1, 1, 1, 0]):
        for targets in (labels, SOFT[:4]):
            assert np.isfinite(values(text, extreme, targets, counts)).all()
            assert np.isfinite(gradient(text, extreme, targets, counts)).all()


@pytest.mark.parametrize("text", everything())
def test_one_hot_targets_are_labels_and_bfloat16_is_cast_first(text):
    one_hot = np.eye(C, dtype=np.float32)[LABELS]
    np.testing.assert_allclose(values(text, targets=one_hot), values(text), rtol=1e-6)
    half = jnp.asarray(LOGITS, jnp.bfloat16)
    result = values(text, half)
    assert result.dtype == np.float32 and result.shape == LABELS.shape
    np.testing.assert_array_equal(result, values(text, np.asarray(half.astype(jnp.float32))))


@pytest.mark.parametrize("text", everything())
def test_state_keeps_its_structure(text):
    """The new state can be carried and checkpointed in place of the old one."""
    old = bind(text, LOSSES, "loss").init(CONTEXT)
    new = run(text)[1]
    assert jax.tree.structure(old) == jax.tree.structure(new)
    for a, b in zip(jax.tree.leaves(old), jax.tree.leaves(new), strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)


# --- cross-entropy, logit adjustment, balanced softmax, GCE ---------------------------------------


def test_cross_entropy_against_float64():
    np.testing.assert_allclose(values("cross_entropy"), -at(log_p()), rtol=2e-6)
    np.testing.assert_allclose(values("cross_entropy", targets=SOFT), -(SOFT * log_p()).sum(-1), rtol=2e-6)
    expected = np.exp(log_p()) - np.eye(C)[LABELS]
    np.testing.assert_allclose(gradient("cross_entropy"), expected, atol=1e-6)


def test_logit_adjusted_by_hand():
    """Equal logits and priors (3/4, 1/4): the loss is -log pi at tau 1; at tau 2 the odds are 9 to 1."""
    context = Context(num_classes=2, num_examples=4, batch_size=4, counts=np.array([3, 1]))
    for tau, expected in (
        (1.0, [-math.log(3 / 4), -math.log(1 / 4)]),
        (2.0, [-math.log(0.9), -math.log(0.1)]),
    ):
        loss = LOSSES["logit_adjusted"](tau)
        got, _ = loss.apply(loss.init(context), jnp.zeros((2, 2)), jnp.array([0, 1]), jnp.arange(2), 0)
        np.testing.assert_allclose(got, expected, rtol=1e-6)


@pytest.mark.parametrize("tau", [0.5, 1.0, 1.7])
def test_logit_adjusted_against_float64(tau):
    adjusted = LOGITS.astype(np.float64) + tau * np.log(COUNTS / COUNTS.sum())
    np.testing.assert_allclose(values(f"logit_adjusted(tau={tau})"), -at(log_p(adjusted)), rtol=2e-6)


def test_logit_adjusted_without_anything_to_adjust_is_cross_entropy():
    np.testing.assert_array_equal(
        values("logit_adjusted", counts=np.full(C, 37)), values("cross_entropy", counts=COUNTS)
    )
    np.testing.assert_array_equal(values("logit_adjusted(tau=0)"), values("cross_entropy"))


def test_balanced_softmax_adds_log_counts_and_is_logit_adjustment():
    expected = -at(log_p(LOGITS.astype(np.float64) + np.log(COUNTS)))
    np.testing.assert_allclose(values("balanced_softmax"), expected, rtol=2e-6)
    np.testing.assert_array_equal(values("balanced_softmax"), values("logit_adjusted(tau=1)"))


def test_an_unobserved_class_counts_as_one_example_and_changes_no_other():
    np.testing.assert_allclose(log_prior(np.array([20, 0, 5])), np.log([1, 1 / 20, 1 / 4]))
    np.testing.assert_array_equal(log_prior(np.array([20, 0, 5])), log_prior(np.array([20, 1, 5])))
    pushed = gradient("logit_adjusted", counts=np.array([400, 100, 30, 7, 0]))
    others = LABELS != 4
    assert (pushed[others, 4] > 0).all()  # its logit is pushed down, however rarely seen


def test_gce_against_float64_and_its_two_ends():
    p = np.exp(at(log_p()))
    np.testing.assert_allclose(values("gce(q=0.7)"), (1 - p**0.7) / 0.7, rtol=5e-6)
    np.testing.assert_allclose(values("gce(q=1)"), 1 - p, rtol=5e-6)
    np.testing.assert_allclose(values("gce(q=1e-6)"), values("cross_entropy"), rtol=2e-5)
    np.testing.assert_allclose(gradient("gce(q=1e-6)"), gradient("cross_entropy"), atol=2e-5)
    np.testing.assert_allclose(gradient("gce(q=0.7)"), p[:, None] ** 0.7 * gradient("cross_entropy"), atol=1e-6)


# --- Lambert's W and SuperLoss --------------------------------------------------------------------


def test_lambertw0_against_scipy():
    """From the first floats above -1/e, where the plain step loses half the digits, up to 1e37; compiled."""
    near = [np.float32(-math.exp(-1))]
    for _ in range(300):
        near.append(np.nextafter(near[-1], np.float32(0)))
    x = np.concatenate(
        [near[1:], np.linspace(-0.3678, 3, 997), -np.geomspace(1e-30, 0.3, 99), np.geomspace(1e-30, 1e37)]
    )
    x = x.astype(np.float32)
    expected = sp.lambertw(x.astype(np.float64)).real
    np.testing.assert_allclose(jax.jit(lambertw0)(x), expected, rtol=1e-6)


def test_lambertw0_at_and_beyond_its_ends():
    got = lambertw0(jnp.array([0.0, -math.exp(-1), -0.37, -1e30, math.nan]))
    np.testing.assert_array_equal(got, [0, -1, -1, -1, math.nan])


def test_superloss_weight_against_float64():
    losses = np.linspace(0, 30, 301).astype(np.float32)
    for t, lam in ((math.log(10), 1.0), (math.log(100), 0.25), (0.5, 20.0)):
        beta = (losses.astype(np.float64) - np.float32(t)) / lam
        inside = beta > -2 / math.e + 1e-4  # nearer, the rounding of l - t itself shows
        weight = np.asarray(superloss_weight(losses, np.float32(t), lam))
        expected = np.exp(-sp.lambertw(beta[inside] / 2).real)
        np.testing.assert_allclose(weight[inside], expected, rtol=3e-5)
        assert (weight[beta < -2 / math.e] == np.float32(math.e)).all()
        assert (weight > 0).all() and (weight <= np.float32(math.e)).all()
        assert (np.diff(weight) <= 0).all()


def test_superloss_weight_is_one_at_the_threshold_and_e_at_the_clamp():
    t, lam = np.float32(2.0), 0.5
    clamp = np.float32(t - 2 * lam / math.e)
    weight = superloss_weight(jnp.array([t, clamp - 1e-6, clamp - 1, -100.0, clamp + 1e-3]), t, lam)
    np.testing.assert_array_equal(weight[:4], np.float32([1, math.e, math.e, math.e]))
    assert 2.4 < weight[4] < math.e


def test_superloss_minimises_over_the_weight():
    """At s* the value is the least of (l - t) s + lam (log s)^2 over a fine grid of s in (0, e]."""
    losses, lam, t = values("cross_entropy").astype(np.float64), 0.7, math.log(C)
    s = np.exp(np.linspace(-8, 1, 200_001))
    least = np.array([((x - t) * s + lam * np.log(s) ** 2).min() for x in losses])
    np.testing.assert_allclose(values(f"superloss(cross_entropy, lam={lam})"), least, atol=2e-6)


@pytest.mark.parametrize("inner", ["cross_entropy", "logit_adjusted(tau=1.0)", "gce(q=0.7)"])
@pytest.mark.parametrize("threshold", ["log_classes", "running_mean"])
def test_superloss_gradient_is_the_weight_times_the_inner_gradient(inner, threshold):
    losses = values(inner)
    t = math.log(C) if threshold == "log_classes" else losses.mean()
    s = superloss_weight(losses, np.float32(t), 0.5)
    got = gradient(f"superloss({inner}, lam=0.5, threshold={threshold})")
    np.testing.assert_allclose(got, s[:, None] * gradient(inner), rtol=1e-5, atol=1e-7)


def test_superloss_with_a_large_lam_has_the_inner_gradient():
    got = gradient("superloss(cross_entropy, lam=1e7)")
    np.testing.assert_allclose(got, gradient("cross_entropy"), atol=1e-6)


def test_running_mean_starts_at_the_first_batch_and_is_updated_before_use():
    text = "superloss(cross_entropy, threshold=running_mean)"
    first = values("cross_entropy")
    got, state = run(text)
    t = first.mean()
    np.testing.assert_allclose(state["threshold"]["value"], t, rtol=1e-6)
    s = np.asarray(superloss_weight(first, t, 1.0))
    np.testing.assert_allclose(got, (first - t) * s + np.log(s) ** 2, atol=1e-6)

    second = values("cross_entropy", -LOGITS)
    got, state = run(text, -LOGITS, state=state)
    t = 0.9 * t + 0.1 * second.mean()
    np.testing.assert_allclose(state["threshold"]["value"], t, rtol=1e-6)
    s = np.asarray(superloss_weight(second, t, 1.0))
    np.testing.assert_allclose(got, (second - t) * s + np.log(s) ** 2, atol=1e-5)


def test_running_mean_is_the_same_on_four_devices():
    loss = bind("superloss(logit_adjusted, threshold=running_mean)", LOSSES, "loss")
    data, whole = PartitionSpec(collectives.AXIS), PartitionSpec()

    def two_steps(state, logits, labels, rows):
        _, state = loss.apply(state, logits, labels, rows, 0)
        return loss.apply(state, -logits, labels, rows, 1)

    def on(devices):
        mesh = jax.make_mesh(
            (devices,),
            (collectives.AXIS,),
            axis_types=(AxisType.Auto,),
            devices=jax.devices()[:devices],
        )
        mapped = jax.shard_map(
            two_steps, mesh=mesh, in_specs=(whole, data, data, data), out_specs=(data, whole), check_vma=False
        )
        return jax.jit(mapped)(loss.init(CONTEXT), LOGITS, LABELS, np.arange(8))

    for one, four in zip(jax.tree.leaves(on(1)), jax.tree.leaves(on(4)), strict=True):
        np.testing.assert_allclose(one, four, rtol=1e-6, atol=1e-6)


def test_superloss_nests_the_state_of_its_inner_loss():
    state = superloss(LOSSES["logit_adjusted"]()).init(CONTEXT)
    np.testing.assert_allclose(state["inner"]["log_prior"], log_prior(COUNTS), rtol=1e-6)
    np.testing.assert_allclose(state["threshold"]["value"], math.log(C), rtol=1e-6)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("gce(q=0)", r"loss: gce: q must be in \(0, 1\], not 0.0"),
        ("gce(q=1.5)", "not 1.5"),
        ("logit_adjusted(tau=-1)", "loss: logit_adjusted: tau must be a finite number, at least 0, not -1.0"),
        ("logit_adjusted(tau=1e999)", "not inf"),
        ("superloss(cross_entropy, lam=0)", "loss: superloss: lam must be a finite number above 0, not 0.0"),
        (
            "superloss(cross_entropy, threshold=mean)",
            "threshold must be log_classes or running_mean, not 'mean'",
        ),
        ("superloss(gce(q=2))", "loss: gce: q must be"),
    ],
)
def test_bad_arguments_are_one_line(text, says):
    with pytest.raises(UserError, match=says) as error:
        bind(text, LOSSES, "loss")
    assert "\n" not in str(error.value)
