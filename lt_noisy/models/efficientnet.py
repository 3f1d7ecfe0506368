"""EfficientNet-Lite encoders: image batches [B, H, W, C] to features float32 [B, D]. No classifier (see `heads`).

Tan and Le (2019), in the form for small devices that its TensorFlow program calls `efficientnet-lite0`: inverted
bottlenecks without squeeze-and-excitation, ReLU6 in the place of swish. 3.4 million parameters, and at 224 pixels a
tenth of a ResNet-50's multiplications.

Published weights come from two programs, which differ in what no parameter shows, so `program` says which:

tensorflow   "SAME" padding, at stride 2 of an even image one pixel more below and to the right than above and to the
             left, and BatchNorm's epsilon 1e-3. Weights: TensorFlow's own, as the package `efficientnet-lite0-pytorch-
             model` and timm's `tf_efficientnet_lite0` have them.
timm         padding of half the kernel on every side, epsilon 1e-5. Weights: timm's `efficientnet_lite0`.

Weights of one fill the other's network without a complaint, and give features that are wrong by more than half. The
PyTorch package computes its padding for the size that it was built for (224 pixels), here it is that of the image:
the same for every size that halves evenly five times.

Dropout before the classifier, and drop-connect, which leaves out whole blocks in training, are not here: these networks
are for published weights, which evaluation runs without either. Fine-tuned or trained from scratch here, they have
neither, and BatchNorm's momentum is 0.9 as in every network here (there: 0.99).
"""

from typing import Literal, NamedTuple

import flax.linen as nn
import jax
from jax.typing import DTypeLike

from lt_noisy.models.base import Encoder, EncoderBuilder
from lt_noisy.models.convolution import convolution
from lt_noisy.models.initial import kernel_init
from lt_noisy.models.norm import batch_norm
from lt_noisy.precision import to_float

Program = Literal["tensorflow", "timm"]
STEM, HEAD = 32, 1280  # channels, in every size of the Lite family


class Group(NamedTuple):
    """Blocks of one width.

    Attributes:
      blocks: how many.
      size: of the depthwise kernels.
      stride: of the first block.
      expansion: how many times as many channels there are within a block as at its entry.
      channels: at its exit.
    """

    blocks: int
    size: int
    stride: int
    expansion: int
    channels: int


LITE0 = (
    Group(1, 3, 1, 1, 16),
    Group(2, 3, 2, 6, 24),
    Group(2, 5, 2, 6, 40),
    Group(3, 3, 2, 6, 80),
    Group(3, 5, 1, 6, 112),
    Group(4, 5, 2, 6, 192),
    Group(1, 3, 1, 6, 320),
)


class EfficientNetLite(Encoder):
    """A stem, groups of inverted bottlenecks, a 1x1 convolution to 1,280 channels and their mean over the image.

    Attributes:
      groups: of blocks.
      program: whose padding and epsilon.
      dtype: of the computation. Parameters, BatchNorm statistics, normalisation and features are float32.
      norm_axis: the axis over which BatchNorm's batch statistics are averaged; None: each device its own.
    """

    groups: tuple[Group, ...]
    program: Program
    dtype: DTypeLike
    norm_axis: str | None

    takes = "images"

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """x [B, H, W, C] -> float32 [B, 1280]. `train`: use (and update) batch statistics, not running ones."""
        epsilon = 1e-3 if self.program == "tensorflow" else 1e-5

        def pads(side: int, size: int, stride: int) -> tuple[int, int]:
            if self.program == "timm":
                return size // 2, size // 2
            total = max((-(-side // stride) - 1) * stride + size - side, 0)
            return total // 2, total - total // 2

        def layer(x: jax.Array, channels: int, size: int, stride: int, name: str, groups: int = 1) -> jax.Array:
            """A convolution and BatchNorm."""
            y = nn.Conv(
                channels,
                (size, size),
                strides=stride,
                padding=[pads(side, size, stride) for side in x.shape[1:3]],
                feature_group_count=groups,
                use_bias=False,
                kernel_init=kernel_init("kaiming", "fan_out" if groups == 1 else "fan_in"),  # of a channel: k * k
                dtype=self.dtype,
                conv_general_dilated=convolution,
                name=f"{name}_conv",
            )(x)
            return batch_norm(y, train, self.dtype, self.norm_axis, f"{name}_norm", epsilon=epsilon)

        def block(x: jax.Array, group: Group, stride: int, name: str) -> jax.Array:
            y = x
            if group.expansion > 1:
                y = nn.relu6(layer(y, group.expansion * x.shape[-1], 1, 1, f"{name}_expand"))
            y = nn.relu6(layer(y, y.shape[-1], group.size, stride, f"{name}_depthwise", y.shape[-1]))
            y = layer(y, group.channels, 1, 1, f"{name}_project")
            return x + y if y.shape == x.shape else y

        x = nn.relu6(layer(x.astype(self.dtype), STEM, 3, 2, "stem"))
        for at, group in enumerate(self.groups, 1):
            for i in range(group.blocks):
                x = block(x, group, group.stride if i == 0 else 1, f"group{at}_block{i + 1}")
        return to_float(nn.relu6(layer(x, HEAD, 1, 1, "head"))).mean(axis=(1, 2))


def efficientnet_lite0(program: Program = "tensorflow") -> EncoderBuilder:
    """EfficientNet-Lite0, 1,280 features; program: "tensorflow" or "timm", the weights' own (`models.efficientnet`)."""
    return lambda dtype, norm_axis: EfficientNetLite(LITE0, program, dtype, norm_axis)
