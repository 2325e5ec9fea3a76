"""Every journal that the conformance tests run on: Postgres as it comes along, the system's older one, and memory.

The system's with CONTINUUM_LONG=1 alone, which ``make conformance`` and continuous integration set.
A test that speaks to the database itself asks for ``database``, and runs on the servers alone.

The tests of whole workers (``cluster``) run on the first.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator

import pytest

import continuum
from tests.conformance.cluster import Cluster
from tests.conformance.harness import PostgresWorld, World
from tests.conformance.memory import MemoryWorld
from tests.databases import Servers

LONG = bool(os.environ.get("CONTINUUM_LONG"))
SERVERS = ("embedded", "system") if LONG else ("embedded",)
JOURNALS = (*SERVERS, "memory")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test of the protocol on every journal, and one of a database on every server."""
    names = metafunc.fixturenames
    if "postgres" in names:
        speaks_sql = not {"database", "empty_database"}.isdisjoint(metafunc.definition._fixtureinfo.argnames)
        metafunc.parametrize("postgres", SERVERS if speaks_sql else JOURNALS, indirect=True)
    if "whose" in names:
        metafunc.parametrize("whose", ("embedded", "memory"), indirect=True)


def pytest_collection_modifyitems(items: list[pytest.Item], config: pytest.Config) -> None:
    """Leave out, but at length, of a test for runs that stay and for runs that leave one in each place."""
    if LONG:
        return
    twice = [
        item
        for item in items
        if any(f"[{pair}" in item.name for pair in ("embedded-resident", "memory-forgetful"))
    ]
    config.hook.pytest_deselected(items=twice)
    items[:] = [item for item in items if item not in set(twice)]


@pytest.fixture
def postgres(request: pytest.FixtureRequest) -> str:
    """Which server the test's database is on, or "memory"."""
    return str(request.param)


@pytest.fixture
def world(postgres: str, request: pytest.FixtureRequest) -> World:
    """An empty place to keep runs."""
    if postgres == "memory":
        return MemoryWorld()
    return PostgresWorld(request.getfixturevalue("database"))


@pytest.fixture
def one_database(servers: Servers) -> Iterator[str]:
    """A database of the test's own on the first server."""
    with servers.database("embedded") as url:
        yield url


@pytest.fixture
def whose(request: pytest.FixtureRequest) -> str | None:
    """The database of a test's workers; None: their journal is in memory."""
    return None if request.param == "memory" else str(request.getfixturevalue("one_database"))


@pytest.fixture
async def cluster(whose: str | None) -> AsyncIterator[Cluster]:
    """A journal with a client, for workers of the test's own."""
    if whose is None:
        async with MemoryWorld().client() as client:
            yield Cluster(None, client)
    else:
        async with continuum.connect(whose, migrate=False) as client:
            yield Cluster(whose, client)
