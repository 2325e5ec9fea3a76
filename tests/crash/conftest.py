"""Where worker processes come from, and databases, as many as a walk has lanes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

import continuum
from tests.databases import Servers
from tests.processes.harness import Nursery, Site, closing


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    """Where worker processes come from; none of them outlives it."""
    made = Nursery()
    yield made
    made.close()


class Sites:
    """Makes sites: a database, a folder for the ledger, a client each."""

    def __init__(self, servers: Servers, folder: Path, nursery: Nursery, stack: AsyncExitStack) -> None:
        self._servers, self._folder, self._nursery, self._stack = servers, folder, nursery, stack
        self._made = 0

    async def make(self) -> Site:
        """Return another one; it is closed with the test."""
        self._made += 1
        folder = self._folder / str(self._made)
        folder.mkdir()
        url = self._stack.enter_context(self._servers.database("embedded"))
        client = await self._stack.enter_async_context(continuum.connect(url, migrate=False))
        return self._stack.enter_context(closing(Site(url, folder, client, self._nursery)))


@pytest.fixture
async def sites(database: str, servers: Servers, tmp_path: Path, nursery: Nursery) -> AsyncIterator[Sites]:
    """Sites, as many as a test asks for. ``database`` has started the server, outside of any event loop."""
    async with AsyncExitStack() as stack:
        yield Sites(servers, tmp_path, nursery, stack)
