"""What readers are given: a path, bytes, or an open file."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from .._base import checks

__all__ = ["Source", "opened"]


class Source(NamedTuple):
    """A file to be read, opened once."""

    file: BinaryIO
    size: int
    name: str
    """What messages call it: the path, if there is one."""
    folder: Path | None
    """Where it lies, for files that name others; None if it is not read from a path."""


@contextlib.contextmanager
def opened(given: Any, name: str = "path") -> Iterator[Source]:
    """Give the file that somebody has handed in.

    Parameters
    ----------
    given : path, bytes-like, or file opened in binary mode
        Of an open file, what is left to read is read at once; it is not closed.
    name : str, default "path"
        What the argument is called, for messages.

    Raises
    ------
    TypeError
        If it is something else, or a file of text.
    OSError
        If it cannot be read.
    """
    if isinstance(given, (str, os.PathLike)):
        path = checks.path(given, name)
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            yield Source(file, size, str(path), path.parent)
        return
    what = f"the content given as {name}"
    content = given
    if callable(getattr(given, "read", None)):
        own = getattr(given, "name", None)
        what = own if isinstance(own, str) else what
        content = given.read()
        if isinstance(content, str):
            raise TypeError(f"{name} is a file of text, expected one opened in binary mode, 'rb'")
    if not isinstance(content, (bytes, bytearray, memoryview)):
        raise TypeError(
            f"{name} is {checks.describe(given)}, expected a path, bytes, or an open binary file"
        )
    yield Source(io.BytesIO(content), memoryview(content).nbytes, what, None)
