"""The examples of the docstrings, the README and docs/, run against the installed package."""

from __future__ import annotations

import doctest
import importlib
import os
import pkgutil
import re
from pathlib import Path
from types import ModuleType

import pytest

import lstmcore
from lstmcore import datasets
from peers import require

FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
MODULES = ["lstmcore"] + [
    module.name for module in pkgutil.walk_packages(lstmcore.__path__, "lstmcore.")
]
ROOT = Path(__file__).parent.parent
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
os.environ.setdefault("KERAS_BACKEND", "torch")


@pytest.fixture(autouse=True)
def restore_settings():
    """Examples show how to set threads and levels; the tests after them want their own."""
    threads, isa = lstmcore.get_num_threads(), lstmcore.isa()
    yield
    lstmcore.set_num_threads(threads)
    lstmcore.set_isa(isa)


@pytest.mark.parametrize("name", MODULES)
def test_docstrings(name):
    if name.startswith("lstmcore.torch."):
        require("torch")
    if name == "lstmcore.onnx":
        require("onnx")
    module = importlib.import_module(name)
    assert doctest.testmod(module, optionflags=FLAGS).failed == 0


def test_public_names_have_examples():
    bases = {"AttentionTape", "Optimizer", "Schedule", "Sequences"}  # not for users to make
    lacking = [
        f"{module.__name__}.{name}"
        for module in (lstmcore, *(getattr(lstmcore, n) for n in lstmcore.__all__), datasets)
        if isinstance(module, ModuleType) and module is not lstmcore.torch
        for name in module.__all__
        if callable(getattr(module, name)) and name not in bases
        if not doctest.DocTestParser().get_examples(getattr(module, name).__doc__ or "")
    ]
    assert not lacking


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Keras's
@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_documents(path, tmp_path, monkeypatch):
    """The Python blocks with prompts run one after another; the others are Python at least."""
    monkeypatch.chdir(tmp_path)
    if path.stem in ("torch", "keras"):
        require(path.stem)
    blocks = re.findall(r"^```python\n(.*?)^```", path.read_text("utf-8"), re.M | re.S)
    names = {}
    for number, block in enumerate(blocks):
        if ">>>" not in block:
            compile(block, f"{path.name} block {number}", "exec")
            continue
        test = doctest.DocTestParser().get_doctest(block, names, f"block {number}", path.name, 0)
        runner = doctest.DocTestRunner(optionflags=FLAGS)
        runner.run(test, clear_globs=False)
        names.update(test.globs)
        assert runner.failures == 0
