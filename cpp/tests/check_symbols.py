"""Check that the objects of the ISA levels share nothing with any other object.

The linker keeps one definition of each weak symbol (inline functions, templates) for the whole
binary. If a level's object shared one, code for AVX-512 could be what an older machine runs. So of
a level's object:

- its only strong symbol is its table, ``lstmcore::kernels::table_<level>``;
- no other object defines any of its weak symbols;
- its weak symbols carry the level's name (``Eigen_<level>`` or ``lstmcore::<level>``), so that no
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


def faults(nm: str, levels: dict[str, str], others: list[str]) -> list[str]:
    found = []
    weak_of = {}
    for path in [*levels.values(), *others]:
        weak_of[path] = defined_symbols(nm, path)[1]
    for level, path in levels.items():
        strong = defined_symbols(nm, path)[0]
        table = f"_ZN8lstmcore7kernels{len('table_' + level)}table_{level}E"
        if table not in strong:
            found.append(f"{level}: does not export its table {table}")
        found += [f"{level}: exports {name}" for name in sorted(strong - {table})]

        own = re.compile(rf"{len('Eigen_' + level)}Eigen_{level}|8lstmcore{len(level)}{level}")
        for name in sorted(weak_of[path]):
            if not own.search(name):
                found.append(f"{level}: weak symbol without the level's name: {name}")
            for other, symbols in weak_of.items():
                if other != path and name in symbols:
                    found.append(f"{level}: weak symbol shared with {other}: {name}")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nm", default="nm")
    parser.add_argument(
        "--level", nargs=2, action="append", required=True, metavar=("NAME", "OBJECT")
    )
    parser.add_argument("--others", nargs="*", default=[], metavar="OBJECT")
    parser.add_argument(
        "--expect-faults", action="store_true", help="succeed if all kinds are found"
    )
    arguments = parser.parse_args()

    found = faults(arguments.nm, dict(arguments.level), arguments.others)
    print("\n".join(found) or f"{len(arguments.level)} levels share nothing")
    if arguments.expect_faults:
        kinds = ["exports", "without the level's name", "shared with"]
        return 0 if all(any(kind in fault for fault in found) for kind in kinds) else 1
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
