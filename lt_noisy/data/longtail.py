"""Long-tailed subsets: which examples of each class are kept.

A factory returns `select(labels int [N], ids int64 [N], num_classes, seed) -> rows int64 [n]`, positions
into `labels`. Classes keep their numbers; which of them is the head, a profile's `order` says (`Order`). The draw
depends on ids, not on the order in which they are stored (TFDS stores shuffled).

Two conventions of drawing exist, and they are not the same images:
  seeded        per class, in id order, a permutation drawn from (seed, class), of which the first n_j are
                kept; rows come sorted by id. With one seed, a smaller class is part of a larger one.
  conventional  Cao et al., "Learning Imbalanced Datasets with Label-Distribution-Aware Margin Loss" (NeurIPS
                2019), the subset of most CIFAR-LT tables: one NumPy legacy stream seeded 0, classes in
                the profile's order, each class's rows (in id order) shuffled in place, the first n_j kept. Rows
                come in that order, class by class. The seed is not used. It takes the full training split.
                Published are CIFAR's by label, and SVHN's (Yang & Xu 2020) with `order=zero_last`.
"""

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Literal

import numpy as np

from lt_noisy.config.spec import Call, table
from lt_noisy.data.by_class import rows_by_class, shuffled_by_class
from lt_noisy.errors import UserError, check_positive

Select = Callable[[np.ndarray, np.ndarray, int, int], np.ndarray]
Subset = Literal["seeded", "conventional"]
# Classes from head to tail, which is also their order in the one stream of a conventional draw:
#   by_label   0, 1, ..., C - 1.
#   zero_last  1, 2, ..., C - 1, 0: SVHN's, whose files call the digit 0 class 10.
#   by_size    the largest first, equal ones by label: for a set that comes unbalanced, such as a folder.
Order = Literal["by_label", "zero_last", "by_size"]
Profile = Callable[[int, int], np.ndarray]  # (num_classes, n_max) -> counts int64 [C], from head to tail


def exponential_counts(num_classes: int, n_max: int, ratio: float) -> np.ndarray:
    """n_j = floor(n_max * ratio^(-j / (C - 1))), int64 [C] (Cao et al. 2019)."""
    exponent = np.arange(num_classes) / max(num_classes - 1, 1)
    # The margin keeps a count that is whole in exact arithmetic (5000 / 100) from being rounded down.
    return np.floor(n_max * float(ratio) ** -exponent * (1 + 1e-12)).astype(np.int64)


def step_counts(num_classes: int, n_max: int, ratio: float) -> np.ndarray:
    """n_max for the first floor(C / 2) classes, floor(n_max / ratio) for the rest, int64 [C]."""
    tail = math.floor(n_max / Fraction(str(ratio)))  # as the user wrote it: 1.1 is 11/10
    return np.where(np.arange(num_classes) < num_classes // 2, n_max, tail).astype(np.int64)


def pareto_counts(num_classes: int, n_max: int, alpha: float, n_min: int) -> np.ndarray:
    """n_j = max(n_min, floor(n_max q_j / q_0)), int64 [C], with q_j the Lomax quantiles of `pareto`."""
    logs = -np.log((np.arange(num_classes) + 0.5) / num_classes) / alpha  # of q_j + 1
    # exp(logs) - 1 overflows at a small alpha, its ratio to the first does not.
    shares = np.exp(logs - logs[0]) * np.expm1(-logs) / np.expm1(-logs[0])
    return np.maximum(n_min, np.floor(n_max * shares * (1 + 1e-12))).astype(np.int64)


def unlabelled_counts(num_classes: int, total: int, ratio: float) -> np.ndarray:
    """The profile of an unlabelled pool of `total` images: int64 [C], summing to `total`.

    Yang & Xu, "Rethinking the Value of Labels for Improving Class-Imbalanced Learning" (NeurIPS 2020): m_j =
    floor(floor(total / C) * ratio^(-j / (C - 1))), rescaled to `total`. Ours: the rescaled counts are rounded by
    largest remainders, equal ones in class order. A class whose m_j is 0 stays empty.

    Raises:
      UserError: a ratio below 1, or fewer images than classes.
    """
    _check_ratio(ratio)
    if total < num_classes:
        raise UserError(f"an unlabelled pool of {total} images is too small for {num_classes} classes")
    profile = exponential_counts(num_classes, total // num_classes, ratio)
    counts, remainders = np.divmod(profile * total, profile.sum())
    counts[np.argsort(-remainders, kind="stable")[: total - counts.sum()]] += 1
    return counts


def none() -> Select:
    """Every example, sorted by id."""
    return lambda labels, ids, num_classes, seed: np.argsort(ids).astype(np.int64)


def exponential(ratio: float, n_max: int = 0, subset: Subset = "seeded", order: Order = "by_label") -> Select:
    """Exponential profile: n_j = floor(n_max * ratio^(-j / (C - 1))).

    Args:
      ratio: largest over smallest class, at least 1.
      n_max: examples of the head class; 0 means the most that leaves no class short.
      subset: `seeded` or `conventional`.
      order: of the classes, from head to tail (`Order`).
    """
    _check_ratio(ratio)
    return _profiled(lambda num_classes, head: exponential_counts(num_classes, head, ratio), n_max, subset, order)


def step(ratio: float, n_max: int = 0, subset: Subset = "seeded", order: Order = "by_label") -> Select:
    """Step profile: n_max for the first floor(C / 2) classes, floor(n_max / ratio) for the rest.

    Not that of Cao et al. (2021, HAR) on CIFAR-10, whose rare classes are 1, 3, 5 and 9: write `explicit(counts=...)`.

    Args:
      ratio: largest over smallest class, at least 1.
      n_max: examples of a head class; 0 means the most that leaves no class short.
      subset: `seeded` or `conventional`.
      order: of the classes, from head to tail (`Order`).
    """
    _check_ratio(ratio)
    return _profiled(lambda num_classes, head: step_counts(num_classes, head, ratio), n_max, subset, order)


def pareto(
    alpha: float = 6.0, n_max: int = 0, n_min: int = 5, subset: Subset = "seeded", order: Order = "by_label"
) -> Select:
    """Pareto profile: n_j = max(n_min, floor(n_max q_j / q_0)), q_j = u_j^(-1 / alpha) - 1 with u_j = (j + 0.5) / C.

    The family of ImageNet-LT (Liu et al., "Large-Scale Long-Tailed Recognition in an Open World", CVPR 2019: alpha 6,
    1280 to 5 images a class, 115,846 in all over 1000 classes), which is one random draw, published as a list of files.
    Ours has no draw: the q_j are evenly spaced quantiles of the Lomax distribution, which is what NumPy's `pareto`
    samples. At 1000 classes and 1280 to 5 images it has 99,952 in all: our figure, and not the published set.

    Args:
      alpha: shape, above 0; smaller is more imbalanced.
      n_max: examples of the head class; 0 means the most that leaves no class short.
      n_min: the fewest examples of a class, 1 or more.
      subset: `seeded` or `conventional` (that draw, of this profile: conventional for CIFAR only).
      order: of the classes, from head to tail (`Order`).

    References:
      Liu et al., "Large-Scale Long-Tailed Recognition in an Open World" (2019).
    """
    check_positive(alpha=alpha)
    if n_min < 1 or 0 < n_max < n_min:
        raise UserError(f"n_min={n_min} must be at least 1, and at most n_max where that is given")
    return _profiled(lambda num_classes, head: pareto_counts(num_classes, head, alpha, n_min), n_max, subset, order)


def explicit(counts: tuple, subset: Subset = "seeded") -> Select:
    """Exactly `counts[j]` examples of class j, one number per class; `conventional` draws them in label order."""
    draw = _DRAWS[subset]
    if not counts or any(type(n) is not int or n < 1 for n in counts):
        raise UserError(f"counts={counts} must be whole numbers of at least 1, one per class")

    def select(labels: np.ndarray, ids: np.ndarray, num_classes: int, seed: int) -> np.ndarray:
        if len(counts) != num_classes:
            raise UserError(f"explicit: counts has {len(counts)} numbers, the data {num_classes} classes")
        return draw(labels, ids, np.asarray(counts), np.arange(num_classes), seed)

    return select


def balanced(profile: Select) -> Select:
    """The balanced control of a profile: as many examples in all, spread evenly, the draw seeded.

    The remainder of N / C goes to the first classes, one each.
    """

    def select(labels: np.ndarray, ids: np.ndarray, num_classes: int, seed: int) -> np.ndarray:
        share, rest = divmod(len(profile(labels, ids, num_classes, seed)), num_classes)
        classes = np.arange(num_classes)
        return _seeded(labels, ids, share + (classes < rest), classes, seed)

    return select


def _check_ratio(ratio: float) -> None:
    if not (math.isfinite(ratio) and ratio >= 1):
        raise UserError(f"ratio={ratio} must be at least 1 (largest over smallest class)")


def by_size(longtail: Call) -> Call:
    """The spec with the head of its profile given to the largest class; unchanged where it has no profile."""
    kwargs = {name: by_size(value) if isinstance(value, Call) else value for name, value in longtail.kwargs.items()}
    return longtail._replace(kwargs=kwargs | ({"order": "by_size"} if "order" in kwargs else {}))


def _profiled(profile: Profile, n_max: int, subset: Subset, order: Order) -> Select:
    draw = _DRAWS[subset]
    if n_max < 0:
        raise UserError(f"n_max={n_max} must be 0 (the most there is) or the size of the head class")

    def select(labels: np.ndarray, ids: np.ndarray, num_classes: int, seed: int) -> np.ndarray:
        available = np.bincount(labels, minlength=num_classes)
        if available.min() < 1:
            raise UserError(f"longtail: class {available.argmin()} has no examples")
        classes = _ORDERS[order](available)
        ranked = profile(num_classes, n_max or _largest_head(profile, available[classes]))
        if ranked.min() < 1:
            small_head = available[classes[0]] < available.max()
            raise UserError(
                f"longtail: the profile with {ranked[0]} examples in class {classes[0]} leaves class "
                f"{classes[ranked.argmin()]} without any; lower the ratio or raise n_max"
                + (", or set order=by_size: that class is not the largest" if small_head else "")
            )
        counts = np.empty_like(ranked)
        counts[classes] = ranked
        return draw(labels, ids, counts, classes, seed)

    return select


def _largest_head(profile: Profile, available: np.ndarray) -> int:
    """The largest n_max that every class, from head to tail, can supply, by bisection: counts rise with n_max."""
    low, high = 0, int(available[0])
    while low < high:
        middle = (low + high + 1) // 2
        fits = (profile(len(available), middle) <= available).all()
        low, high = (middle, high) if fits else (low, middle - 1)
    return low


def _check_enough(labels: np.ndarray, counts: np.ndarray) -> None:
    for c, (available, wanted) in enumerate(zip(np.bincount(labels, minlength=len(counts)), counts, strict=True)):
        if available < wanted:
            raise UserError(f"longtail: class {c} has {available} examples, the profile asks for {wanted}")


def _seeded(labels: np.ndarray, ids: np.ndarray, counts: np.ndarray, classes: np.ndarray, seed: int) -> np.ndarray:
    _check_enough(labels, counts)
    shuffled = shuffled_by_class(labels, ids, len(counts), seed, "longtail")
    rows = np.concatenate([rows[:count] for rows, count in zip(shuffled, counts, strict=True)])
    return rows[np.argsort(ids[rows])]


def _conventional(
    labels: np.ndarray, ids: np.ndarray, counts: np.ndarray, classes: np.ndarray, seed: int
) -> np.ndarray:
    _check_enough(labels, counts)
    # The one draw not from `rng`: the subset of the literature is defined by NumPy's legacy stream.
    legacy, drawn, by_class = np.random.RandomState(0), [], rows_by_class(labels, ids, len(counts))
    for c in classes:
        legacy.shuffle(by_class[c])
        drawn.append(by_class[c][: counts[c]])
    return np.concatenate(drawn)


_ORDERS: dict[Order, Callable[[np.ndarray], np.ndarray]] = {  # of the class sizes [C] -> classes int64 [C]
    "by_label": lambda available: np.arange(len(available)),
    "zero_last": lambda available: np.roll(np.arange(len(available)), -1),
    "by_size": lambda available: np.argsort(-available, kind="stable"),
}
_DRAWS = {"seeded": _seeded, "conventional": _conventional}

LONGTAILS = table(
    {
        "none": none,
        "exponential": exponential,
        "step": step,
        "pareto": pareto,
        "explicit": explicit,
        "balanced": balanced,
    }
)
