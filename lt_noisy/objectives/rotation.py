"""Which way up an image is, as a pretext task."""

import jax
import jax.numpy as jnp

from lt_noisy.augment import image_ops
from lt_noisy.augment.base import Augment, augment_batch
from lt_noisy.collectives import global_size
from lt_noisy.models.heads import MLP
from lt_noisy.models.initial import MLPInit
from lt_noisy.objectives.base import Objective, Outputs, Targets, stateless


def rotation(every: bool = False, init: MLPInit = "lecun") -> Objective:
    """Rotation prediction: cross-entropy of which of four right angles an image was turned by.

    The image is augmented, then turned. One rotation an image (as Yang & Xu 2020 pre-train): labels are a random
    permutation of 0, 1, 2, 3, 0, ... over the global batch, so that all are as frequent; where four does not divide
    the batch, the first of them is drawn. `every`: all four of each image in one pass (as Gidaris
    et al. do), and the mean of the four losses. The head is linear and starts as `init` says (`models.initial`): Yang &
    Xu's weights as "kaiming", where "lecun" has 0.7 times the scale.

    References:
      Gidaris et al. (2018); Yang & Xu, "Rethinking the Value of Labels" (2020).
    """

    def turned(
        augment: Augment, key: jax.Array, images: jax.Array, positions: jax.Array
    ) -> tuple[tuple[jax.Array, ...], Targets]:
        x = augment_batch(augment, jax.random.fold_in(key, 0), images, positions)
        if every:
            return tuple(jax.vmap(lambda image, k=k: image_ops.rot90(image, k))(x) for k in range(4)), None
        labels = jnp.arange(global_size(len(x)))
        if len(labels) % 4:
            labels += jax.random.randint(jax.random.fold_in(key, 2), (), 0, 4)
        labels %= 4
        labels = jax.random.permutation(jax.random.fold_in(key, 1), labels)[positions]
        return (jax.vmap(image_ops.rot90)(x, labels),), labels

    def loss(outputs: Outputs, labels: Targets) -> jax.Array:
        per_view = [-jax.nn.log_softmax(logits) for logits in outputs.projections]
        if not every:
            return jnp.take_along_axis(per_view[0], labels[:, None], axis=1)[:, 0]
        losses = [by_angle[:, angle] for angle, by_angle in enumerate(per_view)]
        return sum(losses[1:], losses[0]) / 4

    return Objective(
        method=stateless(loss),
        projector=lambda dtype, norm_axis: MLP((4,), norm=False, dtype=dtype, norm_axis=norm_axis, start=init),
        views=turned,
        draws=1,
        online=(0, 1, 2, 3) if every else (0,),
        joint=True,
    )
