"""Every journal that the conformance tests run on: Postgres as it comes along, and the system's older one.

The tests of whole workers (``cluster``) run on the first.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

import continuum
from tests.conformance.cluster import Cluster
from tests.conformance.harness import PostgresWorld, World
from tests.databases import Servers


@pytest.fixture(params=["embedded", "system"])
def postgres(request: pytest.FixtureRequest) -> str:
    """Which server the test's database is on."""
    return str(request.param)


@pytest.fixture
def world(database: str) -> World:
    """An empty place to keep runs."""
    return PostgresWorld(database)


@pytest.fixture
def one_database(servers: Servers) -> Iterator[str]:
    """A database of the test's own on the first server."""
    with servers.database("embedded") as url:
        yield url


@pytest.fixture
async def cluster(one_database: str) -> AsyncIterator[Cluster]:
    """A database with a client, for workers of the test's own."""
    async with continuum.connect(one_database, migrate=False) as client:
        yield Cluster(one_database, client)
