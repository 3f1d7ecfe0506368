"""Residual encoders: image batches [B, H, W, C] to features float32 [B, D]. No classifier (see `heads`).

Two families. `resnet18`, `resnet34`, `resnet50` and `resnet101` are torchvision's (He et al. 2016): four groups of
basic blocks, or of bottlenecks with the stride in the 3x3 convolution, 1x1 convolutions with BatchNorm where a shortcut
changes shape, Kaiming-normal fan-out initialisation as in torchvision.
`resnet8` to `resnet56` are the CIFAR networks of the same paper: three groups, parameter-free shortcuts (its option A),
Kaiming-normal fan-in, `kaiming_normal_` as the LDAM code calls it. With `init=torch` every layer starts as PyTorch
starts it: so do the ResNet-18 and ResNet-34 in the programs of Liu et al. (2022, rwSAM), ELR, MixNN, SELC and GCE,
which write their own network without an initialisation. Against it `kaiming` has standard deviations 2.4 times larger
in convolutions that keep their channels and 0.53 times in the CIFAR stem.

Against PyTorch: padding is explicit and symmetric as there (Flax's "SAME" pads an even image at stride 2 on
one side only); BatchNorm's running variance is the biased one (there: unbiased); its momentum of 0.9 is
called 0.1 there.
"""

from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike

from lt_noisy.errors import UserError
from lt_noisy.models.base import Encoder, EncoderBuilder
from lt_noisy.models.convolution import convolution
from lt_noisy.models.initial import Init, kernel_init
from lt_noisy.models.norm import batch_norm
from lt_noisy.precision import to_float

Stem = Literal["cifar", "imagenet"]


def _pad_shortcut(x: jax.Array, channels: int, stride: int) -> jax.Array:
    """Option A: every `stride`-th pixel; new channels of 0, half before and half after the old ones."""
    half = (channels - x.shape[-1]) // 2
    # As an index it would be a gather where the size of the batch is a symbol.
    fewer = lax.slice(x, (0, 0, 0, 0), x.shape, (1, stride, stride, 1))
    return jnp.pad(fewer, ((0, 0), (0, 0), (0, 0), (half, half)))


class ResNet(Encoder):
    """A residual network of basic blocks or bottlenecks.

    Attributes:
      blocks: blocks in each group; every group but the first halves the image and doubles the channels.
      width: channels of the first group.
      stem: "cifar" (3x3, stride 1, no pooling) or "imagenet" (7x7, stride 2, then 3x3 max-pool, stride 2).
      projection: whether shortcuts that change shape are 1x1 convolutions; otherwise they are option A.
      dtype: of the computation. Parameters, BatchNorm statistics, normalisation and features are float32.
      norm_axis: the axis over which BatchNorm's batch statistics are averaged; None: each device its own.
      start: how convolutions start (`initial`); "kaiming" has fan_out with `projection`, else fan_in.
      bottleneck: blocks of 1x1, 3x3 and 1x1 convolutions, the last with four times the channels; else of two 3x3.
    """

    blocks: tuple[int, ...]
    width: int
    stem: Stem
    projection: bool
    dtype: DTypeLike
    norm_axis: str | None
    start: Init = "kaiming"  # (`init` is a method of every module)
    bottleneck: bool = False

    takes = "images"

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """x [B, H, W, C] -> float32 [B, D]. `train`: use (and update) batch statistics, not running ones."""
        initialiser = kernel_init(self.start, "fan_out" if self.projection else "fan_in")

        def conv(x: jax.Array, channels: int, size: int, stride: int, name: str) -> jax.Array:
            return nn.Conv(
                channels,
                (size, size),
                strides=stride,
                padding=size // 2,
                use_bias=False,
                kernel_init=initialiser,
                dtype=self.dtype,
                conv_general_dilated=convolution,
                name=name,
            )(x)

        def norm(x: jax.Array, name: str) -> jax.Array:
            return batch_norm(x, train, self.dtype, self.norm_axis, name)

        def shortcut(x: jax.Array, channels: int, stride: int, name: str) -> jax.Array:
            if stride == 1 and x.shape[-1] == channels:
                return x
            if not self.projection:
                return _pad_shortcut(x, channels, stride)
            return norm(conv(x, channels, 1, stride, f"{name}_shortcut_conv"), f"{name}_shortcut_norm")

        def block(x: jax.Array, channels: int, stride: int, name: str) -> jax.Array:
            # (kernel size, stride, channels) of each convolution
            layers = [(3, stride, channels), (3, 1, channels)]
            if self.bottleneck:
                layers = [(1, 1, channels), (3, stride, channels), (1, 1, 4 * channels)]
            y = x
            for at, (size, step, width) in enumerate(layers, 1):
                y = norm(conv(y, width, size, step, f"{name}_conv{at}"), f"{name}_norm{at}")
                y = nn.relu(y) if at < len(layers) else y
            return nn.relu(y + shortcut(x, y.shape[-1], stride, name))

        size, stride = (7, 2) if self.stem == "imagenet" else (3, 1)
        x = conv(x.astype(self.dtype), self.width, size, stride, "stem_conv")
        x = nn.relu(norm(x, "stem_norm"))
        if self.stem == "imagenet":
            x = nn.max_pool(x, (3, 3), (2, 2), padding=((1, 1), (1, 1)))  # pyright: ignore[reportArgumentType] (Flax: str)
        for group, count in enumerate(self.blocks):
            for i in range(count):
                stride = 2 if group > 0 and i == 0 else 1
                x = block(x, self.width * 2**group, stride, f"group{group + 1}_block{i + 1}")
        return to_float(x).mean(axis=(1, 2))


def _projecting(
    blocks: tuple[int, ...], stem: Stem, width: int, init: Init, bottleneck: bool = False
) -> EncoderBuilder:
    if width < 1:
        raise UserError(f"width={width} must be 1 or more channels")
    return lambda dtype, norm_axis: ResNet(blocks, width, stem, True, dtype, norm_axis, init, bottleneck)


def _padding(blocks_per_group: int, width: int, init: Init) -> EncoderBuilder:
    if width < 2 or width % 2:
        raise UserError(f"width={width} must be an even number of channels: shortcuts pad half on each side")
    return lambda dtype, norm_axis: ResNet((blocks_per_group,) * 3, width, "cifar", False, dtype, norm_axis, init)


def resnet18(stem: Stem = "cifar", width: int = 64, init: Init = "kaiming") -> EncoderBuilder:
    """ResNet-18, 512 features at width 64; stem "cifar" is for 32-pixel images, "imagenet" for 224; init: `initial`."""
    return _projecting((2, 2, 2, 2), stem, width, init)


def resnet34(stem: Stem = "cifar", width: int = 64, init: Init = "kaiming") -> EncoderBuilder:
    """ResNet-34, 512 features at width 64; stems and init as in `resnet18`."""
    return _projecting((3, 4, 6, 3), stem, width, init)


def resnet50(stem: Stem = "imagenet", width: int = 64, init: Init = "kaiming") -> EncoderBuilder:
    """ResNet-50, 2,048 features at width 64, bottlenecks with the stride in the 3x3; stem and init as in `resnet18`."""
    return _projecting((3, 4, 6, 3), stem, width, init, bottleneck=True)


def resnet101(stem: Stem = "imagenet", width: int = 64, init: Init = "kaiming") -> EncoderBuilder:
    """ResNet-101, 2,048 features at width 64, as `resnet50`."""
    return _projecting((3, 4, 23, 3), stem, width, init, bottleneck=True)


def resnet8(width: int = 16, init: Init = "kaiming") -> EncoderBuilder:
    """CIFAR ResNet-8, 64 features at width 16: for tiny images, such as 8x8 digits."""
    return _padding(1, width, init)


def resnet20(width: int = 16, init: Init = "kaiming") -> EncoderBuilder:
    """CIFAR ResNet-20, 64 features at width 16."""
    return _padding(3, width, init)


def resnet32(width: int = 16, init: Init = "kaiming") -> EncoderBuilder:
    """CIFAR ResNet-32, 64 features at width 16: the usual network of CIFAR-LT."""
    return _padding(5, width, init)


def resnet44(width: int = 16, init: Init = "kaiming") -> EncoderBuilder:
    """CIFAR ResNet-44, 64 features at width 16."""
    return _padding(7, width, init)


def resnet56(width: int = 16, init: Init = "kaiming") -> EncoderBuilder:
    """CIFAR ResNet-56, 64 features at width 16."""
    return _padding(9, width, init)
