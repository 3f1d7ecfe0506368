"""One pure per-device step, compiled for any number of devices with `jit` or with `pmap`.

`Jit` lays a mesh with one axis over the devices and runs the step under `shard_map`; one device is a mesh of
one. `Pmap` keeps a leading device axis on everything. Both offer the same five methods, and a test holds
them to the same gradients. Every transfer between host and devices in them is an explicit one, so that all five work
under `jax.transfer_guard("disallow")`.
"""

import contextlib
import os
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from lt_noisy import system
from lt_noisy.collectives import AXIS
from lt_noisy.errors import UserError, did_you_mean, first_line

PyTree = Any
Device = Any  # jax.Device, which is no type to a type checker
Step = Callable[[PyTree, PyTree, PyTree], tuple[PyTree, PyTree]]


def _accumulate(step: Step, steps_per_call: int) -> Callable[..., tuple[PyTree, PyTree]]:
    """`(state, totals, data, batch) -> (state, totals)`: one step, or a scan of several, adding up its sums."""

    def once(state, totals, data, batch):
        state, sums = step(state, data, batch)
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


class Jit:
    """`jit` of a `shard_map` over a one-axis mesh."""

    def __init__(self, devices: list[Device]):
        self.num_devices = len(devices)
        self.mesh = jax.make_mesh((len(devices),), (AXIS,), axis_types=(AxisType.Auto,), devices=devices)

    def _sharding(self, *axes: str | None) -> NamedSharding:
        return NamedSharding(self.mesh, PartitionSpec(*axes))

    def replicate(self, tree: PyTree) -> PyTree:
        """A host tree on every device."""
        return jax.device_put(tree, self._sharding())

    def fetch(self, tree: PyTree) -> PyTree:
        """A replicated tree back on the host, as copies."""
        return _host_copy(tree)

    def compile_step(self, step: Step, steps_per_call: int = 1) -> Callable[..., tuple[PyTree, PyTree]]:
        """Compiles `step(state, data, batch) -> (state, sums)`.

        Returns:
          `call(state, totals, data, batch) -> (state, totals)`, which donates its first two arguments. Leaves of
          `batch` are host arrays [B, ...], or [steps_per_call, B, ...] where several steps run per call.
        """
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
        compiled = jax.jit(
            mapped,
            donate_argnums=(0, 1),
            in_shardings=(replicated, replicated, replicated, shards),
            out_shardings=(replicated, replicated),
        )
        return lambda state, totals, data, batch: compiled(state, totals, data, jax.device_put(batch, shards))

    def compile_map(self, fn: Callable[[PyTree, PyTree], PyTree]) -> Callable[[PyTree, PyTree], PyTree]:
        """Compiles a per-example function `fn(variables, batch [B_local, ...]) -> outputs [B_local, ...]`.

        Returns:
          `call(variables, batch) -> outputs`: variables and outputs on the devices, the batch on the host.
        """
        whole, split = PartitionSpec(), PartitionSpec(AXIS)
        mapped = jax.shard_map(fn, mesh=self.mesh, in_specs=(whole, split), out_specs=split, check_vma=False)
        shards = self._sharding(AXIS)
        compiled = jax.jit(mapped, in_shardings=(self._sharding(), shards), out_shardings=shards)
        return lambda variables, batch: compiled(variables, jax.device_put(batch, shards))

    def gather(self, outputs: PyTree) -> PyTree:
        """Outputs of a compiled map on the host, [B, ...]."""
        return jax.device_get(outputs)


class Pmap:
    """`pmap` with stacked arrays. Every tree on the devices has a leading axis of `num_devices`."""

    def __init__(self, devices: list[Device]):
        self.num_devices = len(devices)
        self.devices = devices
        # What `pmap` itself lays out: arrays laid out in another way it would move, or compile a second time for.
        self._stacked = NamedSharding(Mesh(np.array(devices), (AXIS,)), PartitionSpec(AXIS))

    def replicate(self, tree: PyTree) -> PyTree:
        """A host tree on every device."""
        stacked = jax.tree.map(lambda x: np.broadcast_to(x, (self.num_devices, *np.shape(x))), tree)
        return jax.device_put(stacked, self._stacked)

    def fetch(self, tree: PyTree) -> PyTree:
        """A replicated tree back on the host, as copies."""
        one = jax.tree.map(lambda x: x.addressable_data(0), tree)
        return jax.tree.map(lambda x: np.squeeze(x, 0), _host_copy(one))

    def _split(self, batch: PyTree, axis: int) -> PyTree:
        def split(x: np.ndarray) -> np.ndarray:
            parts = x.reshape(*x.shape[:axis], self.num_devices, -1, *x.shape[axis + 1 :])
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
        compiled = jax.pmap(fn, axis_name=AXIS, devices=self.devices)
        return lambda variables, batch: compiled(variables, self._split(batch, 0))

    def gather(self, outputs: PyTree) -> PyTree:
        """Outputs of a compiled map on the host, [B, ...]."""
        return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), jax.device_get(outputs))


MODES = {"jit": Jit, "pmap": Pmap}


def make(mode: str, num_devices: int = 0) -> Jit | Pmap:
    """The devices to run on: the first `num_devices` local ones, all of them for 0.

    A CPU is one device, unless at the first use of JAX in a process more are asked for, up to one for each core.
    """
    if mode not in MODES:
        raise UserError(f"config.parallel: unknown mode {mode!r}{did_you_mean(mode, MODES)} (known: jit, pmap)")
    _divide_cpu(num_devices)
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
    if not 0 <= num_devices <= len(devices):
        raise UserError(f"config.devices: {num_devices} asked for, {len(devices)} present (0 takes them all)")
    return MODES[mode](devices[:num_devices] if num_devices else devices)


def _divide_cpu(num_devices: int) -> None:
    divided = "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", "")
    if 1 < num_devices <= (system.cores() or 1) and not divided:
        with contextlib.suppress(RuntimeError):  # JAX is in use already, with the devices that it has
            jax.config.update("jax_num_cpu_devices", num_devices)


def memory_bytes() -> int | None:
    """The memory that JAX may take of one device; None where it does not say, as on a CPU."""
    return (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit")


def describe(num_devices: int) -> str:
    """So many devices of this machine: kind, platform and memory, as far as they are known."""
    device = jax.local_devices()[0]
    platform = "" if device.device_kind == device.platform else f" ({device.platform})"
    on_device, of_host = memory_bytes(), system.available_bytes()
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
    whole = PartitionSpec()
    traced = jax.shard_map(
        lambda *args: step(*args)[1],
        mesh=mesh,
        in_specs=(whole, whole, whole),
        out_specs=whole,
        check_vma=False,
    )
    return jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), jax.eval_shape(traced, state, data, batch))
