"""The mutants of tests/mutants: each is still a change of the code as it is."""

from __future__ import annotations

import sys

import pytest

from helpers.paths import ROOT


def test_each_mutant_fits_the_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "tests" / "mutants")
    import run

    broken = []
    for mutant in run.MUTANTS:
        try:
            run.both_texts(mutant, ROOT)
        except run.BrokenMutantError as error:
            broken.append(f"{mutant.name}: {error}")
    assert not broken
    for name in ("run", "mutants", "mutant"):
        sys.modules.pop(name, None)
