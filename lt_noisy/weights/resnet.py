"""What a ResNet's layers are called: by torchvision and timm, by a `Sequential` of its children, by Hugging Face."""

from collections.abc import Callable

from lt_noisy.models.resnet import ResNet
from lt_noisy.weights.pairs import Naming, Pair, batch_norm, convolution


def namings(net: ResNet) -> tuple[Naming, ...]:
    """What files call the layers of `net`."""
    return (
        Naming("torchvision", _pairs(net, lambda name: name), ("fc.", "linear."), head="fc"),
        Naming("sequential", _pairs(net, _sequential)),  # lightly's, of torchvision's children in order
        Naming("huggingface", _pairs(net, _huggingface), ("classifier.",), head="classifier.1"),
    )


def _pairs(net: ResNet, called: Callable[[str], str]) -> tuple[Pair, ...]:
    """Every array of the network; `called(torchvision's name of a layer)` is what the file has it as."""
    pairs = convolution("stem_conv", called("conv1")) + batch_norm("stem_norm", called("bn1"))
    for group, count in enumerate(net.blocks, 1):
        for i in range(count):
            ours, theirs = f"group{group}_block{i + 1}", f"layer{group}.{i}"
            for at in range(1, 4 if net.bottleneck else 3):
                pairs += convolution(f"{ours}_conv{at}", called(f"{theirs}.conv{at}"))
                pairs += batch_norm(f"{ours}_norm{at}", called(f"{theirs}.bn{at}"))
            if net.projection and i == 0 and (group > 1 or net.bottleneck):
                pairs += convolution(f"{ours}_shortcut_conv", called(f"{theirs}.downsample.0"))
                pairs += batch_norm(f"{ours}_shortcut_norm", called(f"{theirs}.downsample.1"))
    return tuple(pairs)


def _sequential(name: str) -> str:
    """`layer1.0.conv1` is `4.0.conv1`: after the stem's convolution, BatchNorm, ReLU and pooling."""
    first, _, rest = name.partition(".")
    place = {"conv1": 0, "bn1": 1}.get(first) if not rest else 3 + int(first.removeprefix("layer"))
    return f"{place}.{rest}" if rest else str(place)


def _huggingface(name: str) -> str:
    """`layer1.0.conv1` is `encoder.stages.0.layers.0.layer.0.convolution`."""
    kinds = {"conv": "convolution", "bn": "normalization"}
    if "." not in name:
        return f"embedder.embedder.{kinds[name.rstrip('1')]}"
    group, block, rest = name.split(".", 2)
    place = f"encoder.stages.{int(group.removeprefix('layer')) - 1}.layers.{block}"
    if rest.startswith("downsample"):
        return f"{place}.shortcut.{('convolution', 'normalization')[int(rest[-1])]}"
    return f"{place}.layer.{int(rest[-1]) - 1}.{kinds[rest[:-1]]}"
