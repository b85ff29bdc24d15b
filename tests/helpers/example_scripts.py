"""The scripts in examples/, for the tests of them."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from typing import Any

from helpers.paths import EXAMPLES


def load(name: str) -> Any:
    """Import a script, which may import its neighbours."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where dataclasses and the like look for it
    sys.path.insert(0, str(EXAMPLES))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(EXAMPLES))
    return module


def run(name: str, *arguments: str) -> list[str]:
    """Run a script as users do, and return the lines that it prints."""
    command = [sys.executable, str(EXAMPLES / f"{name}.py"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()
