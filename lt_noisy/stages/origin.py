"""What a stage's encoder starts from: an earlier stage's, or weights that were trained elsewhere."""

import dataclasses
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np

from lt_noisy.augment.base import Augment, compose
from lt_noisy.augment.base import none as unchanged
from lt_noisy.augment.operations import colour, normalise, per_channel, resize
from lt_noisy.errors import UserError, prefixed
from lt_noisy.models.base import Encoder
from lt_noisy.stages.base import Input, Job
from lt_noisy.stages.prediction import prepared_shape
from lt_noisy.training.checkpoint import read_final
from lt_noisy.training.state import TrainState, transfer
from lt_noisy.weights.preprocessing import Preprocessing
from lt_noisy.weights.pretrained import Pretrained

PyTree = Any
Origin = Input | Pretrained


def origin(job: Job, section: Any) -> Origin | None:
    """What the section's `init` says; None for nothing."""
    return section.init if isinstance(section.init, Pretrained) else job.inputs.get("init")


def required(job: Job, section: Any) -> Origin:
    """The same of a stage that always has one."""
    start = origin(job, section)
    assert start is not None
    return start


def augmentation(start: Origin) -> Augment:
    """How images are prepared for the encoder that `start` holds: as weights ask for, or as they were in its training.

    What a `features` stage has made is taken as it is.
    """
    if isinstance(start, Pretrained):
        wanted = start.preprocessing
        channels = [colour()] if len(wanted.mean) == 3 else []  # grey images too, for a network of colours
        return compose(resize(wanted.size, wanted.interpolation), *channels, normalise(wanted.mean, wanted.std))
    return getattr(start.section, "augment", unchanged())


def encoder_variables(job: Job, start: Origin, template: PyTree) -> PyTree:
    """The encoder's parameters and statistics that `start` holds.

    Args:
      template: {"params": ..., "batch_stats": ...} of the encoder, with shapes for leaves; a group may be missing.
    """
    if not template:
        return {}
    if isinstance(start, Pretrained):
        return start.fill(cast(Encoder, job.encoder(job.dtype, job.norm_axis)), template)
    arrays = read_final(start.directory)
    return {group: transfer(tree, arrays, f"state.{group}.encoder") for group, tree in template.items()}


def encoder_shapes(job: Job, image_shape: tuple[int, ...]) -> PyTree:
    """The run's encoder, `{"params": ..., ...}` of shapes, for images of this shape."""
    encoder, image = job.encoder(job.dtype, job.norm_axis), jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    return dict(jax.eval_shape(lambda x: encoder.init(jax.random.key(0), x, train=False), image))


def started(job: Job, start: Origin | None, state: TrainState) -> TrainState:
    """`state`, or that with the encoder (parameters and BatchNorm statistics) that `start` holds."""
    if start is None:
        return state
    groups = state.variables
    # One without parameters, or without BatchNorm, starts as it is.
    template = {group: tree["encoder"] for group, tree in groups.items() if "encoder" in tree}
    found = encoder_variables(job, start, template)
    return dataclasses.replace(state, **{group: {**groups[group], "encoder": tree} for group, tree in found.items()})


def weights_read(job: Job, section: Any) -> dict[str, str]:
    """The hash of the weights that a stage starts from, for its identity; {} where it starts from none.

    Raises:
      UserError: they are of another network than `config.model`, or of images that were prepared in another way than
        the section's augmentation prepares them.
    """
    if not isinstance(section.init, Pretrained):
        return {}
    where, augment = f"config.{job.name.partition('/')[0]}", getattr(section, "augment", None)
    with prefixed(f"{where}.init"):
        content, prepared = section.init.sha256, section.init.preprocessing
        augment = augment or augmentation(section.init)
        shape = prepared_shape(job, augment)
        encoder_variables(job, section.init, encoder_shapes(job, shape))
    _check_prepared(prepared, augment, job.dataset.train_images.shape[1:], shape, f"{where}.augment")
    return {"weights": content, "prepared": prepared.describe()}


def _check_prepared(
    wanted: Preprocessing, augment: Augment, given: tuple[int, ...], shape: tuple[int, ...], where: str
) -> None:
    """Refuses an augmentation whose deterministic part is not what the weights were trained with."""
    if len(wanted.mean) == 3 and shape[-1] == 1:
        raise UserError(f"{where}: the weights of init are for colours, the images are grey; write colour() into it")
    if shape[:2] != (wanted.size, wanted.size):
        raise UserError(
            f"{where}: the weights of init are for {wanted.size} pixels, the images have {shape[0]}; begin it with "
            f"resize({wanted.size}, {wanted.interpolation}), or write size={shape[0]} into pretrained(...)"
        )
    black, white = (np.asarray(augment.evaluate(jnp.full(given, value, jnp.float32))) for value in (0.0, 1.0))
    middle = shape[0] // 2, shape[1] // 2
    mean, std = (np.array(per_channel(numbers, shape[-1])) for numbers in (wanted.mean, wanted.std))
    if not (
        np.allclose(black[middle], -mean / std, atol=1e-3) and np.allclose(white[middle], (1 - mean) / std, atol=1e-3)
    ):
        raise UserError(
            f"{where}: the weights of init were trained on pixels that were normalised otherwise; let it have "
            f"normalise({wanted.mean}, {wanted.std}) and no other"
        )
