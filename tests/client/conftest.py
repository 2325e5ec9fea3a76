"""A client and, where a test wants runs to end, a worker's journal: its test is the engine."""

from collections.abc import AsyncIterator, Iterator

import pytest

import continuum
from continuum._journal.journal import PostgresJournal
from tests.journal.harness import worker


@pytest.fixture
async def client(database: str) -> AsyncIterator[continuum.Client]:
    async with continuum.connect(database, migrate=False) as client:
        yield client


@pytest.fixture
async def engine(database: str) -> AsyncIterator[PostgresJournal]:
    async with worker(database) as journal:
        yield journal


@pytest.fixture
def sync(database: str) -> Iterator[continuum.SyncClient]:
    with continuum.connect_sync(database, migrate=False) as client:
        yield client


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the tester's environment says is no part of the tests."""
    for name in ("DATABASE_URL", "HOME", "SCHEMA", "LISTEN_URL", "MIGRATE"):
        monkeypatch.delenv(f"CONTINUUM_{name}", raising=False)
