"""Contrastive objectives: each image against the others of the batch (SimCLR) or of a queue (MoCo)."""

import jax
import jax.numpy as jnp
import numpy as np

from lt_noisy.collectives import gather, positions
from lt_noisy.errors import UserError, check_positive, check_proportion, check_sizes
from lt_noisy.method import Context, Method, State
from lt_noisy.models.heads import MLP
from lt_noisy.models.initial import MLPInit
from lt_noisy.objectives.base import Objective, Outputs, Targets, normalise, stateless


def nt_xent(first: jax.Array, second: jax.Array, temperature: float) -> jax.Array:
    """NT-Xent of each image, float32 [B_local]: the mean over its two views as anchors.

    For anchor i with positive j among the 2B normalised projections z of the global batch:
    -log( exp(z_i.z_j / T) / sum_{k != i} exp(z_i.z_k / T) )  (SimCLR, Chen et al. 2020, eq. 1). The similarities are
    one [B_local, 2B] matrix product per view; candidates of other devices are gathered.

    Args:
      first: [B_local, D], projections of one view (normalised here).
      second: of the other.
      temperature: T.
    """
    first, second = normalise(first), normalise(second)
    candidates = jnp.concatenate([gather(first), gather(second)])  # [2B, D]
    half = candidates.shape[0] // 2
    own = positions(first.shape[0])

    def anchor_loss(z: jax.Array, itself: jax.Array, positive: jax.Array) -> jax.Array:
        logits = jnp.matmul(z, candidates.T, precision="highest") / temperature
        columns = jnp.arange(2 * half, dtype=jnp.int32)
        logits = jnp.where(columns[None] == itself[:, None], -jnp.inf, logits)
        return jax.nn.logsumexp(logits, axis=-1) - jnp.take_along_axis(logits, positive[:, None], 1)[:, 0]

    return 0.5 * (anchor_loss(first, own, own + half) + anchor_loss(second, own + half, own))


def info_nce(
    queries: jax.Array, keys: jax.Array, negatives: jax.Array, present: jax.Array, temperature: float
) -> jax.Array:
    """InfoNCE against a bank of negatives (MoCo, He et al. 2020, eq. 1), float32 [B].

    -log( exp(q.k / T) / (exp(q.k / T) + sum_j exp(q.n_j / T)) ); 0 where no negative is present.

    Args:
      queries: [B, D], normalised here.
      keys: [B, D], likewise; they get no gradient.
      negatives: [K, D], normalised.
      present: bool [K], which of them count.
      temperature: T.
    """
    queries, keys = normalise(queries), jax.lax.stop_gradient(normalise(keys))
    positive = jnp.sum(queries * keys, axis=-1, keepdims=True)
    against = jnp.matmul(queries, negatives.T, precision="highest")
    logits = jnp.concatenate([positive, jnp.where(present[None], against, -jnp.inf)], axis=1) / temperature
    return jax.nn.logsumexp(logits, axis=-1) - logits[:, 0]


def simclr(temperature: float = 0.5, hidden: int = 512, size: int = 128, init: MLPInit = "lecun") -> Objective:
    """SimCLR: NT-Xent on a projector features-hidden-size, ReLU, no BatchNorm in it.

    Both views share one pass, so that synchronised BatchNorm sees the whole 2B, as in the authors' code (solo-learn's
    has a pass a view). The loss is the mean over 2B anchors, equation 1's; the authors' code adds the means of the two
    views, twice ours, and its projector has three layers, all with BatchNorm. `init`: how the projector starts (`MLP`).

    References:
      Chen et al. (2020).
    """
    check_positive(temperature=temperature)
    check_sizes(hidden=hidden, size=size)

    def loss(outputs: Outputs, _: Targets) -> jax.Array:
        first, second = outputs.projections
        return nt_xent(first, second, temperature)

    return Objective(
        method=stateless(loss, least=2),  # a batch of one image has no negative
        projector=lambda dtype, norm_axis: MLP(
            (hidden, size), norm=False, dtype=dtype, norm_axis=norm_axis, start=init
        ),
        joint=True,
    )


def moco(
    temperature: float = 0.1,
    queue: int = 4096,
    momentum: float = 0.99,
    symmetric: bool = True,
    hidden: int = 512,
    size: int = 128,
    init: MLPInit = "lecun",
) -> Objective:
    """MoCo v2: `info_nce` of queries against keys of a slow network and a queue.

    Keys come from the target network, whose parameters follow with a constant decay `momentum`; the keys of all devices
    enter the queue once a step, after the loss. Symmetric: each view is query and key, the loss is the mean over both
    directions (the authors' CIFAR demo sums them) and a step queues 2B keys; else view 0 asks and view 1 answers. Two
    deviations: the queue starts empty, not with random vectors, so the first step has no negatives and no gradient; and
    there is no shuffling of the key batch, which only BatchNorm per device needs (`batch_norm='global'` sees the whole
    batch; the paper's is per device, shuffled). The projector is features-hidden-size with a ReLU and no BatchNorm;
    hidden=0 is the linear one of the first MoCo. `init`: how it starts (`MLP`).

    References:
      He et al. (2020); Chen et al. (2020).
    """
    check_positive(temperature=temperature)
    check_proportion(momentum=momentum)
    check_sizes(queue=queue, hidden=hidden or 1, size=size)
    sizes = (hidden, size) if hidden else (size,)
    per_image = 2 if symmetric else 1

    def empty_queue(context: Context) -> State:
        keys = per_image * context.batch_size
        if keys > queue:
            raise UserError(f"moco: queue={queue} is shorter than the {keys} keys of one step")
        return {
            "keys": np.zeros((queue, size), np.float32),
            "written": np.zeros(queue, np.int32),  # the step each key is of
            "filled": np.zeros((), np.int32),
            "next": np.zeros((), np.int32),
        }

    def apply(state: State, outputs: Outputs, targets, rows, step) -> tuple[jax.Array, State]:
        present = jnp.arange(queue, dtype=jnp.int32) < state["filled"]
        # With one key view, query 0 meets key view 1; with two, each query meets the other view's key.
        pairs = zip(outputs.projections, outputs.targets[::-1], strict=True)
        losses = [info_nce(q, k, state["keys"], present, temperature) for q, k in pairs]
        keys = jnp.concatenate([gather(normalise(k)) for k in outputs.targets])
        slots = (state["next"] + jnp.arange(len(keys), dtype=jnp.int32)) % queue
        return sum(losses[1:], losses[0]) / len(losses), {
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
        method=Method(empty_queue, apply),
        projector=lambda dtype, norm_axis: MLP(sizes, norm=False, dtype=dtype, norm_axis=norm_axis, start=init),
        online=views_seen,
        target=(0, 1) if symmetric else (1,),
        decay=lambda total_steps: lambda step: momentum,
        watch=watch,
    )
