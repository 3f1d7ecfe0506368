"""Weak scaling by plans: what one device computes and sends as there are more of them, beside the same on paper.

    python benchmarks/weak_scaling.py [--devices=1,8,64,512] [--tpu=python] [--json=results/plan.json]

MoCo v2 with a ResNet-50 on ImageNet-LT, 128 images a device, and SimCLR with a ResNet-18 on CIFAR-10-LT, 16 images a
device: `python main.py --config=... --plan` for each number of devices, which nobody has to own. What stands beside it
is derived here from the layers of the two networks alone: multiply-adds of convolutions and matrix products, bytes of
gradients, BatchNorm statistics and projections.

Then two plans beside other figures. ResNet-50 on one A100 beside the throughput that NVIDIA publishes of its own
program; and, where `--tpu` is an interpreter that has libtpu (`pip install '.[tpu]'`; no TPU is needed), SimCLR on one
TPU v5e by the CPU's program beside that by the TPU's compiler.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile
from typing import Any, NamedTuple

import arguments
from records import measured

from lt_noisy.errors import UserError, say
from lt_noisy.files import write_json
from lt_noisy.runs.markdown import markdown

ROOT = pathlib.Path(__file__).resolve().parent.parent
IMAGENET_LT = ["--examples=115846", "--classes=1000"]
# github.com/NVIDIA/DeepLearningExamples at 291f0d0, PyTorch/Classification/ConvNets/resnet50v1.5/README.md: images/s of
# one A100 80 GB, in mixed precision and in TF32.
PUBLISHED = {"bfloat16": 2470, "float32": 938}


class Layer(NamedTuple):
    """A convolution without bias, and the BatchNorm behind it.

    Attributes:
      side: of the image that it takes.
      size: of its window.
      stride: of it.
      inputs: channels.
      outputs: channels.
      shortcut: whether it is that of a block whose shape changes.
    """

    side: int
    size: int
    stride: int
    inputs: int
    outputs: int
    shortcut: bool = False

    @property
    def multiply_adds(self) -> int:
        """Of one image; what the window sees of the padding is none."""
        pad, outside = self.size // 2, range(0, self.side, self.stride)
        taps = sum(0 <= at + tap - pad < self.side for at in outside for tap in range(self.size))
        return taps**2 * self.inputs * self.outputs

    @property
    def parameters(self) -> int:
        """Of the kernel, and scale and offset."""
        return self.size**2 * self.inputs * self.outputs + 2 * self.outputs


def resnet(blocks: tuple[int, ...], bottleneck: bool, side: int) -> list[Layer]:
    """The layers of torchvision's ResNets; images of 32 pixels have a stem of 3 x 3 at stride 1 and no pooling."""
    layers = [Layer(side, 7, 2, 3, 64) if side > 32 else Layer(side, 3, 1, 3, 64)]
    side, channels = side // 4 if side > 32 else side, 64
    for group, count in enumerate(blocks):
        width = 64 * 2**group
        for block in range(count):
            stride = 2 if group and not block else 1
            outputs = 4 * width if bottleneck else width
            inner = [(1, 1, width), (3, stride, width), (1, 1, outputs)]
            before = channels
            for size, step, wide in inner if bottleneck else [(3, stride, width), (3, 1, width)]:
                layers.append(Layer(side, size, step, channels, wide))
                channels, side = wide, side // step
            if stride != 1 or before != outputs:
                layers.append(Layer(side * stride, 1, stride, before, outputs, shortcut=True))
    return layers


class System(NamedTuple):
    """A network, what is trained with it, and the plan that is made of it.

    Attributes:
      name: in the table.
      layers: of the encoder.
      head: sizes of the projector, the features first.
      views: trained views of an image.
      keys: views of it that only go forward, through the averaged network.
      queue: negatives beside those of the batch; 0: the batch's projections are the candidates.
      batch: images of a device.
      arguments: of the plan, but devices and batch.
    """

    name: str
    layers: list[Layer]
    head: tuple[int, int, int]
    views: int
    keys: int
    queue: int
    batch: int
    arguments: list[str]

    def on_paper(self, devices: int) -> dict[str, Any]:
        """Operations of a device and bytes of the arrays of each collective."""
        features, hidden, size = self.head
        encoder = sum(layer.multiply_adds for layer in self.layers)
        projector = features * hidden + hidden * size
        # Forward, gradient of the kernels, gradient of the inputs: the images need none.
        trained = 3 * (encoder + projector) - self.layers[0].multiply_adds
        images, batch = self.batch, self.batch * devices
        products = images * (self.views * trained + self.keys * (encoder + projector))
        if self.queue:  # queries with the queue, forward and back to the queries
            products += 2 * images * self.queue * size
        else:  # both views with both of all devices, forward and back to either side
            products += 3 * (2 * images) * (2 * batch) * size
        parameters = sum(layer.parameters for layer in self.layers) + projector + hidden + size
        channels = sum(layer.outputs for layer in self.layers)
        shortcuts = sum(layer.outputs for layer in self.layers if layer.shortcut)
        # Statistics are two numbers a channel: forward and back of what is trained (views share a pass), forward of the
        # keys, and the running ones of either network. The offsets of the two BatchNorms that end a block with a
        # shortcut have one gradient, which is sent once. Beside them the loss, and the sum of the weights.
        statistics = 3 + (2 if self.keys else 0)
        reduced = 4 * (parameters - shortcuts) + statistics * 2 * 4 * channels + 8
        gathered = (self.keys or self.views) * 4 * batch * size
        collectives = {"all-reduce": reduced, "all-gather": gathered}
        if not self.queue:
            collectives["reduce-scatter"] = gathered
        return {"flops": 2 * products, "collectives": collectives if devices > 1 else {}}


SYSTEMS = (
    System(
        "MoCo v2, ResNet-50",
        resnet((3, 4, 6, 3), True, 224),
        (2048, 512, 128),
        views=1,
        keys=1,
        queue=65536,
        batch=128,
        arguments=["--config=configs/imagenet_lt_moco.py", *IMAGENET_LT],
    ),
    System(
        "SimCLR, ResNet-18",
        resnet((2, 2, 2, 2), False, 32),
        (512, 512, 128),
        views=2,
        keys=0,
        queue=0,
        batch=16,
        arguments=["--config=configs/cifar10_lt_simclr.py"],
    ),
)


def planned(given: list[str], python: str = sys.executable) -> dict[str, Any]:
    """The plan of one training stage: its first step, with what the plan says of the machine."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "plan.json"
        command = [python, "main.py", "--plan", f"--json={path}", *given]
        done = subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL, check=False)
        if done.returncode:
            raise UserError(f"{' '.join(command)}: exit status {done.returncode}")
        plan = json.loads(path.read_text())
    return {"accelerator": plan["accelerator"], "compiler": plan["compiler"], **plan["stages"][0]["steps"][0]}


def scaling(devices: list[int]) -> list[dict[str, Any]]:
    """One row a system and number of devices: counted, and on paper."""
    rows = []
    for system in SYSTEMS:
        for count in devices:
            batch = f"--config.pretrain.batch_size={system.batch * count}"
            given = [*system.arguments, "--config.stages=('pretrain',)", batch, f"--devices={count}"]
            say(f"{system.name}: {count} device(s)")
            step = planned([*given, "--accelerator=h100"])
            rows.append({"system": system.name, "devices": count, "counted": step, "paper": system.on_paper(count)})
    return rows


def beside_published() -> list[dict[str, Any]]:
    """The supervised ResNet-50 on one A100, in each precision: planned and published images per second."""
    rows = []
    for precision, published in PUBLISHED.items():
        given = ["--config=configs/imagenet_lt_moco.py", *IMAGENET_LT, f"--config.precision={precision}"]
        given += ["--config.stages=('finetune',)", "--config.finetune.init=none()", "--devices=1", "--accelerator=a100"]
        say(f"ResNet-50 on one A100, {precision}")
        step = planned(given)
        images = step["batch"] / step["step_seconds"]
        rows.append({"precision": precision, "planned": images, "published": published, "step": step})
    return rows


def beside_tpu(python: str) -> list[dict[str, Any]]:
    """SimCLR on one TPU v5e, by either compiler."""
    given = ["--config=configs/cifar10_lt_simclr.py", "--config.stages=('pretrain',)", "--devices=1"]
    given += ["--config.pretrain.batch_size=16", "--accelerator=v5e"]
    say("SimCLR on one TPU v5e, by both compilers")
    return [planned([*given, f"--compiler={compiler}"], python) for compiler in ("cpu", "tpu")]


def show(rows: list[dict[str, Any]]) -> str:
    """A Markdown table: counted, and behind it on paper."""
    head = ["", "devices", "GFLOP a device", "all-reduce, MB", "all-gather, MB", "reduce-scatter, MB", "memory, GB"]
    lines = [head]
    for row in rows:
        counted, paper = row["counted"], row["paper"]
        cells = [row["system"], f"{row['devices']}", _both(counted["flops"] / 1e9, paper["flops"] / 1e9)]
        for kind in ("all-reduce", "all-gather", "reduce-scatter"):
            both = [side["collectives"].get(kind, 0) / 1e6 for side in (counted, paper)]
            cells.append(_both(*both) if any(both) else "")
        lines.append([*cells, f"{counted['memory'] / 1e9:.2f}"])
    return markdown(lines)


def _both(counted: float, paper: float) -> str:
    return f"{counted:,.3f} ({paper:,.3f})"


def show_published(rows: list[dict[str, Any]]) -> str:
    """A Markdown table."""
    lines = [["ResNet-50, one A100", "planned, images/s", "published", "ratio", "longest need"]]
    for row in rows:
        ratio = row["planned"] / row["published"]
        cells = [row["precision"], f"{row['planned']:,.0f}", f"{row['published']:,}", f"{ratio:.2f}"]
        lines.append([*cells, row["step"]["bound"]])
    return markdown(lines)


def show_tpu(rows: list[dict[str, Any]]) -> str:
    """A Markdown table."""
    lines = [["SimCLR, ResNet-18, one TPU v5e", "GFLOP", "held, MB", "within a step, MB", "traffic, GB"]]
    for row in rows:
        within = (row["memory"] - row["held"]) / 1e6
        cells = [
            f"{row['flops'] / 1e9:.1f}",
            f"{row['held'] / 1e6:.0f}",
            f"{within:.0f}",
            f"{row['traffic'] / 1e9:.2f}",
        ]
        lines.append([f"by the {row['compiler'].upper()}'s compiler", *cells])
    return markdown(lines)


def _counts(text: str) -> list[int]:
    return [arguments.count(part) for part in text.split(",")]


def main(argv: list[str]) -> None:
    """Prints the tables and writes the JSON."""
    parser = arguments.Parser(description=__doc__)
    parser.add_argument("--devices", type=_counts, default=[1, 8, 64, 512])
    parser.add_argument("--tpu", default="", help=argparse.SUPPRESS)
    parser.add_argument("--json", type=arguments.new_file)
    given = parser.parse_args(argv[1:])
    record = measured(
        [word for word in argv if not word.startswith("--tpu=")],
        rows=scaling(given.devices),
        published=beside_published(),
        tpu=beside_tpu(given.tpu) if given.tpu else [],
    )
    say(*show(record["rows"]).splitlines(), "", *show_published(record["published"]).splitlines())
    if record["tpu"]:
        say("", *show_tpu(record["tpu"]).splitlines())
    if given.json is not None:
        write_json(given.json, record)


if __name__ == "__main__":
    arguments.run(main)
