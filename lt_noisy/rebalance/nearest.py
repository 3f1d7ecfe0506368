"""Classifiers without a trained head, on features alone: neighbours, and class means of what looks clean.

They stand beside those of `posthoc` in its table, and make sense where features are good: a pretrained encoder's.
"""

import warnings

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import normalize

from lt_noisy.data.by_class import votes
from lt_noisy.errors import UserError
from lt_noisy.rebalance.base import Known, Rebalanced, Rebalancing, checked

_NEVER = -50.0  # the cosine, in [-1, 1] otherwise, of a class that has no mean
_FLOOR = 1e-3  # share of the votes that a class without any is given, so that the NLL is finite
_ROWS = 4096  # queries at a time


def wann(k_min: int = 11, k_max: int = 51) -> Rebalancing:
    """WANN: neighbours weighted by how reliable their labels are, in a neighbourhood as large as that asks for.

    A training example's k is the smallest odd number from k_min on, below k_max, at which the majority of its
    neighbours has its observed label, else k_max; its reliability is 1 / k. A query has the votes of as many neighbours
    as the k of its nearest one, each weighted by its reliability. Distances are Euclidean. The head is not used.
    Deviations from the authors' code: an example is never its own neighbour, also where another has the same features;
    ties go to the smaller class. The logits are logs of the shares of the votes, at least 1e-3 each.

    Args:
      k_min: odd, at least 1. 11 and 51 are theirs.
      k_max: larger than k_min; the training set has more examples.

    References:
      Di Salvo et al., "An Embedding is Worth a Thousand Noisy Labels" (2024).
    """
    if k_min < 1 or k_min % 2 == 0 or k_max <= k_min:
        raise UserError(f"k_min={k_min} must be odd and at least 1, k_max={k_max} larger")

    def fit(known: Known) -> Rebalanced:
        features, classes = checked(known.features), len(known.head.bias)
        near = NearestNeighbors(n_neighbors=k_max, algorithm="brute").fit(features)
        labels = known.observed[near.kneighbors(return_distance=False)]  # of others: no example is its own neighbour
        sizes = _sizes(labels, known.observed, k_min, k_max, classes)

        def voted(queries: np.ndarray) -> np.ndarray:
            rows = near.kneighbors(queries, return_distance=False)
            taken = np.arange(k_max) < sizes[rows[:, :1]]
            return votes(known.observed[rows], taken / sizes[rows], classes)

        def logits(queries: np.ndarray) -> np.ndarray:
            queries = checked(queries)
            found = np.concatenate([voted(queries[i : i + _ROWS]) for i in range(0, len(queries), _ROWS)])
            return np.log(np.maximum(found / found.sum(-1, keepdims=True), _FLOOR))

        return Rebalanced(logits, {"mean_neighbours": float(sizes.mean())})

    return Rebalancing(fit, least=k_max + 1)


def _sizes(labels: np.ndarray, own: np.ndarray, k_min: int, k_max: int, classes: int) -> np.ndarray:
    """Of each example the number of neighbours int [N] whose majority has its label; `labels` int [N, k_max]."""
    sizes = np.full(len(own), k_max)
    for k in range(k_min, k_max, 2):
        open_rows = np.flatnonzero(sizes == k_max)
        majority = votes(labels[open_rows, :k], np.ones((len(open_rows), k)), classes).argmax(-1)
        sizes[open_rows[majority == own[open_rows]]] = k
    return sizes


def ncm() -> Rebalancing:
    """Nearest class mean: the class whose mean feature has the largest cosine to the query.

    Features are centred by the mean over all training images and L2-normalised, class means are taken over these by
    *observed* label, and normalised. The head is not used. A class without observed examples is never predicted. The
    logits are cosines: accuracies and the order of losses mean something, NLL and ECE do not. Deviation: the authors'
    released code centres and normalises alike, but by default takes the Euclidean distance to unnormalised means.

    References:
      Kang et al., "Decoupling representation and classifier" (2020).
    """
    return Rebalancing(lambda known: _by_means(known, rounds=0))


def prototypes(rounds: int = 2) -> Rebalancing:
    """Class means of the examples whose label looks clean by its distance to the mean: RoLT's selection.

    Of each class the distances to its mean fall into two groups (a Gaussian mixture); those nearer are held for clean,
    and the mean is taken anew over them, `rounds` times. A query goes to the class with the largest cosine. Features
    are centred and normalised as in `ncm`, which this is without a round. Deviation: RoLT selects in training, epoch by
    epoch, on the features of the network that it trains; here they are fixed. A class of fewer than four examples keeps
    all, one without is never predicted. The logits are cosines: NLL and ECE mean nothing.

    Args:
      rounds: at least 1.

    References:
      Wei et al., "Robust Long-Tailed Learning under Label Noise" (2021).
    """
    if rounds < 1:
        raise UserError(f"rounds={rounds} must be at least 1 (without one it is ncm())")
    return Rebalancing(lambda known: _by_means(known, rounds))


def _by_means(known: Known, rounds: int) -> Rebalanced:
    """To each query the class whose mean, over the examples held for clean after `rounds`, has the largest cosine."""
    features = checked(known.features)
    centre, present = features.mean(0), np.unique(known.observed)
    directions = np.asarray(normalize(features - centre))
    clean = np.ones(len(features), bool)
    for _ in range(rounds):
        clean = _clean(directions, known.observed, clean)
    means = np.stack([directions[clean & (known.observed == c)].mean(0) for c in present])
    means = np.asarray(normalize(means))

    def logits(queries: np.ndarray) -> np.ndarray:
        cosines = np.full((len(queries), len(known.head.bias)), _NEVER)
        cosines[:, present] = normalize(checked(queries) - centre) @ means.T
        return cosines

    held = {"held_for_clean": float(clean.mean())} if rounds else {}
    return Rebalanced(logits, {"classes_with_examples": len(present), **held})


def _clean(directions: np.ndarray, observed: np.ndarray, clean: np.ndarray) -> np.ndarray:
    """bool [N], which examples are nearer to the mean of those of their class that are clean so far."""
    found = np.ones(len(observed), bool)
    for c in np.unique(observed):
        rows = np.flatnonzero(observed == c)
        if len(rows) < 4:
            continue
        distances = np.linalg.norm(directions[rows] - directions[rows[clean[rows]]].mean(0), axis=-1)[:, None]
        mixture = GaussianMixture(2, random_state=0)
        with warnings.catch_warnings():  # of distances that are all equal there is one group, which is kept
            warnings.simplefilter("ignore", ConvergenceWarning)
            mixture.fit(distances)
        chosen = mixture.predict(distances) == np.asarray(mixture.means_).argmin()
        found[rows] = chosen if chosen.any() else True
    return found
