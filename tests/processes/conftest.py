"""A site for each test: an empty database, a folder for the ledger, a client."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

import continuum
from tests.processes.harness import Nursery, Site, closing


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    """Where worker processes come from; none of them outlives it."""
    made = Nursery()
    yield made
    made.close()


@pytest.fixture
async def site(database: str, tmp_path: Path, nursery: Nursery) -> AsyncIterator[Site]:
    """Everything a test with worker processes needs; they are all ended with it."""
    async with continuum.connect(database, migrate=False) as client:
        with closing(Site(database, tmp_path, client, nursery)) as site:
            yield site
