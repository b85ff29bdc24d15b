"""Files that are there whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

__all__ = ["replace"]


def replace(target: Path, write: Callable[[Path], object]) -> None:
    """Have a file written, and put it where `target` is.

    What is there stays as it is until all is written and on the disk, and if anything goes wrong.

    Parameters
    ----------
    target : Path
    write : function
        Writes a file at the path that it is given, which exists and is empty.
    """
    import tempfile  # not before: it takes some time to import

    # In the same folder, so that it can be renamed, which replaces the old file at once.
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        write(temporary)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(target.stat().st_mode & 0o777 if target.exists() else 0o666 & ~_umask())
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _keep_name(target.parent)


def _keep_name(folder: Path) -> None:
    """Have the folder's new entry written to the disk, where folders can be opened."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
