"""The directory of a zip archive whose records are stored as they are, as PyTorch writes them.

Nothing is decompressed, and records may not overlap: so what is read is never more than the file.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

__all__ = ["Place", "directory"]

_END = struct.Struct("<4s4H2LH")
_END_64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR = struct.Struct("<4sLQL")
_ENTRY = struct.Struct("<4s6H3L5H2L")
_HEADER = struct.Struct("<4s5H3L2H")
_MOST_ENTRIES = 100_000


class Place(NamedTuple):
    """Where in the file something is, in bytes."""

    start: int
    size: int


def directory(file: BinaryIO, size: int) -> dict[str, Place]:
    """Return where the contents of each record are, by its name.

    Raises
    ------
    ValueError
        If the archive is damaged, or a record is compressed, encrypted, or shares bytes with
        another.
    """
    start, length, count = _find(file, size)
    if start + length > size:
        raise ValueError("its zip directory is outside of the file")
    if count > _MOST_ENTRIES or length > _MOST_ENTRIES * 256:
        raise ValueError(f"it has {count} records, expected at most {_MOST_ENTRIES}")
    file.seek(start)
    places: dict[str, Place] = {}
    for name, at, bytes_ in _entries(file.read(length), count):
        file.seek(at)
        header = file.read(_HEADER.size)
        if len(header) < _HEADER.size or header[:4] != b"PK\3\4":
            raise ValueError(f"its record {name!r} is not where the zip directory says")
        *_, name_size, extra_size = _HEADER.unpack(header)
        place = Place(at + _HEADER.size + name_size + extra_size, bytes_)
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


def _entries(text: bytes, count: int) -> Iterator[tuple[str, int, int]]:
    """Name of each record, where its header is, and how many bytes it has."""
    position = 0
    for _ in range(count):
        if len(text) < position + _ENTRY.size or text[position : position + 4] != b"PK\1\2":
            raise ValueError("its zip directory is damaged")
        (
            _, _, _, flags, method, _, _, _, packed, size, name_size, extra_size, comment_size,
            _, _, _, start,
        ) = _ENTRY.unpack_from(text, position)  # fmt: skip
        position += _ENTRY.size
        name = text[position : position + name_size].decode("utf-8", "replace")
        position += name_size
        extra = text[position : position + extra_size]
        position += extra_size + comment_size
        size, packed, start = _widen(extra, size, packed, start)
        if flags & 1 or method or packed != size:
            raise ValueError(
                f"its record {name!r} is compressed or encrypted, expected it stored as it is, as "
                "torch.save writes it; torch.jit.save does not"
            )
        yield name, start, size


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
