"""Fixtures: every ISA level that the machine has, and the thread count put back; names of cases."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import lstmcore as lc
from helpers.names import name_of


def pytest_make_parametrize_id(config: pytest.Config, val: Any, argname: str) -> str | None:
    """Name parametrised cases."""
    return name_of(val)


@pytest.fixture(params=lc.available_isas())
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    """Run the test at each level."""
    before = lc.isa()
    lc.set_isa(request.param)
    yield request.param
    lc.set_isa(before)


@pytest.fixture
def threads() -> Iterator[None]:
    """Put the number of threads back."""
    before = lc.get_num_threads()
    yield
    lc.set_num_threads(before)
