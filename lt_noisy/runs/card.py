"""The card of a run: everything that a bit-identical resume depends on, and the code that made it."""

import importlib.metadata
import platform
from typing import Any

import jax

from lt_noisy import __version__, revision, system
from lt_noisy.config.resolve import Resolved
from lt_noisy.data import manifest as manifests
from lt_noisy.training import parallel

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "scipy", "scikit-learn", "pillow")


def versions() -> dict[str, str]:
    """Of this package, Python and what computes."""
    packages = {name: importlib.metadata.version(name) for name in _PACKAGES}
    return {"lt_noisy": __version__, "python": platform.python_version(), **packages}


def config_texts(resolved: Resolved) -> dict[str, Any]:
    """The fields of the run and a section for each of its stages, in canonical texts."""
    return {**resolved.texts, **{stage.name: stage.texts for stage in resolved.stages}}


def run_card(resolved: Resolved, manifest: manifests.Manifest, devices: parallel.Jit | parallel.Pmap) -> dict[str, Any]:
    """What every checkpoint of a run says of itself, JSON-ready; each stage adds its own identity and sources."""
    return {
        "config": config_texts(resolved),
        "code": revision.code(),
        "versions": versions(),
        "machine": {
            "device": jax.local_devices()[0].device_kind,
            "devices": devices.num_devices,
            "cores": system.cores(),
            "parallel": resolved.fields.parallel,
        },
        "manifest_sha256": manifests.digest(manifest),
    }
