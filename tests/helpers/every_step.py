"""Every step that there is, on the smallest networks: what must not feel how many devices or processes take it."""

import functools

from helpers import loss_cases, objective_cases, step_cases
from helpers.step_cases import AUGMENT, Dense, entry

from lt_noisy.mixing.mixnn import NEIGHBOURS
from lt_noisy.mixing.mixup import MIXES
from lt_noisy.training.optim import ASCENTS


def _entries(table, **arguments):
    return [entry(table, name, **arguments) for name in table if name != "none"]


SIMCLR = objective_cases.small("simclr")
LOSSES = loss_cases.everything()
CASES = {
    "losses": functools.partial(step_cases.side_by_side, LOSSES),
    **{text: functools.partial(step_cases.objective, text) for text in objective_cases.everything()},
    "augmented": functools.partial(step_cases.objective, SIMCLR, AUGMENT, encoder=Dense),
    **{
        text: functools.partial(step_cases.objective, SIMCLR, ascent=text, encoder=Dense)
        for text in (*_entries(ASCENTS), "sam(rho=0.5, adaptive=True)")
    },
    **{text: functools.partial(step_cases.loss, "cross_entropy()", text) for text in _entries(MIXES)},
    "over the batch": functools.partial(step_cases.loss, "cross_entropy()", "mixup(alpha=1.0)", "batch"),
    "mixnn transition": functools.partial(step_cases.mixnn_phase, 2, "none()"),
    **{
        f"mixnn {text}": functools.partial(step_cases.mixnn_phase, 3, text)
        for text in ("none()", *_entries(NEIGHBOURS, k=3))
    },
    "distil": step_cases.distillation,
}
