"""Other libraries that tests compare with."""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Iterable
from typing import Any

import pytest


def require(name: str) -> Any:
    """Import a peer, or skip the test. With LSTMCORE_REQUIRE_PEERS=1 a missing peer fails it."""
    if os.environ.get("LSTMCORE_REQUIRE_PEERS") == "1":
        return importlib.import_module(name)
    return pytest.importorskip(name)


# What pip calls these modules.
_PACKAGES = {"sklearn": "scikit-learn", "yaml": "pyyaml"}


def what_to_install(reasons: Iterable[str]) -> str:
    """Return, from the reasons of skipped tests, the command after which they run; "" if none."""
    found = re.findall(r"could not import '(\w+)", "\n".join(reasons))
    names = sorted({_PACKAGES.get(name, name) for name in found})
    return f"pip install {' '.join(names)}" if names else ""
