"""What stands on an encoder's features: classifiers (`HEADS`), and the `MLP` of self-supervised methods."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from lt_noisy.config.spec import table
from lt_noisy.errors import check_positive
from lt_noisy.models.initial import Init, MLPInit, bias_init, kernel_init
from lt_noisy.models.norm import batch_norm
from lt_noisy.precision import float_dtype, to_float

HeadBuilder = Callable[[int], nn.Module]  # build(num_classes) -> classifier, called as classifier(features)


class Linear(nn.Module):
    """features [B, D] -> logits float32 [B, num_classes]; `start` as `init` in `linear`."""

    num_classes: int
    start: Init = "kaiming"

    @nn.compact
    def __call__(self, features: jax.Array) -> jax.Array:
        return nn.Dense(
            self.num_classes,
            kernel_init=kernel_init(self.start),
            bias_init=bias_init(self.start, features.shape[-1]),
            name="dense",
        )(to_float(features))


def _unit_norm(x: jax.Array, axis: int) -> jax.Array:
    """x / max(||x||, 1e-12) along `axis`, finite in value and gradient at 0."""
    return x * jax.lax.rsqrt(jnp.maximum((x * x).sum(axis, keepdims=True), 1e-24))


def _unit_columns(key: jax.Array, shape: tuple[int, int], dtype: DTypeLike = jnp.float32) -> jax.Array:
    return _unit_norm(jax.random.normal(key, shape, dtype), axis=0)


class Cosine(nn.Module):
    """features [B, D] -> logits float32 [B, num_classes]: `scale` times the cosine to each class's weights.

    No bias. The weights start with norm 1, directions uniform, and are normalised in every forward pass
    (the classifier of LDAM, Cao et al. 2019, which keeps the scale in its loss).
    """

    num_classes: int
    scale: float

    @nn.compact
    def __call__(self, features: jax.Array) -> jax.Array:
        features = to_float(features)
        kernel = self.param("kernel", _unit_columns, (features.shape[-1], self.num_classes))
        return self.scale * (_unit_norm(features, axis=-1) @ _unit_norm(kernel, axis=0))


def linear(init: Init = "kaiming") -> HeadBuilder:
    """The usual linear classifier.

    `kaiming`: weights N(0, 2 / D), bias 0, D the features; the LDAM code and what builds on it has these weights, and
    the bias of `torch`. `torch`: both U(-1 / sqrt(D), 1 / sqrt(D)), as `torch.nn.Linear` starts in the programs of ELR,
    MixNN, SELC and GCE.
    """
    return lambda num_classes: Linear(num_classes, init)


def cosine(scale: float = 30.0) -> HeadBuilder:
    """A cosine classifier without bias: logits lie in [-scale, scale]. A loss on it must not scale again."""
    check_positive(scale=scale)
    return lambda num_classes: Cosine(num_classes, scale)


HEADS = table({"linear": linear, "cosine": cosine})


class MLP(nn.Module):
    """Projector or predictor: x [B, D] -> float32 [B, sizes[-1]]; ReLU between layers, none after the last.

    A layer that BatchNorm follows has no bias. BatchNorm after the last layer has neither scale nor offset.
    Published uses, for 512 features:

    * SimCLR's projector 512-512-128: `sizes=(512, 128)`, no norms in the paper's formula (Chen et al. 2020,
      equation 2). Its released code is another network: three layers, BatchNorm on each, the last without offset.
    * SimSiam's projector on CIFAR 512-2048-2048: `sizes=(2048, 2048), norm=True, norm_last=True`.
    * SimSiam's predictor 2048-512-2048: `sizes=(512, 2048), norm=True`.

    Attributes:
      sizes: outputs of each layer.
      norm: BatchNorm after every layer but the last.
      dtype: of the computation. Parameters, BatchNorm statistics, normalisation and the result are float32.
      norm_axis: the axis over which BatchNorm's batch statistics are averaged; None: each device its own.
      norm_last: BatchNorm after the last layer.
      start: how the layers start (`initial`). PyTorch programs have "torch", whose weights are 1.7 times smaller than
        those of "lecun", what Flax and we take if nothing is said.
    """

    sizes: tuple[int, ...]
    norm: bool
    dtype: DTypeLike
    norm_axis: str | None
    norm_last: bool = False
    start: MLPInit = "lecun"

    @nn.compact
    def __call__(self, x: jax.Array, train: bool, layers: int = 0) -> jax.Array:
        """`train`: use (and update) batch statistics, not running ones; `layers`: stop after so many, 0 for all."""
        for i, size in enumerate(self.sizes[: layers or None]):
            last = i == len(self.sizes) - 1
            normed = self.norm_last if last else self.norm
            x = nn.Dense(
                size,
                use_bias=not normed,
                dtype=self.dtype,
                kernel_init=kernel_init(self.start),
                bias_init=bias_init(self.start, x.shape[-1]),
                name=f"dense{i + 1}",
            )(x)
            if normed:
                dtype = float_dtype() if last else self.dtype
                # E[x^2] - E[x]^2 loses digits on pooled features, whose mean is far above their spread: 2e-5 in
                # SimSiam's gradient between 1 and 4 devices. Two passes over [B, D] cost nothing here.
                x = batch_norm(x, train, dtype, self.norm_axis, f"norm{i + 1}", affine=not last, fast_variance=False)
            if not last:
                x = nn.relu(x)
        return to_float(x)
