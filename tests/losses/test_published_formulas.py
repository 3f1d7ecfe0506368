"""Each loss in float64 beside its paper's formula in NumPy, value and gradient, to the last digits.

The gradients of the references are complex steps: f(x + ih) / h has no difference that could cancel. What a program
holds constant in its backward pass (SuperLoss's weight, ELR's and SELC's targets) is a real number there.
"""

import functools

import jax
import numpy as np
import pytest
import scipy.special as sp
from helpers.loss_cases import COUNTS, LABELS, TRANSITION, C

from lt_noisy import losses

LOGITS = np.random.RandomState(0).standard_normal((8, C)) * 3
ONE_HOT = np.eye(C)[LABELS]
PRIOR = COUNTS / COUNTS.sum()
MARGINS = 0.5 * COUNTS**-0.25 / (COUNTS**-0.25).max()
MIXED = 0.3 * ONE_HOT + 0.7 * ONE_HOT[::-1]
RUNNING = np.random.RandomState(1).dirichlet(np.ones(C), 8) * 0.8
KEEP = np.linspace(0.1, 0.9, 8)
REST = (1 - KEEP)[:, None] * np.random.RandomState(2).dirichlet(np.ones(C), 8)


def log_p(f):
    return f - np.log(np.exp(f).sum(-1, keepdims=True))


def cross_entropy(f, t=ONE_HOT):
    return -(t * log_p(f)).sum(-1)


def p_y(f):
    return (ONE_HOT * np.exp(log_p(f))).sum(-1)


def truncated_gce(f):
    cut = p_y(f.real) <= 0.3
    return np.where(cut, (1 - 0.3**0.5) / 0.5, (1 - p_y(f) ** 0.5) / 0.5)


def elr(f):
    p = np.exp(log_p(f))
    p = np.where(p.real < 1e-4, 1e-4, np.where(p.real > 1 - 1e-4, 1 - 1e-4, p))
    return cross_entropy(f) + 3 * np.log(1 - (RUNNING * p).sum(-1))


def superloss(f):
    loss = cross_entropy(f)
    beta = (loss.real - np.log(C)) / 0.5
    free = np.exp(-sp.lambertw(0.5 * np.maximum(beta, -2 / np.e)).real)
    weight = np.where(beta <= -2 / np.e, np.e, free)
    return (loss - np.log(C)) * weight + 0.5 * np.log(weight) ** 2


def ours(name, **arguments):
    return functools.partial(getattr(losses, name), targets=LABELS, **arguments)


CASES = {
    "cross-entropy": (ours("cross_entropy"), cross_entropy),
    "label smoothing": (
        lambda f: losses.cross_entropy(f, losses.label_smoothing(LABELS, C, epsilon=0.1)),
        lambda f: cross_entropy(f, 0.9 * ONE_HOT + 0.1 / C),
    ),
    "focal, Lin et al. 2017": (ours("focal", gamma=2.0), lambda f: -((1 - p_y(f)) ** 2) * np.log(p_y(f))),
    "logit adjustment, Menon et al. 2021": (
        ours("logit_adjusted", log_prior=np.log(PRIOR), tau=1.3),
        lambda f: cross_entropy(f + 1.3 * np.log(PRIOR)),
    ),
    "balanced softmax, Ren et al. 2020": (
        ours("balanced_softmax", counts=COUNTS.astype(float)),
        lambda f: -np.log((ONE_HOT * COUNTS * np.exp(f)).sum(-1) / (COUNTS * np.exp(f)).sum(-1)),
    ),
    "LDAM, Cao et al. 2019": (
        ours("ldam", margins=MARGINS, scale=30.0),
        lambda f: cross_entropy(f - 30 * MARGINS * ONE_HOT),
    ),
    "MAE, Ghosh et al. 2017": (ours("mae"), lambda f: 2 - 2 * p_y(f)),
    "GCE, Zhang & Sabuncu 2018": (ours("gce", q=0.7), lambda f: (1 - p_y(f) ** 0.7) / 0.7),
    "GCE, truncated": (ours("gce", q=0.5, truncate=0.3), truncated_gce),
    "SCE, Wang et al. 2019, log 0 as released": (
        ours("symmetric_cross_entropy", alpha=0.1, beta=1.0, log_zero=float(np.log(1e-4))),
        lambda f: 0.1 * cross_entropy(f) - (np.exp(log_p(f)) * np.log(np.clip(ONE_HOT, 1e-4, 1))).sum(-1),
    ),
    "soft bootstrapping, Reed et al. 2015": (
        ours("bootstrapping", beta=0.8),
        lambda f: -((0.8 * ONE_HOT + 0.2 * np.exp(log_p(f))) * log_p(f)).sum(-1),
    ),
    "hard bootstrapping, Reed et al. 2015": (
        ours("bootstrapping", beta=0.8, hard=True),
        lambda f: cross_entropy(f, 0.8 * ONE_HOT + 0.2 * np.eye(C)[f.real.argmax(-1)]),
    ),
    "forward correction, Patrini et al. 2017": (
        ours("forward", log_transition=np.log(np.maximum(TRANSITION, 1e-300))),
        lambda f: -np.log((ONE_HOT * (np.exp(log_p(f)) @ TRANSITION)).sum(-1)),
    ),
    "ELR, Liu et al. 2020": (ours("elr", running=RUNNING, lam=3.0), elr),
    "SELC, Lu & He 2022": (
        ours("selc", keep=KEEP, rest=REST),
        lambda f: cross_entropy(f, KEEP[:, None] * ONE_HOT + REST),
    ),
    "SuperLoss, Castells et al. 2020, t = log C": (
        lambda f: losses.superloss(losses.cross_entropy(f, LABELS), np.log(C), lam=0.5),
        superloss,
    ),
    "mixup, Zhang et al. 2018": (
        functools.partial(losses.cross_entropy, targets=MIXED),
        lambda f: 0.3 * cross_entropy(f) + 0.7 * cross_entropy(f, ONE_HOT[::-1]),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_value_and_gradient_are_the_papers(x64, name):
    loss, reference = CASES[name]
    gradient, values = jax.grad(lambda f: (loss(f).sum(), loss(f)), has_aux=True)(LOGITS)
    np.testing.assert_allclose(values, reference(LOGITS + 0j).real, rtol=1e-11, atol=1e-13)
    h = 1e-30
    steps = (1j * h * np.eye(C)[c] for c in range(C))
    expected = np.stack([reference(LOGITS + step).imag / h for step in steps], axis=-1)
    np.testing.assert_allclose(gradient, expected, rtol=1e-10, atol=1e-13)
