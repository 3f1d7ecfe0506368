"""The formulas by themselves, in plain JAX: no axis, no state, no config."""

import functools
import importlib
import inspect
import math
import pkgutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers.loss_cases import CONTEXT, COUNTS, LABELS, LOGITS, SOFT, TRANSITION, C, gradient, nesting, values

from lt_noisy import losses, revision
from lt_noisy.losses import gce
from lt_noisy.losses.table import LOSSES

with np.errstate(divide="ignore"):
    LOG_TRANSITION = np.log(TRANSITION)


def smoothed_gce(logits, targets):
    return gce(logits, losses.label_smoothing(targets, C, epsilon=0.2))


def superloss(logits, targets):
    return losses.superloss(losses.cross_entropy(logits, targets), math.log(C), lam=0.5)


def elr_first_visit(logits, targets):
    return losses.elr(logits, targets, 0.4 * losses.elr_prediction(logits), lam=2.0)


def selc_first_visit(logits, targets):
    keep = jnp.full(logits.shape[:1], 0.8)
    return losses.selc(logits, targets, keep, 0.2 * jax.nn.softmax(logits))


OWN_CASES = {
    "focal(gamma=2.0)": functools.partial(losses.focal, gamma=2.0),
    "logit_adjusted(tau=2.0)": functools.partial(losses.logit_adjusted, log_prior=losses.log_prior(COUNTS), tau=2.0),
    "balanced_softmax()": functools.partial(losses.balanced_softmax, counts=COUNTS),
    "ldam(max_margin=0.4, scale=5.0)": functools.partial(
        losses.ldam, margins=losses.ldam_margins(COUNTS, 0.4), scale=5.0
    ),
    "gce(q=0.5, truncate=0.3)": functools.partial(gce, q=0.5, truncate=0.3),
    "symmetric_cross_entropy(alpha=6.0, beta=0.1)": functools.partial(
        losses.symmetric_cross_entropy, alpha=6.0, beta=0.1
    ),
    "label_smoothing(gce(), epsilon=0.2)": smoothed_gce,
    "bootstrapping(beta=0.6)": functools.partial(losses.bootstrapping, beta=0.6),
    "bootstrapping(beta=0.6, hard=True)": functools.partial(losses.bootstrapping, beta=0.6, hard=True),
    "elr(beta=0.6, lam=2.0)": elr_first_visit,
    "selc(momentum=0.8, start=0.0)": selc_first_visit,
    "forward()": functools.partial(losses.forward, log_transition=LOG_TRANSITION),
    "superloss(cross_entropy(), lam=0.5)": superloss,
}


def by_default(name, logits, targets):
    """The formula of a table entry, with what its factory keeps of the data."""
    state, formula = LOSSES[name]().init(CONTEXT), getattr(losses, name)
    unknown = state.keys() - inspect.signature(formula).parameters.keys()
    assert not unknown, f"say in OWN_CASES how the formula of {name} is called: it takes no {unknown}"
    return formula(logits, targets, **state)


STATEFUL = {"balanced_softmax", "gce", "elr", "selc"}  # their formulas take something else than the table keeps
CASES = OWN_CASES | {
    f"{name}()": functools.partial(by_default, name) for name in LOSSES if name not in {*STATEFUL, *nesting()}
}


@functools.cache
def found_by_formulas(soft):
    """{case: (gradient, value)} of all of them in one program: jit of vmap of grad, over a batch and its reverse."""

    def total(logits, targets, formula):
        per_example = formula(logits, targets)
        assert (per_example.shape, per_example.dtype) == ((8,), np.float32)
        return per_example.sum(), per_example

    def each(logits, targets):
        gradient = jax.grad(total, has_aux=True)
        return {text: gradient(logits, targets, formula) for text, formula in CASES.items()}

    targets = SOFT if soft else LABELS
    return jax.jit(jax.vmap(each))(*(jnp.stack([x, x[::-1]]) for x in (LOGITS, targets)))


@pytest.mark.parametrize("text", CASES)
def test_a_formula_is_its_table_entry_outside_any_axis(text):
    for targets in (LABELS, SOFT):
        found = found_by_formulas(targets is SOFT)[text]
        expected = gradient(text, targets=targets), values(text, targets=targets)
        for got, want in zip(found, expected, strict=True):
            np.testing.assert_allclose(got, np.stack([want, want[::-1]]), rtol=1e-5, atol=1e-6)


def test_default_arguments_are_those_of_the_table():
    for name, factory in LOSSES.items():
        formula = inspect.signature(getattr(losses, name)).parameters
        for parameter in inspect.signature(factory).parameters.values():
            default = formula[parameter.name].default if parameter.name in formula else inspect.Parameter.empty
            assert default in (inspect.Parameter.empty, parameter.default), (name, parameter)


def test_three_steps_of_a_bare_optax_loop():
    images = np.random.default_rng(0).normal(size=(8, 6)).astype(np.float32)
    tx = optax.sgd(0.1)

    def mean_loss(kernel):
        return gce(images @ kernel, LABELS, q=0.7).mean()

    kernel = jnp.zeros((6, C))
    state, seen = tx.init(kernel), []
    for _ in range(3):
        loss, grads = jax.value_and_grad(mean_loss)(kernel)
        updates, state = tx.update(grads, state)
        kernel = optax.apply_updates(kernel, updates)
        seen.append(float(loss))
    assert seen[0] == pytest.approx((1 - C**-0.7) / 0.7, rel=1e-5)
    assert seen[0] > seen[1] > seen[2] > mean_loss(kernel)


def test_all_names_exactly_the_public_functions():
    """Those of the families' files that are no factory; and what a formula's docstring owes its reader."""
    defined = set()
    for info in pkgutil.iter_modules(losses.__path__, "lt_noisy.losses."):
        module = importlib.import_module(info.name)
        if info.name.rpartition(".")[2] not in ("common", "factory", "table"):
            functions = inspect.getmembers(module, inspect.isfunction)
            defined |= {name for name, function in functions if function.__module__ == info.name}
    formulas = {name for name in defined if not name.startswith(("_", "make_"))}
    assert losses.__all__ == sorted(formulas)
    for name in LOSSES.keys() - {"cross_entropy"}:  # which has no author
        assert all(part in getattr(losses, name).__doc__ for part in ("Args:", "Returns:", "References:")), name
    assert {f"make_{name}" for name in LOSSES} == {name for name in defined if name.startswith("make_")}


def test_the_formulas_import_no_more_than_they_need():
    """The ground, `noise` for what a transition matrix is, and the spec that its table is made with."""
    packages = {name for name in revision.closure("lt_noisy.losses") if name.count(".") == 1}
    assert not packages & {f"lt_noisy.{name}" for name in ("models", "training", "stages", "runs", "evaluation")}
    assert "lt_noisy.losses.table" not in revision.closure("lt_noisy.losses")
