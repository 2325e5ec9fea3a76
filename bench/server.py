"""A server of our own for one benchmark: durable, on a disk, and gone at the end.

The rule: what was measured says what it was measured on, and nothing of the server outlives the benchmark. A disk
that takes 2 ms is imitated by ``commit_delay``; figures taken on it end in ``SLOW``.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Mapping
from contextlib import ExitStack, asynccontextmanager, contextmanager
from typing import Any

import psycopg
from psycopg.conninfo import make_conninfo

from bench.disk import home_folder, refuse_memory
from bench.ending import Ending
from continuum._journal.connections import Connection, connect
from continuum.embedded import Server

SETTINGS = {"shared_buffers": "256MB", "max_wal_size": "4GB", "checkpoint_timeout": "1h"}
COUNTED = {"autovacuum": "off", "shared_preload_libraries": "pg_stat_statements"}
TOLD = (
    "fsync",
    "synchronous_commit",
    "full_page_writes",
    "wal_level",
    "shared_buffers",
    "max_wal_size",
    "autovacuum",
    "jit",
)
SLOW = ", slow disk"
SLOW_DISK_US = 2_000
DISKS = {"": 0, SLOW: SLOW_DISK_US}


@contextmanager
def own_server(
    ending: Ending, settings: Mapping[str, str]
) -> Generator[tuple[str, dict[str, object]], None, None]:
    """Run a server for the block; gives its url, and what is known of its place.

    Raises ``InMemory`` if there is no disk to measure on, ``KeyboardInterrupt`` when told to end.
    """
    with ExitStack() as stack:
        with ending.held_back():
            server = Server(stack.enter_context(home_folder()), settings)
            stack.callback(server.stop)
            url = stack.enter_context(server.running())
            stack.callback(ending.ignore)
            data = server.status().data
            assert data is not None
            found: dict[str, object] = {"data": str(data), "file_system": refuse_memory(data)}
        yield url, found


def measure_on_own_server(
    ending: Ending, measure: Callable[[str, dict[str, object]], Coroutine[Any, Any, None]]
) -> None:
    """Measure where statements are counted and nothing runs by itself. Raises as ``own_server``."""
    with own_server(ending, SETTINGS | COUNTED) as (url, found):
        ending.run(measure(url, found))


async def make_database(admin: Connection, url: str, name: str) -> str:
    """Make a database, and return its url."""
    await admin.execute(f"create database {name}".encode())
    return make_conninfo(url, dbname=name)


@asynccontextmanager
async def connection(url: str, name: str) -> AsyncGenerator[Connection, None]:
    """Connect for the block."""
    found = await connect(url, name=name)
    try:
        yield found
    finally:
        await found.close()


async def delay_commits(admin: Connection, delay_us: int) -> None:
    """Make every commit take that much longer, from now on and for all connections."""
    await admin.execute(f"alter system set commit_delay = {delay_us}".encode())
    await admin.execute(b"alter system set commit_siblings = 0")
    await admin.execute(b"select pg_reload_conf()")
    await asyncio.sleep(0.5)  # the backends hear of it when they are idle
    assert await _setting(admin, "commit_delay") == str(delay_us)


async def server_facts(admin: Connection) -> dict[str, object]:
    """Return what figures depend on: versions and settings."""
    told = {name: await _setting(admin, name) for name in TOLD}
    return {"postgres": await _setting(admin, "server_version"), "psycopg": psycopg.__version__, "settings": told}


async def _setting(connection: Connection, name: str) -> str:
    found = await connection.execute(b"select current_setting($1)", [name])
    row = await found.fetchone()
    assert row is not None
    return str(row[0])
