"""Reading HDF5 as Keras writes it, without the HDF5 library, which damaged files can hang or crash.

Of the format [1]_ this is what HDF5 writes unless it is asked for something newer: superblocks 0
and 1, object headers 1, groups with symbol tables, attributes in the header, and arrays that lie in
the file in one uncompressed piece. Everything else is refused.

Nothing in a file is believed. Every part is read within the bounds of the file, and all reading
together is bounded by its size: parts that refer to each other in a circle, or many times to the
same place, end in an error.

References
----------
.. [1] The HDF Group, "HDF5 file format specification", version 3.0.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["SIGNATURE", "Dataset", "File", "Group"]

SIGNATURE = b"\x89HDF\r\n\x1a\n"

# Messages of an object header.
_DATASPACE, _LINK_INFO, _DATATYPE, _LINK, _EXTERNAL_FILES, _LAYOUT = 1, 2, 3, 6, 7, 8
_FILTERS, _ATTRIBUTE, _CONTINUATION, _SYMBOL_TABLE, _ATTRIBUTE_INFO = 11, 12, 16, 17, 21

# IEEE 754 by size: offset and precision, where exponent and mantissa are and how long, the bias.
_FLOATS = {
    2: (0, 16, 10, 5, 0, 10, 15),
    4: (0, 32, 23, 8, 0, 23, 127),
    8: (0, 64, 52, 11, 0, 52, 1023),
}

_SOFT_LINK = 2


class _Type(NamedTuple):
    size: int  # of an element, in bytes
    dtype: np.dtype[Any] | None  # of numbers, and of strings of a fixed size
    in_heap: bool  # strings of any size, each elsewhere in the file


class File:
    """A whole file in memory; `root` is the group that has all others.

    Parameters
    ----------
    data : bytes
        All of the file.

    Raises
    ------
    ValueError
        Here, and wherever something of it is asked for: if it is damaged, or of a kind not read.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._structure = 4 * len(data)  # how many bytes of structure may yet be read
        self._content = len(data)  # and of what it holds
        self._heaps: dict[int, dict[int, tuple[int, int]]] = {}
        signature, version, offsets, lengths = self.unpack("8sB4xBB", 0)
        if signature != SIGNATURE:
            raise ValueError("it does not begin like an HDF5 file")
        if version > 1:
            raise ValueError(
                f"its superblock has version {version}, expected 0 or 1, as Keras writes it: write "
                "the file without libver='latest'"
            )
        if (offsets, lengths) != (8, 8):
            raise ValueError(f"addresses have {offsets} bytes and sizes {lengths}, expected 8")
        start = 24 if version == 0 else 28
        base, _, end, _, _, root = self.unpack("6Q", start)
        if base != 0 or end > len(data):
            raise ValueError(f"it has {len(data)} bytes, expected {end} from {base} on: cut off")
        self.root = Group(self, root)

    def unpack(self, form: str, start: int) -> tuple[Any, ...]:
        """Read numbers of the file's structure."""
        return struct.unpack("<" + form, self.structure(start, struct.calcsize("<" + form)))

    def structure(self, start: int, size: int) -> bytes:
        """Read a part of the file's structure."""
        self._structure -= size
        if self._structure < 0:
            raise ValueError("its parts refer to each other without end")
        return self._part(start, size)

    def content(self, start: int, size: int) -> bytes:
        """Read a part of what the file holds."""
        part = self._part(start, size)
        self._content -= size
        if self._content < 0:
            raise ValueError("it refers to the same content many times")
        return part

    def _part(self, start: int, size: int) -> bytes:
        if start + size > len(self._data):
            raise ValueError(f"it has {len(self._data)} bytes, expected {start + size} at least")
        return self._data[start : start + size]

    def name(self, start: int, end: int) -> str:
        """Read a string that ends with a zero."""
        zero = self._data.find(b"\0", start, end)
        if zero < 0:
            raise ValueError("a name has no end")
        return self.structure(start, zero - start).decode()

    # Objects --------------------------------------------------------------------------------------

    def messages(self, address: int) -> Iterator[tuple[int, int, int]]:
        """Yield kind, start and end of the messages in the header of an object."""
        version, size = self.unpack("B7xI", address)
        if version != 1:
            raise ValueError(f"an object header has version {version}, expected 1")
        blocks = [(address + 16, size)]
        for start, length in blocks:
            end = start + length
            while start + 8 <= end:
                kind, size, flags = self.unpack("HHB3x", start)
                start += 8
                if start + size > end:
                    raise ValueError("an object header ends in the middle of a message")
                if kind == _CONTINUATION:
                    blocks.append(self.unpack("QQ", start))
                elif flags & 2 and kind in (_DATASPACE, _DATATYPE, _LAYOUT, _ATTRIBUTE):
                    raise ValueError("an object shares a part of its header, which is not read")
                else:
                    yield kind, start, start + size
                start += size

    def shape(self, start: int) -> tuple[int, ...] | None:
        """Read a dataspace: a shape, or None for nothing at all."""
        version, rank, _, kind = self.unpack("4B", start)
        if version not in (1, 2) or rank > 32:
            raise ValueError(f"a dataspace has version {version} and {rank} axes")
        if version == 2 and kind == 2:
            return None
        return self.unpack(f"{rank}Q", start + (8 if version == 1 else 4))

    def type(self, start: int) -> _Type:
        """Read a datatype."""
        kind, bits, size = self.unpack("BB2xI", start)
        kind &= 15
        if kind == 1:  # floating point
            order, layout = ("<", ">")[bits & 1], self.unpack("HHBBBBI", start + 8)
            if bits & 64 or _FLOATS.get(size) != layout:
                raise ValueError(f"numbers of {size} bytes are not of IEEE 754, which is not read")
            return _Type(size, np.dtype(f"{order}f{size}"), False)
        if kind == 3:
            return _Type(size, np.dtype(("S", size)), False)
        if kind == 9 and bits & 15 == 1 and size == 16:
            return _Type(size, None, True)
        raise ValueError(f"something is of datatype class {kind}, which is not read")

    def heap_string(self, length: int, address: int, index: int) -> bytes:
        """Read a string from a global heap."""
        if not length:
            return b""
        if address not in self._heaps:
            self._heaps[address] = dict(self._heap_objects(address))
        start, size = self._heaps[address].get(index, (0, 0))
        if length > size:
            raise ValueError(f"a string of {length} bytes is not where it should be")
        return self.content(start, length)

    def _heap_objects(self, address: int) -> Iterator[tuple[int, tuple[int, int]]]:
        """Yield index and (start, size) of the objects of a global heap."""
        signature, version, size = self.unpack("4sB3xQ", address)
        if signature != b"GCOL" or version != 1:
            raise ValueError("a heap of strings is not where it should be")
        start, end = address + 16, address + size
        while start + 16 <= end:
            index, size = self.unpack("H6xQ", start)
            if index == 0:  # what is free, at the end
                return
            yield index, (start + 16, size)
            start += 16 + (size + 7) // 8 * 8


class Group:
    """A group: others, and arrays, by their names; and attributes."""

    def __init__(self, file: File, address: int) -> None:
        self._file = file
        self._address = address

    def get(self, name: str) -> Group | Dataset | None:
        """Return what has that name, or None."""
        if name not in self._links:
            return None
        address, kind = self._links[name]
        if kind == _SOFT_LINK:
            raise ValueError(f"{name!r} is a link to elsewhere, which is not followed")
        kinds = {kind for kind, _, _ in self._file.messages(address)}
        return (Dataset if _LAYOUT in kinds else Group)(self._file, address)

    def __len__(self) -> int:
        return len(self._links)

    def strings(self, name: str) -> list[str] | None:
        """Return an attribute that is a string or an array of strings, or None."""
        if name not in self._attributes:
            return None
        file, (kind, space, start) = self._file, self._attributes[name]
        element, shape = file.type(kind), file.shape(space)
        count = 0 if shape is None else math.prod(shape)
        if not count:
            return []
        raw = file.content(start, count * element.size)
        if element.in_heap:
            found = [file.heap_string(*triple) for triple in struct.iter_unpack("<IQI", raw)]
        elif element.dtype is not None and element.dtype.kind == "S":
            found = np.frombuffer(raw, element.dtype).tolist()
        else:
            raise ValueError(f"the attribute {name!r} has no strings")
        return [text.decode() for text in found]

    @cached_property
    def _links(self) -> dict[str, tuple[int, int]]:
        """Address, and kind of link, by name."""
        for kind, start, _ in self._file.messages(self._address):
            if kind == _SYMBOL_TABLE:
                tree, heap = self._file.unpack("QQ", start)
                signature, size, address = self._file.unpack("4s4xQ8xQ", heap)
                if signature != b"HEAP":
                    raise ValueError("the names of a group are not where they should be")
                return dict(self._nodes(tree, address, address + size, None))
            if kind in (_LINK, _LINK_INFO):
                raise ValueError("a group is of a newer kind than Keras writes, which is not read")
        raise ValueError("a group has no table of what is in it")

    def _nodes(
        self, address: int, names: int, end: int, level: int | None
    ) -> Iterator[tuple[str, tuple[int, int]]]:
        """Yield name, address and kind of what is below a node of a group's tree."""
        file = self._file
        signature, kind, found, count = file.unpack("4sBBH", address)
        if signature != b"TREE" or kind != 0 or level not in (None, found):
            raise ValueError("the tree of a group is not where it should be")
        for i in range(count):
            (child,) = file.unpack("Q", address + 32 + 16 * i)  # between two keys
            if found:
                yield from self._nodes(child, names, end, found - 1)
                continue
            signature, leaves = file.unpack("4s2xH", child)
            if signature != b"SNOD":
                raise ValueError("the entries of a group are not where they should be")
            for j in range(leaves):
                name, header, link = file.unpack("QQI", child + 8 + 40 * j)
                yield file.name(names + name, end), (header, link)

    @cached_property
    def _attributes(self) -> dict[str, tuple[int, int, int]]:
        """Where type, shape and value of each attribute are, by name."""
        file, found = self._file, {}
        for kind, start, end in file.messages(self._address):
            if kind == _ATTRIBUTE_INFO:
                raise ValueError("an object has attributes of a newer kind, which is not read")
            if kind == _ATTRIBUTE:
                version, flags, *sizes = file.unpack("BBHHH", start)
                if version not in (1, 2, 3) or (version > 1 and flags):
                    raise ValueError(f"an attribute has version {version}, which is not read")
                at = start + (9 if version == 3 else 8)
                places = []
                for size in sizes:
                    places.append(at)
                    at += (size + 7) // 8 * 8 if version == 1 else size
                if at > end:
                    raise ValueError("an attribute is longer than its place")
                name, type_, space = places
                found[file.name(name, type_)] = (type_, space, at)
        return found


class Dataset:
    """An array; it is read when it is asked for, as ``dataset[()]``."""

    def __init__(self, file: File, address: int) -> None:
        self._file = file
        at = {}
        for kind, start, _ in file.messages(address):
            if kind in (_FILTERS, _EXTERNAL_FILES):
                what = "compressed" if kind == _FILTERS else "in another file"
                raise ValueError(f"an array is {what}, which Keras does not do: it is not read")
            at[kind] = start
        if not {_DATASPACE, _DATATYPE, _LAYOUT} <= at.keys():
            raise ValueError("an array has no shape or no type")
        shape, element = file.shape(at[_DATASPACE]), file.type(at[_DATATYPE])
        if shape is None or element.dtype is None:
            raise ValueError("an array has no numbers")
        self.shape: tuple[int, ...] = shape
        self.dtype: np.dtype[Any] = element.dtype
        self._bytes = math.prod(shape) * element.size
        version, layout = file.unpack("BB", at[_LAYOUT])
        if version not in (3, 4) or layout not in (0, 1):
            raise ValueError("an array is in pieces, or of an old kind, which is not read")
        if layout == 0:
            self._start, (size,) = at[_LAYOUT] + 4, file.unpack("H", at[_LAYOUT] + 2)
        else:
            self._start, size = file.unpack("QQ", at[_LAYOUT] + 2)
        if size != self._bytes:
            raise ValueError(f"an array of shape {shape} has {size} bytes, expected {self._bytes}")

    def __getitem__(self, index: tuple[()]) -> npt.NDArray[Any]:
        raw = self._file.content(self._start, self._bytes) if self._bytes else b""
        return np.frombuffer(raw, self.dtype).reshape(self.shape)[index]
