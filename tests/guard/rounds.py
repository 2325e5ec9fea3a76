"""Rounds of runs through one worker in this process, and what each of them cost.

The rule: a round begins when all its runs are there, and ends when all of them have ended and left memory. Nothing
in between depends on how fast the machine is: the worker's chores are put off, nothing vacuums, a slice of turns
takes all there are, and a flush is sent when everything that can happen without it has happened.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any

import psycopg
import pytest
from bench import flows

import continuum
from continuum import Worker
from continuum._engine import turns
from continuum._engine.hooks import EngineHooks
from continuum._engine.loading import Loader
from continuum._journal.commit import NewRoot
from continuum._journal.journal import PostgresJournal
from tests.guard.counting import Calls
from tests.until import until

QUIET: dict[str, Any] = {"lease": 600, "heartbeat": 300, "poll": 300, "passivate_after": 300, "cache": 2_000}
LATER_US = 32_503_680_000_000_000  # the year 3000
LOOK_S = 0.005
PATIENCE_S = 60.0
TABLES = ("runs", "events", "inbox", "tasks", "deliveries", "cancellations")
STATEMENT = re.compile(rb"LOG:  (?:execute|statement)\b")


@dataclass(frozen=True, slots=True)
class Spent:
    """What a round cost. ``commits`` are transactions that wrote, ``replays`` journals that were read."""

    calls: Calls
    commits: int
    statements: int
    wal_bytes: int
    replays: int

    def each(self, count: int) -> dict[str, float]:
        """Return the figures for one of ``count`` things."""
        return {
            "our calls": self.calls.ours / count,
            "all calls": self.calls.all / count,
            "commits": self.commits / count,
            "statements": self.statements / count,
            "WAL bytes": self.wal_bytes / count,
            "replays": self.replays / count,
        }


class Gathering:
    """The journal's hooks: a flush waits until the event loop has nothing else to do."""

    async def reach(self, point: str) -> None:
        if point == "flush.begin":
            ready: Sequence[object] = asyncio.get_running_loop()._ready  # type: ignore[attr-defined]
            while ready:
                await asyncio.sleep(0)


class Rounds:
    """One worker on a database of its own.

    ``rows`` are those that it wrote in all rounds, known when it has ended; the roots' own are the client's.
    """

    def __init__(self, url: str, log: Path, own: psycopg.Connection[Any], worker: Worker) -> None:
        self.rows = self.roots = 0
        self._url, self._log, self._own = url, log, own
        self._worker = worker
        self._number = 0

    async def play(self, flow: Any, *, runs: int, given: int) -> Spent:
        """Have ``runs`` runs of a workflow, due at once."""
        self._number += 1
        self.roots += runs
        roots = [
            NewRoot(f"{self._number}-{n:07d}", flow.name, 1, flow.input.encode(given), wakeup_us=LATER_US)
            for n in range(runs)
        ]
        async with PostgresJournal(self._url).open(migrating=False) as journal:
            await journal.start(roots)
        calls = Calls()
        with self._own.transaction():
            self._own.execute("update continuum.runs set next_wakeup_at = now() where completed_at is null")
            self._own.execute("select pg_notify('continuum_run_ready', %s)", [f"{flow.name}:1"])
        commits, wal_bytes, logged = self._counters()  # the worker is in this thread: it has heard of nothing yet
        with calls.counted():
            await self._ended()
        commits_after, wal_bytes_after, logged_after = self._counters()
        with self._log.open("rb") as log:
            log.seek(logged)
            statements = len(STATEMENT.findall(log.read(logged_after - logged)))
        return Spent(
            calls,
            commits_after - commits,
            statements,
            wal_bytes_after - wal_bytes,
            calls.of(Loader._fill.__code__),
        )

    async def _ended(self) -> None:
        over = Event()
        try:
            await asyncio.get_running_loop().run_in_executor(None, self._look, over)
        finally:
            over.set()
        await _none(self._held, "run in memory")

    def _look(self, over: Event) -> None:
        """Wait for the end of all runs, in another thread: looking for it is no call of this one's."""
        deadline = time.monotonic() + PATIENCE_S
        while self._own.execute("select 1 from continuum.runs where completed_at is null limit 1").fetchone():
            if over.wait(LOOK_S):
                return
            assert time.monotonic() < deadline, "the runs do not end"

    def _held(self) -> list[str]:
        """Return the runs in memory, and what they wait for."""
        assert self._worker._engine is not None
        return [
            f"{run.run_id} (queued: {run.queued}, committing: {run.committing}, loading: {run.loading})"
            for run in self._worker._engine.residents.by_id.values()
        ]

    def _counters(self) -> tuple[int, int, int]:
        """Return transaction ids taken, bytes of WAL and bytes of the server's log, since ever."""
        sql = """select pg_snapshot_xmax(pg_current_snapshot())::text::bigint,
                        (pg_current_wal_insert_lsn() - '0/0')::bigint"""
        row = self._own.execute(sql).fetchone()
        assert row is not None
        return row[0], row[1], self._log.stat().st_size


@asynccontextmanager
async def rounds(url: str, log: Path) -> AsyncIterator[Rounds]:
    """Open a worker on an empty database. ``log`` is where its server logs."""
    with psycopg.connect(url, autocommit=True) as own:
        own.execute("set log_statement = 'none'")
        own.execute("set track_counts = off")  # what this connection writes is not a run's
        own.execute(f"alter database {own.info.dbname} set log_statement = 'all'".encode())
        with _nothing_vacuums(own), pytest.MonkeyPatch.context() as patch:
            patch.setattr(turns, "SLICE_S", PATIENCE_S)
            async with (
                continuum.connect(url, migrate=False) as client,
                Worker(client, [flows], hooks=EngineHooks(journal=Gathering()), **QUIET) as worker,
            ):
                made = Rounds(url, log, own, worker)
                yield made
        made.rows = await _rows(own) - made.roots


@contextmanager
def _nothing_vacuums(own: psycopg.Connection[Any]) -> Iterator[None]:
    """Keep the server from vacuuming in any database: ids and WAL are counted for all of it."""
    try:
        own.execute("alter system set autovacuum = off")
        own.execute("select pg_reload_conf()")
        yield
    finally:
        own.execute("alter system reset autovacuum")
        own.execute("select pg_reload_conf()")


async def _rows(own: psycopg.Connection[Any]) -> int:
    """Return the rows written to the tables of runs. What a connection counted is known when it is gone."""

    def others() -> list[Any]:
        sql = """select application_name, state, query from pg_stat_activity
                 where datname = current_database() and backend_type = 'client backend'
                   and pid <> pg_backend_pid()"""
        return own.execute(sql).fetchall()

    await _none(others, "connection of the worker")
    sql = """select sum(n_tup_ins + n_tup_upd + n_tup_del)::bigint from pg_stat_user_tables
             where schemaname = 'continuum' and relname = any(%s)"""
    row = own.execute(sql, [list(TABLES)]).fetchone()
    assert row is not None
    return int(row[0])


async def _none(left: Callable[[], list[Any]], what: str) -> None:
    """Wait until nothing is left."""

    async def gone() -> bool:
        return not left()

    try:
        await until(gone)
    except TimeoutError:
        raise AssertionError(f"there is still a {what}: {left()[:5]}") from None
