"""Other libraries that tests compare with."""

from __future__ import annotations

import importlib
import os
from typing import Any

import pytest


def require(name: str) -> Any:
    """Import a peer, or skip the test. With LSTMCORE_REQUIRE_PEERS=1 a missing peer fails it."""
    if os.environ.get("LSTMCORE_REQUIRE_PEERS") == "1":
        return importlib.import_module(name)
    return pytest.importorskip(name)
