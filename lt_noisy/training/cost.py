"""What a compiled step costs one device: operations, memory, and what it sends to the others.

All of it is read from the compiled program, which nobody has to run: XLA's own analyses of cost and memory, and the
collectives in its text.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

_BITS = {"pred": 8, "s4": 4, "u4": 4, "s8": 8, "u8": 8, "s16": 16, "u16": 16, "bf16": 16, "f16": 16}
_BITS |= {"s32": 32, "u32": 32, "f32": 32, "s64": 64, "u64": 64, "f64": 64, "c64": 64, "c128": 128}

# Of the bytes of the whole array, what one of n devices sends over a ring, times n.
_RING = {
    "all-reduce": lambda n: 2 * (n - 1),
    "all-gather": lambda n: n - 1,
    "reduce-scatter": lambda n: n - 1,
    "all-to-all": lambda n: n - 1,
    "collective-permute": lambda n: n,
}
_COLLECTIVE = re.compile(rf"= (?P<result>.*?) (?P<kind>{'|'.join(_RING)})(?P<start>-start)?\((?P<rest>.*)")
_ARRAY = re.compile(r"\b([a-z]+\d*)\[([\d,]*)\]")
_GROUPS = re.compile(r"replica_groups=(?:\[\d+,(?P<size>\d+)\]|\{\{(?P<first>[\d,]+)\})")


class Collective(NamedTuple):
    """One operation between devices.

    Attributes:
      kind: a key of `_RING`, as XLA calls it.
      bytes: of the whole array: what is reduced, or what is gathered, or what is there before it is scattered.
      devices: n, how many take part together.
    """

    kind: str
    bytes: int
    devices: int

    @property
    def wire(self) -> float:
        """Bytes that each device sends, and receives, over a ring, the least that a bandwidth-bound one can."""
        return self.bytes * _RING[self.kind](self.devices) / self.devices


class Cost(NamedTuple):
    """What one call of a program costs each of the devices that run it.

    Attributes:
      flops: floating-point operations, a multiply-add being two; of a loop XLA counts the body once.
      traffic: bytes read from and written to the device's memory, by the fusions of this compiler.
      held: bytes of arguments and results, a donated argument and its result counted once.
      temporary: bytes of what lives between them, by the schedule of this compiler.
      collectives: in the order of the program.
    """

    flops: float
    traffic: float
    held: int
    temporary: int
    collectives: tuple[Collective, ...]

    @property
    def wire(self) -> float:
        """Bytes that a device sends in all collectives (`Collective.wire`)."""
        return sum(one.wire for one in self.collectives)

    @property
    def bytes_by_kind(self) -> Mapping[str, int]:
        """Bytes of the arrays of each kind of collective."""
        kinds = sorted({one.kind for one in self.collectives})
        return {kind: sum(one.bytes for one in self.collectives if one.kind == kind) for kind in kinds}


def cost(compiled: Any, devices: int) -> Cost:
    """What a program costs, from what `jax.jit(...).lower(...).compile()` returns, for so many devices."""
    operations, memory = compiled.cost_analysis(), compiled.memory_analysis()
    held = memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
    return Cost(
        flops=float(operations.get("flops", 0)),  # left out where there are none
        traffic=float(operations.get("bytes accessed", 0)),
        held=int(held),
        temporary=int(memory.temp_size_in_bytes),
        collectives=tuple(collectives(compiled.as_text(), devices)),
    )


def collectives(text: str, devices: int) -> Iterator[Collective]:
    """The collectives of more than one device in the text of a compiled program.

    Args:
      text: HLO, as XLA prints it after its passes, shapes being those of one device.
      devices: that run the program: all of them take part where an operation names no groups.
    """
    for line in text.splitlines():
        found = _COLLECTIVE.search(line)
        if found is None:
            continue
        kind, arrays = found["kind"], [_bytes(*array) for array in _ARRAY.findall(found["result"])]
        if found["start"] and kind in ("all-gather", "collective-permute"):  # (operand, result, ...)
            arrays = arrays[1:2]
        groups = _GROUPS.search(found["rest"])
        taking_part = devices
        if groups:
            taking_part = int(groups["size"] or len(groups["first"].split(",")))
        whole = sum(arrays) * (taking_part if kind == "reduce-scatter" else 1)
        if taking_part > 1:
            yield Collective(kind, whole, taking_part)


def _bytes(dtype: str, dimensions: str) -> int:
    size = 1
    for dimension in filter(None, dimensions.split(",")):
        size *= int(dimension)
    return (size * _BITS.get(dtype, 0) + 7) // 8  # a token has none
