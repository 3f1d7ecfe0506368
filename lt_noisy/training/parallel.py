"""One pure per-device step, compiled for any number of devices with `jit` or with `pmap`.

`Jit` lays a mesh with one axis over the devices and runs the step under `shard_map`; one device is a mesh of
one. `Pmap` keeps a leading device axis on everything. Both offer the same five methods, and a test holds
them to the same gradients. Every transfer between host and devices in them is an explicit one, so that all five work
under `jax.transfer_guard("disallow")`.

Of several processes each has the same number of the devices. A batch on the host is then the process's own part of the
global one, in the order of the processes; what is replicated comes equal from all of them.
"""

import contextlib
import os
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from lt_noisy import processes, system
from lt_noisy.collectives import AXIS, gather
from lt_noisy.errors import UserError, did_you_mean, first_line

PyTree = Any
Device = Any  # jax.Device, which is no type to a type checker
Step = Callable[[PyTree, PyTree, PyTree], tuple[PyTree, PyTree]]


def _traced_once(step: Step) -> Step:
    """The step, which JAX then traces once for `zeros` and the program together; what is compiled is the same."""
    return jax.jit(step, inline=True)


def _accumulate(step: Step, steps_per_call: int) -> Callable[..., tuple[PyTree, PyTree]]:
    """`(state, totals, data, batch) -> (state, totals)`: one step, or a scan of several, adding up its sums."""
    traced = _traced_once(step)

    def once(state, totals, data, batch):
        state, sums = traced(state, data, batch)
        return state, jax.tree.map(jnp.add, totals, sums)

    if steps_per_call == 1:
        return once

    def several(state, totals, data, batches):
        def body(carry, batch):
            state, totals = carry
            return once(state, totals, data, batch), None

        return jax.lax.scan(body, (state, totals), batches)[0]

    return several


def _host_copy(tree: PyTree) -> PyTree:
    # On CPU a plain `device_get` may share memory with a buffer that the next step donates.
    return jax.tree.map(lambda x: np.array(x, copy=True), jax.device_get(tree))


def _own_copy(tree: PyTree) -> PyTree:
    """What this process's first device holds of every array."""
    return jax.tree.map(lambda x: x.addressable_data(0), tree)


def _laid_out(tree: PyTree, sharding: NamedSharding) -> PyTree:
    """A host tree, or this process's part of it, on the devices."""
    if processes.count() == 1:
        return jax.device_put(tree, sharding)
    with jax.transfer_guard("allow"):  # it is explicit; the guard takes this way for one that is not
        return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, np.asarray(x)), tree)


def _shared_out(fn: Callable[[PyTree, PyTree], PyTree]) -> Callable[[PyTree, PyTree], PyTree]:
    """`fn`, with the outputs of the whole batch on every device where there are several processes."""
    if processes.count() == 1:
        return fn
    return lambda variables, batch: jax.tree.map(gather, fn(variables, batch))


class Jit:
    """`jit` of a `shard_map` over a one-axis mesh."""

    def __init__(self, devices: list[Device]):
        self.num_devices = len(devices)
        # Not `jax.make_mesh`, which on a TPU changes the order: parts of a batch are in that of the processes.
        self.mesh = Mesh(np.array(devices), (AXIS,), axis_types=(AxisType.Auto,))

    def _sharding(self, *axes: str | None) -> NamedSharding:
        return NamedSharding(self.mesh, PartitionSpec(*axes))

    def replicate(self, tree: PyTree) -> PyTree:
        """A host tree on every device."""
        return _laid_out(tree, self._sharding())

    def fetch(self, tree: PyTree) -> PyTree:
        """A replicated tree back on the host, as copies."""
        return _host_copy(_own_copy(tree))

    def compile_step(self, step: Step, steps_per_call: int = 1) -> Callable[..., tuple[PyTree, PyTree]]:
        """Compiles `step(state, data, batch) -> (state, sums)`.

        Returns:
          `call(state, totals, data, batch) -> (state, totals)`, which donates its first two arguments. Leaves of
          `batch` are host arrays [B, ...], or [steps_per_call, B, ...] where several steps run per call; of several
          processes each gives its part of B.
        """
        program, shards = self._program(step, steps_per_call)
        return lambda state, totals, data, batch: program(state, totals, data, _laid_out(batch, shards))

    def lower_step(self, step: Step, state: PyTree, data: PyTree, batch: PyTree) -> jax.stages.Lowered:
        """The program of `compile_step` for one step, of arrays or `jax.ShapeDtypeStruct`s; nothing is computed."""
        return self._program(step, 1)[0].lower(state, zeros(step, state, data, batch), data, batch)

    def _program(self, step: Step, steps_per_call: int) -> tuple[Any, NamedSharding]:
        """The jitted function of `compile_step`, and how its batch is laid out."""
        batch_axes = (AXIS,) if steps_per_call == 1 else (None, AXIS)
        whole, split = PartitionSpec(), PartitionSpec(*batch_axes)
        replicated, shards = self._sharding(), self._sharding(*batch_axes)
        mapped = jax.shard_map(
            _accumulate(step, steps_per_call),
            mesh=self.mesh,
            in_specs=(whole, whole, whole, split),
            out_specs=(whole, whole),
            check_vma=False,  # gradients are summed by hand; the default would sum them a second time
        )
        program = jax.jit(
            mapped,
            donate_argnums=(0, 1),
            in_shardings=(replicated, replicated, replicated, shards),
            out_shardings=(replicated, replicated),
        )
        return program, shards

    def compile_map(self, fn: Callable[[PyTree, PyTree], PyTree]) -> Callable[[PyTree, PyTree], PyTree]:
        """Compiles a per-example function `fn(variables, batch [B_local, ...]) -> outputs [B_local, ...]`.

        Returns:
          `call(variables, batch) -> outputs`: variables and outputs on the devices, the batch, or this process's part
          of it, on the host.
        """
        whole, split = PartitionSpec(), PartitionSpec(AXIS)
        out = split if processes.count() == 1 else whole
        mapped = jax.shard_map(_shared_out(fn), mesh=self.mesh, in_specs=(whole, split), out_specs=out, check_vma=False)
        shards = self._sharding(AXIS)
        compiled = jax.jit(mapped, in_shardings=(self._sharding(), shards), out_shardings=NamedSharding(self.mesh, out))
        return lambda variables, batch: compiled(variables, _laid_out(batch, shards))

    def gather(self, outputs: PyTree) -> PyTree:
        """Outputs of a compiled map on the host, [B, ...] of the whole batch."""
        return jax.device_get(outputs if processes.count() == 1 else _own_copy(outputs))


class Pmap:
    """`pmap` with stacked arrays. Every tree on the devices has a leading axis of this process's devices."""

    def __init__(self, devices: list[Device]):
        self.num_devices = len(devices)
        self.devices = devices
        local = [device for device in devices if device.process_index == processes.index()]
        self._local = len(local)
        # What `pmap` itself lays out: arrays laid out in another way it would move, or compile a second time for.
        self._stacked = NamedSharding(Mesh(np.array(local), (AXIS,)), PartitionSpec(AXIS))

    def replicate(self, tree: PyTree) -> PyTree:
        """A host tree on every device."""
        stacked = jax.tree.map(lambda x: np.broadcast_to(x, (self._local, *np.shape(x))), tree)
        return jax.device_put(stacked, self._stacked)

    def fetch(self, tree: PyTree) -> PyTree:
        """A replicated tree back on the host, as copies."""
        return jax.tree.map(lambda x: np.squeeze(x, 0), _host_copy(_own_copy(tree)))

    def _split(self, batch: PyTree, axis: int) -> PyTree:
        def split(x: np.ndarray) -> np.ndarray:
            parts = x.reshape(*x.shape[:axis], self._local, -1, *x.shape[axis + 1 :])
            return np.moveaxis(parts, axis, 0)

        return jax.device_put(jax.tree.map(split, batch), self._stacked)

    def compile_step(self, step: Step, steps_per_call: int = 1) -> Callable[..., tuple[PyTree, PyTree]]:
        """As `Jit.compile_step`."""
        compiled = jax.pmap(
            _accumulate(step, steps_per_call), axis_name=AXIS, donate_argnums=(0, 1), devices=self.devices
        )
        axis = 0 if steps_per_call == 1 else 1
        return lambda state, totals, data, batch: compiled(state, totals, data, self._split(batch, axis))

    def compile_map(self, fn: Callable[[PyTree, PyTree], PyTree]) -> Callable[[PyTree, PyTree], PyTree]:
        """As `Jit.compile_map`."""
        compiled = jax.pmap(_shared_out(fn), axis_name=AXIS, devices=self.devices)
        return lambda variables, batch: compiled(variables, self._split(batch, 0))

    def gather(self, outputs: PyTree) -> PyTree:
        """As `Jit.gather`."""
        if processes.count() > 1:
            return jax.tree.map(lambda x: np.squeeze(x, 0), jax.device_get(_own_copy(outputs)))
        return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), jax.device_get(outputs))


MODES = {"jit": Jit, "pmap": Pmap}


def make(mode: str, num_devices: int = 0) -> Jit | Pmap:
    """The devices to run on: the first `num_devices`, all of them for 0; of several processes equally many of each.

    A CPU is one device, unless at the first use of JAX in a process more are asked for, up to one for each core.
    """
    if mode not in MODES:
        raise UserError(f"config.parallel: unknown mode {mode!r}{did_you_mean(mode, MODES)} (known: jit, pmap)")
    count = processes.count()
    divide_cpu(num_devices)
    try:
        devices = jax.local_devices()
    except (RuntimeError, AssertionError) as error:  # JAX_PLATFORMS names a platform that is not there
        platforms = os.environ.get("JAX_PLATFORMS")
        asked = f"JAX_PLATFORMS={platforms}" if platforms else "JAX"
        reason = f" ({first_line(error)[:200]})" if str(error) else ""
        raise UserError(
            f"{asked}: JAX finds no device to run on{reason}; unset JAX_PLATFORMS, or install what that device takes: "
            "pip install '.[cuda]' or '.[tpu]'"
        ) from None
    present = processes.gather(len(devices)).tolist()
    if len(set(present)) > 1:
        raise UserError(f"the processes have {', '.join(map(str, present))} devices, not equally many")
    if not 0 <= num_devices <= sum(present):
        raise UserError(f"config.devices: {num_devices} asked for, {sum(present)} present (0 takes them all)")
    if num_devices % count:
        raise UserError(f"config.devices: {num_devices} do not divide among {count} processes")
    if count == 1:
        return MODES[mode](devices[:num_devices] if num_devices else devices)
    of_each = num_devices // count or len(devices)
    return MODES[mode]([device for i in range(count) for device in _of_process(i)[:of_each]])


def _of_process(process: int) -> list[Device]:
    return [device for device in jax.devices() if device.process_index == process]


def divide_cpu(num_devices: int) -> None:
    """Has each process see a CPU as its part of so many devices, where that is one for each core at the most.

    For before JAX is first used, which `make` may be too late for: `processes` compare by JAX what they were told.
    """
    num_devices //= processes.count()
    divided = "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", "")
    if 1 < num_devices <= (system.cores() or 1) and not divided:
        with contextlib.suppress(RuntimeError):  # JAX is in use already, with the devices that it has
            jax.config.update("jax_num_cpu_devices", num_devices)


def fast_compile_options() -> dict[str, Any]:
    """Options for `jax.jit` of a program that runs once: on a CPU it compiles in a fourth of the time, to equal bits.

    What `XLA_FLAGS` says of the matter stands.
    """
    level = "xla_backend_optimization_level"
    return {level: 1} if jax.default_backend() == "cpu" and level not in os.environ.get("XLA_FLAGS", "") else {}


def describe(num_devices: int) -> str:
    """So many devices of this machine: kind, platform and memory, as far as they are known."""
    device = jax.local_devices()[0]
    platform = "" if device.device_kind == device.platform else f" ({device.platform})"
    on_device, of_host = system.device_bytes(), system.available_bytes()
    memory = ""
    if on_device is not None:
        memory = f", {on_device / system.GIB:.1f} GiB each"
    elif device.platform == "cpu" and of_host is not None:
        memory = f" of {system.cores()} core(s), {of_host / system.GIB:.1f} GiB of main memory free"
    return f"{num_devices} x {device.device_kind}{platform}{memory}"


def zeros(step: Step, state: PyTree, data: PyTree, batch: PyTree) -> PyTree:
    """Host zeros in the shape of `step`'s sums, to start adding from.

    Traced inside a mesh of one with abstract arguments, so nothing is computed; the sums have the same shape on
    any number of devices. `state`, `data` and `batch` are host trees or shapes, `batch` of one step.
    """
    mesh = jax.make_mesh((1,), (AXIS,), axis_types=(AxisType.Auto,), devices=jax.local_devices()[:1])
    whole, once = PartitionSpec(), _traced_once(step)
    traced = jax.shard_map(
        lambda *args: once(*args)[1],
        mesh=mesh,
        in_specs=(whole, whole, whole),
        out_specs=whole,
        check_vma=False,
    )
    return jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), jax.eval_shape(traced, state, data, batch))
