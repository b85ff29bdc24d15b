"""Zip archives whose records are stored as they are, as PyTorch writes them.

Nothing is decompressed, and records may not overlap: so what is read is never more than the file.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

__all__ = ["Archive"]

_END = struct.Struct("<4s4H2LH")
_END_64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR = struct.Struct("<4sLQL")
_ENTRY = struct.Struct("<4s6H3L5H2L")
_HEADER = struct.Struct("<4s5H3L2H")
_MOST_ENTRIES = 100_000


class _Place(NamedTuple):
    """Where in the file a record is, in bytes."""

    start: int
    size: int
    crc: int
    stored: bool  # as it is, neither compressed nor encrypted


class Archive:
    """The records of an archive by their names, read when they are asked for.

    Raises
    ------
    ValueError
        If the archive is damaged, or a record shares bytes with another.
    """

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file = file
        self._places = _directory(file, size)
        # Some writers leave the checksums out, of all records: torch.save can be told to.
        self._checked = any(place.crc for place in self._places.values())

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __contains__(self, name: str) -> bool:
        return name in self._places

    def size(self, name: str) -> int:
        """Return how many bytes a record has in the file."""
        return self._places[name].size

    def read(self, name: str) -> bytearray:
        """Return a record, which must be stored as it is, and what was written."""
        place = self._places[name]
        if not place.stored:
            raise ValueError(
                f"its record {name!r} is compressed or encrypted, expected it stored as it is, as "
                "torch.save writes it"
            )
        self._file.seek(place.start)
        content = bytearray(self._file.read(place.size))
        if len(content) != place.size:
            raise ValueError(f"its record {name!r} is not whole")
        if self._checked and zlib.crc32(content) != place.crc:
            raise ValueError(f"its record {name!r} is not what was written (the checksum differs)")
        return content


def _directory(file: BinaryIO, size: int) -> dict[str, _Place]:
    """Return where the contents of each record are, by its name."""
    start, length, count = _find(file, size)
    if start + length > size:
        raise ValueError("its zip directory is outside of the file")
    if count > _MOST_ENTRIES or length > _MOST_ENTRIES * 256:
        raise ValueError(f"it has {count} records, expected at most {_MOST_ENTRIES}")
    file.seek(start)
    places: dict[str, _Place] = {}
    for name, entry in _entries(file.read(length), count):
        file.seek(entry.start)
        header = file.read(_HEADER.size)
        if len(header) < _HEADER.size or header[:4] != b"PK\3\4":
            raise ValueError(f"its record {name!r} is not where the zip directory says")
        *_, name_size, extra_size = _HEADER.unpack(header)
        place = entry._replace(start=entry.start + _HEADER.size + name_size + extra_size)
        if place.start + place.size > start:
            raise ValueError(f"its record {name!r} does not end before the zip directory")
        if name in places:
            raise ValueError(f"it has two records {name!r}")
        places[name] = place
    end = 0
    for name, place in sorted(places.items(), key=lambda item: item[1]):
        if place.start < end:
            raise ValueError(f"its record {name!r} overlaps another")
        end = place.start + place.size
    return places


def _find(file: BinaryIO, size: int) -> tuple[int, int, int]:
    """Return where the directory starts, its size, and how many entries it has."""
    tail = min(size, _END.size + 0xFFFF + _LOCATOR.size)  # with the longest comment there may be
    file.seek(size - tail)
    text = file.read(tail)
    end = text.rfind(b"PK\5\6")
    if end < 0 or len(text) < end + _END.size:
        raise ValueError("its zip directory is missing: the file is not whole")
    _, _, _, _, count, length, start, _ = _END.unpack_from(text, end)
    locator = end - _LOCATOR.size
    if locator >= 0 and text[locator : locator + 4] == b"PK\6\7":
        _, _, at, _ = _LOCATOR.unpack_from(text, locator)
        if at + _END_64.size > size:
            raise ValueError("its zip directory is outside of the file")
        file.seek(at)
        signature, *_, count, length, start = _END_64.unpack(file.read(_END_64.size))
        if signature != b"PK\6\6":
            raise ValueError("its zip directory is damaged")
    return start, length, count


def _entries(text: bytes, count: int) -> Iterator[tuple[str, _Place]]:
    """Name of each record, and its place, which starts where its header does."""
    position = 0
    for _ in range(count):
        if len(text) < position + _ENTRY.size or text[position : position + 4] != b"PK\1\2":
            raise ValueError("its zip directory is damaged")
        (
            _, _, _, flags, method, _, _, crc, packed, size, name_size, extra_size, comment_size,
            _, _, _, start,
        ) = _ENTRY.unpack_from(text, position)  # fmt: skip
        position += _ENTRY.size
        name = text[position : position + name_size].decode("utf-8", "replace")
        position += name_size
        extra = text[position : position + extra_size]
        position += extra_size + comment_size
        size, packed, start = _widen(extra, size, packed, start)
        stored = not (flags & 1 or method or packed != size)
        yield name, _Place(start, packed, crc, stored)


def _widen(extra: bytes, *values: int) -> tuple[int, ...]:
    """Return the values, those that did not fit into 32 bits from the zip64 extra field."""
    position, wide = 0, b""
    while position + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, position)
        if kind == 1:
            wide = extra[position + 4 : position + 4 + length]
        position += 4 + length
    result = []
    for value in values:
        if value == 0xFFFFFFFF:
            if len(wide) < 8:
                raise ValueError("its zip directory is damaged")
            value, wide = int.from_bytes(wide[:8], "little"), wide[8:]
        result.append(value)
    return tuple(result)
