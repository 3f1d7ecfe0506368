"""Eight CPU devices and strict promotion for every test and its children, and what fixtures all suites share."""

import os

import pytest
from helpers.commands import xla_flags

# Set before JAX starts, and inherited by child processes: no dtype and no rank changes unless the code says so.
os.environ.update(JAX_PLATFORMS="cpu", JAX_NUMPY_DTYPE_PROMOTION="strict", JAX_NUMPY_RANK_PROMOTION="raise")
os.environ["XLA_FLAGS"] = xla_flags(8)


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory):
    """No test reads or leaves decoded images in the user's cache."""
    os.environ["LT_NOISY_CACHE"] = str(tmp_path_factory.getbasetemp().parent / "decoded")


@pytest.fixture
def x64():
    """Everything is built, traced and run in float64: what is compared then hangs on no CPU's rounding."""
    import jax

    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="session")
def env(tmp_path_factory):
    """The environment of a child: one CPU device, and a compilation cache that all children share."""
    cache = tmp_path_factory.getbasetemp().parent / "xla-cache"
    return {
        **os.environ,
        "XLA_FLAGS": xla_flags(1),
        "JAX_COMPILATION_CACHE_DIR": str(cache),
    }
