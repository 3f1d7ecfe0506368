"""From what a program costs to memory, seconds and hours: plain arithmetic, no JAX."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from lt_noisy.runs.planning.accelerators import Accelerator
from lt_noisy.training.cost import Cost


class Machine(NamedTuple):
    """What a step is held against.

    Attributes:
      accelerator: of each device.
      devices: how many.
      float32: whether matrix products are of float32.
      efficiency: share of the peak FLOP/s that the devices reach.
      network: bytes/s of a device to the others, each way.
      decode_rate: pictures per second of all hosts together; None: not known, and no bound.
    """

    accelerator: Accelerator
    devices: int
    float32: bool
    efficiency: float
    network: float
    decode_rate: float | None


class Use(NamedTuple):
    """What a step uses of a device.

    Attributes:
      flops: operations.
      memory: bytes held at its peak.
      held: those of them that are there between steps: state, resident images, the batch.
      traffic: bytes of memory read and written.
      wire: bytes sent to other devices.
      pictures: read and decoded for the device.
    """

    flops: float
    memory: float
    held: float
    traffic: float
    wire: float
    pictures: int


def use(at: Callable[[int], Cost], batch: int, pictures: int, halved: bool) -> Use:
    """What the step of `batch` examples a device uses.

    Args:
      at: the cost of the step with so many examples of a device.
      pictures: see `Use`.
      halved: whether the compiler computes in float32 what the accelerator keeps in bfloat16. Of temporaries and
        traffic the part that grows with the batch, which is the activations', then counts half; that part is known
        from a second batch.
    """
    cost = at(batch)
    temporary, traffic = float(cost.temporary), cost.traffic
    if halved:
        other = batch // 2 if batch > 1 else 2
        temporary, traffic = (
            _with_half(whole, another, batch, other)
            for whole, another in ((temporary, at(other).temporary), (traffic, at(other).traffic))
        )
    return Use(cost.flops, cost.held + temporary, cost.held, traffic, cost.wire, pictures)


def _with_half(whole: float, another: float, batch: int, other: int) -> float:
    """`whole`, at `batch`, with half of what grows with the batch by the line through `another` at `other`."""
    growing = (whole - another) / (batch - other) * batch
    return whole - min(max(growing, 0.0), whole) / 2


def fitting(memory: Callable[[int], float], batch: int, room: float) -> int:
    """The largest of batch, batch / 2, batch / 4, ... whose `memory(batch)` is in the room; 0 where none is."""
    while batch and memory(batch) > room:
        batch //= 2
    return batch


def seconds(used: Use, machine: Machine) -> Mapping[str, float]:
    """How long a step takes at least for each of its needs alone: `compute`, `memory`, `network`, `decoding`.

    `memory` is what this compiler's fusions move, of which an accelerator's may need less.
    """
    accelerator = machine.accelerator
    peak = accelerator.float32 if machine.float32 else accelerator.bfloat16
    found = {
        "compute": used.flops / (peak * machine.efficiency),
        "memory": used.traffic / accelerator.bandwidth,
        "network": used.wire / machine.network,
    }
    if machine.decode_rate is not None:
        found["decoding"] = used.pictures * machine.devices / machine.decode_rate
    return found
