"""What a `mixnn` stage does in one step of each of its phases, per-device."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from lt_noisy import rng
from lt_noisy.augment.base import Augment, augment_batch, evaluate_batch
from lt_noisy.collectives import AXIS, gather, positions
from lt_noisy.data.batches import Resident, fetch, fetch_images
from lt_noisy.estimate.neighbours import nearest
from lt_noisy.losses import cross_entropy
from lt_noisy.mixing import mixnn
from lt_noisy.mixing.mixnn import MixupLoss
from lt_noisy.mixing.mixup import Mix
from lt_noisy.precision import to_float
from lt_noisy.stages.supervised import Classifier
from lt_noisy.training.optim import descend
from lt_noisy.training.state import PyTree, TrainState

Batch = Mapping[str, jax.Array]
Stepped = tuple[TrainState, dict[str, tuple[jax.Array, jax.Array]]]  # state and sums, of `optim.descend`


class Steps(NamedTuple):
    """The steps of the four phases, and below them what they are made of.

    Attributes:
      net: the classifier.
      tx: the optimiser.
      name: of the stage; names its random streams.
      augment: of every phase but the warm-up.
      mix: in-batch mixup.
      mixup_loss: of the phase without soft targets.
      neighbours: where they are looked for.
      momentum: of the soft targets.
      due: `due(step)`, whether the step corrects them.
    """

    net: Classifier
    tx: optax.GradientTransformation
    name: str
    augment: Augment
    mix: Mix
    mixup_loss: MixupLoss
    neighbours: mixnn.Neighbours
    momentum: float
    due: Callable[[jax.Array], jax.Array]

    def warm_up(self, state: TrainState, data: Resident, batch: Batch) -> Stepped:
        """Cross-entropy, without augmentation."""
        images, labels = fetch(data, batch)
        x = evaluate_batch(self.augment, images)
        return self._descend(state, batch, x, self._one_hot(labels), cross_entropy, state.method)

    def mixing(self, state: TrainState, data: Resident, batch: Batch) -> Stepped:
        """In-batch mixup of the observed labels."""
        images, labels = fetch(data, batch)
        x = self._augmented(state, images)
        state, _, _ = self._unmixed(state, x)
        x, targets = self._mixed_up(state, x, self._one_hot(labels))
        return self._descend(state, batch, x, targets, self.mixup_loss, state.method)

    def soft_mixing(self, state: TrainState, data: Resident, batch: Batch) -> Stepped:
        """In-batch mixup of soft targets, corrected where the epoch is due."""
        rows = batch["rows"]
        x = self._augmented(state, fetch(data, batch)[0])
        state, _, logits = self._unmixed(state, x)
        method = self._corrected(state, rows, logits)
        x, targets = self._mixed_up(state, x, method["targets"][rows])
        return self._descend(state, batch, x, targets, cross_entropy, method)

    def neighbour_mixing(self, state: TrainState, data: Resident, batch: Batch) -> Stepped:
        """Each example mixed with its neighbours, and so their soft targets."""
        rows = batch["rows"]
        x = self._augmented(state, fetch(data, batch)[0])
        state, features, logits = self._unmixed(state, x)
        method = self._corrected(state, rows, logits)
        x, rows = self._with_neighbours(state, data, batch, x, features)
        shares = mixnn.shares(state.method["clean"][rows])
        x, targets = mixnn.mixed(x, shares), mixnn.mixed(method["targets"][rows], shares)
        return self._descend(state, batch, x, targets, cross_entropy, method)

    def _one_hot(self, labels: jax.Array) -> jax.Array:
        return jax.nn.one_hot(labels, self.net.head.num_classes)

    def _augmented(self, state: TrainState, images: jax.Array, which: int = 0) -> jax.Array:
        key = jax.random.fold_in(rng.stream(state.seed, f"{self.name}/augment", state.step), which)
        return augment_batch(self.augment, key, images, positions(len(images)))

    def _mixed_up(self, state: TrainState, x: jax.Array, targets: jax.Array) -> tuple[jax.Array, jax.Array]:
        key = rng.stream(state.seed, f"{self.name}/mix", state.step)
        x, targets, _ = self.mix(key, x, targets, jnp.ones(len(x)))
        return x, targets

    def _unmixed(self, state: TrainState, x: jax.Array) -> tuple[TrainState, jax.Array, jax.Array]:
        """The batch as it is, without gradient: state with its share of the running statistics, features, logits."""
        method = type(self.net).features_and_logits
        (features, logits), changed = self.net.apply(
            state.variables, x, train=True, mutable=["batch_stats"], method=method
        )
        state = dataclasses.replace(state, batch_stats=changed.get("batch_stats", {}))
        return state, *jax.lax.stop_gradient((to_float(features), logits))

    def _corrected(self, state: TrainState, rows: jax.Array, logits: jax.Array) -> dict[str, jax.Array]:
        """The memory, with the batch's soft targets drawn towards the predictions in an epoch that is due."""
        targets = mixnn.corrected(state.method["targets"], rows, logits, self.momentum, self.due(state.step))
        return {**state.method, "targets": targets}

    def _with_neighbours(
        self, state: TrainState, data: Resident, batch: Batch, x: jax.Array, features: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Images [B, k, ...] and rows int32 [B, k] of each example and its nearest neighbours, itself first."""
        rows, k = batch["rows"], self.neighbours.k
        if k == 1:
            return x[:, None], rows[:, None]
        if self.neighbours.whole_set:
            near, given = state.method["neighbours"][rows], batch.get("near_images")
            of = [fetch_images(data, near[:, j], None if given is None else given[:, j]) for j in range(k - 1)]
            images = [self._augmented(state, image, j + 1) for j, image in enumerate(of)]
            return jnp.stack([x, *images], 1), jnp.concatenate([rows[:, None], near], 1)
        near = nearest(features, positions(len(rows)), gather(features), k - 1)
        return (
            jnp.concatenate([x[:, None], gather(x)[near]], 1),
            jnp.concatenate([rows[:, None], gather(rows)[near]], 1),
        )

    def _descend(
        self,
        state: TrainState,
        batch: Batch,
        x: jax.Array,
        targets: jax.Array,
        loss: MixupLoss,
        method: dict[str, jax.Array],
    ) -> Stepped:
        """One step on mixed images and targets; `method` is the memory after it."""

        def losses(params: PyTree, batch_stats: PyTree) -> tuple[jax.Array, Any]:
            variables = {"params": params, "batch_stats": batch_stats}
            logits, changed = self.net.apply(variables, x, train=True, mutable=["batch_stats"])
            right = to_float(logits.argmax(-1) == targets.argmax(-1))
            sums = {
                "accuracy": jax.lax.psum((right.sum(), to_float(len(right))), AXIS),
                "clean": jax.lax.psum((method["clean"][batch["rows"]].sum(), to_float(len(right))), AXIS),
            }
            return loss(logits, targets), (changed.get("batch_stats", {}), method, sums)

        return descend(state, self.tx, losses, batch["weights"])
