"""The losses and objectives of lt_noisy in a Flax and Optax loop of one's own.

    python docs/examples/optax_loop.py

Digits with a long tail and 30 % wrong labels: an encoder learns from pairs of noisy views by NT-Xent, then a classifier
on it by cross-entropy, and another one by logit adjustment inside SuperLoss. Seconds on a CPU.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.datasets import load_digits
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import train_test_split

import lt_noisy as lt


class Encoder(nn.Module):
    """images [B, 64] -> features [B, 64]."""

    @nn.compact
    def __call__(self, x):
        return nn.relu(nn.Dense(64)(nn.relu(nn.Dense(128)(x))))


def data(seed=0):
    """Training images with observed labels, ratio 10 and 30 % symmetric noise; test images with clean ones."""
    images, labels = load_digits(return_X_y=True)
    train_x, test_x, train_y, test_y = train_test_split(images / 16, labels, stratify=labels, random_state=seed)
    generator = np.random.default_rng(seed)
    kept = np.concatenate([np.flatnonzero(train_y == c)[: int(130 * 0.1 ** (c / 9))] for c in range(10)])
    x, y = train_x[kept], train_y[kept]
    wrong = generator.random(len(y)) < 0.3
    y = np.where(wrong, generator.integers(0, 10, len(y)), y)
    return x.astype(np.float32), y.astype(np.int32), test_x.astype(np.float32), test_y


def descend(loss, params, steps, rate, seed):
    """`steps` steps of Adam on `loss(params, key) -> [B]`, a value for each example, whose mean is what falls."""
    tx = optax.adam(rate)

    @jax.jit
    def step(params, state, key):
        gradient = jax.grad(lambda p: loss(p, key).mean())(params)
        updates, state = tx.update(gradient, state)
        return optax.apply_updates(params, updates), state

    state = tx.init(params)
    for key in jax.random.split(jax.random.key(seed), steps):
        params, state = step(params, state, key)
    return params


def main():
    x, y, test_x, test_y = data()
    encoder, projector, head = Encoder(), nn.Dense(32), nn.Dense(10)
    first, second, third = jax.random.split(jax.random.key(0), 3)
    start = {"encoder": encoder.init(first, x), "projector": projector.init(second, jnp.zeros((1, 64)))}

    def contrast(params, key):
        def view(key):
            noisy = x + 0.15 * jax.random.normal(key, x.shape)
            return projector.apply(params["projector"], encoder.apply(params["encoder"], noisy))

        return lt.objectives.nt_xent(*map(view, jax.random.split(key)), temperature=0.2)

    pretrained = descend(contrast, start, steps=100, rate=1e-3, seed=1)["encoder"]

    prior = lt.losses.log_prior(np.bincount(y, minlength=10))
    losses = {
        "cross-entropy": lambda logits: lt.losses.cross_entropy(logits, y),
        "logit adjustment in SuperLoss": lambda logits: lt.losses.superloss(
            lt.losses.logit_adjusted(logits, y, prior, tau=1.0), threshold=np.log(10), lam=1.0
        ),
    }
    for name, loss in losses.items():
        params = {"encoder": pretrained, "head": head.init(third, jnp.zeros((1, 64)))}

        def logits(params, images):
            return head.apply(params["head"], encoder.apply(params["encoder"], images))

        params = descend(lambda p, key, loss=loss: loss(logits(p, x)), params, steps=150, rate=3e-3, seed=2)
        predicted = np.argmax(logits(params, test_x), axis=-1)
        print(f"{name}: balanced accuracy {100 * balanced_accuracy_score(test_y, predicted):.1f} %")


if __name__ == "__main__":
    main()
