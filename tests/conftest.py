"""Fixtures: every ISA level that the machine has, and the thread count put back; names of cases."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import lstmcore as lc
from helpers.names import name_of
from helpers.peers import what_to_install


def pytest_make_parametrize_id(config: pytest.Config, val: Any, argname: str) -> str | None:
    """Name parametrised cases."""
    return name_of(val)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say what to install for the tests that were skipped."""
    skipped = terminalreporter.stats.get("skipped", [])
    command = what_to_install(str(report.longrepr) for report in skipped)
    if command:
        terminalreporter.line(f"To run what was skipped for want of a library: {command}")


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
