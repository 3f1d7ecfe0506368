"""What a stage's summary says in the table at the end of a run: rows of (title, value), shares in percent."""

from collections.abc import Mapping
from typing import Any

import numpy as np

Rows = list[tuple[str, str]]


def percent(value: float | None) -> str:
    """A share in percent; a dash where there is none."""
    return "-" if value is None else f"{100 * value:6.2f} %"


def decimals(value: float | None, digits: int = 3) -> str:
    """A number to so many decimals; a dash where there is none."""
    return "-" if value is None else f"{value:.{digits}f}"


def counts(numbers: np.ndarray) -> str:
    """Numbers per class, those in the middle left out where there are many."""
    shown = [str(c) for c in numbers]
    if len(shown) > 20:
        shown = [*shown[:8], "...", *shown[-8:]]
    return " ".join(shown)


def groups_rows(figures: Mapping[str, Any]) -> Rows:
    """Accuracy of each part of the long tail that has classes."""
    return [
        (f"  {group} ({values['num_classes']} classes)", percent(values["accuracy"]))
        for group, values in figures["groups"].items()
        if values["num_classes"]
    ]


def classes_rows(figures: Mapping[str, Any], number: int = 3) -> Rows:
    """Accuracy of the rarest classes, rarest first, and of the worst of the others, by name and training count.

    Nothing where there are no more classes than that, and of summaries that hold no counts.
    """
    counts, recalls, names = (figures.get(key) for key in ("train_counts", "per_class_accuracy", "class_names"))
    if counts is None or recalls is None or names is None or len(counts) <= 2 * number:
        return []
    tested = [c for c in range(len(counts)) if recalls[c] is not None]
    rarest = sorted(tested, key=lambda c: (counts[c], c))[:number]
    worst = sorted((c for c in tested if c not in rarest), key=lambda c: (recalls[c], counts[c], c))[:number]
    shown = [("rarest", c) for c in rarest] + [("worst of the others", c) for c in worst]
    return [(f"  {what}: {_short(names[c])} ({counts[c]})", percent(recalls[c])) for what, c in shown]


def _short(name: str, most: int = 18) -> str:
    """A name cut to the width of its column."""
    return name if len(name) <= most else f"{name[: most - 3]}..."


def collapse_rows(figures: Mapping[str, Any]) -> Rows:
    """Whether a representation has collapsed."""
    std = f"{figures['channel_std']:.4f} of {figures['channel_std_ideal']:.4f}"
    return [
        ("channel std (1/sqrt(D) is healthy)", f"{std}{', COLLAPSED' if figures['collapsed'] else ''}"),
        ("effective rank", f"{figures['effective_rank']:.1f}"),
    ]


def test_rows(test: Mapping[str, Any]) -> Rows:
    """What a classifier is worth on the test set."""
    return [
        ("test accuracy", percent(test["accuracy"])),
        ("balanced accuracy", percent(test["balanced_accuracy"])),
        *groups_rows(test),
        *classes_rows(test),
        ("NLL, ECE", f"{test['nll']:.3f}, {test['ece']:.3f}"),
    ]


def selection_rows(selection: Mapping[str, Any]) -> Rows:
    """What other choices of the step would have given."""
    rules = {
        "best_on_validation": "best on noisy validation",
        "oracle_best_on_test": "best on test, an oracle",
    }
    return [
        (f"{title}: balanced, step {selection[rule]['step']}", percent(selection[rule]["test_balanced_accuracy"]))
        for rule, title in rules.items()
        if rule in selection and selection[rule]["step"] != selection["last"]["step"]
    ]


def train_rows(train: Mapping[str, Any]) -> Rows:
    """What became of the wrong labels."""
    auroc = train["auroc"]
    return [
        ("wrong labels memorised", percent(train["memorised"])),
        ("AUROC of the loss for wrong labels", "-" if auroc is None else f"{auroc:.3f}"),
    ]


def label_quality_rows(figures: Mapping[str, Any]) -> Rows:
    """How well wrong labels are found."""
    where = "out of sample" if figures["out_of_sample"] else "in sample"
    estimated, true = percent(figures["estimated_rate"]), percent(figures["true_rate"]).strip()
    if flags := figures.get("flags"):
        found = ", ".join(f"{percent(share).strip()} of {k}" for k, share in flags["precision_at"].items())
        auroc = "-" if flags["auroc"] is None else f"{flags['auroc']:.3f}"
        true = f"flagged {flags['wrong_labels']:,} of {flags['images']:,}"
        return [
            (f"wrong labels, estimated {where}", f"{estimated} ({true})"),
            ("  AUROC against the flags", auroc),
            ("  flagged among the first", found or "-"),
        ]
    if not figures["wrong_labels"]:  # a folder's labels are the only ones there are
        estimate = f"{estimated} (no clean labels to compare with, or none wrong)"
        return [(f"wrong labels, estimated {where}", estimate), ("  the ones to look at", "suspects.csv")]
    aurocs = [figures[name]["auroc"] for name in ("wrong_probability", "loss", "margin")]
    rows = [
        (f"wrong labels, estimated {where}", f"{estimated} (true {true})"),
        ("  found at that rate", _found(figures, figures["flagged"])),
        ("  AUROC of mixture, loss, margin", ", ".join("-" if a is None else f"{a:.3f}" for a in aurocs)),
        ("  right class suggested for those found", percent(figures["suggested_accuracy"])),
    ]
    other = figures["confident_learning"]
    return rows + ([] if other is None else [("  found by confident learning", _found(other, other["issues"]))])


def _found(figures: Mapping[str, Any], number: int) -> str:
    precision, recall = (percent(figures[name]) for name in ("precision", "recall"))
    return f"{precision} precision, {recall.strip()} recall ({number} images)"
