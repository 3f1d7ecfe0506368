"""What an encoder is."""

from collections.abc import Callable
from typing import ClassVar, Literal

import flax.linen as nn
from jax.typing import DTypeLike


class Encoder(nn.Module):
    """Called as encoder(x, train), it gives features float32 [B, D].

    Attributes:
      takes: what x is, images [B, H, W, C] or vectors [B, D] (`data.images.kind_of`).
    """

    takes: ClassVar[Literal["images", "vectors"]]


EncoderBuilder = Callable[[DTypeLike, str | None], Encoder]  # build(dtype, norm_axis)
