"""The mutants of tests/mutants: each is still a change of the code as it is."""

from __future__ import annotations

import subprocess
import sys

from helpers.paths import ROOT


def test_each_mutant_fits_the_code() -> None:
    command = [sys.executable, str(ROOT / "tests" / "mutants" / "run.py"), "--list"]
    done = subprocess.run(command, capture_output=True, text=True)
    misfits = [line for line in done.stdout.splitlines() if "cannot be used" in line]
    assert not misfits
    assert done.returncode == 0, done.stderr
