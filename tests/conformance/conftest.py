"""Every journal that the conformance tests run on: Postgres as it comes along, and the system's older one."""

from __future__ import annotations

import pytest

from tests.conformance.harness import PostgresWorld, World


@pytest.fixture(params=["embedded", "system"])
def postgres(request: pytest.FixtureRequest) -> str:
    """Which server the test's database is on."""
    return str(request.param)


@pytest.fixture
def world(database: str) -> World:
    """An empty place to keep runs."""
    return PostgresWorld(database)
