"""Check the tests: break the library in one small place after another; some test must fail.

A mutant is a wrong version of one file, and names the tests that must notice it. All work is done
on a copy of the tree. See README.md beside this file.
"""

from __future__ import annotations

import argparse
import os
import queue
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from mutants import MUTANTS, QUICK, Mutant

ROOT = Path(__file__).parents[2]
LONGEST = 300  # seconds of the tests of one mutant; one that hangs counts as noticed


class BrokenMutantError(Exception):
    """The mutant says nothing about the tests: the list has to be mended."""


class Tree:
    """A copy of the repository in which one mutant at a time is made."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.build = folder, folder / "build" / "mutants"
        self._core = folder / "python" / "lstmcore" / find_core().name
        self._changes = 0
        listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
        for name in subprocess.check_output(listed, cwd=ROOT, text=True).splitlines():
            if (ROOT / name).is_file():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, folder / name)
        shutil.copy2(find_core(), self._core)

    def write(self, name: str, text: str) -> None:
        """Write a file. Each time gets another date, as Python's caches look at seconds only."""
        path = self.folder / name
        path.write_text(text, "utf-8")
        self._changes += 1
        if path.suffix == ".py":
            date = time.time() + 10 * self._changes
            os.utime(path, (date, date))

    def configure(self) -> None:
        """Prepare the build of the C++ of this tree."""
        pybind11 = [sys.executable, "-m", "pybind11", "--cmakedir"]
        options = {
            "LSTMCORE_BUILD_PYTHON": "ON",
            "LSTMCORE_BUILD_TESTS": "ON",
            "Python_EXECUTABLE": sys.executable,
            "pybind11_DIR": subprocess.check_output(pybind11, text=True).strip(),
        }
        if shutil.which("ccache"):
            options["CMAKE_CXX_COMPILER_LAUNCHER"] = "ccache"
        given = [f"-D{name}={value}" for name, value in options.items()]
        done = self._run(["cmake", "-S", ".", "-B", str(self.build), "-G", "Ninja", *given])
        if done is None or done.returncode:
            raise SystemExit(f"cmake failed:\n{output(done)}")

    def compile(self) -> None:
        """Build what has changed, and put the extension module where Python finds it."""
        done = self._run(["cmake", "--build", str(self.build)], longest=3600)
        if done is None or done.returncode:
            raise BrokenMutantError(f"it does not compile:\n{output(done)}")
        shutil.copy2(self.build / self._core.name, self._core)

    def notices(self, tests: list[str]) -> bool:
        """Run the tests; return whether one of them fails."""
        cpp = [test.removeprefix("ctest:") for test in tests if test.startswith("ctest:")]
        python = [test for test in tests if not test.startswith("ctest:")]
        if cpp:
            names = f"^({'|'.join(cpp)})$"
            ctest = ["ctest", "--test-dir", str(self.build), "-R", names, "--no-tests=error"]
            done = self._run(ctest)
            if done is None or done.returncode:
                if "No tests were found" in output(done):
                    raise BrokenMutantError(f"no such test: {names}")
                return True
        if not python:
            return False
        pytest = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *python]
        done = self._run(pytest)
        if done is not None and done.returncode in (2, 3, 4, 5):
            raise BrokenMutantError(f"its tests cannot be run:\n{output(done)}")
        return done is None or done.returncode != 0

    def _run(
        self, command: list[str], longest: float = LONGEST
    ) -> subprocess.CompletedProcess[str] | None:
        """Run a command in the tree; None if it takes too long."""
        environment = dict(
            os.environ,
            PYTHONPATH=str(self.folder / "python"),
            CCACHE_BASEDIR=str(self.folder),  # so that another copy finds what this one compiles
            CCACHE_NOHASHDIR="1",
        )
        try:
            return subprocess.run(
                command,
                cwd=self.folder,
                env=environment,
                text=True,
                errors="replace",
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=longest,
            )
        except subprocess.TimeoutExpired:
            return None


def output(done: subprocess.CompletedProcess[str] | None) -> str:
    return "it takes too long" if done is None else "\n".join(done.stdout.splitlines()[-15:])


def find_core() -> Path:
    """Return the compiled module: of this tree, else of the installed package."""
    for path in (ROOT / "python" / "lstmcore").glob("_core*.so"):
        return path
    where = "import lstmcore._core as core; print(core.__file__)"
    found = subprocess.run([sys.executable, "-c", where], capture_output=True, text=True, cwd="/")
    if found.returncode:
        raise SystemExit("lstmcore is not built: install it first, pip install .")
    return Path(found.stdout.strip())


def is_cpp(mutant: Mutant) -> bool:
    return mutant.file.startswith("cpp/")


def both_texts(mutant: Mutant, root: Path) -> tuple[str, str]:
    """Return the text of the file, and that with the mutant in it."""
    path = root / mutant.file
    if not path.is_file():
        raise BrokenMutantError(f"there is no file {mutant.file}")
    text = path.read_text("utf-8")
    count = text.count(mutant.old)
    if count != 1:
        raise BrokenMutantError(f"{mutant.file} has {count} times, not once:\n{mutant.old}")
    return text, text.replace(mutant.old, mutant.new)


def try_one(mutant: Mutant, tree: Tree) -> str:
    """Return "killed", "survived", or what is wrong with the mutant."""
    try:
        original, text = both_texts(mutant, tree.folder)
        tree.write(mutant.file, text)
        try:
            if is_cpp(mutant):
                tree.compile()
            return "killed" if tree.notices(mutant.tests) else "survived"
        finally:
            tree.write(mutant.file, original)
    except BrokenMutantError as error:
        return f"cannot be used: {error}"


def check_tests(mutants: list[Mutant], tree: Tree) -> None:
    """Run the tests of all mutants once without any: what fails anyway notices nothing."""
    for tests in dict.fromkeys(tuple(mutant.tests) for mutant in mutants):
        if tree.notices(list(tests)):
            raise SystemExit(f"a test fails without a mutant, mend that first: {' '.join(tests)}")


def results(mutants: list[Mutant], trees: list[Tree]) -> Iterator[tuple[Mutant, str, float]]:
    """Try the mutants, one in each tree at a time; yield what became of each, and the seconds."""
    free: queue.Queue[Tree] = queue.Queue()
    for tree in trees:
        free.put(tree)

    def attempt(mutant: Mutant) -> tuple[Mutant, str, float]:
        tree, start = free.get(), time.perf_counter()
        try:
            return mutant, try_one(mutant, tree), time.perf_counter() - start
        finally:
            free.put(tree)

    with ThreadPoolExecutor(len(trees)) as pool:
        yield from pool.map(attempt, mutants)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--only", metavar="NAME", action="append", help="may be given several times"
    )
    parser.add_argument("--file", help="only mutants of files whose path contains this")
    parser.add_argument("--quick", action="store_true", help="a handful of the Python ones")
    parser.add_argument("--python", action="store_true", help="no C++: nothing is compiled")
    parser.add_argument("--list", action="store_true", help="list them, and check that each fits")
    parser.add_argument("--jobs", type=int, default=1, help="Python mutants at a time")
    parser.add_argument("--no-check", action="store_true", help="trust that the tests pass by now")
    return parser.parse_args(arguments)


def selected(options: argparse.Namespace) -> list[Mutant]:
    known = {mutant.name: mutant for mutant in MUTANTS}
    if len(known) < len(MUTANTS):
        raise SystemExit("two mutants have one name")
    names = options.only or (QUICK if options.quick else list(known))
    unknown = [name for name in names if name not in known]
    if unknown:
        raise SystemExit(f"no mutant is called {', '.join(unknown)}")
    chosen = [known[name] for name in names]
    if options.file:
        chosen = [m for m in chosen if options.file in m.file]
    return [m for m in chosen if not (options.python and is_cpp(m))]


def list_all(mutants: list[Mutant]) -> int:
    """Print the mutants; return how many do not fit the code any more."""
    misfits = 0
    for mutant in mutants:
        try:
            both_texts(mutant, ROOT)
            print(f"{mutant.name}: {mutant.file}: {', '.join(mutant.tests)}")
        except BrokenMutantError as error:
            misfits += 1
            print(f"{mutant.name} cannot be used: {error}")
    print(f"{len(mutants)} mutants, {misfits} of which do not fit the code any more")
    return misfits


def run(mutants: list[Mutant], trees: list[Tree], check: bool) -> list[str]:
    """Try mutants of one language; return the names of those that are not killed."""
    if not mutants:
        return []
    if check:
        check_tests(mutants, trees[0])
    failed = []
    for mutant, result, seconds in results(mutants, trees):
        print(f"{mutant.name}: {result} ({seconds:.0f} s)", flush=True)
        if result != "killed":
            failed.append(mutant.name)
    return failed


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    mutants = selected(options)
    if options.list:
        return 1 if list_all(mutants) else 0
    python = [m for m in mutants if not is_cpp(m)]
    cpp = [m for m in mutants if is_cpp(m)]
    with tempfile.TemporaryDirectory(prefix="mutants-") as temporary:
        folder = Path(temporary)
        count = min(options.jobs, len(python)) or 1
        trees = [Tree(folder / f"tree{i}") for i in range(count)]
        failed = run(python, trees, not options.no_check)
        if cpp:
            trees[0].configure()
            trees[0].compile()
        failed += run(cpp, trees[:1], not options.no_check)
    print(f"{len(mutants)} mutants, {len(failed)} not killed: {', '.join(failed) or 'none'}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
