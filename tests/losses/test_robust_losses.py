"""Losses for wrong labels: bounded, on other targets, corrected by a transition matrix; SuperLoss."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special as sp
from helpers.loss_cases import (
    CONTEXT,
    COUNTS,
    LABELS,
    LOGITS,
    SOFT,
    TRANSITION,
    C,
    at,
    gradient,
    log_p,
    numeric_gradient,
    run,
    values,
)

from lt_noisy.config.spec import bind
from lt_noisy.errors import UserError
from lt_noisy.losses import correction, lambertw0, log_prior, superloss_weight
from lt_noisy.losses.table import LOSSES

ONE_HOT = np.eye(C)[LABELS]

# --- bounded losses -------------------------------------------------------------------------------


def test_gce_against_float64_and_its_two_ends():
    p = np.exp(at(log_p()))
    np.testing.assert_allclose(values("gce(q=0.7)"), (1 - p**0.7) / 0.7, rtol=5e-6)
    np.testing.assert_allclose(values("gce(q=1)"), 1 - p, rtol=5e-6)
    np.testing.assert_allclose(values("gce(q=1e-6)"), values("cross_entropy"), rtol=2e-5)
    np.testing.assert_allclose(gradient("gce(q=1e-6)"), gradient("cross_entropy"), atol=1e-4)
    np.testing.assert_allclose(gradient("gce(q=0.7)"), p[:, None] ** 0.7 * gradient("cross_entropy"), atol=1e-6)
    np.testing.assert_allclose(values("mae"), 2 * (1 - p), rtol=5e-6)


def test_truncated_gce_is_flat_below_the_cut_from_its_start_on():
    """Half of the stage's 10 steps plain, then where p_y <= 0.3 the loss is that of p = 0.3."""
    text, p = "gce(q=0.5, truncate=0.3, start=0.5)", np.exp(at(log_p()))
    low = p <= 0.3
    assert 0 < low.sum() < 8
    np.testing.assert_array_equal(values(text, step=4), values("gce(q=0.5)"))
    np.testing.assert_allclose(values(text, step=5), (1 - np.maximum(p, 0.3) ** 0.5) / 0.5, rtol=5e-6)
    expected = np.where(low[:, None], 0.0, gradient("gce(q=0.5)"))
    np.testing.assert_array_equal(gradient(text, step=5), expected)
    assert np.abs(gradient(text, step=4)[low]).max() > 1e-3


def test_symmetric_cross_entropy_by_hand():
    """p = (1/2, 1/4, 1/4), label 1: 0.1 log 4 + 2 * 4 * 3/4."""
    got = values(
        "symmetric_cross_entropy(alpha=0.1, beta=2.0, log_zero=-4.0)", np.log([[2.0, 1.0, 1.0]]), np.array([1])
    )
    np.testing.assert_allclose(got, [0.1 * math.log(4) + 6], rtol=1e-6)


def test_symmetric_cross_entropy_is_the_sum_of_both_directions():
    """The reverse direction -sum_c p_c log t_c with log 0 = A, as the paper writes it."""
    log_target = np.where(ONE_HOT == 1, 0.0, -9.21)
    expected = -6 * at(log_p()) - 0.1 * (np.exp(log_p()) * log_target).sum(-1)
    text = "symmetric_cross_entropy(alpha=6.0, beta=0.1, log_zero=-9.21)"
    np.testing.assert_allclose(values(text), expected, rtol=1e-5)
    np.testing.assert_allclose(values("symmetric_cross_entropy(alpha=1, beta=0)"), values("cross_entropy"), rtol=1e-6)


def test_symmetric_cross_entropy_as_released_is_the_default():
    """0.1 CE + RCE of a one-hot target clipped at 1e-4, value and gradient."""

    def program(logits):
        logs = log_p(logits)
        return -0.1 * at(logs) - (np.exp(logs) * np.log(np.clip(ONE_HOT, 1e-4, 1))).sum(-1)

    np.testing.assert_allclose(values("symmetric_cross_entropy()"), program(LOGITS), rtol=1e-5)
    np.testing.assert_allclose(gradient("symmetric_cross_entropy()"), numeric_gradient(program), atol=1e-5)


# --- other targets --------------------------------------------------------------------------------


def test_label_smoothing_closed_form_and_of_nothing_is_the_inner_loss():
    smoothed = 0.8 * ONE_HOT + 0.2 / C
    np.testing.assert_allclose(
        values("label_smoothing(cross_entropy, epsilon=0.2)"), -(smoothed * log_p()).sum(-1), rtol=2e-6
    )
    smoothed = 0.8 * SOFT + 0.2 / C
    got = values("label_smoothing(cross_entropy, epsilon=0.2)", targets=SOFT)
    np.testing.assert_allclose(got, -(smoothed * log_p()).sum(-1), rtol=2e-6)
    np.testing.assert_array_equal(values("label_smoothing(gce, epsilon=0)"), values("gce"))
    np.testing.assert_array_equal(gradient("label_smoothing(gce, epsilon=0)"), gradient("gce"))


def test_wrappers_keep_the_inner_state_and_say_that_it_remembers():
    for text in ("label_smoothing(selc)", "superloss(selc)", "superloss(label_smoothing(elr))"):
        assert bind(text, LOSSES, "loss").memory
    for text in ("label_smoothing(logit_adjusted)", "superloss(logit_adjusted)"):
        loss = bind(text, LOSSES, "loss")
        assert not loss.memory
        np.testing.assert_allclose(loss.init(CONTEXT)["inner"]["log_prior"], log_prior(COUNTS), rtol=1e-6)


def test_soft_bootstrapping_adds_the_entropy_and_its_gradient():
    def reference(logits):
        logs = log_p(logits)
        return -(((0.6 * ONE_HOT + 0.4 * np.exp(logs)) * logs).sum(-1))

    np.testing.assert_allclose(values("bootstrapping(beta=0.6)"), reference(LOGITS), rtol=5e-6)
    np.testing.assert_allclose(gradient("bootstrapping(beta=0.6)"), numeric_gradient(reference), atol=1e-6)


def test_hard_bootstrapping_trusts_the_most_probable_class():
    target = 0.6 * ONE_HOT + 0.4 * np.eye(C)[LOGITS.argmax(-1)]
    text = "bootstrapping(beta=0.6, hard=True)"
    np.testing.assert_allclose(values(text), -(target * log_p()).sum(-1), rtol=5e-6)
    np.testing.assert_allclose(gradient(text), np.exp(log_p()) - target, atol=1e-6)


@pytest.mark.parametrize("hard", [False, True])
def test_bootstrapping_with_full_trust_is_cross_entropy(hard):
    np.testing.assert_array_equal(values(f"bootstrapping(beta=1, hard={hard})"), values("cross_entropy"))
    np.testing.assert_array_equal(gradient(f"bootstrapping(beta=1, hard={hard})"), gradient("cross_entropy"))


# --- forward correction ---------------------------------------------------------------------------


def test_forward_by_hand():
    """p = (1/2, 1/4, 1/4): label 0 has 1/2 * 0.8 + 1/4 * 0.4, label 1 the rest of both, label 2 only the true 2."""
    text = "forward(matrix=((0.8, 0.2, 0), (0.4, 0.6, 0), (0, 0, 1)))"
    context = CONTEXT._replace(num_classes=3, counts=np.array([5, 5, 5]))
    logits = np.tile(np.log([2.0, 1.0, 1.0]).astype(np.float32), (3, 1))
    got = values(text, logits, np.array([0, 1, 2], np.int32), context)
    np.testing.assert_allclose(got, -np.log([0.5, 0.25, 0.25]), rtol=1e-6)


def test_forward_without_noise_is_cross_entropy():
    context = CONTEXT._replace(transition=np.eye(C))
    for targets in (LABELS, SOFT):
        ours, plain = values("forward", targets=targets, context=context), values("cross_entropy", targets=targets)
        np.testing.assert_allclose(ours, plain, rtol=1e-6)
        ours, plain = gradient("forward", targets=targets, context=context), gradient("cross_entropy", targets=targets)
        np.testing.assert_allclose(ours, plain, atol=1e-6)


def test_forward_against_float64_with_the_matrix_of_a_stage_or_of_a_file(tmp_path):
    def reference(logits):
        return -np.log(at(np.exp(log_p(logits)) @ TRANSITION))

    np.testing.assert_allclose(values("forward"), reference(LOGITS), rtol=1e-5)
    np.testing.assert_allclose(gradient("forward"), numeric_gradient(reference), atol=1e-6)
    np.save(tmp_path / "t.npy", TRANSITION)
    from_file = bind(f"forward(path='{tmp_path}/t.npy')", LOSSES, "loss").init(CONTEXT._replace(transition=None))
    np.testing.assert_array_equal(
        from_file["log_transition"], bind("forward", LOSSES, "loss").init(CONTEXT)["log_transition"]
    )


@pytest.mark.parametrize("together", [1, 40, 10**6])
def test_forward_of_soft_targets_is_the_same_a_part_of_the_classes_at_a_time(together, monkeypatch):
    generator = np.random.default_rng(0)
    matrix, targets = (generator.dirichlet(np.ones(6), n).astype(np.float32) for n in (6, 4))
    matrix[:, 2] = 0  # impossible
    logits = generator.normal(size=(4, 6)).astype(np.float32)
    with np.errstate(divide="ignore"):
        log_t = np.log(matrix)

    def made():
        return jax.value_and_grad(lambda x: correction.forward(x, targets, log_t).sum())(logits)

    whole = made()
    monkeypatch.setattr(correction, "_LARGEST", together)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), made(), whole)


def test_forward_where_a_label_is_impossible():
    """Nobody is labelled 4 and T never says 4: its floor there, without touching the gradient or the other classes."""
    matrix = np.eye(C)
    matrix[4] = [0, 0, 0, 1, 0]
    context = CONTEXT._replace(transition=matrix, counts=np.array([5, 5, 5, 5, 0]))
    targets = np.array([4, 0, 1, 2, 3, 0, 1, 2], np.int32)
    got = values("forward", targets=targets, context=context)
    np.testing.assert_allclose(got[0], -math.log(1e-12), rtol=1e-6)
    smoothed = values("label_smoothing(forward())", targets=targets[1:], logits=LOGITS[1:], context=context)
    assert np.isfinite(got).all() and np.isfinite(smoothed).all()
    assert np.isfinite(gradient("forward", targets=targets, context=context)).all()
    soft = np.eye(C, dtype=np.float32)[[0, 0, 1, 2, 3, 0, 1, 2]]
    np.testing.assert_allclose(values("forward", targets=soft, context=context)[1:], got[1:], rtol=1e-6)
    assert np.isfinite(gradient("forward", targets=soft, context=context)).all()


def test_forward_refuses_a_matrix_that_does_not_fit():
    never = np.eye(C)
    never[4] = [0, 0, 0, 1, 0]
    for text, context, says in (
        ("forward", CONTEXT._replace(transition=None), r"forward: no transition matrix: give .*`transition`$"),
        ("forward", CONTEXT._replace(transition=never), "never produces class 4 .* and 1 examples are labelled so"),
        ("forward(matrix=((1, 0), (0, 1)))", CONTEXT, "forward: the matrix is for 2 classes, the data has 5"),
        ("forward", CONTEXT._replace(transition=2 * never), "forward: the transition stage's matrix: row 0 must be"),
    ):
        with pytest.raises(UserError, match=says) as error:
            bind(text, LOSSES, "loss").init(context)
        assert "\n" not in str(error.value)


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
        clamped = weight[beta < -2 / math.e]
        np.testing.assert_allclose(clamped, math.e, rtol=1e-6)
        assert (clamped == weight.max()).all() and (weight > 0).all() and (np.diff(weight) <= 0).all()


def test_superloss_weight_is_one_at_the_threshold_and_e_at_the_clamp():
    t, lam = np.float32(2.0), 0.5
    clamp = np.float32(t - 2 * lam / math.e)
    weight = superloss_weight(jnp.array([t, clamp - 1e-6, clamp - 1, -100.0, clamp + 1e-3]), t, lam)
    np.testing.assert_array_equal(weight[:4], [1, weight[1], weight[1], weight[1]])
    np.testing.assert_allclose(weight[1], math.e, rtol=1e-6)
    assert 2.4 < weight[4] < weight[1]


def test_superloss_minimises_over_the_weight():
    """At s* the value is the least of (l - t) s + lam (log s)^2 over a fine grid of s in (0, e]."""
    losses, lam, t = values("cross_entropy").astype(np.float64), 0.7, math.log(C)
    s = np.exp(np.linspace(-8, 1, 200_001))
    least = np.array([((x - t) * s + lam * np.log(s) ** 2).min() for x in losses])
    np.testing.assert_allclose(values(f"superloss(cross_entropy, lam={lam})"), least, atol=2e-6)


@pytest.mark.parametrize(
    ("inner", "threshold"),
    [("cross_entropy", "log_classes"), ("logit_adjusted(tau=1.0)", "running_mean"), ("gce(q=0.7)", "global_mean")],
)
def test_superloss_gradient_is_the_weight_times_the_inner_gradient(inner, threshold):
    losses = values(inner)
    t = math.log(C) if threshold == "log_classes" else losses.mean()
    s = superloss_weight(losses, np.float32(t), 0.5)
    got = gradient(f"superloss({inner}, lam=0.5, threshold={threshold})")
    np.testing.assert_allclose(got, s[:, None] * gradient(inner), rtol=1e-5, atol=1e-7)


def test_superloss_with_a_large_lam_has_the_inner_gradient():
    got = gradient("superloss(cross_entropy, lam=1e7)")
    np.testing.assert_allclose(got, gradient("cross_entropy"), atol=1e-5)


def test_running_mean_starts_at_the_first_batch_and_is_updated_before_use():
    text = "superloss(cross_entropy, threshold=running_mean)"
    first = values("cross_entropy")
    got, state = run(text)
    t = first.mean()
    np.testing.assert_allclose(state["threshold"]["value"], t, rtol=1e-6)
    s = np.asarray(superloss_weight(first, t, 1.0))
    np.testing.assert_allclose(got, (first - t) * s + np.log(s) ** 2, atol=1e-5)

    second = values("cross_entropy", -LOGITS)
    got, state = run(text, -LOGITS, state=state)
    t = 0.9 * t + 0.1 * second.mean()
    np.testing.assert_allclose(state["threshold"]["value"], t, rtol=1e-6)
    s = np.asarray(superloss_weight(second, t, 1.0))
    np.testing.assert_allclose(got, (second - t) * s + np.log(s) ** 2, atol=1e-5)


def test_global_mean_is_the_mean_of_all_batches_so_far_this_one_included():
    text, state, seen = "superloss(cross_entropy, threshold=global_mean)", None, []
    for logits in (LOGITS, -LOGITS, 0.5 * LOGITS):
        losses = values("cross_entropy", logits)
        seen.append(losses)
        got, state = run(text, logits, state=state)
        t = np.mean(seen, dtype=np.float64)
        np.testing.assert_allclose(state["threshold"]["value"], t, rtol=1e-6)
        s = np.asarray(superloss_weight(losses, np.float32(t), 1.0))
        np.testing.assert_allclose(got, (losses - t) * s + np.log(s) ** 2, atol=1e-5)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("gce(q=0)", r"loss: gce: q must be in \(0, 1\], not 0.0"),
        ("gce(q=1.5)", "not 1.5"),
        ("gce(truncate=1)", r"loss: gce: truncate must be a probability in \[0, 1\), not 1.0"),
        ("gce(truncate=0.5, start=2)", "loss: gce: start must be a fraction of the stage, 0 to 1, not 2.0"),
        ("gce(start=0.5)", "loss: gce: start=0.5 says when truncation begins, and truncate=0 never truncates"),
        ("symmetric_cross_entropy(alpha=-1)", "alpha must be a finite number, at least 0, not -1.0"),
        ("symmetric_cross_entropy(alpha=0, beta=0)", "alpha and beta are both 0"),
        ("symmetric_cross_entropy(log_zero=0)", "log_zero must be a finite number below 0, not 0.0"),
        ("label_smoothing(gce, epsilon=2)", r"loss: label_smoothing: epsilon must be in \[0, 1\], not 2.0"),
        ("bootstrapping(beta=-0.1)", r"loss: bootstrapping: beta must be in \[0, 1\], not -0.1"),
        ("forward(matrix=((1, 0), (0, 1)), path='t.npy')", "loss: forward: give one of"),
        ("forward(matrix=((1, 0), (0.5, 0.4)))", "loss: forward: matrix: row 1 must be probabilities that sum to 1"),
        ("forward(matrix=((1, 0),))", r"loss: forward: matrix is \[1, 2\]; it must be square"),
        ("forward(path='/nowhere/t.npy')", "loss: forward: /nowhere/t.npy does not exist"),
        ("superloss(cross_entropy, lam=0)", "loss: superloss: lam must be a finite number above 0, not 0.0"),
        (
            "superloss(cross_entropy, threshold=mean)",
            r"superloss\(threshold=...\) is log_classes or running_mean or global_mean, not mean",
        ),
        ("superloss(gce(q=2))", "loss: gce: q must be"),
    ],
)
def test_bad_arguments_are_one_line(text, says):
    with pytest.raises(UserError, match=says) as error:
        bind(text, LOSSES, "loss")
    assert "\n" not in str(error.value)
