"""What an installed package promises besides its code."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib import metadata
from importlib.resources import files

import pytest

import lstmcore
from helpers.paths import ROOT
from helpers.peers import what_to_install


def test_numpy_is_the_only_dependency():
    requirements = metadata.requires("lstmcore") or []
    needed = [r for r in requirements if "extra ==" not in r]
    assert needed == ["numpy>=1.24"]


def test_versions_agree():
    assert lstmcore.__version__ == metadata.version("lstmcore")


def test_the_version_of_the_cpp_headers_is_that_of_the_package():
    header = (ROOT / "cpp/include/lstmcore/version.h").read_text()
    parts = re.findall(r"^#define LSTMCORE_VERSION_(?:MAJOR|MINOR|PATCH) (\d+)$", header, re.M)
    assert ".".join(parts) == lstmcore.__version__
    assert f'#define LSTMCORE_VERSION_STRING "{lstmcore.__version__}"\n' in header


def test_every_cpp_header_is_compiled_by_itself_and_in_the_visible_namespace():
    names = {path.stem for path in (ROOT / "cpp/include/lstmcore").glob("*.h")}
    consumer = (ROOT / "cpp/tests/consumer/CMakeLists.txt").read_text()
    listed = re.search(r"IN ITEMS ([\w\s]+)\)", consumer)
    assert listed is not None
    assert set(listed[1].split()) == names - {"api"}
    for name in names - {"api"}:
        text = (ROOT / f"cpp/include/lstmcore/{name}.h").read_text()
        assert re.findall(r"^namespace.*", text, re.M) == ["namespace LSTMCORE_API lstmcore {"]
        declared = re.findall(r"^template <class T[^>]*>\n([^{;]*);", text, re.M)
        functions = [one for one in declared if "(" in one]
        assert not [one for one in functions if not one.startswith("LSTMCORE_API ")]


@pytest.mark.parametrize("name", ["py.typed", "_core.pyi", "_datasets/japanese_vowels.txt"])
def test_ships(name):
    assert files("lstmcore").joinpath(name).is_file()


def test_import_pulls_in_nothing_else():
    """Import stays quick, and works where only NumPy is installed."""
    code = (
        "import sys, numpy; before = set(sys.modules); import lstmcore;"
        "print(*sorted({m.partition('.')[0] for m in set(sys.modules) - before}))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    known = {"lstmcore", "numpy", "_xxsubinterpreters"}  # the last is Python's, though not listed
    foreign = set(run.stdout.split()) - set(sys.stdlib_module_names) - known
    # An editable install has import hooks of its own.
    assert not {m for m in foreign if not m.startswith(("_lstmcore", "__editable__"))}


@pytest.mark.parametrize("variable", ["LSTMCORE_ISA", "LSTMCORE_NUM_THREADS"])
def test_bad_environment_is_reported_on_import(variable):
    environment = {**os.environ, variable: "nonsense"}
    run = subprocess.run(
        [sys.executable, "-c", "import lstmcore"], env=environment, capture_output=True, text=True
    )
    assert run.returncode == 1
    last = run.stderr.strip().splitlines()[-1]
    assert variable in last
    assert "'nonsense'" in last


def test_skipped_tests_say_what_to_install():
    reasons = [
        "Skipped: could not import 'torch': No module named 'torch'",
        "Skipped: could not import 'sklearn': No module named 'sklearn'",
        "Skipped: could not import 'torch.onnx': No module named 'torch'",
        "Skipped: no AVX-512 here",
    ]
    assert what_to_install(reasons) == "pip install scikit-learn torch"
    assert what_to_install(["Skipped: no AVX-512 here"]) == ""
