"""A plan as people read it."""

from collections.abc import Iterator, Mapping
from typing import Any

from lt_noisy.data.images import described, kind_of

# Photographs of 500 pixels that one core reads, decodes, cuts and resizes in a second: results/decode.json.
DECODED = 992
_ORIGINS = {
    "given": "as the command line gives them",
    "as published": "as many as are published",
    "read": "as they are on this machine",
}
_NOT_COUNTED = (
    "not counted: compilation, checkpoints, waiting, and what the host does (k-means, mixtures, the fit of probes, "
    "neighbours)"
)


def lines(plan: Mapping[str, Any]) -> list[str]:
    """The lines for a terminal."""
    data, kind = plan["data"], kind_of(tuple(plan["data"]["shape"]))
    where = "streamed" if data["streamed"] else "in the memory of every device"
    efficiency = "" if plan["efficiency"] == 1 else f", at {plan['efficiency']:g} of it"
    head = {
        "plan": f"{plan['config']} on {plan['devices']} x {plan['accelerator']}, {plan['precision']}; nothing is "
        "trained",
        "data": f"{data['examples']:,} training and {data['test']:,} test {described(tuple(data['shape']))}, "
        f"{data['classes']} classes, {_ORIGINS[data['origin']]}; {where}",
        "times": f"the longest of four needs, each at the peak{efficiency}: a bound, no promise; collectives over a "
        f"ring at {plan['network'] / 1e9:g} GB/s each way",
        "memory": _memory(plan),
        "figures": plan["figures"],
    }
    found = [f"{name:<10}{text}" for name, text in head.items()]
    for stage in plan["stages"]:
        found += ["", *_stage(stage, plan, kind)]
    total = f"{duration(plan['seconds'])}, {plan['device_hours']:,.4g} device-hours"
    notes = [f"{'note':<10}{note}" for note in [*plan["notes"], _NOT_COUNTED]]
    return [*found, "", f"{'total':<10}{total}", *notes]


def _memory(plan: Mapping[str, Any]) -> str:
    if plan["compiler"] == "tpu":
        return "as the TPU's compiler lays it out"
    halves = "" if plan["precision"] == "float32" else ", activations at half of its float32"
    return f"of the CPU's program{halves}: more than an accelerator's compiler needs"


def _stage(stage: Mapping[str, Any], plan: Mapping[str, Any], kind: str) -> Iterator[str]:
    title = f"{stage['stage']} ({stage['kind']})"
    if "steps" not in stage:
        yield f"{title}: trains no network"
    else:
        networks = "" if stage["networks"] == 1 else f"{stage['networks']} networks of "
        total = sum(step["steps"] for step in stage["steps"])
        parts = ", ".join(f"{name} {number:,}" for name, number in stage["parameters_by_part"].items())
        parameters = f"{stage['parameters']:,} parameters ({parts})"
        yield f"{title}: {networks}{parameters}, {total:,} steps of {stage['batch_size']} {kind}"
        for step in stage["steps"]:
            yield from _step(step, plan)
    if stage["forward_images"]:
        images = f"{stage['forward_images']:,} {kind} through the network without learning"
        yield f"  beside    {images}: {duration(stage['forward_seconds'])}"
    yield f"  whole     {duration(stage['seconds'])}"


def _step(step: Mapping[str, Any], plan: Mapping[str, Any]) -> Iterator[str]:
    kinds = ", ".join(f"{size(number)} {kind}" for kind, number in step["collectives"].items())
    times = ", ".join(f"{name} {_milliseconds(number)}" for name, number in step["seconds"].items())
    held, within = size(step["held"]), size(step["memory"] - step["held"])
    memory = f"{size(step['memory'])} ({held} held, {within} within a step)"
    yield f"  a device  {step['batch']} of a batch: {step['flops'] / 1e9:,.4g} GFLOP, memory {memory}"
    yield f"  sends     {size(step['wire'])} a step ({kinds})" if kinds else "  sends     nothing"
    if step["pictures"]:
        rate = step["pictures"] * plan["devices"] / step["step_seconds"]
        yield f"  reads     {rate:,.0f} pictures/s in all; a core decodes about {DECODED} photographs of 500 pixels"
    yield f"  a step    {_milliseconds(step['step_seconds'])} by {step['bound']} ({times}), {step['steps']:,} of them"


def size(number: float) -> str:
    """Bytes in a unit that suits them, of 1000."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if number >= factor:
            return f"{number / factor:,.3g} {unit}" if number < 1000 * factor else f"{number / factor:,.0f} {unit}"
    return f"{number:.0f} bytes"


def duration(seconds: float) -> str:
    """Seconds in a unit that suits them."""
    for unit, factor in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= factor:
            return f"{seconds / factor:.3g} {unit}"
    return f"{seconds:.3g} s"


def _milliseconds(seconds: float) -> str:
    return f"{1000 * seconds:.3g} ms"
