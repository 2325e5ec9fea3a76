"""What the journal costs on Postgres: flushes, children, claims, cascades; all of it again on a slow disk.

The rule: durable writes on a server of our own (fsync on), which is thrown away. A disk that takes 2 ms is
imitated by ``commit_delay``; its figures end in "slow disk". Each round measures everything, the yardstick too.
"""

from __future__ import annotations

import asyncio
import gc
import shutil
import tempfile
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import psycopg
from psycopg.conninfo import make_conninfo

from bench.backlog import SHAPES, Backlog
from bench.families import PARTS, ROWS, Families
from bench.flushing import BATCHES, WORKER, Counting, Flushing
from bench.group_commit import NAME
from bench.meter import Meter
from bench.report import Line, facts, say, show
from continuum._journal.connections import Connection, connect
from continuum._journal.journal import PostgresJournal
from continuum.embedded import Server

SETTINGS = {"shared_buffers": "256MB", "max_wal_size": "4GB", "checkpoint_timeout": "1h"}
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


def run(rounds: int) -> None:
    """Measure on a server of our own and print a JSON line for each figure."""
    home = Path(tempfile.mkdtemp(prefix="continuum-bench-"))
    home.chmod(0o755)  # Postgres refuses to run as root, and its account must get in
    server = Server(home, SETTINGS)
    try:
        with server.running() as url:
            asyncio.run(_measure(url, rounds))
    finally:
        server.stop()
        shutil.rmtree(home)


async def _measure(url: str, rounds: int) -> None:
    async with AsyncExitStack() as stack:
        admin = await stack.enter_async_context(_connection(url, "bench"))
        say(facts(rounds) | await _server_facts(admin))
        flushing, families, meter = await _small(stack, url, admin)
        backlog = await _full(stack, url, admin)
        samples: dict[str, list[float]] = {}
        for _ in range(rounds):
            for suffix, delay_us in (("", 0), (SLOW, SLOW_DISK_US)):
                await _delay_commits(admin, delay_us)
                gc.collect()
                figures = await flushing.measure(meter) | await families.measure(meter)
                figures |= beside_rows(figures) | await backlog.measure()
                for name, value in figures.items():
                    samples.setdefault(name + suffix, []).append(value)
        await _delay_commits(admin, 0)
        show([*lines(""), *lines(SLOW)], samples)


def beside_rows(figures: dict[str, float]) -> dict[str, float]:
    """Return how many children a second the yardstick's rate of rows would be."""
    rows_s = figures[f"{NAME}, {max(BATCHES)} in flight"]
    return {f"{NAME}, rows of {name}": rows_s / rows for name, rows in ROWS.items()}


def lines(suffix: str) -> list[Line]:
    """Return what is printed, in order."""
    found: list[Line] = []
    for batch in BATCHES:
        ours, theirs = f"flusher, {batch} in flight", f"{NAME}, {batch} in flight"
        at_least = 0.5 if batch == max(BATCHES) else None
        found.append(_line(theirs, "rows/s", suffix))
        found.append(_line(ours, "rows/s", suffix, theirs, at_least=at_least, bound_of_ratio=at_least is not None))
        for part, unit in (
            ("client CPU", "us/row"),
            ("server CPU", "us/row"),
            ("WAL", "bytes/row"),
            ("commits", "/row"),
        ):
            found.append(_line(f"{theirs}, {part}", unit, suffix))
            found.append(_line(f"{ours}, {part}", unit, suffix, f"{theirs}, {part}"))
        found.append(_line(f"{ours}, flushes", "/row", suffix))
    for name in ROWS:
        rows = f"{NAME}, rows of {name}"
        found += [_line(rows, "children/s", suffix), _line(name, "children/s", suffix, rows)]
        found += [_line(f"{name}, {part}", "us/child", suffix) for part in PARTS]
        for part, unit in (("client CPU", "us"), ("server CPU", "us"), ("WAL", "bytes"), ("commits", "")):
            found.append(_line(f"{name}, {part}", f"{unit}/child", suffix))
    found.append(_line("claim, p50", "ms", suffix, at_most=5))
    found.append(_line("claim, slowest", "ms", suffix))
    found.append(_line("neighbour alone, flush p99", "ms", suffix))
    for name in SHAPES:
        p99 = f"{name}, neighbour's flush p99"
        found.append(_line(name, "s", suffix, at_most=1))
        found.append(_line(p99, "ms", suffix, "neighbour alone, flush p99", at_most=100))
    return found


def _line(
    name: str,
    unit: str,
    suffix: str,
    beside: str | None = None,
    *,
    at_most: float | None = None,
    at_least: float | None = None,
    bound_of_ratio: bool = False,
) -> Line:
    other = None if beside is None else beside + suffix
    return Line(name + suffix, unit, other, at_most, at_least, bound_of_ratio)


async def _small(stack: AsyncExitStack, url: str, admin: Connection) -> tuple[Flushing, Families, Meter]:
    """Make the database for flushes and children, beside the yardstick's tables."""
    url = await _database(admin, url, "flushes")
    hooks = Counting()
    journal = await stack.enter_async_context(PostgresJournal(url, hooks=hooks).open())
    await journal.register(WORKER, 3600, {})
    plain = await stack.enter_async_context(_connection(url, NAME))
    flushing = Flushing(journal, hooks, plain)
    await flushing.prepare()
    return flushing, Families(journal), Meter(await stack.enter_async_context(_connection(url, "meter")))


async def _full(stack: AsyncExitStack, url: str, admin: Connection) -> Backlog:
    """Make the database that is full."""
    url = await _database(admin, url, "backlog")
    journal = await stack.enter_async_context(PostgresJournal(url).open())
    await journal.register(WORKER, 3600, {})
    backlog = Backlog(journal, await stack.enter_async_context(_connection(url, "filler")))
    await backlog.prepare()
    return backlog


async def _database(admin: Connection, url: str, name: str) -> str:
    await admin.execute(f"create database {name}".encode())
    return make_conninfo(url, dbname=name)


@asynccontextmanager
async def _connection(url: str, name: str) -> AsyncGenerator[Connection, None]:
    connection = await connect(url, name=name)
    try:
        yield connection
    finally:
        await connection.close()


async def _delay_commits(admin: Connection, delay_us: int) -> None:
    """Make every commit take that much longer, from now on and for all connections."""
    await admin.execute(f"alter system set commit_delay = {delay_us}".encode())
    await admin.execute(b"alter system set commit_siblings = 0")
    await admin.execute(b"select pg_reload_conf()")
    await asyncio.sleep(0.5)  # the backends hear of it when they are idle
    assert await _setting(admin, "commit_delay") == str(delay_us)


async def _server_facts(admin: Connection) -> dict[str, object]:
    told = {name: await _setting(admin, name) for name in TOLD}
    return {"postgres": await _setting(admin, "server_version"), "psycopg": psycopg.__version__, "settings": told}


async def _setting(connection: Connection, name: str) -> str:
    found = await connection.execute(b"select current_setting($1)", [name])
    row = await found.fetchone()
    assert row is not None
    return str(row[0])
