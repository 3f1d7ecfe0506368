"""Which evaluation of a stage is reported: the last, beside what early stopping would have taken."""

import json
import pathlib
from typing import Any

import numpy as np
from sklearn.metrics import recall_score


def balanced_accuracy(logits: np.ndarray, observed: np.ndarray) -> float:
    """Balanced accuracy of logits [V, C] for *observed* labels int [V], over the classes that they name."""
    # Not `balanced_accuracy_score`, which warns of a predicted class that no label names.
    return float(recall_score(observed, logits.argmax(-1), labels=np.unique(observed), average="macro"))


def selected(metrics: pathlib.Path) -> dict[str, Any]:
    """The last evaluation, the best on noisy validation and, an oracle, the best on test; from `metrics.jsonl`.

    Returns:
      `evaluations`, how many there were (the more, the better the best of them); `last` and `oracle_best_on_test`, and
      where a validation split was held out `best_on_validation`: the step, and the figures of that step. Ties go to the
      first. Only `last` may be a headline; the oracle selects on clean test labels, which nobody has, and shows what a
      paper's "best epoch" hides.
    """
    lines = [json.loads(line) for line in metrics.read_text().splitlines()]
    evaluated = [
        {k: v for k, v in line.items() if k == "step" or k.startswith(("test_", "validation_"))}
        for line in lines
        if "test_balanced_accuracy" in line
    ]
    chosen = {"evaluations": len(evaluated), "last": evaluated[-1]}
    if "validation_balanced_accuracy" in evaluated[-1]:
        chosen["best_on_validation"] = max(evaluated, key=lambda line: line["validation_balanced_accuracy"])
    chosen["oracle_best_on_test"] = max(evaluated, key=lambda line: line["test_balanced_accuracy"])
    return chosen
