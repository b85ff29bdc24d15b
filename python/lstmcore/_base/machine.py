"""The machine: threads, instruction sets, and what a bug report needs."""

from __future__ import annotations

import contextlib
import os

from .. import _core
from . import checks

__all__ = [
    "Info",
    "available_isas",
    "get_num_threads",
    "info",
    "isa",
    "set_isa",
    "set_num_threads",
]


def set_num_threads(n: int) -> None:
    """Set how many threads a call may use, from the next call on.

    Results do not depend on it. It starts as ``LSTMCORE_NUM_THREADS``, else ``OMP_NUM_THREADS``,
    else as many as there are cores that this process may use; more than those count for as many. A
    call may use fewer: those that were fastest of late for calls of its kind, because threads that
    wait for a core that other processes use cost more than they bring. A lower limit that
    `threadpoolctl`, or anybody who calls OpenMP's ``omp_set_num_threads``, sets for the calling
    thread is kept to. In a process forked from one that has imported the library it is always 1.

    Parameters
    ----------
    n : int
        At least 1.

    Raises
    ------
    ValueError, TypeError
        If n is less than 1 or no int.

    Examples
    --------
    >>> import lstmcore as lc
    >>> lc.set_num_threads(1)
    >>> lc.get_num_threads()
    1
    """
    _core.set_num_threads(min(checks.integer(n, "n", 1), 2**31 - 1))


def get_num_threads() -> int:
    """Return how many threads a call may use: see `set_num_threads`.

    Examples
    --------
    >>> import lstmcore as lc
    >>> lc.get_num_threads() >= 1
    True
    """
    return _core.get_num_threads()


def isa() -> str:
    """Return the instruction-set level in use, such as ``"x86-64-v3"``.

    It starts as ``LSTMCORE_ISA``, or as the highest level that this machine has.

    Examples
    --------
    >>> import lstmcore as lc
    >>> lc.isa() in lc.available_isas()
    True
    """
    return _core.isa()


def available_isas() -> list[str]:
    """Return the levels that this machine can run, the lowest first.

    Examples
    --------
    >>> import lstmcore as lc
    >>> lc.available_isas()  # doctest: +SKIP
    ['x86-64-v2', 'x86-64-v3']
    """
    return list(_core.available_isas())


def set_isa(name: str) -> None:
    """Use another instruction-set level from the next call on.

    Parameters
    ----------
    name : str
        One of `available_isas`.

    Raises
    ------
    ValueError, TypeError
        If it is none of them.

    Examples
    --------
    >>> import lstmcore as lc
    >>> lc.set_isa(lc.available_isas()[0])
    """
    _core.set_isa(checks.choice(name, "name", tuple(_core.available_isas())))


class Info(dict[str, str]):
    """A dict that prints as lines of ``key: value``."""

    def __str__(self) -> str:
        width = max(map(len, self), default=0)
        return "\n".join(f"{key + ':':<{width + 1}} {value}" for key, value in self.items())


def info() -> Info:
    """Return what a bug report needs: versions, compiler, instruction sets, threads.

    Examples
    --------
    >>> import lstmcore as lc
    >>> print(lc.info())  # doctest: +ELLIPSIS
    lstmcore: ...
    """
    import platform  # slow, and seldom needed

    import numpy as np

    build = dict(_core.build_info())
    result = Info(lstmcore=build.pop("version"))
    result["python"] = f"{platform.python_implementation()} {platform.python_version()}"
    result["numpy"] = np.__version__
    result["platform"] = platform.platform()
    result["cpu"] = _cpu() or platform.processor() or platform.machine()
    result.update(build)
    result["isa"] = f"{isa()} (of {', '.join(available_isas())})"
    result["bfloat16"] = _core.bfloat16_instructions()
    result["bfloat16x3"] = _core.bfloat16x3_instructions()
    result["int8"] = _core.int8_instructions()
    result["threads"] = f"{get_num_threads()} (of {_core.max_threads()})"
    for name in ("ISA", "BFLOAT16", "INT8", "NUM_THREADS"):
        variable = f"LSTMCORE_{name}"
        if variable in os.environ:
            result[variable] = os.environ[variable]
    return result


def _cpu() -> str:
    """Return the model name of the processor on Linux, else nothing."""
    with (
        contextlib.suppress(OSError),
        open("/proc/cpuinfo", encoding="utf-8", errors="replace") as lines,
    ):
        for line in lines:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return ""


def memory_limit() -> float:
    """Return how many bytes this process can hope to use; inf if nobody says."""
    limits = [float("inf")]
    with contextlib.suppress(AttributeError, OSError, ValueError):
        limits.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    with contextlib.suppress(OSError), open("/proc/meminfo", encoding="ascii") as lines:
        limits += [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvail")]
    for path in (
        "/sys/fs/cgroup/memory.max",
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
    ):
        with (
            contextlib.suppress(OSError, ValueError),
            open(path, encoding="ascii") as file,
        ):
            limits.append(int(file.read()))  # ValueError: "max"
    return min(limits)
