"""Every example says what it takes, and what it lacks before it begins."""

from __future__ import annotations

import runpy
import sys

import pytest

from helpers.paths import EXAMPLES
from helpers.peers import require

SCRIPTS = {
    str(path.relative_to(EXAMPLES)): path.read_text("utf-8")
    for path in sorted(EXAMPLES.rglob("*.py"))
    if 'if __name__ == "__main__":' in path.read_text("utf-8")
}


def run(name: str, *arguments: str, monkeypatch: pytest.MonkeyPatch) -> object:
    """Run a script in this process, and return what it ends with.

    What it needs and cannot import is a peer; matplotlib is hidden from it on purpose.
    """
    path = EXAMPLES / name
    monkeypatch.setattr(sys, "argv", [str(path), *arguments])
    monkeypatch.syspath_prepend(path.parent)
    with pytest.raises((SystemExit, ImportError)) as raised:
        runpy.run_path(str(path), run_name="__main__")
    error: BaseException | None = raised.value
    while error is not None:
        lacks = error.name.partition(".")[0] if isinstance(error, ModuleNotFoundError) else None
        if lacks == "ray":  # large, so not among what the tests require
            pytest.importorskip("ray")
        elif lacks not in (None, "matplotlib"):
            require(lacks)
        error = error.__cause__ or error.__context__
    return getattr(raised.value, "code", str(raised.value))


def test_all_are_found() -> None:
    assert len(SCRIPTS) > 15
    assert "gradient_flow.py" in SCRIPTS


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of libraries, among themselves
@pytest.mark.parametrize("name", SCRIPTS)
def test_help(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(name, "--help", monkeypatch=monkeypatch) == 0
    text = capsys.readouterr().out
    assert text.startswith("usage: ")
    first = text.partition("\n\n")[2]
    assert len(first.split()) > 3, "a line says what it does"
    assert ("savefig" in SCRIPTS[name]) == ("--picture" in text)


@pytest.mark.parametrize("name", [name for name in SCRIPTS if '"--picture"' in SCRIPTS[name]])
def test_a_missing_matplotlib_is_said_before_anything_is_done(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for module in ("matplotlib", "matplotlib.pyplot"):
        monkeypatch.setitem(sys.modules, module, None)
    message = run(name, "--picture", "picture.png", monkeypatch=monkeypatch)
    assert message == 'plotting needs matplotlib: pip install "lstmcore[train]"'
    assert capsys.readouterr().out == ""
