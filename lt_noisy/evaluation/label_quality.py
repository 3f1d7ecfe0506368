"""Which labels a model takes for wrong, what it would write instead, and how right it is about that.

On the host, float64. Shares are fractions in [0, 1]; a figure that does not exist is None, never NaN. Whether the model
was trained on the labels that it judges is for the caller to say: a network that remembers them finds few wrong.
"""

import importlib.util
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
from sklearn.metrics import average_precision_score

from lt_noisy.errors import UserError, check_range
from lt_noisy.estimate.clean_probability import clean_probability
from lt_noisy.evaluation.classification import (
    auroc_or_none,
    checked_logits,
    class_groups,
    log_probabilities,
    mean_or_none,
)

Arrays = Mapping[str, np.ndarray]


def quality(logits: np.ndarray, observed: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """What a model says of every observed label.

    Args:
      logits: float [N, C], C at least 2, in evaluation mode.
      observed: int [N] in [0, C).
      seed: of the mixture.

    Returns:
      `loss` float64 [N], the cross-entropy to the observed label; `margin` float64 [N] in [-1, 1], p(observed) less the
      largest other p (Northcutt et al., "Confident learning", 2021, sec. 3.2, which ranks by its negative);
      `wrong_probability` float64 [N], 1 - `clean_probability` of the losses, made to rise with the loss; `suggested`
      int32 [N], the most probable class, where ties go to the first; `probabilities` float32 [N, C].

    Raises:
      UserError: shapes that do not fit, fewer than two classes, a label outside [0, C), a logit that is not finite.
    """
    logits, observed = checked_logits(logits, observed)
    if logits.shape[1] < 2:
        raise UserError(f"label quality needs at least two classes, not {logits.shape[1]}")
    loss, margin, probabilities = np.empty(len(observed)), np.empty(len(observed)), np.empty(logits.shape, np.float32)
    for rows, log_p in log_probabilities(logits):
        exact, own = np.exp(log_p), (np.arange(len(log_p)), observed[rows])
        probabilities[rows] = exact
        loss[rows], margin[rows] = -log_p[own], exact[own]
        exact[own] = 0
        margin[rows] -= exact.max(-1)
    return {
        "loss": loss,
        "margin": margin,
        "wrong_probability": _rising(1 - clean_probability(loss, seed), loss),
        "suggested": logits.argmax(-1).astype(np.int32),
        "probabilities": probabilities,
    }


def _rising(probability: np.ndarray, loss: np.ndarray) -> np.ndarray:
    """The least that is at least `probability` and rises with the loss: beyond the means a mixture's need not."""
    order = np.argsort(loss, kind="stable")
    rising = np.empty(len(loss))
    rising[order] = np.maximum.accumulate(probability[order])
    return rising


def flagged_rows(arrays: Arrays) -> np.ndarray:
    """Rows int [n] of the labels taken for wrong, most suspicious first, ties by larger loss.

    As many as the wrong probabilities add up to: a rule that needs no clean label. A mixture always finds two groups,
    so it flags the harder images of a set without any wrong label too.
    """
    order = np.lexsort((-arrays["loss"], -arrays["wrong_probability"]))
    return order[: round(arrays["wrong_probability"].sum())]


def suspects(arrays: Arrays, observed: np.ndarray) -> np.ndarray:
    """Of the `flagged_rows` those where the model would write another label: the ones to look at, int [n]."""
    rows = flagged_rows(arrays)
    return rows[arrays["suggested"][rows] != observed[rows]]


def score(arrays: Arrays, observed: np.ndarray, clean: np.ndarray, class_counts_clean: np.ndarray) -> dict[str, Any]:
    """How well `quality` tells right labels from wrong ones.

    Flagged are the `flagged_rows`. By groups an image counts where its *observed* label is, the only one that is
    known when somebody looks for wrong labels class by class; which classes are many, medium or few goes by clean
    training count, as in every other table. So tail images under a head label count in the head.

    Args:
      arrays: from `quality`.
      observed: int [N], the labels judged.
      clean: int [N], the true labels.
      class_counts_clean: int [C], clean training counts, for `class_groups`.

    Returns:
      JSON-ready: `images`, `wrong_labels`, `flagged`, their numbers; `estimated_rate`, the mean `wrong_probability`,
      and `true_rate`; `precision` and `recall` of the flags; `suggested_accuracy`, the share of the flagged wrong
      labels whose `suggested` class is the clean one; {auroc, average_precision} of `wrong_probability`, of `loss` and
      of the negative `margin` under those names, each None unless there are right and wrong labels; `groups`, with
      `num_classes`, the counts, rates and flags of each, and auroc and average_precision of `wrong_probability` inside
      it.

    Raises:
      UserError: shapes that do not fit, or a label outside [0, C).
    """
    observed, clean, num_classes = np.asarray(observed), np.asarray(clean), len(class_counts_clean)
    _check(arrays, observed, clean)
    for labels in (observed, clean):
        check_range(labels, num_classes)
    wrong, flagged = observed != clean, np.zeros(len(observed), bool)
    flagged[flagged_rows(arrays)] = True
    found = arrays["suggested"] == clean

    def figures(rows: np.ndarray) -> dict[str, Any]:
        return {
            "images": int(rows.sum()),
            "wrong_labels": int(wrong[rows].sum()),
            "flagged": int(flagged[rows].sum()),
            "estimated_rate": mean_or_none(arrays["wrong_probability"][rows]),
            "true_rate": mean_or_none(wrong[rows]),
            **_flags(flagged[rows], wrong[rows]),
            "suggested_accuracy": mean_or_none(found[rows & flagged & wrong]),
        }

    groups = {}
    for name, classes in class_groups(np.asarray(class_counts_clean)).items():
        rows = np.isin(observed, classes)
        detection = _detection(arrays["wrong_probability"][rows], wrong[rows])
        groups[name] = {"num_classes": len(classes), **figures(rows), **detection}
    scores = {name: arrays[name] for name in ("wrong_probability", "loss")} | {"margin": -arrays["margin"]}
    return {
        **figures(np.ones(len(wrong), bool)),
        **{name: _detection(values, wrong) for name, values in scores.items()},
        "groups": groups,
    }


def against_flags(arrays: Arrays, flags: np.ndarray) -> dict[str, Any]:
    """How well the suspicion agrees with what the publisher of a data set says of its labels.

    For sets of which it is known that a label is wrong, and not what would be right.

    Args:
      arrays: from `quality`.
      flags: int [N], 1 where the label is wrong, 0 where it is right, -1 where nobody says.

    Returns:
      JSON-ready, over the images with a flag: `images` and `wrong_labels`, their numbers; auroc and average_precision
      of `wrong_probability`, None unless there are both kinds; `precision_at`, {k: share of wrong ones} of the k most
      suspicious, for k of 25, 50, 100 that are there.
    """
    known = np.flatnonzero(flags >= 0)
    wrong = flags[known] == 1
    order = np.lexsort((-arrays["loss"][known], -arrays["wrong_probability"][known]))
    return {
        "images": len(known),
        "wrong_labels": int(wrong.sum()),
        **_detection(arrays["wrong_probability"][known], wrong),
        "precision_at": {str(k): float(wrong[order[:k]].mean()) for k in (25, 50, 100) if k <= len(known)},
    }


def confident_learning(arrays: Arrays, observed: np.ndarray, clean: np.ndarray) -> dict[str, Any] | None:
    """The same of cleanlab's confident learning on the same probabilities, to compare with.

    Northcutt et al., "Confident learning: estimating uncertainty in dataset labels" (2021), as cleanlab implements it,
    at its defaults. A class that no observed label names gets no threshold, so no label is taken for it, and the only
    image of a class is never an issue; cleanlab warns of both, which is left out here.

    Args:
      arrays: from `quality`; probabilities of models that did not see the labels (out of sample), to be what it claims.
      observed: int [N], the labels judged.
      clean: int [N], the true labels.

    Returns:
      `issues`, the number that `find_label_issues` finds, their `precision` and `recall`; `auroc` and
      `average_precision` of 1 - `get_label_quality_scores`, which is 1 - p(observed): they rank as `loss` does, and
      the difference is in what is flagged. None where cleanlab is not installed (the extra `cleanlab`), or the observed
      labels are of one class only.

    Raises:
      UserError: shapes that do not fit.
    """
    observed, clean = np.asarray(observed), np.asarray(clean)
    _check(arrays, observed, clean)
    if importlib.util.find_spec("cleanlab") is None or len(np.unique(observed)) < 2:
        return None
    # An extra, which may be missing where types are checked.
    from cleanlab.filter import find_label_issues  # pyright: ignore[reportMissingImports]
    from cleanlab.rank import get_label_quality_scores  # pyright: ignore[reportMissingImports]

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "May not flag all label issues", UserWarning)
        # One process: cleanlab's workers are forks, and a fork of a process that runs JAX may hang.
        issues = find_label_issues(observed, arrays["probabilities"], n_jobs=1)
    scores, wrong = get_label_quality_scores(observed, arrays["probabilities"]), observed != clean
    return {"issues": int(issues.sum()), **_flags(issues, wrong), **_detection(-scores, wrong)}


def _check(arrays: Arrays, observed: np.ndarray, clean: np.ndarray) -> None:
    shapes = [np.shape(arrays["loss"]), observed.shape, clean.shape]
    if observed.ndim != 1 or len(set(shapes)) > 1 or len(observed) == 0:
        shown = ", ".join(str(list(shape)) for shape in shapes)
        raise UserError(f"label quality, observed and clean labels must all be [N] with N at least 1, not {shown}")


def _flags(flagged: np.ndarray, wrong: np.ndarray) -> dict[str, float | None]:
    return {"precision": mean_or_none(wrong[flagged]), "recall": mean_or_none(flagged[wrong])}


def _detection(suspicion: np.ndarray, wrong: np.ndarray) -> dict[str, float | None]:
    auroc = auroc_or_none(wrong, suspicion)
    precision = None if auroc is None else float(average_precision_score(wrong, suspicion))
    return {"auroc": auroc, "average_precision": precision}
