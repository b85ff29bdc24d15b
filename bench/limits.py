"""The limits of the machine: multiply-adds and cache bandwidth, measured by a small C++ library."""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import shutil
import subprocess
from pathlib import Path

__all__ = ["Limits", "NoCompiler", "cache_sizes"]

BENCH = Path(__file__).resolve().parent
FLAGS = ["-std=c++17", "-O3", "-ffp-contract=fast", "-shared", "-fPIC", "-pthread"]


class NoCompiler(Exception):
    """The library cannot be built here."""


def cache_sizes() -> dict[str, int]:
    """Return bytes of the data caches that a core reads from: "L1", "L2", "L3"."""
    known = {"L1": 32 << 10, "L2": 1 << 20, "L3": 32 << 20}
    for name, key in (
        ("L1", "SC_LEVEL1_DCACHE_SIZE"),
        ("L2", "SC_LEVEL2_CACHE_SIZE"),
        ("L3", "SC_LEVEL3_CACHE_SIZE"),
    ):
        with contextlib.suppress(ValueError, OSError):
            known[name] = os.sysconf(key) or known[name]
    return known


def _build() -> Path:
    """Compile limits.cpp, unless that has been done; return the library."""
    compiler = os.environ.get("CXX") or next(filter(shutil.which, ("c++", "g++", "clang++")), None)
    if compiler is None:
        raise NoCompiler("no C++ compiler found")
    sources = [BENCH / "limits.cpp", BENCH / "limits_loops.h"]
    digest = hashlib.sha256(" ".join([compiler, *FLAGS]).encode())
    for source in sources:
        digest.update(source.read_bytes())
    library = BENCH.parent / "build" / f"limits-{digest.hexdigest()[:12]}.so"
    if not library.exists():
        library.parent.mkdir(parents=True, exist_ok=True)
        unfinished = library.with_suffix(f".{os.getpid()}")
        command = [*compiler.split(), *FLAGS, str(sources[0]), "-o", str(unfinished)]
        try:
            subprocess.run(command, capture_output=True, text=True, check=True)
        except OSError as error:
            raise NoCompiler(str(error)) from None
        except subprocess.CalledProcessError as error:
            raise NoCompiler(f"{' '.join(command)} failed:\n{error.stderr}") from None
        unfinished.replace(library)
    return library


class Limits:
    """What the machine does at best at an ISA level."""

    def __init__(self, isa: str) -> None:
        self._isa = isa.encode()
        self._library = ctypes.CDLL(str(_build()))
        self._library.limits_flops.restype = ctypes.c_double
        self._library.limits_int8.restype = ctypes.c_double
        self._library.limits_read.restype = ctypes.c_double

    def flops(self, threads: int, product: bool, seconds: float) -> float:
        """Return float32 operations per second, two for a multiply-add.

        In registers, or of a product, whose operands come from the L1 cache.
        """
        return self._checked(
            self._library.limits_flops(
                self._isa, threads, ctypes.c_bool(product), ctypes.c_double(seconds)
            )
        )

    def int8(self, threads: int, seconds: float) -> float:
        """Return operations of int8 per second in registers, by VNNI."""
        return self._checked(
            self._library.limits_int8(self._isa, threads, ctypes.c_double(seconds))
        )

    def read(self, threads: int, size: int, seconds: float) -> float:
        """Return bytes per second that all threads read, each from `size` bytes of its own."""
        return self._checked(
            self._library.limits_read(
                self._isa, threads, ctypes.c_int64(size), ctypes.c_double(seconds)
            )
        )

    def _checked(self, rate: float) -> float:
        if rate < 0:
            raise ValueError(f"no such loops for the ISA level {self._isa.decode()} here")
        return rate
