"""Label noise: from clean to observed labels.

A factory returns a `Noise`. Every random kind is a rate and a row-stochastic matrix Q [C, C], made row by row:
  draw='exact'        exactly floor(rate * N) examples, picked uniformly, get a label from Q[their label];
  draw='independent'  each example gets one from (1 - rate) I + rate Q.
N is every example, whatever its class; `heteroskedastic` alone counts and picks among the classes that it affects.
With one seed, the examples relabelled at a lower rate are relabelled, alike, at a higher one.

Definitions differ between codebases: whether a "flipped" label may stay the true one (`include_true`),
whether the count is exact, and whether noise comes before the long tail. So the *realised* rate and
transition matrix are what to report (`transition_matrix`).
"""

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Literal, NamedTuple

import numpy as np

from lt_noisy import rng
from lt_noisy.config.spec import table
from lt_noisy.data.by_class import rows_by_class, shuffled_by_class
from lt_noisy.data.label_files import read_numbers
from lt_noisy.errors import UserError, check_proportion
from lt_noisy.files import read_array

Corrupt = Callable[[np.ndarray, np.ndarray, int, int], np.ndarray]
Draw = Literal["exact", "independent"]
Row = Callable[[int], np.ndarray]  # class c -> Q[c] float64 [C]
Conditional = Callable[[np.ndarray, int], Row]  # (labels, num_classes) -> the rows of Q
_CIFAR10_PAIRS = ((9, 1), (2, 0), (4, 7), (3, 5), (5, 3))  # truck, bird, deer, cat, dog
_CIFAR100_SUPERCLASSES = (  # fine labels of the 20 coarse ones, in order (aquatic mammals, fish, ...)
    (4, 30, 55, 72, 95), (1, 32, 67, 73, 91), (54, 62, 70, 82, 92), (9, 10, 16, 28, 61), (0, 51, 53, 57, 83),
    (22, 39, 40, 86, 87), (5, 20, 25, 84, 94), (6, 7, 14, 18, 24), (3, 42, 43, 88, 97), (12, 17, 37, 68, 76),
    (23, 33, 49, 60, 71), (15, 19, 21, 31, 38), (34, 63, 64, 66, 75), (26, 45, 77, 79, 99),
    (2, 11, 35, 46, 98), (27, 29, 44, 78, 93), (36, 50, 65, 74, 80), (47, 52, 56, 59, 96),
    (8, 13, 48, 58, 90), (41, 69, 81, 85, 89),
)  # fmt: skip
_CIFAR100_PAIRS = tuple((group[i], group[(i + 1) % 5]) for group in _CIFAR100_SUPERCLASSES for i in range(5))
_MAPS = {"cifar10": (10, _CIFAR10_PAIRS), "cifar100": (100, _CIFAR100_PAIRS)}


class Noise(NamedTuple):
    """A kind of label noise.

    Attributes:
      corrupt: `corrupt(labels int [N], ids int64 [N], num_classes, seed) -> observed int32 [N]`. Pure; draws
        are made in id order, so that storage order does not matter.
      before_longtail: corrupt the full set, and let the long tail select by the noisy label.
      nominal_rate: the rate asked for, or None where none was (`transition`, `human`).
    """

    corrupt: Corrupt
    before_longtail: bool
    nominal_rate: float | None


def none() -> Noise:
    """Observed labels are the clean ones."""
    return Noise(lambda labels, ids, num_classes, seed: labels.astype(np.int32), False, 0.0)


def symmetric(rate: float, include_true: bool = True, draw: Draw = "exact") -> Noise:
    """A uniformly drawn label, whatever the true one.

    Args:
      rate: share of examples relabelled, 0..1.
      include_true: the drawn label may be the true one, so that rate 0.8 is 0.72 wrong on 10 classes
        (DivideMix, MixNN, TABASCO); False draws among the others (RoLT).
      draw: `exact` or `independent`.
    """

    def conditional(labels: np.ndarray, num_classes: int) -> Row:
        if include_true:
            return lambda c: np.full(num_classes, 1 / num_classes)
        return lambda c: (1 - _one_hot(c, num_classes)) / (num_classes - 1)

    return _random(rate, draw, conditional)


def asymmetric(
    rate: float, map: Literal["", "cifar10", "cifar100"] = "", pairs: tuple = (), draw: Draw = "exact"
) -> Noise:
    """Each class is mistaken for one other class; classes that are not mapped stay as they are.

    Examples are picked among all classes, mapped or not, so that the realised rate is about rate times the
    share of the mapped ones (rate / 2 on CIFAR-10).

    Args:
      rate: share of examples picked, 0..1.
      map: `cifar10` (truck->automobile, bird->airplane, deer->horse, cat<->dog; Patrini et al. 2017) or
        `cifar100` (the next class, cyclically, in the true superclass; some codebases take blocks of five
        label numbers instead).
      pairs: in place of `map`: ((from, to), ...), class numbers, each class at most once as `from`.
      draw: `exact` or `independent`.

    References:
      Patrini et al., "Making Deep Neural Networks Robust to Label Noise: a Loss Correction Approach" (2017).
    """
    if bool(map) == bool(pairs):
        raise UserError("give one of map='cifar10', map='cifar100' or pairs=((from, to), ...)")
    for pair in pairs:
        if not (isinstance(pair, tuple) and len(pair) == 2 and all(type(c) is int and c >= 0 for c in pair)):
            raise UserError(f"pairs: {pair!r} must be (from, to), two class numbers")
    if len({source for source, _ in pairs}) < len(pairs) or any(a == b for a, b in pairs):
        raise UserError(f"pairs={pairs}: each class goes to one other class")
    needed, chosen = _MAPS[map] if map else (0, pairs)

    def conditional(labels: np.ndarray, num_classes: int) -> Row:
        if map and num_classes != needed:
            raise UserError(f"asymmetric: map={map!r} is for {needed} classes, the data has {num_classes}")
        largest = int(np.max(chosen))
        if largest >= num_classes:
            raise UserError(f"asymmetric: pairs name class {largest}, the data has 0..{num_classes - 1}")
        targets = dict(chosen)
        return lambda c: _one_hot(targets.get(c, c), num_classes)

    return _random(rate, draw, conditional)


def imbalance(rate: float, draw: Draw = "exact") -> Noise:
    """Class i becomes j with probability n_j / (N - n_i), so that the tail flips to the head (RoLT's `imb`).

    n_j are the counts of the labels given: those of the long-tailed set, unless noise comes before it.
    """

    def conditional(labels: np.ndarray, num_classes: int) -> Row:
        counts = np.bincount(labels, minlength=num_classes).astype(np.float64)
        if (counts > 0).sum() < 2:
            raise UserError("imbalance: all examples are of one class; at least 2 are needed")
        return lambda c: counts * (1 - _one_hot(c, num_classes)) / (counts.sum() - counts[c])

    return _random(rate, draw, conditional)


def heteroskedastic(rate: float = 0.4, groups: tuple = ((1, 9), (3, 5)), draw: Draw = "exact") -> Noise:
    """Inside a group of classes a label becomes another one of the group, uniformly; other classes stay clean.

    The defaults are the authors' CIFAR-10 (automobile and truck, cat and dog: 0.6 stay, 0.4 swap). Their code's
    CIFAR-100 has the groups ((8, 13, 48, 58, 90), (41, 69, 81, 85, 89)) and 0.1 for each of the four others, which is
    rate=0.4 here. It draws independently, before the long tail: `before_longtail(heteroskedastic(draw=independent))`.
    Its step profile has these classes, 1, 3, 5 and 9, rare: `explicit(counts=...)`, not `step(...)`.

    Args:
      rate: share of the examples *of the groups* whose label is wrong, 0..1.
      groups: ((class, class, ...), ...), two classes or more each, no class twice.
      draw: `exact`, floor(rate * n) of the n examples of all groups together, or `independent`.

    References:
      Cao et al., "Heteroskedastic and Imbalanced Deep Learning with Adaptive Regularization" (2021).
    """
    for group in groups:
        if not (isinstance(group, tuple) and len(group) > 1 and all(type(c) is int and c >= 0 for c in group)):
            raise UserError(f"groups: {group!r} must be (class, class, ...), two class numbers or more")
    named = [c for group in groups for c in group]
    if not groups or len(set(named)) < len(named):
        raise UserError(f"groups={groups}: at least one group, and each class in one group, once")

    def conditional(labels: np.ndarray, num_classes: int) -> Row:
        def row(c: int) -> np.ndarray:
            group = next((group for group in groups if c in group), (c,))
            probabilities = _one_hot(c, num_classes)
            if len(group) > 1:
                probabilities[list(group)] = 1 / (len(group) - 1)
                probabilities[c] = 0
            return probabilities

        return row

    inside = _random(rate, draw, conditional)

    def corrupt(labels: np.ndarray, ids: np.ndarray, num_classes: int, seed: int) -> np.ndarray:
        if max(named) >= num_classes:
            raise UserError(f"heteroskedastic: groups name class {max(named)}, the data has 0..{num_classes - 1}")
        observed, affected = labels.astype(np.int32), np.isin(labels, named)
        observed[affected] = inside.corrupt(labels[affected], ids[affected], num_classes, seed)
        return observed

    return inside._replace(corrupt=corrupt)


def transition(matrix: tuple = (), path: str = "", draw: Draw = "exact") -> Noise:
    """Labels by a full transition matrix T [C, C]: row i holds P(observed = j | true = i).

    Args:
      matrix: ((...), ...), rows that sum to 1.
      path: in place of `matrix`: an `.npy` file of floats [C, C].
      draw: `independent`, or `exact`: in each class i, n_i T[i] rounded by largest remainders.
    """
    if bool(matrix) == bool(path):
        raise UserError("give one of matrix=((...), ...) or path='file.npy'")
    given = stochastic(matrix, "matrix") if matrix else None

    def corrupt(labels: np.ndarray, ids: np.ndarray, num_classes: int, seed: int) -> np.ndarray:
        t = stochastic(read_array(path, ""), path) if given is None else given
        if len(t) != num_classes:
            raise UserError(f"transition: the matrix is for {len(t)} classes, the data has {num_classes}")
        if draw == "independent":
            return _draw(labels, ids, lambda c: t[c], num_classes, 1.0, draw, seed)
        return _by_quota(labels, ids, t, seed)

    return Noise(corrupt, False, None)


def human(path: str, key: str = "") -> Noise:
    """Labels people gave, by id: CIFAR-N and the like. The seed is not used.

    Args:
      path: labels as `label_files.read_numbers` reads them: entry i is the label of the example with id i (the original
        index, not TFDS's row). For a file in another order see `manifest`'s `import_labels`.
      key: the name of the labels in the file; none where it holds one list.
    """

    def corrupt(labels: np.ndarray, ids: np.ndarray, num_classes: int, seed: int) -> np.ndarray:
        table, where = read_numbers(path, key), f"{path}, {key}" if key else path
        if ids.min() < 0 or ids.max() >= len(table):
            bad = ids[(ids < 0) | (ids >= len(table))][0]
            raise UserError(f"human: {where} has labels for ids 0..{len(table) - 1}, the data has id {bad}")
        observed = table[ids]
        wrong = np.flatnonzero((observed < 0) | (observed >= num_classes))
        if len(wrong):
            raise UserError(
                f"human: {where} gives id {ids[wrong[0]]} label {observed[wrong[0]]}, the data has 0..{num_classes - 1}"
            )
        return observed.astype(np.int32)

    return Noise(corrupt, False, None)


def before_longtail(noise: Noise) -> Noise:
    """`noise` on the full set; the long tail then selects by the noisy label (HAR's order).

    With n_max=0 the profile starts at what the noisy classes can supply, so the size of the set moves with the seed; to
    compare seeds give the long tail an n_max that all of them can supply.
    """
    return noise._replace(before_longtail=True)


def transition_matrix(clean: np.ndarray, observed: np.ndarray, num_classes: int) -> np.ndarray:
    """Realised P(observed = j | clean = i) of labels int [N]: float64 [C, C], identity for empty classes."""
    joint = np.bincount(clean.astype(np.int64) * num_classes + observed, minlength=num_classes**2)
    joint = joint.reshape(num_classes, num_classes).astype(np.float64)
    counts = joint.sum(axis=1, keepdims=True)
    return np.where(counts > 0, joint / np.maximum(counts, 1), np.eye(num_classes))


def _random(rate: float, draw: Draw, conditional: Conditional) -> Noise:
    check_proportion(rate=rate)

    def corrupt(labels: np.ndarray, ids: np.ndarray, num_classes: int, seed: int) -> np.ndarray:
        if num_classes < 2:
            raise UserError("label noise needs at least 2 classes")
        return _draw(labels, ids, conditional(labels, num_classes), num_classes, rate, draw, seed)

    return Noise(corrupt, False, rate)


def _one_hot(c: int, num_classes: int) -> np.ndarray:
    row = np.zeros(num_classes)
    row[c] = 1
    return row


def _draw(
    labels: np.ndarray, ids: np.ndarray, row: Row, num_classes: int, rate: float, draw: Draw, seed: int
) -> np.ndarray:
    """Picks examples, then relabels each picked one from row(label), by inverse distribution function."""
    rank = np.empty(len(ids), np.int64)
    rank[np.argsort(ids)] = np.arange(len(ids))
    if draw == "exact":
        # A Fraction of the text: floor(0.29 * 100) is 29, which it is not in floating point.
        number = math.floor(Fraction(str(float(rate))) * len(labels))
        picked = rng.generator(seed, "noise, examples").permutation(len(labels)) < number
    else:
        picked = rng.generator(seed, "noise, examples").random(len(labels)) < rate
    uniform = rng.generator(seed, "noise, labels").random(len(labels))
    observed = labels.astype(np.int32)
    for c, members in enumerate(rows_by_class(labels, ids, num_classes)):
        relabelled = members[picked[rank[members]]]
        if len(relabelled):
            cumulative = np.cumsum(row(c))
            cumulative /= cumulative[-1]
            observed[relabelled] = np.searchsorted(cumulative, uniform[rank[relabelled]], side="right")
    return observed


def _by_quota(labels: np.ndarray, ids: np.ndarray, matrix: np.ndarray, seed: int) -> np.ndarray:
    """Relabels exactly: class i's examples, shuffled, get n_i matrix[i] labels of each kind, rounded."""
    observed = labels.astype(np.int32)
    for c, rows in enumerate(shuffled_by_class(labels, ids, len(matrix), seed, "noise")):
        exact = np.round(len(rows) * matrix[c] / matrix[c].sum(), 9)  # 10 * 0.7 is 7, not 6.999...
        quota = np.floor(exact).astype(np.int64)
        short = len(rows) - quota.sum()
        quota[np.argsort(quota - exact, kind="stable")[:short]] += 1
        observed[rows] = np.repeat(np.arange(len(quota)), quota)
    return observed


def stochastic(values: object, where: str) -> np.ndarray:
    """A row-stochastic float64 [C, C]."""
    try:
        matrix = np.asarray(values, np.float64)
    except (TypeError, ValueError):
        raise UserError(f"{where} must be numbers in rows of equal length") from None
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise UserError(f"{where} is {list(matrix.shape)}; it must be square, a row and a column per class")
    wrong = np.flatnonzero(~((matrix >= 0).all(axis=1) & (abs(matrix.sum(axis=1) - 1) < 1e-6)))
    if len(wrong):
        raise UserError(f"{where}: row {wrong[0]} must be probabilities that sum to 1")
    return matrix


NOISES = table(
    {
        "none": none,
        "symmetric": symmetric,
        "asymmetric": asymmetric,
        "imbalance": imbalance,
        "heteroskedastic": heteroskedastic,
        "transition": transition,
        "human": human,
        "before_longtail": before_longtail,
    }
)
