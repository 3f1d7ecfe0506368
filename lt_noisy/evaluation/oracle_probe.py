"""The linear probe of Liu et al. (2022) as their program has it: its accuracy is the best of all epochs *on test*.

So it is an oracle, and beside the probe of `probes` it tells how much of a published figure is the protocol's.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lt_noisy import rng
from lt_noisy.augment.base import augment_batch, compose
from lt_noisy.augment.operations import flip, resized_crop
from lt_noisy.config.spec import table
from lt_noisy.errors import check_positive, check_sizes
from lt_noisy.evaluation.probes import checked, descend, logits_of, start
from lt_noisy.precision import to_float

Features = Callable[[np.ndarray], np.ndarray]  # images uint8 [N, H, W, C] -> float32 [N, D]

_BLOCK = 4096  # images augmented at a time
_TRAIN = compose(resized_crop(0.8, 1.0, interpolation="bicubic"), flip())


@dataclasses.dataclass(frozen=True)
class Liu:
    """The probe with its settings: see `liu`."""

    lr: float
    epochs: int
    batch_size: int

    @staticmethod
    def shown(image: jax.Array) -> jax.Array:
        """An image [H, W, C] as training shows it; refuses vectors."""
        return _TRAIN.train(jax.random.key(0), image)

    def __call__(
        self,
        features: Features,
        train_images: np.ndarray,
        train_y: np.ndarray,
        test_images: np.ndarray,
        test_y: np.ndarray,
        num_classes: int,
        seed: int,
    ) -> dict[str, Any]:
        """Trains the classifier, and tests it after each epoch.

        Args:
          features: of the frozen encoder in evaluation mode; it normalises.
          train_images: uint8 [M, H, W, C].
          train_y: int [M].
          test_images: uint8 [N, H, W, C].
          test_y: int [N].
          num_classes: C.
          seed: of the run.

        Returns:
          `best_on_test`, the highest of `by_epoch`; `at_epoch`, the first with it, from 1; `last`; `by_epoch`, the
          accuracies [epochs]; and `test_images`, how many of them it is of.

        Raises:
          UserError: as `probes.sgd`.
        """
        batch = min(self.batch_size, len(train_y))
        steps, tested = len(train_y) // batch, _whole_batches(len(test_y), self.batch_size)
        test_x, test_y = features(middle(test_images[:tested])), test_y[:tested]
        at = start(test_x.shape[-1], num_classes, rng.stream(seed, "probe"))
        by_epoch = []
        for epoch in range(self.epochs):
            shown = features(_augmented(train_images, seed, epoch))
            shown, labels, test_x = checked(shown, train_y, test_x, num_classes, np.float32)
            rows = rng.generator(seed, "probe", epoch).permutation(len(labels))[: steps * batch].astype(np.int32)
            drops = sum(epoch >= math.ceil(share * self.epochs / 5) for share in (3, 4))
            rates = np.full(steps, self.lr * 0.1**drops, np.float32)
            at = descend(at, shown, labels, rows.reshape(steps, batch), rates)
            by_epoch.append(float(np.mean(logits_of(at, test_x, self.lr).argmax(-1) == test_y)))
        best = int(np.argmax(by_epoch))
        return {
            "best_on_test": by_epoch[best],
            "at_epoch": best + 1,
            "last": by_epoch[-1],
            "by_epoch": by_epoch,
            "test_images": tested,
        }


def liu(lr: float = 30.0, epochs: int = 100, batch_size: int = 256) -> Liu:
    """The published linear probe: the best of its epochs on test, an oracle.

    SGD with momentum 0.9 on the frozen encoder in evaluation mode; lr x0.1 after 60 % and 80 % of the epochs. It trains
    on boxes of 0.8 to 1 of the area and flips, and tests on images enlarged by 8/7 and cropped back, both bicubic, in
    whole batches: of CIFAR-10's 10,000 test images it leaves out the last 16. Ours is a set smaller than a batch, which
    is one.

    Args:
      lr: above 0.
      epochs: at least 1.
      batch_size: at least 1.

    References:
      Liu et al., "Self-supervised Learning is More Robust to Dataset Imbalance" (2022), cifar/main_lincls.py.
    """
    check_positive(lr=lr)
    check_sizes(epochs=epochs, batch_size=batch_size)
    return Liu(lr, epochs, batch_size)


def none() -> None:
    """No oracle beside the probes."""
    return None


ORACLES = table({"none": none, "liu": liu})


def _whole_batches(count: int, batch: int) -> int:
    return count - count % batch if count >= batch else count


def _pixels(images: jax.Array) -> jax.Array:
    """[0, 1] -> uint8, as an image library rounds."""
    return jnp.round(255 * jnp.clip(images, 0, 1)).astype(jnp.uint8)


@jax.jit
def _augment(key: jax.Array, images: jax.Array, positions: jax.Array) -> jax.Array:
    return _pixels(augment_batch(_TRAIN, key, images, positions))


def _augmented(images: np.ndarray, seed: int, epoch: int) -> np.ndarray:
    """Each image as it is shown in an epoch, uint8: a function of seed, epoch and its row."""
    key, out = rng.stream(seed, "oracle_probe", epoch), np.empty_like(images)
    for begin in range(0, len(images), _BLOCK):
        positions = np.arange(begin, min(begin + _BLOCK, len(images)), dtype=np.int32)
        out[positions] = _augment(key, images[positions], positions)
    return out


def middle(images: np.ndarray) -> np.ndarray:
    """Images uint8 [N, H, W, C] enlarged to 8/7 of their size (bicubic) and cropped to the size they had."""
    height, width, channels = images.shape[1:]
    large = int(height * 8 / 7), int(width * 8 / 7)
    top, left = round((large[0] - height) / 2), round((large[1] - width) / 2)

    @jax.jit
    def enlarge(block: jax.Array) -> jax.Array:
        resized = jax.image.resize(to_float(block) / 255, (len(block), *large, channels), "cubic")
        return _pixels(resized)[:, top : top + height, left : left + width]

    blocks = [np.asarray(enlarge(images[i : i + _BLOCK])) for i in range(0, len(images), _BLOCK)]
    return np.concatenate(blocks)
