"""What all races share: a session to look with, on the test's own database."""

from __future__ import annotations

from collections.abc import AsyncIterator

import psycopg
import pytest
import pytest_asyncio

from tests.journal.races.sides import Session, session

QUICK = "20ms"  # a deadlock is found by Postgres before our lock_timeout of 1 s would hide it


@pytest.fixture
def raced(database: str) -> str:
    """The url of a database in which deadlocks are detected at once."""
    with psycopg.connect(database, autocommit=True) as connection:
        name = connection.info.dbname
        connection.execute(f"alter database \"{name}\" set deadlock_timeout = '{QUICK}'".encode())
    return database


@pytest_asyncio.fixture
async def db(raced: str) -> AsyncIterator[Session]:
    async with session(raced) as found:
        yield found
