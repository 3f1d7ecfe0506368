"""PyTorch's side of benchmarks/cpu_peer.py, which starts it: networks, and a training step on a batch that is there.

Without the package, so that an interpreter serves that has torch alone.
"""

import sys
from collections.abc import Callable

import torch  # pyright: ignore[reportMissingImports] (an environment of its own may have it)
import torch.nn.functional as F  # pyright: ignore[reportMissingImports]
from torch import nn  # pyright: ignore[reportMissingImports]
from turns import serve, timed


def _conv(before: int, after: int, size: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(before, after, size, stride, size // 2, bias=False)


class Block(nn.Module):
    """A basic block; the shortcut is padded, or projected, where it changes shape."""

    def __init__(self, before: int, after: int, stride: int, projection: bool):
        super().__init__()
        self.conv1, self.norm1 = _conv(before, after, 3, stride), nn.BatchNorm2d(after)
        self.conv2, self.norm2 = _conv(after, after, 3), nn.BatchNorm2d(after)
        self.stride, self.new = stride, after - before
        changes = self.new or stride > 1
        self.shortcut = nn.Sequential(_conv(before, after, 1, stride), nn.BatchNorm2d(after)) if changes else None
        if not projection:
            self.shortcut = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x [B, C, H, W]."""
        y = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x)))))
        if self.shortcut is not None:
            x = self.shortcut(x)
        elif self.new:
            half = self.new // 2
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, half, half))
        return F.relu(y + x)


def resnet(blocks: tuple[int, ...], width: int, projection: bool) -> tuple[nn.Module, int]:
    """The encoder with the stem for 32 pixels, and its number of features."""
    layers: list[nn.Module] = [_conv(3, width, 3), nn.BatchNorm2d(width), nn.ReLU()]
    channels = width
    for group, count in enumerate(blocks):
        for i in range(count):
            after = width * 2**group
            layers.append(Block(channels, after, 2 if group and not i else 1, projection))
            channels = after
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten()), channels


def nt_xent(z: torch.Tensor, temperature: float = 0.5) -> torch.Tensor:
    """z [2B, D], the two views of an image B rows apart."""
    z = F.normalize(z)
    similar = z @ z.T / temperature
    similar.fill_diagonal_(float("-inf"))
    return F.cross_entropy(similar, torch.arange(len(z), device=z.device).roll(len(z) // 2))


def network(name: str) -> nn.Module:
    """The encoder of a case with its classifier or projection."""
    simclr = name == "resnet18_simclr"
    blocks = {"resnet20": (3, 3, 3), "resnet32": (5, 5, 5), "resnet18_simclr": (2, 2, 2, 2)}[name]
    encoder, features = resnet(blocks, 64 if simclr else 16, simclr)
    head = nn.Linear(features, 10)
    if simclr:
        head = nn.Sequential(nn.Linear(features, 512), nn.ReLU(), nn.Linear(512, 128))
    return nn.Sequential(encoder, head)


def step(name: str, batch: int, threads: int) -> Callable[[], None]:
    """One training step of a case of cpu_peer.py: channels_last, float32, SGD with momentum and weight decay."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    simclr = name == "resnet18_simclr"
    net = network(name).to(memory_format=torch.channels_last)
    optimiser = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)
    x = torch.randn(2 * batch if simclr else batch, 3, 32, 32).to(memory_format=torch.channels_last)
    y = torch.arange(batch) % 10

    def once() -> None:
        optimiser.zero_grad()
        out = net(x)
        loss = nt_xent(out) if simclr else F.cross_entropy(out, y)
        loss.backward()
        optimiser.step()

    return once


if __name__ == "__main__":
    serve(timed(step(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])), lambda out: out))
