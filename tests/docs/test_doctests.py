"""The examples of the docstrings, the README and docs/, run against the installed package."""

from __future__ import annotations

import doctest
import importlib
import inspect
import os
import pkgutil
import sys
from types import ModuleType

import pytest

import lstmcore
from helpers import pages
from helpers.paths import ROOT
from helpers.peers import require
from lstmcore import datasets

MODULES = ["lstmcore"] + [
    module.name for module in pkgutil.walk_packages(lstmcore.__path__, "lstmcore.")
]
DOCUMENTS = sorted(str(path.relative_to(ROOT / "docs")) for path in (ROOT / "docs").rglob("*.md"))
NEEDS = {
    "deploy.md": ["torch"],
    "keras.md": ["keras"],
    "onnx.md": ["onnx"],
    "sklearn.md": ["sklearn", "pandas"],
    "torch.md": ["torch"],
    "tour/gates.md": ["matplotlib"],
    "tour/gradients.md": ["matplotlib"],
    "training.md": ["pandas", "matplotlib"],
}
os.environ.setdefault("KERAS_BACKEND", "torch")


@pytest.fixture(autouse=True)
def restore_settings():
    """Examples set threads, levels and the style of pictures; the tests after them want theirs."""
    threads, isa = lstmcore.get_num_threads(), lstmcore.isa()
    yield
    lstmcore.set_num_threads(threads)
    lstmcore.set_isa(isa)
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")
        sys.modules["matplotlib"].rcdefaults()


class _Finder(doctest.DocTestFinder):
    """Finds the methods of classes that say they are of a public module, too."""

    def _from_module(self, module, object):
        if inspect.isfunction(object):  # of a class that was taken, or written in this very file
            written = inspect.unwrap(object)
            return "." in written.__qualname__ or written.__globals__ is module.__dict__
        return super()._from_module(module, object)


@pytest.mark.parametrize("name", MODULES)
def test_docstrings(name):
    if name.startswith("lstmcore.torch."):
        require("torch")
    if name == "lstmcore.onnx":
        require("onnx")
    if name.startswith("lstmcore.sklearn"):
        require("sklearn")
    module = importlib.import_module(name)
    runner = doctest.DocTestRunner(optionflags=pages.FLAGS)
    for test in _Finder().find(module, name):
        runner.run(test)
    assert runner.failures == 0


def test_public_names_have_examples():
    bases = {"AttentionTape", "Optimizer", "Schedule", "Sequences"}  # not for users to make
    require("sklearn")
    modules = [lstmcore, *(getattr(lstmcore, n) for n in lstmcore.__all__), datasets]
    lacking = [
        f"{module.__name__}.{name}"
        for module in (*modules, lstmcore.sklearn)
        if isinstance(module, ModuleType) and module is not lstmcore.torch
        for name in module.__all__
        if callable(getattr(module, name)) and name not in bases
        if not doctest.DocTestParser().get_examples(getattr(module, name).__doc__ or "")
    ]
    assert not lacking


def test_readme(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert pages.run("README.md", without_prompts=True)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Keras's
@pytest.mark.parametrize("name", DOCUMENTS)
def test_documents(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for library in NEEDS.get(name, ()):
        require(library)
    pages.run(f"docs/{name}")
