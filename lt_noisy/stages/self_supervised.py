"""Stage `self_supervised`: pre-training on the images alone; no label is read."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from lt_noisy import evaluate, rng
from lt_noisy.collectives import positions, share
from lt_noisy.data.augment import Augment, evaluate_batch, views
from lt_noisy.data.batches import fetch
from lt_noisy.fields import Field, Fields
from lt_noisy.method import Context
from lt_noisy.objectives import OBJECTIVES, Objective, Outputs
from lt_noisy.optim import descend
from lt_noisy.parallel import Step
from lt_noisy.spec import UserError
from lt_noisy.stages import common
from lt_noisy.state import TrainState


def knn(k: int = 200, temperature: float = 0.1) -> Callable[..., np.ndarray]:
    """The kNN monitor: cosine similarity, weights exp(sim / temperature), `k` neighbours (Wu et al. 2018)."""
    if k < 1 or not temperature > 0:
        raise UserError(f"k is at least 1 and temperature positive, not {k}, {temperature}")
    return lambda bank, labels, queries, classes: evaluate.knn_predict(bank, labels, queries, classes, k, temperature)


FIELDS: Fields = {
    "objective": Field("simclr()", OBJECTIVES),
    "monitor": Field("knn()", {"knn": knn}),
    **common.TRAINING_FIELDS,
    "augment": Field("simclr_cifar()", common.TRAINING_FIELDS["augment"].table),
}


class Network(nn.Module):
    """Encoder, projector and perhaps a predictor: images -> (projection, prediction or None), float32."""

    encoder: nn.Module
    projector: nn.Module
    predictor: nn.Module | None

    def __call__(self, x: jax.Array, train: bool) -> tuple[jax.Array, jax.Array | None]:
        """Projection and prediction of a batch of one view."""
        projection = self.projector(self.encoder(x, train=train), train=train)
        return projection, None if self.predictor is None else self.predictor(projection, train=train)

    def features(self, x: jax.Array) -> jax.Array:
        """The encoder's features [B, D] in evaluation mode: the representation."""
        return self.encoder(x, train=False)


def build(encoder: nn.Module, objective: Objective, dtype: Any, norm_axis: str | None) -> Network:
    """The network an objective needs around `encoder`."""
    predictor = objective.predictor and objective.predictor(dtype, norm_axis)
    return Network(encoder, objective.projector(dtype, norm_axis), predictor)


def _forward(net: Network, params: Any, batch_stats: Any, pair: tuple, joint: bool) -> tuple[Outputs, Any]:
    """Both views through the network in training mode: outputs and new BatchNorm statistics."""

    def once(stats, x):
        out, changed = net.apply({"params": params, "batch_stats": stats}, x, train=True, mutable=["batch_stats"])
        return out, changed["batch_stats"]

    if joint:
        both, batch_stats = once(batch_stats, jnp.concatenate(pair))
        first, second = zip(*[(None, None) if x is None else jnp.split(x, 2) for x in both], strict=True)
    else:
        first, batch_stats = once(batch_stats, pair[0])
        second, batch_stats = once(batch_stats, pair[1])
    predictions = None if first[1] is None else (first[1], second[1])
    return Outputs((first[0], second[0]), predictions), batch_stats


def make_step(
    net: Network,
    objective: Objective,
    tx: optax.GradientTransformation,
    augment: Augment,
    seed: int,
    name: str,
) -> Step:
    """The per-device step `(state, data, batch) -> (state, sums)` of self-supervised training."""

    def step(state: TrainState, data: Any, batch: Any) -> tuple[TrainState, dict]:
        rows, weights = batch["rows"], batch["weights"]
        images, _ = fetch(data, rows)
        key = rng.stream(seed, f"{name}/augment", state.step)
        pair = views(augment, key, images, positions(len(rows)))

        def local_loss(params):
            outputs, batch_stats = _forward(net, params, state.batch_stats, pair, objective.joint_views)
            per_example, method = objective.method.apply(state.method, outputs, None, rows, state.step)
            return share(per_example, weights), (batch_stats, method, {})

        return descend(state, tx, local_loss)

    return step


def prepare(job: common.Job, section: SimpleNamespace) -> common.Prepared:
    """Builds the network the objective needs, its first state and its step."""
    dataset, plan = job.dataset, common.make_plan(job, section)
    net = build(job.encoder(job.dtype, job.norm_axis), section.objective, job.dtype, job.norm_axis)
    no_labels = np.zeros(dataset.num_classes, np.int64)
    context = Context(dataset.num_classes, len(dataset.ids), no_labels)
    state = common.initial_state(
        net, dataset.train_images.shape[1:], job.seed, job.name, section.objective.method.init(context)
    )
    state, tx = common.with_optimizer(state, section, plan.total)
    step = make_step(net, section.objective, tx, section.augment, job.seed, job.name)
    return common.Prepared(net, state, step, common.order(job, plan.batch_size), plan)


def run(job: common.Job, section: SimpleNamespace) -> dict[str, Any]:
    """Trains, watches kNN accuracy and collapse; returns the summary. Labels go to the monitor only."""
    dataset, ready = job.dataset, prepare(job, section)
    net = ready.net
    predict = common.compile_predict(
        job,
        lambda variables, images: net.apply(
            variables, evaluate_batch(section.augment, images), method=Network.features
        ),
    )
    full = dataset.source.train
    rows = evaluate.balanced_bank(full.labels, dataset.num_classes, len(dataset.ids), job.seed)
    bank_images, bank_labels = full.images(rows), full.labels[rows]

    def representation(state: TrainState) -> dict[str, Any]:
        queries = predict(state, dataset.test_images)

        def accuracy(images: np.ndarray, labels: np.ndarray) -> float:
            guess = section.monitor(predict(state, images), labels, queries, dataset.num_classes)
            return float(np.mean(guess == dataset.test_labels))

        return {
            "knn_balanced_bank": accuracy(bank_images, bank_labels),
            "knn_longtailed_bank": accuracy(dataset.train_images, dataset.clean),
            **evaluate.collapse(queries),
        }

    report = common.once_per_step(job, representation)

    def monitor(state: TrainState) -> dict[str, float]:
        return {name: report(state)[name] for name in ("knn_balanced_bank", "channel_std")}

    trained = common.run_training(job, ready, monitor)
    return common.summarise(job, trained, ready.plan, {"representation": report(trained.device_state)})
