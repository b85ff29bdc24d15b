"""What a mutant is."""

from __future__ import annotations

from typing import NamedTuple


class Mutant(NamedTuple):
    """A wrong version of one file, and the tests of which at least one must fail for it.

    `old` stands in the file exactly once. The tests are what pytest is called with (files, tests of
    a file, or -k and an expression), or "ctest:name" for a C++ test.
    """

    name: str
    file: str
    old: str
    new: str
    tests: list[str]


def of(file: str, tests: list[str], changes: dict[str, tuple[str, str]]) -> list[Mutant]:
    """Return mutants of one file that the same tests must kill: {name: (old, new)}."""
    return [Mutant(name, file, old, new, tests) for name, (old, new) in changes.items()]
