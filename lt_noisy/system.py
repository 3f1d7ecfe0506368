"""What the program needs of the machine that it runs on: an operating system with POSIX locks, memory, and cores."""

import ctypes
import os
import sys

GIB = 2**30
KEEP_MEMORY = "LT_NOISY_KEEP_MEMORY"  # environment: 0 leaves the C library's allocator as it is

# glibc's mallopt parameters (malloc.h) and what they are set to: no large block has a mapping of its own, nothing is
# given back, the heap grows by 256 MiB, and all threads share it.
_MALLOPT = {-4: 0, -1: 2**31 - 1, -2: 256 * 2**20, -8: 1}
_kept = False


def refuse_unsupported() -> None:
    """Exits with 2 and one line where the system is none that the program runs on; for before anything is imported."""
    if os.name != "posix" or sys.platform in ("win32", "cygwin", "emscripten", "wasi"):
        print(
            f"error: lt_noisy runs on Linux and macOS, not on {sys.platform!r}, which has no POSIX file locks and "
            "signals; on Windows use WSL 2",
            file=sys.stderr,
        )
        raise SystemExit(2)


def keep_memory() -> None:
    """Has the process keep the memory that it frees, where the C library is glibc, unless `KEEP_MEMORY` is 0.

    XLA takes the temporaries of every step afresh; from the system they come page by page, which on a CPU a step
    feels. For the start of a program: it holds for all that comes after.
    """
    global _kept
    if os.environ.get(KEEP_MEMORY) == "0":
        return
    try:
        library = ctypes.CDLL("libc.so.6")
        library.gnu_get_libc_version  # noqa: B018 (musl has mallopt too, which does nothing)
        _kept = all([library.mallopt(parameter, value) == 1 for parameter, value in _MALLOPT.items()])
    except (OSError, AttributeError):  # another system, another C library
        _kept = False


def keeps_memory() -> bool:
    """Whether `keep_memory` has taken effect."""
    return _kept


def cores() -> int | None:
    """Processor cores that this process may use; None where the system does not say."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def device_bytes() -> int | None:
    """The memory that JAX may take of one device; None where it does not say, as on a CPU."""
    import jax  # not for the start of a program

    return (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit")


def available_bytes() -> int | None:
    """Main memory that this process may still take, swap left out; None where the system does not say.

    The smaller of what the machine has free, by Linux's own estimate, and of what is left under the limits of the
    process (RLIMIT_AS) and of its control group.
    """
    known = [_machine(), _address_space(), *_control_groups()]
    return min((left for left in known if left is not None), default=None)


def resident_bytes() -> int | None:
    """Main memory that this process takes; None where the system does not say."""
    pages = _read("/proc/self/statm").split()
    return int(pages[1]) * os.sysconf("SC_PAGE_SIZE") if pages else None


def _read(path: str) -> str:
    try:
        with open(path) as file:
            return file.read()
    except OSError:
        return ""


def _machine() -> int | None:
    for line in _read("/proc/meminfo").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return None


def _address_space() -> int | None:
    import resource  # not on every system that `refuse_unsupported` is there for

    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    pages = _read("/proc/self/statm").split()
    if limit == resource.RLIM_INFINITY or not pages:
        return None
    return max(limit - int(pages[0]) * resource.getpagesize(), 0)


def _control_groups() -> list[int]:
    """What is left under the memory limit of the control group (version 2) and of those that it is in."""
    own = next((line[3:] for line in _read("/proc/self/cgroup").splitlines() if line.startswith("0::")), "")
    left = []
    path = os.path.normpath(f"/sys/fs/cgroup/{own.lstrip('/')}")
    while path.startswith("/sys/fs/cgroup"):
        limit, used = _read(f"{path}/memory.max").strip(), _read(f"{path}/memory.current").strip()
        if limit.isdigit() and used.isdigit():
            cached = [int(line.split()[1]) for line in _read(f"{path}/memory.stat").splitlines() if _is_cache(line)]
            left.append(max(int(limit) - int(used) + sum(cached), 0))
        path = os.path.dirname(path)
    return left


def _is_cache(line: str) -> bool:
    return line.startswith("inactive_file ")  # what the kernel gives back before it kills
