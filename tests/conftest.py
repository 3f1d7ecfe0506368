"""Eight CPU devices and strict promotion for every test and its children, and what fixtures all suites share."""

import os
import shutil
import tempfile

import pytest
from helpers.browser import browser_page  # noqa: F401 (a fixture)
from helpers.commands import xla_flags

# Set before JAX starts, and inherited by child processes: no dtype and no rank changes unless the code says so.
os.environ.update(JAX_PLATFORMS="cpu", JAX_NUMPY_DTYPE_PROMOTION="strict", JAX_NUMPY_RANK_PROMOTION="raise")
os.environ["XLA_FLAGS"] = xla_flags(8)
# Every program is compiled once in a session, whichever test or child is the first to run it.
_PROGRAMS = None if "PYTEST_XDIST_WORKER" in os.environ else tempfile.mkdtemp(prefix="lt_noisy-programs-")
if _PROGRAMS is not None:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = _PROGRAMS
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"


def pytest_unconfigure():
    """Takes the compiled programs away when the session ends."""
    if _PROGRAMS is not None:
        shutil.rmtree(_PROGRAMS, ignore_errors=True)


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
def env():
    """The environment of a child: one CPU device."""
    return {**os.environ, "XLA_FLAGS": xla_flags(1)}
