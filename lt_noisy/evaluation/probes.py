"""How good a frozen representation is: linear and nearest-neighbour probes of cached features.

As in Liu et al., "Self-supervised learning is more robust to dataset imbalance" (2022): a linear classifier on
frozen features, trained on the full balanced training set. The last epoch counts, on all test images as they are; the
protocol of their program, which is an oracle, is in `oracle_probe`. The few-shot probes beside it are ours. Features
are arrays, computed once in evaluation mode and without augmentation.
"""

import math
import warnings
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from lt_noisy import rng
from lt_noisy.config.spec import table
from lt_noisy.data.by_class import rows_by_class
from lt_noisy.errors import UserError, check_finite, check_positive, check_range, check_sizes
from lt_noisy.evaluation.classification import accuracies, classification

# (train_x [M, D], train_y int [M], test_x [Q, D], num_classes, seed) -> logits [Q, C], all finite
Linear = Callable[[np.ndarray, np.ndarray, np.ndarray, int, int], np.ndarray]
# (bank [M, D], labels int [M], queries [Q, D], num_classes) -> predictions int [Q]
Neighbours = Callable[[np.ndarray, np.ndarray, np.ndarray, int], np.ndarray]

_UNSEEN = 50.0  # how far a class without examples is below the least likely other


def logistic(c: float = 1.0, max_steps: int = 1000) -> Linear:
    """Logistic regression on standardised features: min_W 1/2 |W|^2 + c sum_i CE(W x_i + b, y_i).

    scikit-learn's L-BFGS in float64, multinomial; the features are first brought to mean 0 and standard
    deviation 1 over the training rows. Deterministic: the seed is not used. What `max_steps` reached is the
    result, converged or not. A class without training examples gets, by our choice, a logit 50 below the lowest
    of the others (the objective itself drives it to -infinity): it is not predicted, and NLL stays finite.

    Args:
      c: inverse strength of the L2 penalty (on W, not b), above 0.
      max_steps: of L-BFGS, at least 1.

    The fit returns float64 [Q, C], and raises `UserError` for shapes that do not fit, features that are not
    finite, labels out of range, and fewer than 2 classes with examples.
    """
    check_positive(c=c)
    if max_steps < 1:
        raise UserError(f"max_steps must be at least 1, not {max_steps!r}")

    def fit(train_x, train_y, test_x, num_classes, seed):
        train_x, train_y, test_x = checked(train_x, train_y, test_x, num_classes, np.float64)
        present = np.unique(train_y)
        scaler = StandardScaler().fit(train_x)
        # For two classes scikit-learn fits w = w_1 - w_0 alone. The two rows together cost |w|^2 / 2, half of
        # what it takes for w; twice the c makes it the same objective.
        model = LogisticRegression(C=2 * c if len(present) == 2 else c, max_iter=max_steps)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(scaler.transform(train_x), train_y)
        scores = model.decision_function(scaler.transform(test_x))
        if scores.ndim == 1:
            scores = np.stack([-scores / 2, scores / 2], axis=-1)
        logits = np.repeat(scores.min(-1, keepdims=True) - _UNSEEN, num_classes, axis=-1)
        logits[:, present] = scores
        return logits

    return fit


def sgd(lr: float = 30.0, epochs: int = 100, batch_size: int = 256) -> Linear:
    """Softmax regression on raw features by SGD: the optimiser of the linear probe of Liu et al. (2022).

    Momentum 0.9, no weight decay, lr x0.1 after 60 % and 80 % of the epochs; weights from N(0, 0.01^2), biases 0.
    Deviations from their program (`oracle_probe` follows it): cached features, so no augmentation; batches run on
    across the ends of epochs, so that all have one size. The features keep their scale, and the lr that suits depends
    on it.

    Args:
      lr: above 0.
      epochs: at least 1.
      batch_size: at least 1; all of the data where that is fewer.

    The fit returns float32 [Q, C], and raises `UserError` as `logistic`'s does, and for logits that are not
    finite. It is a function of the seed, on one kind of device.

    References:
      Liu et al., "Self-supervised Learning is More Robust to Dataset Imbalance" (2022).
    """
    check_positive(lr=lr)
    check_sizes(epochs=epochs, batch_size=batch_size)

    def fit(train_x, train_y, test_x, num_classes, seed):
        train_x, train_y, test_x = checked(train_x, train_y, test_x, num_classes, np.float32)
        examples, batch = len(train_x), min(batch_size, len(train_x))
        shuffled = [rng.generator(seed, "probe", epoch).permutation(examples) for epoch in range(epochs)]
        steps = epochs * examples // batch
        rows = np.concatenate(shuffled, dtype=np.int32)[: steps * batch].reshape(steps, batch)
        rates = np.full(steps, lr, np.float32)
        for drop in (math.ceil(3 * steps / 5), math.ceil(4 * steps / 5)):
            rates[drop:] *= np.float32(0.1)
        begun = start(train_x.shape[1], num_classes, rng.stream(seed, "probe"))
        return logits_of(descend(begun, train_x, train_y, rows, rates), test_x, lr)

    return fit


LINEAR = table({"logistic": logistic, "sgd": sgd})


class Descent(NamedTuple):
    """A linear classifier and its momentum: weights [D, C] and biases [C], each twice."""

    params: tuple[jax.Array, jax.Array]
    momentum: tuple[jax.Array, jax.Array]


def start(width: int, num_classes: int, key: jax.Array) -> Descent:
    """Weights from N(0, 0.01^2), biases 0, at rest."""
    weights, biases = 0.01 * jax.random.normal(key, (width, num_classes)), jnp.zeros(num_classes)
    return Descent((weights, biases), (jnp.zeros_like(weights), jnp.zeros_like(biases)))


@jax.jit  # compiled once for all fits of one shape: the draws of a few-shot probe share it
def descend(at: Descent, x: jax.Array, y: jax.Array, rows: jax.Array, rates: jax.Array) -> Descent:
    """One step of SGD with momentum 0.9 for each batch of `rows` int [steps, B], at the rate of `rates` [steps]."""

    def loss(params, batch):
        weights, biases = params
        logits = jnp.matmul(x[batch], weights, precision="highest") + biases[None, :]
        return optax.softmax_cross_entropy_with_integer_labels(logits, y[batch]).mean()

    def step(at: Descent, now: tuple[jax.Array, jax.Array]) -> tuple[Descent, None]:
        batch, rate = now
        gradient = jax.grad(loss)(at.params, batch)
        momentum = jax.tree.map(lambda g, m: g + 0.9 * m, gradient, at.momentum)
        return Descent(jax.tree.map(lambda p, m: p - rate * m, at.params, momentum), momentum), None

    return jax.lax.scan(step, at, (rows, rates))[0]


def logits_of(at: Descent, x: np.ndarray, lr: float) -> np.ndarray:
    """float32 [N, C] of features [N, D], or a `UserError` that names the rate they diverged at."""
    weights, biases = (np.asarray(part) for part in at.params)
    with np.errstate(all="ignore"):  # what is not finite is reported below
        logits = x @ weights + biases
    if not np.isfinite(logits).all():
        raise UserError(f"the linear probe diverged to logits that are not finite at lr={lr!r}: lower lr")
    return logits


def few_shot(labels: np.ndarray, num_classes: int, shots: int, seed: int, draw: int) -> np.ndarray:
    """`shots` rows of every class without replacement, all of a class that has fewer: int64, ascending.

    Args:
      labels: int [M] in [0, num_classes).
      num_classes: C.
      shots: at least 1. Of one draw, the rows for fewer shots are among those for more.
      seed: of the run.
      draw: which of several independent draws.

    Raises:
      UserError: shots below 1, no labels, a label out of range.
    """
    labels = np.asarray(labels)
    if shots < 1:
        raise UserError(f"shots must be at least 1, not {shots!r}")
    if len(labels) == 0:
        raise UserError("a few-shot probe needs training examples, and there are none")
    check_range(labels, num_classes)
    generator = rng.generator(seed, "few_shot", draw)
    by_class = rows_by_class(labels, np.arange(len(labels)), num_classes)
    rows = [generator.permutation(members)[:shots] for members in by_class]
    return np.sort(np.concatenate(rows))


def evaluate_probes(
    linear: Linear,
    knn: Neighbours,
    shots: tuple[int, ...],
    repeats: int,
    train_x: np.ndarray,
    train_y: np.ndarray,
    test_x: np.ndarray,
    test_y: np.ndarray,
    train_counts: np.ndarray,
    class_names: list[str] | tuple[str, ...],
    seed: int,
) -> dict:
    """Linear and kNN probes of frozen features, on all training rows and on a few of every class.

    Args:
      linear: a bound entry of `LINEAR`.
      knn: `representation.knn_predict` with its k and temperature bound.
      shots: training rows per class, distinct; 0 is all of them.
      repeats: draws for each few-shot entry (`few_shot` with draw 0, 1, ...). All have the one `seed` for the
        fit, so that they differ by the rows alone.
      train_x: float32 [M, D], features of the probe's training images.
      train_y: int [M], their labels.
      test_x: float32 [N, D].
      test_y: int [N], clean test labels.
      train_counts: int [C], clean training counts of the representation's training set, for the groups.
      class_names: C names.
      seed: of the run.

    Returns:
      One entry for each of `shots`, JSON-ready, each with its `train_size` in rows. `"all"`: `linear` (see
      `classification`) and `knn` (see `accuracies`). Others, by the number as text: of `linear` and `knn` the
      balanced test accuracies `runs` [repeats], their `mean`, and `std` (with repeats - 1; None for one draw).

    Raises:
      UserError: shots or repeats out of range, and as the fit, `classification` and `accuracies`.
    """
    if not shots or len(set(shots)) < len(shots) or not all(isinstance(s, int) and s >= 0 for s in shots):
        raise UserError(f"shots must be one or more distinct whole numbers, 0 for all rows, not {shots!r}")
    if repeats < 1:
        raise UserError(f"repeats must be at least 1, not {repeats!r}")
    train_x, train_y, num_classes = np.asarray(train_x), np.asarray(train_y), len(class_names)

    def probe(x: np.ndarray, y: np.ndarray) -> dict:
        logits = linear(x, y, test_x, num_classes, seed)
        return {
            "linear": classification(logits, test_y, train_counts, class_names),
            "knn": accuracies(knn(x, y, test_x, num_classes), test_y, train_counts, class_names),
        }

    report = {}
    for count in shots:
        if count == 0:
            report["all"] = {"train_size": len(train_y), **probe(train_x, train_y)}
            continue
        draws = [few_shot(train_y, num_classes, count, seed, draw) for draw in range(repeats)]
        runs = [probe(train_x[rows], train_y[rows]) for rows in draws]
        report[str(count)] = {
            "train_size": len(draws[0]),
            **{name: _spread([run[name]["balanced_accuracy"] for run in runs]) for name in ("linear", "knn")},
        }
    return report


def relative_gap(balanced: float, imbalanced: float) -> float:
    """What imbalance costs: Delta(n, r) = (A(n, 1) - A(n, r)) / A(n, 1), Liu et al. (2022).

    Args:
      balanced: A(n, 1), the probe's accuracy after pre-training on n balanced images; above 0.
      imbalanced: A(n, r), that after as many images at imbalance r. Where it is the better, the gap is negative.

    Raises:
      UserError: a balanced accuracy that is not above 0.
    """
    if not balanced > 0:
        raise UserError(f"the relative gap needs a balanced accuracy above 0, not {balanced!r}")
    return (balanced - imbalanced) / balanced


def _spread(runs: list[float]) -> dict:
    std = float(np.std(runs, ddof=1)) if len(runs) > 1 else None
    return {"mean": float(np.mean(runs)), "std": std, "runs": runs}


def checked(
    train_x: np.ndarray, train_y: np.ndarray, test_x: np.ndarray, num_classes: int, dtype: type
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features as `dtype`, labels int32, or a `UserError`."""
    train_x, train_y, test_x = np.asarray(train_x, dtype), np.asarray(train_y, np.int32), np.asarray(test_x, dtype)
    matrices = train_x.ndim == test_x.ndim == 2 and train_x.shape[1] == test_x.shape[1]
    if not matrices or train_y.shape != train_x.shape[:1] or 0 in train_x.shape + test_x.shape:
        shapes = f"{list(train_x.shape)}, {list(train_y.shape)} and {list(test_x.shape)}"
        raise UserError(f"a probe takes features [M, D], labels [M] and test features [Q, D], not {shapes}")
    check_finite(train_x, "training features")
    check_finite(test_x, "test features")
    check_range(train_y, num_classes)
    if (train_y == train_y[0]).all():
        raise UserError(
            f"a linear probe needs training examples of at least 2 classes, not of class {train_y[0]} alone"
        )
    return train_x, train_y, test_x
