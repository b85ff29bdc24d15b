"""Files that are written whole or not at all: the old one stays until the new one is complete."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from .._base import checks

__all__ = ["replacing"]

# What a file system says that cannot write a folder to the disk by itself.
_NOT_FOR_FOLDERS = {errno.EINVAL, errno.ENOTSUP, errno.EACCES, errno.EPERM}


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str], name: str = "path") -> Iterator[Path]:
    """Give the path of a new file, which takes the place of that at `path` when it is written.

    It is in the same folder, and on the disk before it is renamed; the folder is so afterwards. If
    anything goes wrong, it is removed, and what was at `path` is still there. The mode is that of
    the old file, or that of any new one. A link stays a link. What is no plain file, as a pipe is,
    is given as it is.

    Raises
    ------
    OSError
        If the file cannot be written.
    """
    import tempfile  # not before: it takes some time to import

    target = checks.path(path, name)
    target = Path(os.path.realpath(target))
    if target.exists() and not target.is_file():
        if target.is_dir():
            raise IsADirectoryError(errno.EISDIR, "it is a folder, expected a file", str(target))
        yield target
        return
    if not target.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, "there is no folder to write it to", str(target))
    handle, other = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent)
    os.close(handle)
    temporary = Path(other)
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(target.stat().st_mode & 0o777 if target.exists() else 0o666 & ~_umask())
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(target.parent)


def _sync_folder(folder: Path) -> None:
    """Have the new name of a file on the disk, too."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in _NOT_FOR_FOLDERS:
            raise
    finally:
        os.close(handle)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
