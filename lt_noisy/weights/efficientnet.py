"""What an EfficientNet-Lite's layers are called: by the PyTorch package `efficientnet_lite_pytorch`, and by timm.

Both number a block's BatchNorm layers by their order in it, the package from 0 in every block (0 follows the expansion,
which the first block lacks), timm from 1 without gaps.
"""

from lt_noisy.models.efficientnet import EfficientNetLite
from lt_noisy.weights.pairs import Naming, Pair, batch_norm, convolution


def namings(net: EfficientNetLite) -> tuple[Naming, ...]:
    """What files call the layers of `net`."""
    return (
        Naming("efficientnet_lite_pytorch", _packages(net), ("_fc.",), head="_fc"),
        Naming("timm", _timms(net), ("classifier.",), head="classifier"),
    )


def _layer(ours: str, conv: str, norm: str) -> list[Pair]:
    """A convolution and its BatchNorm. PyTorch's [C, 1, k, k] of a depthwise one turns as all others do."""
    return convolution(f"{ours}_conv", conv) + batch_norm(f"{ours}_norm", norm)


def _packages(net: EfficientNetLite) -> tuple[Pair, ...]:
    pairs, number = _layer("stem", "_conv_stem", "_bn0"), 0
    for at, group in enumerate(net.groups, 1):
        for i in range(group.blocks):
            ours, theirs = f"group{at}_block{i + 1}", f"_blocks.{number}"
            if group.expansion > 1:
                pairs += _layer(f"{ours}_expand", f"{theirs}._expand_conv", f"{theirs}._bn0")
            pairs += _layer(f"{ours}_depthwise", f"{theirs}._depthwise_conv", f"{theirs}._bn1")
            pairs += _layer(f"{ours}_project", f"{theirs}._project_conv", f"{theirs}._bn2")
            number += 1
    return tuple(pairs + _layer("head", "_conv_head", "_bn1"))


def _timms(net: EfficientNetLite) -> tuple[Pair, ...]:
    pairs = _layer("stem", "conv_stem", "bn1")
    for at, group in enumerate(net.groups):
        names = ("conv_pw", "conv_dw", "conv_pwl") if group.expansion > 1 else ("conv_dw", "conv_pw")
        parts = ("expand", "depthwise", "project")[-len(names) :]
        for i in range(group.blocks):
            for number, (part, name) in enumerate(zip(parts, names, strict=True), 1):
                theirs = f"blocks.{at}.{i}"
                pairs += _layer(f"group{at + 1}_block{i + 1}_{part}", f"{theirs}.{name}", f"{theirs}.bn{number}")
    return tuple(pairs + _layer("head", "conv_head", "bn2"))
