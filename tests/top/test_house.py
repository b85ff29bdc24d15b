"""The rooms of the Python package: who imports whom, and what public modules show."""

from __future__ import annotations

import ast
import importlib
import pickle
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType

import pytest

import lstmcore as lc
from helpers.peers import require
from lstmcore._base.module import STORABLE, Module

ROOT = Path(lc.__file__).parent

# From the lowest: each imports from those before it alone; those on one line, not from each other.
ORDER = (
    ("_core", "reference"),
    ("_public",),
    ("_base",),
    ("_nn", "losses", "sampling", "baselines", "datasets", "optim", "data"),
    ("attention", "metrics", "_files", "_shapes"),
    ("_network",),
    ("_models", "callbacks", "plot"),
    ("_train",),
    ("torch", "keras", "onnx", "sklearn"),
    ("_commands",),
    ("",),
    ("__main__",),
)
PLACE = {room: i for i, rooms in enumerate(ORDER) for room in rooms}
PUBLIC = (
    "attention", "baselines", "callbacks", "data", "datasets", "keras", "losses", "metrics", "onnx",
    "optim", "plot", "reference", "sampling", "sklearn", "torch",
)  # fmt: skip


def names_and_paths() -> dict[str, Path]:
    """Every Python module of the package by its name without ``lstmcore.``, which itself is ""."""
    found = {}
    for path in ROOT.rglob("*.py"):
        parts = list(path.relative_to(ROOT).with_suffix("").parts)
        if parts[-1] == "__init__":
            parts.pop()
        found[".".join(parts)] = path
    return found


PATHS = names_and_paths()


def imports(name: str) -> set[str]:
    """What a module imports of the package, wherever in its text, but for the types alone."""
    path = PATHS[name]
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    package = [part for part in package if part]
    found = set()
    waiting: list[ast.AST] = [ast.parse(path.read_text())]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            waiting += node.orelse
            continue
        if isinstance(node, ast.ImportFrom) and node.level:
            base = package[: len(package) - node.level + 1]
            base += node.module.split(".") if node.module else []
            for alias in node.names:
                whole = ".".join([*base, alias.name])
                found.add(whole if whole in PATHS or whole == "_core" else ".".join(base))
        elif isinstance(node, ast.Import):
            own = [a.name for a in node.names if a.name.split(".")[0] == "lstmcore"]
            found |= {name.partition(".")[2] for name in own}
        waiting += ast.iter_child_nodes(node)
    return found - {name}


def test_the_walk_sees_what_is_there() -> None:
    assert len(PATHS) > 80
    assert {"_nn.streams.stream", "_nn.recurrent"} <= imports("_nn.layers")  # at the top of a file
    assert "_files.checkpoints" in imports("callbacks")
    assert "keras._live" in imports("keras")  # in a function
    assert "_train.run" not in imports("callbacks")  # for its types alone


def test_no_circles() -> None:
    graph = {name: {other for other in imports(name) if other in PATHS} for name in PATHS}
    # A package is imported before what is in it, but only its own text counts.
    while graph:
        free = [name for name, others in graph.items() if not others & graph.keys()]
        assert free, f"these import each other: {sorted(graph)}"
        for name in free:
            del graph[name]


def test_each_room_stands_on_lower_ones() -> None:
    wrong = []
    for name in PATHS:
        room = name.partition(".")[0]
        for other in imports(name):
            below = other.partition(".")[0]
            if below != room and PLACE[below] >= PLACE[room]:
                wrong.append(f"{name or 'lstmcore'} imports {other}")
    assert not wrong


def test_the_oracle_imports_numpy_alone() -> None:
    assert imports("reference") == set()
    for node in ast.walk(ast.parse(PATHS["reference"].read_text())):
        if isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        else:
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        assert all(n.split(".")[0] in {*sys.stdlib_module_names, "numpy"} for n in names), names


def test_no_folder_has_more_than_twenty_files() -> None:
    folders = Counter(path.parent for path in PATHS.values())
    assert max(folders.values()) <= 20, folders.most_common(1)


@pytest.mark.parametrize("name", PUBLIC)
def test_public_modules_show_their_names_alone(name: str) -> None:
    if name == "sklearn":
        require("sklearn")
    module = importlib.import_module(f"lstmcore.{name}")
    shown = set(dir(module))
    assert shown == set(module.__all__)
    assert all(not item.startswith("_") for item in shown)
    for item in shown:
        if name == "torch":
            pytest.importorskip("torch")
        thing = getattr(module, item)
        home = getattr(thing, "__module__", None)
        if home is not None and not isinstance(thing, ModuleType) and callable(thing):
            assert home.partition(".")[0] == "lstmcore", (item, home)
            assert "._" not in home, (item, home)


def test_the_package_shows_its_names_alone() -> None:
    assert set(dir(lc)) == set(lc.__all__)
    for name in lc.__all__:
        thing = getattr(lc, name)
        if isinstance(thing, ModuleType):  # no function hides a module of its name
            assert thing is importlib.import_module(f"lstmcore.{name}")
        elif callable(thing):
            assert thing.__module__ in {"lstmcore", *(f"lstmcore.{p}" for p in PUBLIC)}, name


@pytest.mark.parametrize("name", PUBLIC)
def test_no_function_hides_a_public_module(name: str) -> None:
    if name == "sklearn":
        require("sklearn")
    assert isinstance(importlib.import_module(f"lstmcore.{name}"), ModuleType)
    assert isinstance(getattr(lc, name), ModuleType)


def test_tracebacks_and_pickles_name_public_places() -> None:
    for kind in STORABLE.values():
        assert kind.__module__ in ("lstmcore", "lstmcore.attention")
    assert b"lstmcore._nn" not in pickle.dumps(lc.GRU).replace(b"\n", b"")
    assert lc.NonFiniteError.__module__ == "lstmcore"
    assert lc.optim.Adam.__module__ == "lstmcore.optim"


def test_every_public_module_kind_can_be_in_a_file() -> None:
    public = {
        thing
        for home in (lc, lc.attention)
        for thing in (getattr(home, name) for name in home.__all__)
        if isinstance(thing, type) and issubclass(thing, Module)
    } - {Module}
    assert public == set(STORABLE.values())


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("Adam", r": it is lstmcore\.optim\.Adam$"),
        ("EarlyStopping", r": it is lstmcore\.callbacks\.EarlyStopping$"),
        ("Dense", r": here it is lstmcore\.Linear$"),
        ("spam", "attribute 'spam'$"),
    ],
)
def test_names_of_other_places_are_told(name: str, hint: str) -> None:
    with pytest.raises(AttributeError, match=hint):
        getattr(lc, name)
