"""Stage `mixnn`: MixNN, synthetic samples with soft labels against noisy ones.

Four phases, by 1-based epoch: `warmup` - 1 epochs of cross-entropy on the observed labels without augmentation;
in-batch mixup up to `correct_from`, the last of it with soft targets; then each example is mixed with its nearest
neighbour, weighted by how clean a two-component mixture on the losses thinks they are. Soft targets start one-hot and
are drawn towards the network's own predictions. The paper's epochs are warmup 10 (CIFAR-10) or 30 (CIFAR-100) and
correct_from 60 of 300.

As the authors' program does it: every step from `warmup` on sends the un-mixed batch through the network before the
mixed one, and BatchNorm's running statistics take in both (of mixed images alone the variance would be too small for
the un-mixed ones of the test); an epoch that corrects targets uses the corrected ones at once. Ours: the
warm-up is shuffled (theirs reads the images in one order, of its un-augmented loader), and unless the section says
otherwise the learning rate follows the step (theirs: `cosine_restarts(..., by=epoch)`), and an epoch is whole
batches, the rest of a permutation is dropped (`keep_last`).

References:
  Lu & He, "Mitigating Noisy Supervision Using Synthetic Samples with Soft Labels" (2024).
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import optax

from lt_noisy import processes
from lt_noisy.config.fields import choice, plain, spec, stage_ref
from lt_noisy.data.by_class import one_hot
from lt_noisy.data.dataset import Dataset
from lt_noisy.data.feed import Cuts, More
from lt_noisy.data.images import Stored
from lt_noisy.errors import UserError, check_proportion, prefixed
from lt_noisy.estimate.clean_probability import clean_probability
from lt_noisy.estimate.neighbours import nearest_in_set
from lt_noisy.evaluation.classification import auroc_or_none, mean_or_none
from lt_noisy.losses.factory import check_memory
from lt_noisy.mixing import mixnn, mixup
from lt_noisy.mixing.mixnn import MixupLoss
from lt_noisy.models.heads import HEADS, HeadBuilder
from lt_noisy.stages import supervised, training
from lt_noisy.stages.base import ENCODERS, Followed, Job, Kind, Training, observed_labels
from lt_noisy.stages.mixnn_steps import Steps
from lt_noisy.stages.origin import origin, started, weights_read
from lt_noisy.stages.prediction import compile_predict, features_of, prepared_shape
from lt_noisy.stages.rows import Rows, decimals, label_quality_rows, percent, selection_rows, test_rows, train_rows
from lt_noisy.training import averaging
from lt_noisy.training.loop import Phase, Prepared, Refresh
from lt_noisy.training.parallel import Step
from lt_noisy.training.state import TrainState
from lt_noisy.weights.pretrained import PRETRAINED, Pretrained


@dataclasses.dataclass(frozen=True)
class Section(training.Section):
    """The fields of a `mixnn` stage: `warmup`, `correct_from`, `correct_every` and `history` are in epochs.

    They are bare numbers, unlike a length: the method counts by the epoch, and its phases begin with one.
    """

    # The stage whose encoder it starts from, or weights; of a `features` stage it takes the features for its data.
    init: str | Pretrained = stage_ref("none()", ENCODERS, optional=True, table=PRETRAINED)
    head: HeadBuilder = spec("linear()", HEADS)
    warmup: int = plain(10)  # the first epoch of mixup
    correct_from: int = plain(60)  # the last one, from which on targets may be corrected; 0 for mixup to the end
    correct_every: int = plain(10)  # they are in every epoch that is a multiple of this
    momentum: float = plain(0.9)  # of the soft targets; 1 leaves them as they are
    # The mixup phase's loss: `linear` in the probability, as released, or `ce`.
    mixup: MixupLoss = choice("linear", mixnn.MIXUP_LOSSES)
    alpha: float = plain(1.0)  # of mixup's Beta(alpha, alpha)
    neighbours: mixnn.Neighbours = spec("in_batch(k=2)", mixnn.NEIGHBOURS)
    # Decay of an average of all weights, as a `supervised` stage has it; targets follow what the last ones predict.
    ema: float = plain(0.0)
    history: int = plain(1)  # how many epochs' losses the mixture sees averaged; 5 at noise 0.8


def check(job: Job, section: Section) -> dict[str, int | str]:
    """Refuses what does not fit; returns the stage's length."""
    where = f"config.{job.name}"
    plan = training.check(job, section)
    averaging.check(section.ema, f"{where}.ema")
    epochs = -(-plan.total // plan.epoch.steps)
    last = section.correct_from if section.correct_from else epochs
    if not 1 <= section.warmup <= last <= epochs or section.correct_from == epochs:
        raise UserError(
            f"{where}: of {epochs} epochs 1 <= warmup <= correct_from < {epochs} (or correct_from=0: no neighbours, "
            f"and warmup <= {epochs}), not {section.warmup} and {section.correct_from}"
        )
    if section.correct_every < 1 or section.history < 1:
        raise UserError(f"{where}: correct_every and history are at least 1 epoch")
    with prefixed(where):
        check_proportion(momentum=section.momentum)
        mixup.mixup(section.alpha)
    floats = job.dataset.num_classes + 1 + section.history + section.neighbours.k - 1
    check_memory(where, len(job.dataset.ids), floats)
    if section.neighbours.k > plan.epoch.last:
        raise UserError(f"{where}.neighbours: k={section.neighbours.k}, a batch has {plan.epoch.last} examples")
    if plan.epoch.steps % job.steps_per_call:
        raise UserError(
            f"{where}: an epoch is {plan.epoch.steps} steps, not a multiple of "
            f"config.steps_per_call={job.steps_per_call}"
        )
    return {"steps": plan.total, **weights_read(job, section)}


def prepare(job: Job, section: Section) -> Prepared:
    """The classifier, its first state, the four phases, and the mixture at the start of each epoch."""
    plan = training.make_plan(job, section)
    epoch = plan.epoch.steps
    net = supervised.classifier(job, section.head)
    state = training.initial_state(
        net, prepared_shape(job, section.augment), job.seed, job.name, example_state(job, section)
    )
    state = started(job, origin(job, section), state)
    state, tx = training.with_optimizer(state, section, plan)
    of_phases = make_steps(job, section, net, tx, epoch)
    state, (warm_up, mixing, soft_mixing, neighbour_mixing) = averaging.averaged(state, section.ema, *of_phases)
    # {the epochs before it: its step}, so that a phase of no epoch gives way to the one after it.
    steps = {0: warm_up, section.warmup - 1: mixing}
    if section.correct_from:
        steps |= {section.correct_from - 1: soft_mixing, section.correct_from: neighbour_mixing}
    phases = [Phase(epochs * epoch, step) for epochs, step in steps.items()]
    near = Near()
    cuts = training.cuts(job, section, begin=(section.warmup - 1) * epoch)  # the warm-up augments nothing
    data, order = training.feed(
        job, training.order(job, section), plan, cuts, near_images(job, section, epoch, near, cuts)
    )
    refresh = make_refresh(job, section, net, epoch, near)
    return Prepared(net, state, tuple(phases), order, plan, data, refresh)


class Near:
    """The neighbours int32 [N, k - 1] in the whole set that the state has in this epoch, on the host.

    Streamed images of neighbours are read by them; on the devices a step takes those of the state itself.
    """

    rows: np.ndarray | None = None


def near_images(job: Job, section: Section, epoch: int, near: Near, cuts: Cuts | None) -> More | None:
    """Adds the images of neighbours in the whole set, uint8 [B, k - 1, H, W, C], to the batches that mix them.

    They are read when the step is asked for: neighbours are not known before their epoch.
    """
    if not section.neighbours.whole_set or not section.correct_from:
        return None
    images = job.dataset.train_images

    def more(step: int, batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        if step < section.correct_from * epoch or near.rows is None:
            return {}
        rows = near.rows[batch["rows"]]
        if cuts is not None and isinstance(images, Stored):
            return {"near_images": cuts._replace(purpose=f"{cuts.purpose} of neighbours").read(images, rows, step)}
        return {"near_images": images[rows.reshape(-1)].reshape(*rows.shape, *images.shape[1:])}

    return more


def example_state(job: Job, section: Section) -> dict[str, np.ndarray]:
    """What the stage remembers of each example: soft `targets` [N, C], `clean` probability [N], `losses` [history, N].

    The losses are min-max normalised epoch by epoch, so that one epoch's few large ones do not outweigh the others.

    With neighbours in the whole set their rows int32 [N, k - 1] too.
    """
    dataset = job.dataset
    size = len(dataset.ids)
    arrays = {
        "targets": one_hot(dataset.observed, dataset.num_classes),
        "clean": np.ones(size, np.float32),
        "losses": np.zeros((section.history, size), np.float32),
    }
    if section.neighbours.whole_set:
        arrays["neighbours"] = np.zeros((size, section.neighbours.k - 1), np.int32)
    return arrays


def make_steps(
    job: Job, section: Section, net: supervised.Classifier, tx: optax.GradientTransformation, epoch: int
) -> tuple[Step, Step, Step, Step]:
    """The per-device steps of warm-up, mixup, mixup with soft targets, and MixNN."""

    def due(step: jax.Array) -> jax.Array:
        current = step // epoch + 1
        return (current >= section.correct_from) & (current % section.correct_every == 0)

    mix = mixup.mixup(section.alpha)
    steps = Steps(net, tx, job.name, section.augment, mix, section.mixup, section.neighbours, section.momentum, due)
    return steps.warm_up, steps.mixing, steps.soft_mixing, steps.neighbour_mixing


def make_refresh(job: Job, section: Section, net: supervised.Classifier, epoch: int, near: Near) -> Refresh:
    """At the start of each epoch from `warmup` on: the clean probabilities, and neighbours in the whole set.

    Losses are of un-augmented images in evaluation mode, to the current hard target, argmax t_i.
    """
    predict = supervised.predict_logits(job, net, section.augment)
    features = compile_predict(job.devices, features_of(net, section.augment))
    images = job.dataset.train_images

    def refresh(step: int, state: TrainState) -> TrainState:
        current = step // epoch + 1
        if section.neighbours.whole_set and near.rows is None:  # resumed within an epoch
            near.rows = job.devices.fetch(state.method["neighbours"])
        if step % epoch or current < section.warmup:
            return state
        method, variables = job.devices.fetch(state.method), state.variables
        logits = jax.device_get(jax.nn.log_softmax(jax.device_put(predict(variables, images))))
        losses = -np.take_along_axis(logits, method["targets"].argmax(-1)[:, None], -1)[:, 0]
        span = np.ptp(losses) or 1.0
        method["losses"] = np.concatenate([method["losses"][1:], (losses - losses.min())[None] / span])
        known = min(current - section.warmup + 1, section.history)
        mean = method["losses"][-known:].mean(0)
        method["clean"] = processes.once(lambda: clean_probability(mean, job.seed)).astype(np.float32)
        if section.neighbours.whole_set and 0 < section.correct_from < current:
            method["neighbours"] = nearest_in_set(features(variables, images), section.neighbours.k - 1)
            near.rows = method["neighbours"]
        return dataclasses.replace(state, method=job.devices.replicate(method))

    return refresh


def follow(job: Job, section: Section, ready: Prepared) -> Followed:
    """Evaluates the classifier, and says what became of the labels."""
    return supervised.follow(job, section, ready, lambda state: {"correction": correction(state.method, job.dataset)})


def correction(method: dict[str, np.ndarray], dataset: Dataset) -> dict[str, Any]:
    """What the soft targets and clean probabilities are worth against the clean labels.

    Returns:
      `repaired`, the share of wrong labels whose target's largest entry is now the clean label (None without
      any wrong); `broken`, the share of right ones where it is not; `clean_auroc` of the last clean probabilities for
      right labels.
    """
    wrong, right_now = dataset.observed != dataset.clean, method["targets"].argmax(-1) == dataset.clean
    return {
        "repaired": mean_or_none(right_now[wrong]),
        "broken": mean_or_none(~right_now[~wrong]),
        "clean_auroc": auroc_or_none(~wrong, method["clean"]),
    }


def rows(summary: Mapping[str, Any]) -> Rows:
    """As of a `supervised` stage, with what became of the labels."""
    correction = summary["correction"]
    return [
        *test_rows(summary["test"]),
        *selection_rows(summary["selection"]),
        ("wrong labels repaired", percent(correction["repaired"])),
        ("right labels broken", percent(correction["broken"])),
        ("AUROC of the clean probability", decimals(correction["clean_auroc"])),
        *train_rows(summary["train"]),
        *label_quality_rows(summary["label_quality"]),
    ]


KIND = Kind(Section, Training(prepare, follow), rows, check, observed_labels, revision=2)
