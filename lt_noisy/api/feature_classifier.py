"""The robust losses as a classifier on features, for scikit-learn."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from scipy.special import softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.preprocessing import LabelEncoder
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from lt_noisy.config.spec import bind
from lt_noisy.errors import UserError
from lt_noisy.losses.table import LOSSES
from lt_noisy.method import Context

_MOMENTUM = 0.9


class FeatureClassifier(ClassifierMixin, BaseEstimator):
    """A linear classifier on features by a loss that resists class imbalance and wrong labels.

    Features are standardised; the weights start at 0 and are trained by SGD with momentum 0.9 and a cosine schedule, in
    float32. Of an epoch the rest after whole batches is left out, another one each time. As it is scikit-learn's:
    `cross_val_predict(FeatureClassifier(), X, y, method="predict_proba")` judges every label by a classifier that has
    not seen it.

    Under a loss with a prior (`logit_adjusted`, `balanced_softmax`) `predict_proba` is for classes that come equally
    often, whatever they did in training.

    Args:
      loss: a spec of the config's table (`python main.py --list losses`), such as "gce(q=0.7)".
      epochs: passes over the training set.
      batch_size: of a step; of fewer examples, all.
      learning_rate: at the start.
      weight_decay: L2 on the weights, not on the biases.
      random_state: of the order of examples.

    Attributes:
      classes_: [C].
      coef_: float64 [C, D], of features as they are given.
      intercept_: float64 [C].
      n_features_in_: D.
    """

    def __init__(
        self,
        loss: str = "superloss(logit_adjusted(tau=1.0), lam=1.0)",
        epochs: int = 100,
        batch_size: int = 128,
        learning_rate: float = 0.1,
        weight_decay: float = 1e-4,
        random_state: Any = None,
    ):
        self.loss = loss
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.random_state = random_state

    def fit(self, X: Any, y: Any) -> "FeatureClassifier":
        """Learns from features float [N, D] and labels [N].

        Raises:
          ValueError: what scikit-learn's classifiers refuse, one class alone, or a loss that is none.
        """
        checked: Any = validate_data(self, X, y, dtype=np.float64)
        X, y = checked
        check_classification_targets(y)
        encoder = LabelEncoder().fit(y)
        self.classes_: Any = encoder.classes_
        if len(self.classes_) < 2:
            raise ValueError(
                f"FeatureClassifier needs two classes or more; the data has one class: {self.classes_[0]!r}"
            )
        try:
            loss = bind(self.loss, LOSSES, "loss")
        except UserError as error:
            raise ValueError(str(error)) from None
        if loss.transition:
            raise ValueError(f"loss={self.loss!r} reads the estimate of a stage, which is not here")
        if loss.cosines:
            raise ValueError(f"loss={self.loss!r} takes the logits of a cosine classifier, and this one is linear")
        if self.epochs < 1 or self.batch_size < 1 or not self.learning_rate > 0:
            raise ValueError("epochs and batch_size are at least 1, and learning_rate is above 0")
        labels = np.asarray(encoder.transform(y), np.int32)
        mean, std = X.mean(0), X.std(0)
        std = np.where(std > 1e-12 * np.maximum(np.abs(mean), 1), std, 1)
        order = self._order(len(X))
        counts = np.bincount(labels, minlength=len(self.classes_))
        try:
            state = loss.init(Context(len(counts), len(X), order.shape[1], counts, len(order)))
        except UserError as error:
            raise ValueError(str(error)) from None
        start = {"kernel": np.zeros((X.shape[1], len(counts)), np.float32), "bias": np.zeros(len(counts), np.float32)}
        train = _program(self.loss, len(order), self.learning_rate, self.weight_decay)
        units = ((X - mean) / std).astype(np.float32)
        weights = jax.device_get(train(units, labels, order, start, jax.tree.map(np.asarray, state)))
        if not all(np.isfinite(array).all() for array in weights.values()):
            raise ValueError(f"the weights are not finite; learning_rate={self.learning_rate} may be too high")
        self.coef_ = (weights["kernel"].astype(np.float64) / std[:, None]).T
        self.intercept_ = weights["bias"].astype(np.float64) - self.coef_ @ mean
        return self

    def _order(self, examples: int) -> np.ndarray:
        """Rows int32 [steps, B] of every step's batch."""
        generator = check_random_state(self.random_state)
        size = min(self.batch_size, examples)
        whole = examples // size * size
        epochs = [generator.permutation(examples)[:whole].reshape(-1, size) for _ in range(self.epochs)]
        return np.concatenate(epochs).astype(np.int32)

    def decision_function(self, X: Any) -> np.ndarray:
        """Logits float64 [N, C] of features [N, D]; of two classes the difference [N], as scikit-learn has it."""
        logits = self._logits(X)
        return logits[:, 1] - logits[:, 0] if len(self.classes_) == 2 else logits

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probabilities float64 [N, C]."""
        return np.asarray(softmax(self._logits(X), axis=-1))

    def predict(self, X: Any) -> np.ndarray:
        """The most probable class of each example, [N]."""
        logits = self._logits(X)
        return self.classes_[logits.argmax(-1)]

    def _logits(self, X: Any) -> np.ndarray:
        check_is_fitted(self)
        checked: Any = validate_data(self, X, reset=False, dtype=np.float64)
        return checked @ self.coef_.T + self.intercept_


@functools.lru_cache(maxsize=64)
def _program(loss_text: str, steps: int, learning_rate: float, weight_decay: float) -> Callable[..., Any]:
    """`train(features [N, D], labels [N], batches [steps, B], start, memory) -> {"kernel": [D, C], "bias": [C]}`.

    All steps are one program, compiled once for each shape.
    """
    loss = bind(loss_text, LOSSES, "loss")
    tx = optax.chain(
        optax.add_decayed_weights(weight_decay, mask={"kernel": True, "bias": False}),
        optax.sgd(optax.cosine_decay_schedule(learning_rate, steps), momentum=_MOMENTUM),
    )

    def train(x: jax.Array, y: jax.Array, batches: jax.Array, start: Any, memory: Any) -> Any:
        def step(carry: Any, rows: jax.Array) -> tuple[Any, None]:
            params, optimiser, memory, number = carry

            def mean_loss(params: Any) -> tuple[jax.Array, Any]:
                logits = jnp.matmul(x[rows], params["kernel"]) + params["bias"][None]
                losses, after = loss.apply(memory, logits, y[rows], rows, number)
                return losses.mean(), after

            gradient, memory = jax.grad(mean_loss, has_aux=True)(params)
            with jax.numpy_dtype_promotion("standard"):  # optax counts steps in integers
                updates, optimiser = tx.update(gradient, optimiser, params)
            return (optax.apply_updates(params, updates), optimiser, memory, number + 1), None

        (params, *_), _ = jax.lax.scan(step, (start, tx.init(start), memory, jnp.int32(0)), batches)
        return params

    return jax.jit(train)
