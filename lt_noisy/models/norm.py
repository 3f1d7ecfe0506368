"""BatchNorm and LayerNorm, as all networks here have them."""

import flax.linen as nn
import jax
from jax.typing import DTypeLike


def batch_norm(
    x: jax.Array,
    train: bool,
    dtype: DTypeLike | None,
    axis_name: str | None,
    name: str,
    affine: bool = True,
    fast_variance: bool = True,
    epsilon: float = 1e-5,
) -> jax.Array:
    """BatchNorm over all axes but the last, within a compact method: x [..., C] -> [..., C].

    Args:
      train: use (and update) batch statistics, not running ones.
      dtype: of the result, None for that of x. Parameters, statistics and normalisation are float32.
      axis_name: the axis over which batch statistics are averaged; None: each device its own.
      name: of the layer.
      affine: with scale and offset.
      fast_variance: E[x^2] - E[x]^2, in one pass over x.
      epsilon: what is added to the variance.
    """
    layer = nn.BatchNorm(
        use_running_average=not train,
        momentum=0.9,
        epsilon=epsilon,
        use_scale=affine,
        use_bias=affine,
        use_fast_variance=fast_variance,
        dtype=dtype,
        axis_name=axis_name,
        name=name,
    )
    with jax.numpy_dtype_promotion("standard"):  # Flax normalises in float32 by implicit promotion
        return layer(x)


def layer_norm(x: jax.Array, dtype: DTypeLike, epsilon: float, name: str) -> jax.Array:
    """LayerNorm over the last axis, within a compact method: x [..., C] -> [..., C].

    Args:
      dtype: of the result. Parameters, mean, variance (in two passes) and normalisation are float32.
      epsilon: what the variance is enlarged by.
      name: of the layer.
    """
    layer = nn.LayerNorm(epsilon=epsilon, dtype=dtype, use_fast_variance=False, name=name)
    with jax.numpy_dtype_promotion("standard"):  # as in `batch_norm`
        return layer(x)
