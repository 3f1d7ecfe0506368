"""PyTorch's side of benchmarks/gpu_peer.py, which starts it: training loops with data and augmentation.

    torch_loop.py CASE plain|tuned BATCH STEPS WORKERS

`plain` is the usual program: a DataLoader whose workers augment one image at a time with torchvision, then float32 or
autocast. `tuned` has the images in the GPU's memory, augments whole batches there (each image with draws of its own),
and channels_last, a fused optimiser and `torch.compile` with CUDA graphs.
"""

import math
import sys
import time
from collections.abc import Callable, Iterator

import torch  # pyright: ignore[reportMissingImports] (an environment of its own may have it)
import torch.nn.functional as F  # pyright: ignore[reportMissingImports]
from torch_step import network, nt_xent
from torchvision.transforms import v2  # pyright: ignore[reportMissingImports]
from turns import serve

IMAGES = 50_000
PREFETCH = 2  # batches a worker has ready
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def transform(simclr: bool) -> Callable[[torch.Tensor], torch.Tensor]:
    """torchvision's for one image uint8 [3, 32, 32]."""
    if simclr:
        jitter = v2.RandomApply([v2.ColorJitter(0.4, 0.4, 0.4, 0.1)], p=0.8)
        box = v2.RandomResizedCrop(32, scale=(0.2, 1.0), antialias=False)
        operations = [box, v2.RandomHorizontalFlip(), jitter, v2.RandomGrayscale(0.2)]
    else:
        operations = [v2.RandomCrop(32, padding=4), v2.RandomHorizontalFlip()]
    return v2.Compose([*operations, v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)])


class Images(torch.utils.data.Dataset):
    """Random images, each as its views [V, 3, 32, 32], and a label."""

    def __init__(self, simclr: bool):
        self.pixels = torch.randint(0, 256, (IMAGES, 3, 32, 32), dtype=torch.uint8)
        self.views, self.transform = 2 if simclr else 1, transform(simclr)

    def __len__(self) -> int:
        return IMAGES

    def __getitem__(self, i: int) -> tuple[torch.Tensor, int]:
        return torch.stack([self.transform(self.pixels[i]) for _ in range(self.views)]), i % 10


def loaded(simclr: bool, batch: int, workers: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Batches of a DataLoader: images [V B, 3, 32, 32], views apart, and labels [B]."""
    fetching = {"persistent_workers": True, "prefetch_factor": PREFETCH} if workers else {}
    loader = torch.utils.data.DataLoader(
        Images(simclr),
        batch,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        pin_memory=DEVICE == "cuda",
        **fetching,
    )
    while True:
        for x, y in loader:
            yield x.to(DEVICE, non_blocking=True).transpose(0, 1).flatten(0, 1), y.to(DEVICE, non_blocking=True)


def _boxes(n: int, simclr: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Scale and centre [n, 2] of random boxes, in coordinates from -1 to 1."""
    if not simclr:
        return torch.ones(n, 2, device=DEVICE), torch.randint(-4, 5, (n, 2), device=DEVICE) / 16
    area = torch.empty(n, device=DEVICE).uniform_(0.2, 1.0)
    shape = torch.empty(n, device=DEVICE).uniform_(math.log(3 / 4), math.log(4 / 3)).mul(0.5).exp()
    size = torch.stack([area.sqrt() * shape, area.sqrt() / shape], 1).clamp(max=1.0)
    return size, (1 - size) * torch.empty(n, 2, device=DEVICE).uniform_(-1, 1)


def _hue(x: torch.Tensor, turn: torch.Tensor) -> torch.Tensor:
    """Colours [n, 3, H, W] turned about the grey axis by `turn` of a whole turn [n]: as YIQ programs have it."""
    to_yiq = torch.tensor([[0.299, 0.587, 0.114], [0.596, -0.274, -0.321], [0.211, -0.523, 0.311]], device=DEVICE)
    angle = 2 * math.pi * turn
    zero, one, cos, sin = torch.zeros_like(angle), torch.ones_like(angle), angle.cos(), angle.sin()
    turned = torch.stack([one, zero, zero, zero, cos, -sin, zero, sin, cos], 1).view(-1, 3, 3)
    return torch.einsum("nij,njhw->nihw", torch.linalg.inv(to_yiq) @ turned @ to_yiq, x)


def augment(pixels: torch.Tensor, simclr: bool) -> torch.Tensor:
    """Whole batches on the device: uint8 [n, 3, 32, 32] -> float32, each image with its own draws."""
    n = len(pixels)
    x = pixels.float() / 255
    size, centre = _boxes(n, simclr)
    mirror = torch.randint(0, 2, (n,), device=DEVICE) * 2 - 1
    zero = torch.zeros(n, device=DEVICE)
    affine = torch.stack([size[:, 0] * mirror, zero, centre[:, 0], zero, size[:, 1], centre[:, 1]], 1).view(n, 2, 3)
    x = F.grid_sample(x, F.affine_grid(affine, list(x.shape), align_corners=False), align_corners=False)
    if simclr:
        weights = torch.tensor([0.299, 0.587, 0.114], device=DEVICE).view(1, 3, 1, 1)
        light, contrast, colour = torch.empty(3, n, 1, 1, 1, device=DEVICE).uniform_(0.6, 1.4)
        bright = x * light
        mean = (bright * weights).sum(1, keepdim=True).mean((2, 3), keepdim=True)
        y = mean + (bright - mean) * contrast
        grey = (y * weights).sum(1, keepdim=True)
        y = _hue(grey + (y - grey) * colour, torch.empty(n, device=DEVICE).uniform_(-0.1, 0.1)).clamp(0, 1)
        x = torch.where(torch.rand(n, 1, 1, 1, device=DEVICE) < 0.8, y, x)
        x = torch.where(torch.rand(n, 1, 1, 1, device=DEVICE) < 0.2, (x * weights).sum(1, keepdim=True), x)
    mean, std = (torch.tensor(values, device=DEVICE).view(1, 3, 1, 1) for values in (MEAN, STD))
    return (x - mean) / std


def resident(simclr: bool, batch: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """The same batches from images in the device's memory, augmented there by one compiled function."""
    pixels = torch.randint(0, 256, (IMAGES, 3, 32, 32), dtype=torch.uint8, device=DEVICE)
    compiled = torch.compile(augment)
    while True:
        order = torch.randperm(IMAGES, device=DEVICE)
        for begin in range(0, IMAGES - batch + 1, batch):
            rows = order[begin : begin + batch]
            yield compiled(pixels[rows].repeat(2 if simclr else 1, 1, 1, 1), simclr), rows % 10


def loop(case: str, kind: str, batch: int, steps: int, workers: int) -> Callable[[], float]:
    """A function that trains for `steps` steps and gives the seconds of one."""
    tuned, simclr = kind == "tuned", case == "resnet18_simclr"
    torch.manual_seed(0)
    if DEVICE == "cuda" and tuned:
        torch.set_float32_matmul_precision("high")  # TF32, which XLA takes, too
    net = network(case).to(DEVICE)
    if tuned:
        net = net.to(memory_format=torch.channels_last)
    call = torch.compile(net, mode="reduce-overhead") if tuned else net
    optimiser = torch.optim.SGD(net.parameters(), 0.01, 0.9, weight_decay=5e-4, fused=tuned and DEVICE == "cuda")
    batches = resident(simclr, batch) if tuned else loaded(simclr, batch, workers)

    def once() -> None:
        x, y = next(batches)
        if tuned:
            x = x.contiguous(memory_format=torch.channels_last)
        optimiser.zero_grad(set_to_none=True)
        with torch.autocast(DEVICE, torch.bfloat16, enabled=simclr):
            out = call(x)
        loss = nt_xent(out.float()) if simclr else F.cross_entropy(out.float(), y)
        loss.backward()
        optimiser.step()

    def synchronise() -> None:
        if DEVICE == "cuda":
            torch.cuda.synchronize()

    def seconds() -> float:
        for _ in range(1 if tuned else 1 + workers * PREFETCH):  # what workers prepared while others were measured
            once()
        synchronise()
        began = time.perf_counter()
        for _ in range(steps):
            once()
        synchronise()
        return (time.perf_counter() - began) / steps

    for _ in range(3):  # compiles, records graphs
        once()
    return seconds


if __name__ == "__main__":
    serve(loop(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:])))
