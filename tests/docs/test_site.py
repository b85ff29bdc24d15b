"""What the documentation site promises, as far as it can be seen without building it."""

from __future__ import annotations

import re
from collections import Counter
from types import ModuleType

import lstmcore
from helpers.paths import ROOT
from helpers.peers import require
from lstmcore import datasets

DOCS = ROOT / "docs"


def on_pages() -> Counter[str]:
    """How often each name stands in the tables of the reference."""
    names: Counter[str] = Counter()
    for page in (DOCS / "reference").glob("*.rst"):
        module = ""
        for line in page.read_text("utf-8").splitlines():
            if line.startswith(".. currentmodule:: "):
                module = line.split(":: ")[1]
            elif (match := re.fullmatch(r"   ([A-Za-z]\w+)", line)) and module:
                names[f"{module}.{match[1]}"] += 1
    return names


def test_every_public_name_has_its_page() -> None:
    require("sklearn")
    public = {f"lstmcore.torch.{name}": None for name in lstmcore.torch.__all__}
    others = (datasets, lstmcore.sklearn)
    for module in (lstmcore, *others, *(getattr(lstmcore, name) for name in lstmcore.__all__)):
        if isinstance(module, ModuleType) and module is not lstmcore.torch:
            for name in module.__all__:
                public[f"{module.__name__}.{name}"] = getattr(module, name)
    # The same thing under two names has one page; modules are what the pages are about.
    expected = set(public) - {"lstmcore.__version__", "lstmcore.optim.schedules"}
    expected -= {name for name, thing in public.items() if isinstance(thing, ModuleType)}
    expected -= {f"lstmcore.torch.{name}" for name in ("from_torch", "to_torch", "load_torch")}
    expected -= {f"lstmcore.{name}" for name in lstmcore.optim.__all__}
    found = on_pages()
    assert found.keys() == expected, "name them in docs/reference/*.rst"
    assert set(found.values()) == {1}


def test_the_page_of_cpp_shows_the_program_that_is_built() -> None:
    (shown,) = re.findall(r"^```cpp\n(.*?)^```", (DOCS / "audio.md").read_text(), re.M | re.S)
    assert shown == (ROOT / "examples/cpp/audio_callback.cpp").read_text()
    assert "audio_callback" in (ROOT / "examples/cpp/CMakeLists.txt").read_text()


def test_the_reference_of_cpp_shows_every_header() -> None:
    page = (DOCS / "reference/cpp.rst").read_text()
    shown = re.findall(
        r"^\.\. literalinclude:: \.\./\.\./(cpp/include/lstmcore/\w+\.h)$", page, re.M
    )
    headers = (ROOT / "cpp/include/lstmcore").glob("*.h")
    assert sorted(shown) == sorted(str(path.relative_to(ROOT)) for path in headers)
