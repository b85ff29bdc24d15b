"""Worker processes, seen from the one that compares: only the one that is asked may run."""

from __future__ import annotations

import contextlib
import os
import pickle
import select
import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any

__all__ = ["Failed", "NotSupported", "WorkerProcess", "environment"]

SCRIPT = Path(__file__).resolve().with_name("worker.py")
CAN_STOP = hasattr(signal, "SIGSTOP")


class NotSupported(Exception):
    """The library is not installed, or does not have the case."""


class Failed(Exception):
    """The library raised an error, died, or did not answer in time."""


def environment(threads: int, isa: str | None) -> dict[str, str]:
    """Return the environment of a worker: the same number of threads for every library.

    With an ISA level, the libraries that can be told so keep to it: lstmcore, PyTorch with oneDNN
    and MKL, and XLA. ONNX Runtime and OpenVINO have no such setting.
    """
    n = str(threads)
    found = dict(os.environ)
    for name in (
        "OMP_NUM_THREADS",
        "MKL_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "LSTMCORE_NUM_THREADS",
    ):
        found[name] = n
    xla = [
        f"--xla_cpu_multi_thread_eigen={'true' if threads > 1 else 'false'}",
        f"intra_op_parallelism_threads={n}",
    ]
    if isa:
        found["LSTMCORE_ISA"] = isa
    if isa in ("x86-64-v2", "x86-64-v3"):
        v3 = isa == "x86-64-v3"
        found["ONEDNN_MAX_CPU_ISA"] = "AVX2" if v3 else "SSE41"
        found["ATEN_CPU_CAPABILITY"] = "avx2" if v3 else "default"
        found["MKL_ENABLE_INSTRUCTIONS"] = "AVX2" if v3 else "SSE4_2"
        xla.append(f"--xla_cpu_max_isa={'AVX2' if v3 else 'SSE4_2'}")
    found["JAX_PLATFORMS"] = "cpu"
    found["XLA_FLAGS"] = " ".join([os.environ.get("XLA_FLAGS", ""), *xla]).strip()
    return found


class WorkerProcess:
    """A library in a process of its own, stopped while it is not asked for anything.

    Threads that spin after their work is done would take time from the others, so an idle worker
    is not left to itself.

    Parameters
    ----------
    name, argument : str
        Of worker.py.
    env : dict
        Its environment.
    patience : float
        Seconds to wait for an answer.
    script : Path
        What it runs: worker.py, or another that calls its `serve`.

    Raises
    ------
    NotSupported, Failed
        If the library is not installed, or cannot be loaded.
    """

    def __init__(
        self,
        name: str,
        argument: str,
        env: dict[str, str],
        patience: float = 900,
        script: Path = SCRIPT,
    ) -> None:
        self.name = name
        self._patience = patience
        command = [sys.executable, str(script), name, argument]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env
        )
        try:
            self.about: dict[str, str] = self._answer()
        except BaseException:
            self.close()
            raise
        self._stop()

    def __call__(self, method: str, *arguments: Any) -> Any:
        """Call a method of the worker; the process runs just for that time."""
        if CAN_STOP:
            self._process.send_signal(signal.SIGCONT)
        assert self._process.stdin is not None
        try:
            pickle.dump((method, arguments), self._process.stdin, protocol=5)
            self._process.stdin.flush()
        except BrokenPipeError:
            raise Failed(f"{self.name} died") from None
        try:
            return self._answer()
        finally:
            self._stop()

    def _answer(self) -> Any:
        pipe = self._process.stdout
        assert pipe is not None
        if not select.select([pipe], [], [], self._patience)[0]:
            self.close()
            raise Failed(f"{self.name} did not answer for {self._patience:.0f} s")
        try:
            kind, value = pickle.load(pipe)
        except (EOFError, pickle.UnpicklingError):
            code = self._process.wait()
            raise Failed(f"{self.name} died (exit code {code})") from None
        if kind == "unsupported":
            raise NotSupported(value)
        if kind == "error":
            raise Failed(value)
        return value

    def _stop(self) -> None:
        if CAN_STOP and self.alive:
            self._process.send_signal(signal.SIGSTOP)

    @property
    def alive(self) -> bool:
        """Whether the process is still there."""
        return self._process.poll() is None

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):  # what it was not told any more
                    pipe.close()

    def __enter__(self) -> WorkerProcess:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
