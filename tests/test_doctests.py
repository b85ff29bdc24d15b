"""The examples of the docstrings, the README and docs, run against the installed package."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import lstmcore
import pages
from peers import require

MODULES = ["lstmcore"] + [
    module.name for module in pkgutil.walk_packages(lstmcore.__path__, "lstmcore.")
]


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
    assert doctest.testmod(module, optionflags=pages.FLAGS).failed == 0


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
    pages.run("README.md", without_prompts=True)


# docs/keras.md, which needs Keras, is run by test_keras.py.
@pytest.mark.parametrize("page", ["files", "streaming", "torch", "weights"])
def test_pages(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if page == "torch":
        require("torch")
    pages.run(f"docs/{page}.md")
