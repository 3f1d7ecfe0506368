"""Stage `supervised`: a classifier on the observed labels, from scratch or from an earlier stage's encoder."""

from types import SimpleNamespace
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from lt_noisy import evaluate, rng
from lt_noisy.checkpoint import read_final
from lt_noisy.collectives import AXIS, positions
from lt_noisy.data.augment import Augment, augment_batch, evaluate_batch
from lt_noisy.data.batches import fetch
from lt_noisy.data.dataset import DATA
from lt_noisy.fields import Field, Fields
from lt_noisy.losses import LOSSES
from lt_noisy.method import Context, Method
from lt_noisy.models.heads import HEADS
from lt_noisy.optim import descend
from lt_noisy.parallel import Step
from lt_noisy.rebalance import SAMPLERS
from lt_noisy.spec import UserError
from lt_noisy.stages import common
from lt_noisy.state import TrainState, transfer

FIELDS: Fields = {
    "init": Field("none()"),  # or the name of an earlier stage
    "data": Field("manifest()", DATA),
    "freeze_encoder": Field(False),
    "encoder_rate": Field(1.0),  # learning rate of the encoder relative to the head's
    "head": Field("linear()", HEADS),
    "loss": Field("cross_entropy()", LOSSES),
    "sampler": Field("uniform()", SAMPLERS),
    **common.TRAINING_FIELDS,
}


class Classifier(nn.Module):
    """Encoder and head: images [B, H, W, C] -> logits float32 [B, classes].

    A frozen encoder runs as in evaluation (its BatchNorm statistics too) and passes no gradient on.
    """

    encoder: nn.Module
    head: nn.Module
    freeze_encoder: bool = False

    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Logits of a batch."""
        features = self.encoder(x, train=train and not self.freeze_encoder)
        return self.head(jax.lax.stop_gradient(features) if self.freeze_encoder else features)


def make_step(
    net: Classifier, loss: Method, tx: optax.GradientTransformation, augment: Augment, seed: int, name: str
) -> Step:
    """The per-device step `(state, data, batch) -> (state, sums)` of supervised training.

    Args:
      net: the classifier.
      loss: applied to (logits, observed labels, manifest rows).
      name: of the stage; names its random stream.
    """

    def step(state: TrainState, data: Any, batch: Any) -> tuple[TrainState, dict]:
        rows, weights = batch["rows"], batch["weights"]
        images, labels = fetch(data, rows)
        key = rng.stream(seed, f"{name}/augment", state.step)
        x = augment_batch(augment, key, images, positions(len(rows)))

        def losses(params):
            variables = {"params": params, "batch_stats": state.batch_stats}
            logits, changed = net.apply(variables, x, train=True, mutable=["batch_stats"])
            per_example, method = loss.apply(state.method, logits, labels, rows, state.step)
            right = (jnp.argmax(logits, axis=-1) == labels).astype(jnp.float32)
            sums = {"accuracy": jax.lax.psum(((weights * right).sum(), weights.sum()), AXIS)}
            return per_example, (changed["batch_stats"], method, sums)

        return descend(state, tx, losses, weights)

    return step


def check(job: common.Job, section: SimpleNamespace) -> dict[str, int]:
    """Refuses what does not fit the data; returns the stage's length."""
    if not section.encoder_rate > 0:
        raise UserError(
            f"config.{job.name}.encoder_rate is above 0, not {section.encoder_rate} (freeze_encoder=True freezes it)"
        )
    return {"steps": common.check(job, section).total}


def prepare(job: common.Job, section: SimpleNamespace) -> common.Prepared:
    """Builds the classifier, its first state (from the `init` stage's encoder, where there is one) and its step."""
    dataset, plan = job.dataset, common.make_plan(job, section)
    counts = np.bincount(dataset.observed, minlength=dataset.num_classes)
    context = Context(dataset.num_classes, len(dataset.observed), plan.batch_size, counts)
    net = Classifier(job.encoder(job.dtype, job.norm_axis), section.head(dataset.num_classes), section.freeze_encoder)
    state = common.initial_state(net, dataset.train_images.shape[1:], job.seed, job.name, section.loss.init(context))
    if "init" in job.inputs:
        state = from_stage(state, read_final(job.inputs["init"].directory))
    rate = 0.0 if section.freeze_encoder else section.encoder_rate
    state, tx = common.with_optimizer(state, section, plan.total, {} if rate == 1.0 else {"encoder": rate})
    step = make_step(net, section.loss, tx, section.augment, job.seed, job.name)
    probabilities = section.sampler(dataset.observed, dataset.num_classes)
    order = common.order(job, plan.batch_size, probabilities)
    return common.Prepared(net, state, step, order, plan, common.resident(job))


def run(job: common.Job, section: SimpleNamespace) -> dict[str, Any]:
    """Trains and evaluates; returns the summary. The test set is only looked at, it selects nothing."""
    dataset, ready = job.dataset, prepare(job, section)
    net = ready.net
    predict = common.compile_predict(
        job,
        lambda variables, images: net.apply(variables, evaluate_batch(section.augment, images), train=False),
    )
    clean_counts = np.bincount(dataset.clean, minlength=dataset.num_classes)

    def on_test(state: TrainState) -> dict[str, Any]:
        logits = predict(common.variables(state), dataset.test_images)
        return evaluate.classification(logits, dataset.test_labels, clean_counts, dataset.class_names)

    report = common.once_per_step(job, on_test)

    def monitor(state: TrainState) -> dict[str, float]:
        return {f"test_{k}": report(state)[k] for k in ("accuracy", "balanced_accuracy", "nll")}

    trained = common.run_training(job, ready, monitor)
    logits = predict(common.variables(trained.device_state), dataset.train_images)
    results = {
        "test": report(trained.device_state),
        "train": evaluate.label_noise(logits, dataset.observed, dataset.clean),
    }
    return common.summarise(job, trained, ready.plan, results)


def from_stage(state: TrainState, arrays: dict[str, Any]) -> TrainState:
    """`state` with the encoder (parameters and BatchNorm statistics) of a finished stage."""
    return state.replace(
        params={**state.params, "encoder": transfer(state.params["encoder"], arrays, "state.params.encoder")},
        batch_stats={
            **state.batch_stats,
            "encoder": transfer(state.batch_stats["encoder"], arrays, "state.batch_stats.encoder"),
        },
    )
