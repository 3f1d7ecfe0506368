"""Encoders of vectors [B, D], such as the features of a network that was trained elsewhere."""

import flax.linen as nn
import jax
from jax.typing import DTypeLike

from lt_noisy.errors import UserError
from lt_noisy.models.base import Encoder, EncoderBuilder
from lt_noisy.models.initial import kernel_init
from lt_noisy.models.norm import batch_norm
from lt_noisy.precision import to_float


class Identity(Encoder):
    """Vectors [B, D] -> the same, float32. It has no parameters."""

    takes = "vectors"

    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """x [B, D] -> float32 [B, D]; `train` changes nothing."""
        return to_float(x)


class Layers(Encoder):
    """Vectors [B, D] -> float32 [B, hidden]: `layers` times a linear layer, BatchNorm and ReLU.

    Attributes:
      dtype: of the computation. Parameters, BatchNorm statistics, normalisation and the result are float32.
      norm_axis: the axis over which BatchNorm's batch statistics are averaged; None: each device its own.
    """

    hidden: int
    layers: int
    dtype: DTypeLike
    norm_axis: str | None

    takes = "vectors"

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """x [B, D] -> float32 [B, hidden]. `train`: use (and update) batch statistics, not running ones."""
        for i in range(1, self.layers + 1):
            dense = nn.Dense(
                self.hidden, use_bias=False, dtype=self.dtype, kernel_init=kernel_init("kaiming"), name=f"dense{i}"
            )
            # Two passes for the variance, as in `heads.MLP`: features may lie far from 0.
            x = nn.relu(batch_norm(dense(x), train, self.dtype, self.norm_axis, name=f"norm{i}", fast_variance=False))
        return to_float(x)


def identity() -> EncoderBuilder:
    """Vectors as they are: the head alone learns. For data sets of features, not for images."""
    return lambda dtype, norm_axis: Identity()


def mlp(hidden: int = 512, layers: int = 1) -> EncoderBuilder:
    """Linear layer, BatchNorm and ReLU, `layers` times: `hidden` features of vectors, not of images.

    BatchNorm, as in every other network here, and not LayerNorm: it brings each unit to one scale whatever that of the
    vectors is, which nobody has normalised, and `config.batch_norm` and `frozen_norm` then mean what they do elsewhere.
    Images are refused: of flattened pixels nothing good is learnt, and a ResNet takes them.

    Args:
      hidden: units of each layer, at least 1.
      layers: at least 1; `identity()` is none.
    """
    if hidden < 1 or layers < 1:
        raise UserError(f"hidden={hidden} and layers={layers} must be 1 or more")
    return lambda dtype, norm_axis: Layers(hidden, layers, dtype, norm_axis)
