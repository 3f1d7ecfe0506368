"""Stage `supervised`: a classifier on the observed labels, from scratch or from an earlier stage's encoder."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Literal, cast, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from lt_noisy import processes, rng
from lt_noisy.augment.base import Augment, augment_batch, evaluate_batch
from lt_noisy.collectives import AXIS, positions
from lt_noisy.config.fields import choice, plain, spec, stage_ref
from lt_noisy.data.batches import Batches, Epoch, fetch
from lt_noisy.data.dataset import DATA, Part
from lt_noisy.data.feed import fed
from lt_noisy.data.images import Images
from lt_noisy.data.sources.base import Load
from lt_noisy.errors import UserError, prefixed
from lt_noisy.evaluation import selection
from lt_noisy.evaluation.classification import classification, label_noise
from lt_noisy.losses.factory import first_step
from lt_noisy.losses.table import LOSSES
from lt_noisy.method import Context, Method
from lt_noisy.mixing.mixup import MIXES, Mix
from lt_noisy.models.heads import HEADS, Cosine, HeadBuilder
from lt_noisy.precision import to_float
from lt_noisy.rebalance.sampling import SAMPLERS, WEIGHTINGS, Over, Sampler, Weighting
from lt_noisy.stages import rates, training, transition, unlabelled
from lt_noisy.stages.base import ENCODERS, Followed, Input, Job, Kind, Training, observed_labels
from lt_noisy.stages.origin import origin, started, weights_read
from lt_noisy.stages.prediction import Predict, compile_predict, once_per_step, part_variables, prepared_shape
from lt_noisy.stages.quality import write_quality
from lt_noisy.stages.reference import write_reference
from lt_noisy.stages.rows import Rows, label_quality_rows, selection_rows, test_rows, train_rows
from lt_noisy.training import averaging
from lt_noisy.training.best import EARLY_STOPPING
from lt_noisy.training.loop import Phase, Prepared, Trained
from lt_noisy.training.optim import descend
from lt_noisy.training.parallel import Step
from lt_noisy.training.state import PyTree, TrainState
from lt_noisy.weights.pretrained import PRETRAINED, Pretrained

FrozenNorm = Literal["running", "batch"]


@dataclasses.dataclass(frozen=True)
class Learning(training.Section):
    """The fields of the training of a classifier on observed labels.

    `frozen_norm`: what a frozen encoder's BatchNorm normalises by in training (see `Classifier`).
    """

    # The stage whose encoder it starts from, or weights; of a `features` stage it takes the features for its data.
    init: str | Pretrained = stage_ref("none()", ENCODERS, optional=True, table=PRETRAINED)
    data: Part | Load = spec("manifest()", DATA)
    freeze_encoder: bool = plain(False)  # trains the head alone
    frozen_norm: FrozenNorm = choice("running", get_args(FrozenNorm))
    encoder_rate: float = plain(1.0)  # learning rate of the encoder relative to the head's
    # Of each block of the encoder relative to what follows it, the last being at `encoder_rate`: BEiT's decay by layer.
    layer_decay: float = plain(1.0)
    # Of the encoder's blocks so many, the last ones and what follows them, are trained; 0: all. The parameters of the
    # others stay; their BatchNorm statistics follow the batches.
    last_blocks: int = plain(0)
    head: HeadBuilder = spec("linear()", HEADS)
    loss: Method = spec("cross_entropy()", LOSSES)
    mix: Mix | None = spec("none()", MIXES)
    sampler: Sampler = spec("uniform()", SAMPLERS)
    reweight: Weighting = spec("none()", WEIGHTINGS)
    # Decay by step of an exponential moving average of all weights, such as 0.999, which is evaluated and handed on in
    # place of the last ones (these stay in the checkpoint); 0: none. It warms up: min(ema, (1 + step) / (10 + step)).
    ema: float = plain(0.0)

    def normalises(self, job: Job) -> str:
        """Not the model where it is frozen and runs as in evaluation."""
        as_in_evaluation = self.freeze_encoder and self.frozen_norm == "running"
        return "" if as_in_evaluation else super().normalises(job)


@dataclasses.dataclass(frozen=True)
class Section(Learning):
    """The fields of a `supervised` stage."""

    pseudo: str = stage_ref("none()", ("pseudo_label",), optional=True)  # the stage whose images join
    transition: str = stage_ref("none()", ("transition",), optional=True)  # for losses that ask for one
    early_stopping: int = spec("none()", EARLY_STOPPING)  # on noisy validation


class Classifier(nn.Module):
    """Encoder and head: images [B, H, W, C] -> logits float32 [B, classes].

    Attributes:
      freeze_encoder: no gradient reaches the encoder.
      frozen_norm: how a frozen one runs in training. `running` (ours): as in evaluation; its features are the finished
        ones, and its statistics stay. `batch`: as in training, by the batch's statistics, and the running ones drift to
        the batches' (under `class_balanced()` to a balanced set's); so it is in the programs of cRT and LWS (Kang et
        al. 2020), which leave the whole network in PyTorch's training mode.
    """

    encoder: nn.Module
    head: nn.Module
    freeze_encoder: bool = False
    frozen_norm: FrozenNorm = "running"

    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Logits of a batch."""
        as_in_training = train and (not self.freeze_encoder or self.frozen_norm == "batch")
        features = self.encoder(x, train=as_in_training)
        return self.head(jax.lax.stop_gradient(features) if self.freeze_encoder else features)

    def features_and_logits(self, x: jax.Array, train: bool) -> tuple[jax.Array, jax.Array]:
        """The encoder's features [B, D] and the logits."""
        features = self.encoder(x, train=train)
        return features, self.head(features)


def make_step(
    net: Classifier,
    loss: Method,
    tx: optax.GradientTransformation,
    augment: Augment,
    name: str,
    mix: Mix | None = None,
    over: Over = "weights",
) -> Step:
    """The per-device step `(state, data, batch) -> (state, sums)` of supervised training.

    Args:
      net: the classifier.
      loss: applied to (logits, targets, rows).
      name: of the stage; names its random streams.
      mix: of the augmented batch (`mixup.MIXES`); `accuracy` is then that for the heavier label.
      over: what the weighted sum of a batch is divided by (`Weighting.over`).
    """

    def step(state: TrainState, data: Any, batch: Any) -> tuple[TrainState, dict]:
        rows, weights = batch["rows"], batch["weights"]
        images, targets = fetch(data, batch)
        key = rng.stream(state.seed, f"{name}/augment", state.step)
        x = augment_batch(augment, key, images, positions(len(rows)))
        if mix is not None:
            if targets.ndim == 1:
                targets = jax.nn.one_hot(targets, net.head.num_classes)
            x, targets, weights = mix(rng.stream(state.seed, f"{name}/mix", state.step), x, targets, weights)
        labels = targets if targets.ndim == 1 else targets.argmax(-1)
        scale = to_float(1)
        if over == "batch":  # the mean that follows divides by the sum of the weights
            total, count = jax.lax.psum((weights.sum(), to_float(weights > 0).sum()), AXIS)
            scale = total / count

        def losses(params, batch_stats):
            variables = {"params": params, "batch_stats": batch_stats}
            logits, changed = net.apply(variables, x, train=True, mutable=["batch_stats"])
            per_example, method = loss.apply(state.method, logits, targets, rows, state.step)
            right = to_float(jnp.argmax(logits, axis=-1).astype(labels.dtype) == labels)
            sums = {"accuracy": jax.lax.psum(((weights * right).sum(), weights.sum()), AXIS)}
            return scale * per_example, (changed.get("batch_stats", {}), method, sums)

        return descend(state, tx, losses, weights)

    return step


def check(job: Job, section: Learning) -> dict[str, Any]:
    """Refuses what does not fit the data; returns the stage's length, and the hash of a file that its loss reads."""
    where = f"config.{job.name}"
    rates.check(job, section)
    averaging.check(section.ema, f"{where}.ema")
    if section.frozen_norm == "batch" and not section.freeze_encoder:
        raise UserError(f"{where}.frozen_norm: it is of a frozen encoder; set freeze_encoder=True, or 'running'")
    if section.loss.memory and section.mix is not None:
        raise UserError(
            f"{where}.mix: this loss remembers each example, so that mixed ones make no sense; set 'none()'"
        )
    head = section.head(job.dataset.num_classes)
    if (scale := section.loss.cosines) and not (isinstance(head, Cosine) and head.scale == scale):
        raise UserError(f"{where}.head: this loss takes cosines times {scale:g}; set 'cosine(scale={scale:g})'")
    if section.loss.weighs and len({*section.reweight.weights(np.arange(1, 3))}) > 1:
        raise UserError(f"{where}.reweight: this loss weighs the classes itself; set 'none()'")
    if "transition" in job.inputs and not section.loss.transition:
        raise UserError(f"{where}.transition: only forward() and prior=corrected read it; set 'none()'")
    if job.inputs.keys() >= {"pseudo", "transition"}:
        raise UserError(
            f"{where}: a transition stage knows nothing of pseudo-labels; set pseudo or transition to 'none()'"
        )
    if section.data is not Part.MANIFEST and job.inputs.keys() & {"pseudo", "transition"}:
        raise UserError(f"{where}.data: pseudo-labels and transition matrices are of the manifest; set 'manifest()'")
    more = unlabelled.size(job, job.inputs["pseudo"]) if "pseudo" in job.inputs else 0
    if more and section.augment.cut is not None and not unlabelled.has_pictures(job, job.inputs["pseudo"]):
        raise UserError(
            f"{where}.augment: there are no whole pictures to cut in the pool; use resized_crop() or crop()"
        )
    plan = training.check(job, section, more)
    if plan.patience and job.dataset.validation is None:
        raise UserError(f"{where}.early_stopping: nothing is held out; set --config.validation=0.1, say, or 'none()'")
    counts = np.bincount(job.dataset.observed, minlength=job.dataset.num_classes)
    context = Context(len(counts), len(job.dataset.ids) + more, plan.batch_size, counts, plan.total)
    if "transition" in job.inputs:  # its figures are not there yet: any of their shape will do
        matrix = np.full((len(counts), len(counts)), 1 / len(counts))
        context = context._replace(transition=matrix, clean_counts=counts)
    with prefixed(f"{where}.loss"):
        jax.eval_shape(lambda: section.loss.init(context))
    read = {"loss_file": section.loss.content} if section.loss.content else {}
    stops = {"evaluated_every": plan.eval_every} if plan.patience else {}  # in steps: it decides when the stage ends
    return {"steps": plan.total, **stops, **read, **weights_read(job, section)}


def prepare(job: Job, section: Learning) -> Prepared:
    """Builds the classifier, its first state (from the `init` stage's encoder, where there is one) and its step."""
    dataset, train = job.dataset, unlabelled.examples(job)
    plan = training.make_plan(job, section, len(train.kept) - len(dataset.ids))
    plan = plan._replace(epoch=kept_epoch(job, section, train))
    counts = train.counts(dataset.num_classes)
    context = Context(dataset.num_classes, len(train.kept), plan.batch_size, counts, plan.total)
    if "transition" in job.inputs:
        matrix, clean_counts = transition.read(job.inputs["transition"].directory)
        context = context._replace(transition=matrix, clean_counts=clean_counts)
    net = classifier(job, section.head, section.freeze_encoder, section.frozen_norm)
    shape = prepared_shape(job, section.augment)
    state = training.initial_state(net, shape, job.seed, job.name, section.loss.init(context))
    state = started(job, origin(job, section), state)
    state, tx = training.with_optimizer(state, section, plan, rates.of_layers(section, state.params.get("encoder", {})))
    step = make_step(net, section.loss, tx, section.augment, job.name, section.mix, section.reweight.over)
    state, steps = averaging.averaged(state, section.ema, step)
    order = balanced_order(job, section, train, context)
    data, order = fed(train.images, train.targets, order, plan.total, job.workers, training.cuts(job, section))
    return Prepared(net, state, tuple(Phase(0, step) for step in steps), order, plan, data)


def classifier(
    job: Job, head: HeadBuilder, freeze_encoder: bool = False, frozen_norm: FrozenNorm = "running"
) -> Classifier:
    """The run's encoder with a head on it."""
    encoder = job.encoder(job.dtype, job.norm_axis)
    return Classifier(encoder, head(job.dataset.num_classes), freeze_encoder, frozen_norm)


def kept_epoch(job: Job, section: Learning, train: unlabelled.Examples) -> Epoch:
    """How an epoch of the kept examples is cut; refuses a batch that they do not fill."""
    kept = int(train.kept.sum())
    if section.batch_size > kept:
        raise UserError(
            f"config.{job.name}.batch_size: {section.batch_size} is more than the {kept} images that were kept"
        )
    return training.check_epoch(job, section, kept)


def balanced_order(job: Job, section: Learning, train: unlabelled.Examples, context: Context) -> Batches:
    """The stage's batches of kept examples, drawn by its sampler and weighted by its weighting, each from its start on.

    The stage's length counts all examples, kept or not: it has to be known before any stage runs.
    """
    rows_kept = np.flatnonzero(train.kept)
    class_weights = section.reweight.weights(context.counts)
    example_weights = class_weights[train.targets] if train.targets.ndim == 1 else train.targets @ class_weights
    probabilities = section.sampler.probabilities(train.labels[rows_kept], context.num_classes)
    permuted = training.order(job, section, None, len(rows_kept))
    sampled = training.order(job, section, probabilities, len(rows_kept))
    first_sampled, first_weighted = (first_step(part.start, context) for part in (section.sampler, section.reweight))

    def balanced(step: int) -> dict[str, np.ndarray]:
        batch = sampled(step) if step >= first_sampled else permuted(step)
        rows = rows_kept[batch["rows"]].astype(np.int32)
        weights = example_weights[rows].astype(np.float32) if step >= first_weighted else batch["weights"]
        return {"rows": rows, "weights": weights}

    return balanced


def predict_logits(job: Job, net: nn.Module, augment: Augment) -> Predict:
    """Compiles `predict(variables, images uint8 [N, ...]) -> logits float32 [N, C]`, in evaluation mode."""

    def logits(variables: PyTree, images: jax.Array) -> jax.Array:
        # A pair only with `mutable`.
        return cast(jax.Array, net.apply(variables, evaluate_batch(augment, images), train=False))

    return compile_predict(job.devices, logits)


def load(job: Job, stage: Input) -> Callable[[Images], np.ndarray]:
    """A finished stage's classifier: `predict(images uint8 [N, ...]) -> logits float32 [N, C]`."""
    net = classifier(job, stage.section.head)
    augment = stage.section.augment
    weights = job.devices.replicate(part_variables(job, net, stage.directory, augment, ("encoder", "head")))
    predict = predict_logits(job, net, augment)
    return lambda images: predict(weights, images)


def follow(
    job: Job,
    section: training.Section,
    ready: Prepared,
    more: Callable[[TrainState], dict[str, Any]] = lambda state: {},
) -> Followed:
    """Evaluates a classifier: test and validation figures, label quality. The test set selects nothing.

    Writes `label_quality.npz` (see `label_quality.quality`) and `reference.npz` (see `reference.write_reference`).

    Args:
      more: what else the summary says of the final state, on the host.
    """
    dataset, predict = job.dataset, predict_logits(job, ready.net, section.augment)
    clean_counts = np.bincount(dataset.clean, minlength=dataset.num_classes)

    def on_test(state: TrainState) -> dict[str, Any]:
        logits = predict(state.evaluated, dataset.test_images)
        return classification(logits, dataset.test_labels, clean_counts, dataset.class_names)

    report = once_per_step(job, on_test)

    def monitor(state: TrainState) -> dict[str, float]:
        figures = {f"test_{k}": report(state)[k] for k in ("accuracy", "balanced_accuracy", "nll")}
        if dataset.validation is None:
            return figures
        logits = predict(state.evaluated, dataset.validation.images)
        accuracy = selection.balanced_accuracy(logits, dataset.validation.observed)
        return {**figures, "validation_balanced_accuracy": accuracy}

    def finish(trained: Trained) -> dict[str, Any]:
        write_reference(job, ready.net, section.augment, trained.device_state.evaluated)
        logits = predict(trained.device_state.evaluated, dataset.train_images)
        results = {
            "test": report(trained.device_state),
            "selection": processes.once(lambda: selection.selected(job.directory / "metrics.jsonl")),
            "train": label_noise(logits, dataset.observed, dataset.clean),
            "label_quality": write_quality(job, logits),
            **more(trained.state),
        }
        return training.summarise(job, trained, ready.plan, results)

    return Followed(monitor, finish)


def rows(summary: Mapping[str, Any]) -> Rows:
    """Accuracy along the long tail, other choices of the step, and what became of the wrong labels."""
    return [
        *test_rows(summary["test"]),
        *selection_rows(summary["selection"]),
        *train_rows(summary["train"]),
        *label_quality_rows(summary["label_quality"]),
    ]


KIND = Kind(Section, Training(prepare, follow), rows, check, observed_labels)
