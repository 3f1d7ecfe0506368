"""Losses against float64 references and their identities; every table entry at extreme logits."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.loss_cases import (
    CONTEXT,
    COUNTS,
    LABELS,
    LOGITS,
    SOFT,
    C,
    at,
    everything,
    gradient,
    linear,
    log_p,
    numeric_gradient,
    run,
    values,
)

from lt_noisy import collectives
from lt_noisy.config.spec import bind
from lt_noisy.errors import UserError
from lt_noisy.losses import focal, log_prior
from lt_noisy.losses.common import log_complement
from lt_noisy.losses.table import LOSSES
from lt_noisy.method import Context


def counted(*counts):
    """The context with other observed counts."""
    return CONTEXT._replace(counts=np.array(counts))


# --- every entry ----------------------------------------------------------------------------------


@pytest.mark.parametrize("text", everything())
def test_finite_at_extreme_logits(text):
    """At +-200, right and wrong by 400, int and soft targets, and with a class nobody observed."""
    extreme = np.full((8, C), -200, np.float32)
    extreme[0, 0] = extreme[1, 1] = 200
    extreme[2] = [200, 200, -200, 0, 1]
    labels = np.array([0, 0, 2, 3, 4, 0, 1, 2], np.int32)
    for context in (CONTEXT, counted(400, 100, 30, 7, 0)):
        for targets in (labels, SOFT):
            assert np.isfinite(values(text, extreme, targets, context)).all()
            assert np.isfinite(gradient(text, extreme, targets, context)).all()


@pytest.mark.parametrize("text", everything())
def test_one_hot_targets_are_labels(text):
    one_hot = np.eye(C, dtype=np.float32)[LABELS]
    np.testing.assert_allclose(values(text, targets=one_hot), values(text), rtol=1e-5)


@pytest.mark.parametrize("text", everything())
def test_bfloat16_logits_are_cast_before_anything_else(text):
    loss = bind(text, LOSSES, "loss")
    trace = jax.make_jaxpr(loss.apply, axis_env=[(collectives.AXIS, 1)])
    jaxpr = trace(loss.init(CONTEXT), jnp.zeros((8, C), jnp.bfloat16), LABELS, np.arange(8), 0)
    assert str(jaxpr).count(":bf16[") == 1  # the input; whatever else were bfloat16 would be listed with its type too
    assert (jaxpr.out_avals[0].shape, jaxpr.out_avals[0].dtype) == ((8,), np.float32)


@pytest.mark.parametrize("text", linear())
def test_a_mixture_of_targets_gives_the_mixture_of_losses(text):
    one_hot = np.eye(C, dtype=np.float32)[LABELS]
    expected = 0.3 * values(text) + 0.7 * values(text, targets=SOFT)
    np.testing.assert_allclose(values(text, targets=0.3 * one_hot + 0.7 * SOFT), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("text", everything())
def test_state_keeps_its_structure(text):
    """The new state can be carried and checkpointed in place of the old one."""
    old = bind(text, LOSSES, "loss").init(CONTEXT)
    new = run(text)[1]
    assert jax.tree.structure(old) == jax.tree.structure(new)
    for a, b in zip(jax.tree.leaves(old), jax.tree.leaves(new), strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)


# --- cross-entropy, logit adjustment, balanced softmax --------------------------------------------


def test_cross_entropy_against_float64():
    np.testing.assert_allclose(values("cross_entropy"), -at(log_p()), rtol=1e-5)
    np.testing.assert_allclose(values("cross_entropy", targets=SOFT), -(SOFT * log_p()).sum(-1), rtol=1e-5)
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
        np.testing.assert_allclose(got, expected, rtol=1e-5)


@pytest.mark.parametrize("tau", [0.5, 1.0, 1.7])
def test_logit_adjusted_against_float64(tau):
    adjusted = LOGITS.astype(np.float64) + tau * np.log(COUNTS / COUNTS.sum())
    np.testing.assert_allclose(values(f"logit_adjusted(tau={tau})"), -at(log_p(adjusted)), rtol=1e-5)


def test_logit_adjusted_without_anything_to_adjust_is_cross_entropy():
    np.testing.assert_array_equal(values("logit_adjusted", context=counted(*[37] * C)), values("cross_entropy"))
    np.testing.assert_array_equal(values("logit_adjusted(tau=0)"), values("cross_entropy"))


def test_balanced_softmax_multiplies_the_odds_by_the_counts():
    odds = COUNTS * np.exp(LOGITS.astype(np.float64))
    p = odds / odds.sum(-1, keepdims=True)
    np.testing.assert_allclose(values("balanced_softmax"), -np.log(at(p)), rtol=1e-5)
    np.testing.assert_allclose(gradient("balanced_softmax"), p - np.eye(C)[LABELS], atol=1e-6)


def test_an_unobserved_class_counts_as_one_example_and_changes_no_other():
    np.testing.assert_allclose(log_prior(np.array([20, 0, 5])), np.log([1, 1 / 20, 1 / 4]))
    np.testing.assert_array_equal(log_prior(np.array([20, 0, 5])), log_prior(np.array([20, 1, 5])))
    pushed = gradient("logit_adjusted", context=counted(400, 100, 30, 7, 0))
    others = LABELS != 4
    assert (pushed[others, 4] > 0).all()  # its logit is pushed down, however rarely seen


def test_corrected_prior_takes_the_estimated_clean_counts():
    expected = -at(log_p(LOGITS.astype(np.float64) + np.log([300, 150, 60, 27.5, 1])))  # 0.5 of an example counts as 1
    np.testing.assert_allclose(values("logit_adjusted(prior=corrected)"), expected, rtol=1e-5)
    with pytest.raises(UserError, match=r"logit_adjusted: prior=corrected needs .* `transition`$"):
        values("logit_adjusted(prior=corrected)", context=CONTEXT._replace(clean_counts=None))


# --- focal loss and LDAM --------------------------------------------------------------------------


def test_focal_against_float64_and_without_focus_is_cross_entropy():
    p = np.exp(at(log_p()))
    np.testing.assert_allclose(values("focal(gamma=2.0)"), -((1 - p) ** 2) * np.log(p), rtol=1e-5)
    np.testing.assert_array_equal(values("focal(gamma=0.0)"), values("cross_entropy"))
    np.testing.assert_array_equal(gradient("focal(gamma=0.0)"), gradient("cross_entropy"))


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
def test_focal_gradient_against_float64(gamma):
    def reference(logits):
        p = np.exp(at(log_p(logits)))
        return -((1 - p) ** gamma) * np.log(p)

    np.testing.assert_allclose(gradient(f"focal(gamma={gamma})"), numeric_gradient(reference), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
def test_focal_with_weights_inside_is_the_published_program(gamma):
    """F.cross_entropy(weight=w) put into (1 - exp(-ce))^gamma ce, from 0.8 of the stage on; value and gradient."""
    weights = (1 - 0.99) / (1 - 0.99**COUNTS)
    weights *= C / weights.sum()

    def program(logits, weights=weights):
        ce = -weights[LABELS] * at(log_p(logits))
        return (1 - np.exp(-ce)) ** gamma * ce

    text = f"focal(gamma={gamma}, beta=0.99, start=0.8)"
    np.testing.assert_allclose(values(text, step=8), program(LOGITS), rtol=1e-5)
    expected = numeric_gradient(program)
    np.testing.assert_allclose(gradient(text, step=8), expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())
    np.testing.assert_allclose(values(text, step=7), values(f"focal(gamma={gamma})"), rtol=1e-5)
    outside = weights[LABELS] * values(f"focal(gamma={gamma})")  # what re-weighting from outside makes of it
    assert np.allclose(outside, program(LOGITS), rtol=1e-3) == (gamma == 0)


def test_focal_weights_keep_their_digits_where_p_is_nearly_one():
    """1 - p = 2e-7 is two units in the last place of p; the program's float32 has no digit there."""
    logits, weights = np.array([[16.0, 0.0, 0.0]], np.float32), np.array([0.25, 1.0, 1.75], np.float32)
    q = 2 * math.exp(-16) / (1 + 2 * math.exp(-16))
    ce = -0.25 * math.log1p(-q)
    got = focal(jnp.asarray(logits), jnp.array([0]), 1.0, weights)
    np.testing.assert_allclose(got, [-math.expm1(-ce) * ce], rtol=1e-5)


def test_log_complement_is_exact_where_p_is_nearly_one_or_nearly_zero():
    """At 1 - p = 2e-7 the subtraction is off by a tenth, at 2e-16 it is 0."""
    logits = np.array([[0, -16, -16], [0, -37, -36], [0.1, 0.1, -50], [3, 2, 1]], np.float32)
    p = np.exp(log_p(logits))
    others = np.array([[np.delete(row, c).sum() for c in range(3)] for row in p])
    expected = np.where(p < 0.5, np.log1p(-p), np.log(others))
    got = log_complement(jax.nn.log_softmax(jnp.asarray(logits)))
    np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_ldam_margins_by_hand():
    """16 and 1 examples: n^(-1/4) is 1/2 and 1, the margins 1/4 and 1/2, times the scale 4: 1 and 2."""
    context = Context(num_classes=2, num_examples=17, batch_size=2, counts=np.array([16, 1]))
    loss = bind("ldam(max_margin=0.5, scale=4.0)", LOSSES, "loss")
    np.testing.assert_allclose(loss.init(context)["margins"], [0.25, 0.5])
    got = values("ldam(max_margin=0.5, scale=4.0)", np.zeros((2, 2)), np.array([0, 1]), context)
    np.testing.assert_allclose(got, [math.log(1 + math.e), math.log(1 + math.e**2)], rtol=1e-5)
    empty = loss.init(context._replace(counts=np.array([16, 1, 0])))
    np.testing.assert_allclose(empty["margins"], [0.25, 0.5, 0.5])  # the other classes are as they were


def test_ldam_against_float64():
    """The margin on the label's logit alone; a soft target takes each class's loss with that class's margin."""
    margins = 0.5 * COUNTS**-0.25 / (COUNTS**-0.25).max()
    logits = LOGITS * 5

    def reference(logits):
        per_class = [-log_p(logits - 30 * margins * np.eye(C)[c])[:, c] for c in range(C)]
        return np.stack(per_class, axis=-1)

    np.testing.assert_allclose(values("ldam", logits), at(reference(logits)), rtol=1e-5, atol=1e-6)
    expected = (SOFT * reference(logits)).sum(-1)
    np.testing.assert_allclose(values("ldam", logits, SOFT), expected, rtol=1e-5)
    for targets, read in ((LABELS, at), (SOFT, lambda m: (SOFT * m).sum(-1))):
        expected = numeric_gradient(lambda f, read=read: read(reference(f)), logits)
        np.testing.assert_allclose(gradient("ldam", logits, targets), expected, atol=2e-6)


def test_ldam_without_margin_is_cross_entropy():
    np.testing.assert_allclose(values("ldam(max_margin=0.0)"), values("cross_entropy"), rtol=1e-5)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("logit_adjusted(tau=-1)", "loss: logit_adjusted: tau must be a finite number, at least 0, not -1.0"),
        ("logit_adjusted(tau=1e999)", "not inf"),
        (
            "logit_adjusted(prior=correct)",
            r"logit_adjusted\(prior=...\) is observed or corrected, not correct, did you mean 'corrected'",
        ),
        ("focal(gamma=-1)", "loss: focal: gamma must be a finite number, at least 0, not -1.0"),
        ("focal(beta=1.0)", r"loss: focal: beta must be in \[0, 1\), not 1.0"),
        ("focal(start=0.8)", "loss: focal: start=0.8 says when class weights begin, and beta=0 has none"),
        ("ldam(max_margin=-1)", "loss: ldam: max_margin must be a finite number, at least 0, not -1.0"),
        ("ldam(scale=0)", "loss: ldam: scale must be a finite number above 0, not 0.0"),
    ],
)
def test_bad_arguments_are_one_line(text, says):
    with pytest.raises(UserError, match=says) as error:
        bind(text, LOSSES, "loss")
    assert "\n" not in str(error.value)
