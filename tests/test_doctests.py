"""The examples of the docstrings and of the README, run against the installed package."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import re
from pathlib import Path

import pytest

import lstmcore
from peers import require

FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
MODULES = ["lstmcore"] + [
    module.name for module in pkgutil.walk_packages(lstmcore.__path__, "lstmcore.")
]
README = Path(__file__).parent.parent / "README.md"


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


def test_public_docstrings_have_examples():
    finder = doctest.DocTestFinder(exclude_empty=True)
    examples = [
        example
        for name in MODULES
        if not name.startswith("lstmcore.torch.")
        for test in finder.find(importlib.import_module(name))
        for example in test.examples
    ]
    assert len(examples) > 20


def test_readme(tmp_path, monkeypatch):
    """The Python blocks run one after another; those with prompts also give what they show."""
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```python\n(.*?)^```", README.read_text("utf-8"), re.M | re.S)
    assert blocks
    names = {}
    for number, block in enumerate(blocks):
        if ">>>" not in block:
            exec(compile(block, f"README.md block {number}", "exec"), names)
            continue
        test = doctest.DocTestParser().get_doctest(block, names, f"block {number}", "README.md", 0)
        runner = doctest.DocTestRunner(optionflags=FLAGS)
        runner.run(test, clear_globs=False)
        names.update(test.globs)
        assert runner.failures == 0
