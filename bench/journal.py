"""What the journal costs on Postgres: flushes, children, claims, cascades; all of it again on a slow disk.

The rule: durable writes on a server of our own (fsync on), which is thrown away. A disk that takes 2 ms is
imitated by ``commit_delay``; its figures end in "slow disk". Each round measures everything, the yardsticks too.
Bounds are for a plain disk. On the slow one the commit itself takes 2 ms of what is bounded, so the time of one
plain commit stands beside it.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from dataclasses import replace

import psycopg
from psycopg.conninfo import make_conninfo

from bench.backlog import SHAPES, Backlog
from bench.disk import COMMIT, commit_ms, home_folder, make_commit_table, refuse_memory
from bench.ending import Ending
from bench.families import PARTS, WAYS, Families
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
CLAIMS = "claim, all rounds"
SLOW = ", slow disk"
SLOW_DISK_US = 2_000


def run(rounds: int, ending: Ending) -> None:
    """Measure on a server of our own and print a JSON line for each figure.

    Raises ``InMemory`` if there is no disk to measure on, ``KeyboardInterrupt`` when told to end.
    """
    with ExitStack() as stack:
        with ending.held_back():
            server = Server(stack.enter_context(home_folder()), SETTINGS)
            stack.callback(server.stop)
            url = stack.enter_context(server.running())
            stack.callback(ending.ignore)
            data = server.status().data
            assert data is not None
            found: dict[str, object] = {"data": str(data), "file_system": refuse_memory(data)}
        ending.run(_measure(url, rounds, found))


async def _measure(url: str, rounds: int, found: dict[str, object]) -> None:
    async with AsyncExitStack() as stack:
        admin = await stack.enter_async_context(_connection(url, "bench"))
        await make_commit_table(admin)
        commit_us = round(await commit_ms(admin) * 1e3)
        say(facts(rounds) | found | {"plain_commit_us": commit_us} | await _server_facts(admin))
        flushing, families, meter = await _small(stack, url, admin)
        backlog = await _full(stack, url, admin)
        samples: dict[str, list[float]] = {}
        for _ in range(rounds):
            for suffix, delay_us in (("", 0), (SLOW, SLOW_DISK_US)):
                await _delay_commits(admin, delay_us)
                gc.collect()
                figures = {COMMIT: await commit_ms(admin)}
                figures |= await flushing.measure(meter) | await families.measure(meter)
                figures |= await backlog.measure()
                samples.setdefault(CLAIMS + suffix, []).extend(backlog.take_claims())
                for name, value in figures.items():
                    samples.setdefault(name + suffix, []).append(value)
        await _delay_commits(admin, 0)
        show([*lines(""), *lines(SLOW)], samples)


def lines(suffix: str) -> list[Line]:
    """Return what is printed, in order."""
    found = [Line(COMMIT, "ms")]
    for batch in BATCHES:
        ours = f"flusher, {batch} in flight"
        found += _beside(ours, f"{NAME}, {batch} in flight", "row", 0.5 if batch == max(BATCHES) else None)
        found.append(Line(f"{ours}, flushes", "/row"))
    for name in WAYS:
        found += _beside(name, f"{NAME}, {name}", "child", 0.5, PARTS)
    found.append(Line("claim, p50", "ms", COMMIT, at_most=5))
    found.append(Line(CLAIMS, "ms", p99=True))
    found.append(Line("neighbour alone, flush p99", "ms"))
    for name in SHAPES:
        p99 = f"{name}, neighbour's flush p99"
        found.append(Line(name, "s", at_most=1))
        found.append(Line(p99, "ms", "neighbour alone, flush p99", at_most=100, judged="worst round"))
    return [replace(line, name=line.name + suffix, beside=line.beside and line.beside + suffix) for line in found]


def _beside(ours: str, theirs: str, one: str, at_least: float | None, parts: Sequence[str] = ()) -> list[Line]:
    """Return the lines of both sides: the rate, which may be bounded, what one costs, and its parts."""
    rate = {"row": "rows/s", "child": "children/s"}[one]
    found = [Line(theirs, rate), Line(ours, rate, theirs, at_least=at_least, judged="median ratio")]
    costs = [("client CPU", "us/"), ("server CPU", "us/"), ("WAL", "bytes/"), ("commits", "/")]
    for part, unit in [*((part, "us/") for part in parts), *costs]:
        found.append(Line(f"{theirs}, {part}", unit + one))
        found.append(Line(f"{ours}, {part}", unit + one, f"{theirs}, {part}"))
    return found


async def _small(stack: AsyncExitStack, url: str, admin: Connection) -> tuple[Flushing, Families, Meter]:
    """Make the database for flushes and children, beside the yardstick's tables."""
    url = await _database(admin, url, "flushes")
    hooks = Counting()
    journal = await stack.enter_async_context(PostgresJournal(url, hooks=hooks).open())
    await journal.register(WORKER, 3600, {})
    plain = await stack.enter_async_context(_connection(url, NAME))
    flushing = Flushing(journal, hooks, plain)
    await flushing.prepare()
    families = Families(journal, plain)
    await families.prepare()
    return flushing, families, Meter(await stack.enter_async_context(_connection(url, "meter")))


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
