"""What an encoder is, and which of its layers lie how deep."""

import re
from collections.abc import Callable, Iterable
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


def depths(names: Iterable[str]) -> dict[str, int]:
    """How deep each layer of an encoder lies, by its name: 0 for the stem, then block by block, last what follows them.

    Layers are called `group2_block1_conv1` or `block3_qkv`; `norm` and `head_...` follow the blocks, all else comes
    before them.
    """

    def place(name: str) -> tuple[int, ...]:
        if block := re.match(r"(?:group(\d+)_)?block(\d+)_", name):
            return 1, int(block[1] or 0), int(block[2])
        return (2,) if name == "norm" or name.startswith("head_") else (0,)

    places = {name: place(name) for name in names}
    order = {each: depth for depth, each in enumerate(sorted(set(places.values())))}
    return {name: order[each] for name, each in places.items()}
