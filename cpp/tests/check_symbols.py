"""Check that the objects of an ISA level share nothing with those of other levels, or with others.

The linker keeps one definition of each weak symbol (inline functions, templates) for the whole
binary. If a level's object shared one, code for AVX-512 could be what an older machine runs. So of
the objects of a level:

- their only strong symbol is the table, ``lstmcore::kernels::table_<level>``;
- no object but those of the same level defines any of their weak symbols;
- their weak symbols carry the level's name (``Eigen_<level>`` or ``lstmcore::<level>``), so that no
  other library can define them either.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys


def defined_symbols(nm: str, path: str) -> tuple[set[str], set[str]]:
    """Mangled names of the strong and of the weak external symbols that an object defines."""
    command = [nm, "--format=posix", "--defined-only", "--extern-only", path]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    strong, weak = set(), set()
    for line in output.splitlines():
        name, kind = line.split()[:2]
        (weak if kind in "WwVvu" else strong).add(name)
    return strong, weak


def faults(nm: str, levels: dict[str, list[str]], others: list[str]) -> list[str]:
    found = []
    level_of = {path: level for level, paths in levels.items() for path in paths}
    symbols_of = {path: defined_symbols(nm, path) for path in [*level_of, *others]}
    table_of = {
        level: f"_ZN8lstmcore7kernels{len('table_' + level)}table_{level}E" for level in levels
    }
    for level, paths in levels.items():
        if not any(table_of[level] in symbols_of[path][0] for path in paths):
            found.append(f"{level}: does not export its table {table_of[level]}")
    for path, level in level_of.items():
        strong, weak = symbols_of[path]
        found += [f"{level}: exports {name}" for name in sorted(strong - {table_of[level]})]

        own = re.compile(rf"{len('Eigen_' + level)}Eigen_{level}|8lstmcore{len(level)}{level}")
        for name in sorted(weak):
            if not own.search(name):
                found.append(f"{level}: weak symbol without the level's name: {name}")
            for other, (_, symbols) in symbols_of.items():
                if level_of.get(other) != level and name in symbols:
                    found.append(f"{level}: weak symbol shared with {other}: {name}")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nm", default="nm")
    parser.add_argument(
        "--level",
        nargs="+",
        action="append",
        required=True,
        metavar=("NAME", "OBJECT"),
        help="an ISA level and its objects",
    )
    parser.add_argument("--others", nargs="*", default=[], metavar="OBJECT")
    parser.add_argument(
        "--expect-faults", action="store_true", help="succeed if all kinds are found"
    )
    arguments = parser.parse_args()

    levels = {name: objects for name, *objects in arguments.level}
    found = faults(arguments.nm, levels, arguments.others)
    print("\n".join(found) or f"{len(levels)} levels share nothing")
    if arguments.expect_faults:
        kinds = ["exports", "without the level's name", "shared with"]
        return 0 if all(any(kind in fault for fault in found) for kind in kinds) else 1
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
