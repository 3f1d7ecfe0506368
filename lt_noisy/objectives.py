"""Self-supervised objectives: views of each image in, one loss per image out.

A table entry is a factory that returns an `Objective`: how the views are made and which of them go through the
network and its target, the heads it needs, and the `Method` on their `Outputs`.
"""

from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from lt_noisy.augment import image_ops
from lt_noisy.augment.base import Augment, augment_batch, views
from lt_noisy.collectives import gather, global_size, positions
from lt_noisy.errors import UserError
from lt_noisy.method import Context, Method, State
from lt_noisy.models.heads import MLP

Build = Callable[..., nn.Module]  # build(dtype, norm_axis) -> module
# (augment, key, images uint8 [B, H, W, C], positions [B]) -> (views float32 [B, H, W, C], targets int32 [B] or None)
Views = Callable[[Augment, jax.Array, jax.Array, jax.Array], tuple[tuple[jax.Array, ...], jax.Array | None]]
Decay = Callable[[jax.Array], jax.Array | float]


class Outputs(NamedTuple):
    """What the networks make of the views: tuples of float32 [B, D], in the objective's order of views.

    Attributes:
      projections: of the trained network, for the views `Objective.online`.
      predictions: of its predictor on them; None without one.
      targets: projections of the target network, for the views `Objective.target`; no gradient flows into them.
    """

    projections: tuple[jax.Array, ...]
    predictions: tuple[jax.Array, ...] | None = None
    targets: tuple[jax.Array, ...] = ()


def _two_views(augment: Augment, key: jax.Array, images: jax.Array, at: jax.Array) -> tuple:
    return views(augment, key, images, at), None


def _nothing(state: State, step: int) -> dict[str, float]:
    return {}


class Objective(NamedTuple):
    """A self-supervised objective.

    Attributes:
      method: the loss on `Outputs` and the views' targets.
      projector: builds the head on the encoder's features.
      predictor: builds the head on the projection, or None.
      views: makes the views of a batch, and targets where the task has some.
      online: which views go through the network.
      joint: they go in one pass, sharing BatchNorm statistics; else one by one.
      target: which views go through the target network, one by one; empty where there is none. It trains by no
        gradient: its parameters are an exponential moving average, its BatchNorm uses batch statistics of its own.
      decay: `decay(total_steps) -> (step -> decay of that average)`.
      watch: `watch(method state on the host, step) -> figures` for the metrics file.
    """

    method: Method
    projector: Build
    predictor: Build | None = None
    views: Views = _two_views
    online: tuple[int, ...] = (0, 1)
    joint: bool = False
    target: tuple[int, ...] = ()
    decay: Callable[[int], Decay] | None = None
    watch: Callable[[State, int], dict[str, float]] = _nothing


def normalise(x: jax.Array) -> jax.Array:
    """x / ||x|| along the last axis, float32; about 0, and with gradient 0, at the zero vector."""
    # rsqrt of a clamped square has gradient 0 at the zero vector, where x / ||x|| has NaN.
    x = x.astype(jnp.float32)
    return x * jax.lax.rsqrt(jnp.maximum(jnp.sum(x * x, axis=-1, keepdims=True), 1e-12))


def nt_xent(first: jax.Array, second: jax.Array, temperature: float) -> jax.Array:
    """NT-Xent of each image, float32 [B_local]: the mean over its two views as anchors.

    For anchor i with positive j among the 2B normalised projections z of the global batch:
    -log( exp(z_i.z_j / T) / sum_{k != i} exp(z_i.z_k / T) )  (SimCLR, Chen et al. 2020, eq. 1). The similarities are
    one [B_local, 2B] matrix product per view; candidates of other devices are gathered.

    Args:
      first, second: [B_local, D], projections of the two views (normalised here).
      temperature: T.
    """
    first, second = normalise(first), normalise(second)
    candidates = jnp.concatenate([gather(first), gather(second)])  # [2B, D]
    half = candidates.shape[0] // 2
    own = positions(first.shape[0])

    def anchor_loss(z: jax.Array, itself: jax.Array, positive: jax.Array) -> jax.Array:
        logits = jnp.matmul(z, candidates.T, precision="highest") / temperature
        columns = jnp.arange(2 * half)
        logits = jnp.where(columns[None] == itself[:, None], -jnp.inf, logits)
        return jax.nn.logsumexp(logits, axis=-1) - jnp.take_along_axis(logits, positive[:, None], 1)[:, 0]

    return 0.5 * (anchor_loss(first, own, own + half) + anchor_loss(second, own + half, own))


def negative_cosine(prediction: jax.Array, target: jax.Array) -> jax.Array:
    """-cos(prediction, stop_gradient(target)) per example: [B, D], [B, D] -> float32 [B] in [-1, 1]."""
    return -jnp.sum(normalise(prediction) * jax.lax.stop_gradient(normalise(target)), axis=-1)


def info_nce(
    queries: jax.Array, keys: jax.Array, negatives: jax.Array, present: jax.Array, temperature: float
) -> jax.Array:
    """InfoNCE against a bank of negatives (MoCo, He et al. 2020, eq. 1), float32 [B].

    -log( exp(q.k / T) / (exp(q.k / T) + sum_j exp(q.n_j / T)) ); 0 where no negative is present.

    Args:
      queries, keys: [B, D], normalised here; the keys get no gradient.
      negatives: [K, D], normalised.
      present: bool [K], which of them count.
      temperature: T.
    """
    queries, keys = normalise(queries), jax.lax.stop_gradient(normalise(keys))
    positive = jnp.sum(queries * keys, axis=-1, keepdims=True)
    against = jnp.matmul(queries, negatives.T, precision="highest")
    logits = jnp.concatenate([positive, jnp.where(present[None], against, -jnp.inf)], axis=1) / temperature
    return jax.nn.logsumexp(logits, axis=-1) - logits[:, 0]


def _stateless(loss: Callable[[Outputs, jax.Array | None], jax.Array], least: int = 1) -> Method:
    def init(context: Context) -> dict:
        if context.batch_size < least:
            raise UserError(f"it takes batches of at least {least} images, not {context.batch_size}")
        return {}

    def apply(state, outputs, targets, rows, step):
        return loss(outputs, targets), state

    return Method(init, apply)


def _sizes(**sizes: int) -> None:
    for name, size in sizes.items():
        if size < 1:
            raise UserError(f"{name} is at least 1, not {size}")


def _temperature(temperature: float) -> None:
    if not temperature > 0:
        raise UserError(f"temperature is positive, not {temperature}")


def _momentum(momentum: float) -> None:
    if not 0 <= momentum <= 1:
        raise UserError(f"momentum is in [0, 1], not {momentum}")


def simclr(temperature: float = 0.5, hidden: int = 512, size: int = 128) -> Objective:
    """SimCLR (Chen et al. 2020): NT-Xent on a projector features-hidden-size, ReLU, no BatchNorm in it.

    Both views share one pass, so that synchronised BatchNorm sees the whole 2B, as in the authors' code.
    """
    _temperature(temperature)
    _sizes(hidden=hidden, size=size)
    return Objective(
        # Of a batch of one image there is no negative.
        method=_stateless(lambda outputs, _: nt_xent(*outputs.projections, temperature), least=2),
        projector=lambda dtype, norm_axis: MLP((hidden, size), norm=False, dtype=dtype, norm_axis=norm_axis),
        joint=True,
    )


def simsiam(size: int = 2048, hidden: int = 512, layers: int = 2) -> Objective:
    """SimSiam (Chen & He 2021, alg. 1): L = (D(p1, z2) + D(p2, z1)) / 2, D the negative cosine, z without gradient.

    Projector of `layers` linear layers of `size` with BatchNorm on each, the last without affine (2 layers on
    CIFAR, 3 on ImageNet); predictor size-hidden-size with BatchNorm on the hidden layer. One pass per view.
    """
    _sizes(size=size, hidden=hidden, layers=layers)

    def loss(outputs: Outputs, _) -> jax.Array:
        (z1, z2), (p1, p2) = outputs.projections, outputs.predictions
        return 0.5 * (negative_cosine(p1, z2) + negative_cosine(p2, z1))

    return Objective(
        method=_stateless(loss),
        projector=lambda dtype, norm_axis: MLP(
            (size,) * layers, norm=True, norm_last=True, dtype=dtype, norm_axis=norm_axis
        ),
        predictor=lambda dtype, norm_axis: MLP((hidden, size), norm=True, dtype=dtype, norm_axis=norm_axis),
    )


def byol(momentum: float = 0.99, hidden: int = 1024, size: int = 256) -> Objective:
    """BYOL (Grill et al. 2020, eq. 2): L = 2 - 2 cos(p1, z2') + 2 - 2 cos(p2, z1'), z' of the target network.

    The sum over both directions, as in the paper. Projector and predictor are hidden-size with BatchNorm on the hidden
    layer. The target's decay rises from `momentum` to 1: 1 - (1 - momentum) (cos(pi k / K) + 1) / 2 at step k of K.
    """
    _momentum(momentum)
    _sizes(hidden=hidden, size=size)

    def loss(outputs: Outputs, _) -> jax.Array:
        (p1, p2), (z1, z2) = outputs.predictions, outputs.targets
        return 4.0 + 2.0 * (negative_cosine(p1, z2) + negative_cosine(p2, z1))

    def decay(total_steps: int) -> Decay:
        return lambda step: 1.0 - (1.0 - momentum) * (jnp.cos(jnp.pi * step / total_steps) + 1.0) / 2.0

    head = lambda dtype, norm_axis: MLP((hidden, size), norm=True, dtype=dtype, norm_axis=norm_axis)  # noqa: E731
    return Objective(method=_stateless(loss), projector=head, predictor=head, target=(0, 1), decay=decay)


def moco(
    temperature: float = 0.1,
    queue: int = 4096,
    momentum: float = 0.99,
    symmetric: bool = True,
    hidden: int = 512,
    size: int = 128,
) -> Objective:
    """MoCo v2 (He et al. 2020; Chen et al. 2020): `info_nce` of queries against keys of a slow network and a queue.

    Keys come from the target network, whose parameters follow with a constant decay `momentum`; the keys of all devices
    enter the queue once a step, after the loss. Symmetric: each view is query and key, the loss is the mean
    over both directions (the authors' CIFAR demo sums them) and a step queues 2B keys; else view 0 asks and view
    1 answers. Two deviations: the queue starts empty, not with random vectors, so the first step has no negatives
    and no gradient; and there is no shuffling of the key batch, which only BatchNorm per device needs
    (`batch_norm='global'` sees the whole batch; the paper's is per device, shuffled). The projector is
    features-hidden-size with a ReLU and no BatchNorm; hidden=0 is the linear one of the first MoCo.
    """
    _temperature(temperature)
    _momentum(momentum)
    _sizes(queue=queue, hidden=hidden or 1, size=size)
    sizes = (hidden, size) if hidden else (size,)
    per_image = 2 if symmetric else 1

    def init(context: Context) -> State:
        keys = per_image * context.batch_size
        if keys > queue:
            raise UserError(f"moco: queue={queue} is shorter than the {keys} keys of one step")
        return {
            "keys": np.zeros((queue, size), np.float32),
            "written": np.zeros(queue, np.int32),  # the step each key is of
            "filled": np.zeros((), np.int32),
            "next": np.zeros((), np.int32),
        }

    def apply(state: State, outputs: Outputs, targets, rows, step):
        present = jnp.arange(queue) < state["filled"]
        # With one key view, query 0 meets key view 1; with two, each query meets the other view's key.
        pairs = zip(outputs.projections, outputs.targets[::-1], strict=True)
        losses = [info_nce(q, k, state["keys"], present, temperature) for q, k in pairs]
        keys = jnp.concatenate([gather(normalise(k)) for k in outputs.targets])
        slots = (state["next"] + jnp.arange(len(keys))) % queue
        return sum(losses) / len(losses), {
            "keys": state["keys"].at[slots].set(jax.lax.stop_gradient(keys)),
            "written": state["written"].at[slots].set(step),
            "filled": jnp.minimum(state["filled"] + len(keys), queue),
            "next": (state["next"] + len(keys)) % queue,
        }

    def watch(state: State, step: int) -> dict[str, float]:
        """How full the queue is, and how many steps old its keys are on average."""
        filled = int(state["filled"])
        age = float(np.mean(step - np.asarray(state["written"])[:filled])) if filled else 0.0
        return {"queue_filled": filled / queue, "queue_age": age}

    views_seen = (0, 1) if symmetric else (0,)
    return Objective(
        method=Method(init, apply),
        projector=lambda dtype, norm_axis: MLP(sizes, norm=False, dtype=dtype, norm_axis=norm_axis),
        online=views_seen,
        target=(0, 1) if symmetric else (1,),
        decay=lambda total_steps: lambda step: momentum,
        watch=watch,
    )


def rotation(every: bool = False) -> Objective:
    """Rotation prediction (Gidaris et al. 2018): cross-entropy of which of four right angles an image was turned by.

    The image is augmented, then turned. One rotation an image (as Yang & Xu 2020 pre-train): labels are a
    random permutation of 0, 1, 2, 3, 0, ... over the global batch, so that all are as frequent. `every`: all
    four of each image in one pass (as Gidaris et al. do), and the mean of the four losses. The head is linear.
    """

    def turned(augment: Augment, key: jax.Array, images: jax.Array, at: jax.Array):
        x = augment_batch(augment, jax.random.fold_in(key, 0), images, at)
        if every:
            return tuple(jax.vmap(lambda image, k=k: image_ops.rot90(image, k))(x) for k in range(4)), None
        labels = jnp.arange(global_size(len(x))) % 4
        labels = jax.random.permutation(jax.random.fold_in(key, 1), labels)[at]
        return (jax.vmap(image_ops.rot90)(x, labels),), labels

    def loss(outputs: Outputs, targets: jax.Array | None) -> jax.Array:
        per_angle = [-jax.nn.log_softmax(logits) for logits in outputs.projections]
        if every:
            return sum(losses[:, angle] for angle, losses in enumerate(per_angle)) / 4
        return jnp.take_along_axis(per_angle[0], targets[:, None], axis=1)[:, 0]

    return Objective(
        method=_stateless(loss),
        projector=lambda dtype, norm_axis: MLP((4,), norm=False, dtype=dtype, norm_axis=norm_axis),
        views=turned,
        online=(0, 1, 2, 3) if every else (0,),
        joint=True,
    )


OBJECTIVES = {"simclr": simclr, "simsiam": simsiam, "byol": byol, "moco": moco, "rotation": rotation}
