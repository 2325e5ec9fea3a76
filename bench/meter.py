"""What a stretch of work costs: wall time, CPU of client and server, WAL, commits, statements.

The rule: CPU, WAL and commits stand next to every rate, for they swing less with a busy machine. What they hold:

- WAL and transaction ids are counted for the whole server. In both is what autovacuum did meanwhile, in any
  database; in the WAL also whole pages that are touched for the first time after a checkpoint.
- Commits are transaction ids: a transaction takes one when it first writes, also if it is rolled back.
- The CPU of the server is that of the backends that are named and live at the end. The WAL writer, the
  checkpointer, autovacuum and the io workers are left out, and so is what they write for a backend.
- The CPU of the client is that of this whole process: of the writer and of what drives it. Where the writer is a
  process of its own it is that one's, and not its driver's.
- Statements are those of the database that the meter is connected to, from everybody but connections that are
  ``uncounted``. They need ``pg_stat_statements``, and are counted where a meter is told to.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg

_COUNTERS = b"""
select (pg_current_wal_insert_lsn() - '0/0')::float8, pg_snapshot_xmax(pg_current_snapshot())::text::float8,
  array(select pid from pg_stat_activity where datname = current_database() and application_name = any($1))"""
_STATEMENTS = b"""
select coalesce(sum(calls), 0)::float8 from pg_stat_statements(false)
where dbid = (select oid from pg_database where datname = current_database())"""


def own_cpu_us() -> float:
    """Return the CPU time of this process in microseconds."""
    return time.process_time() * 1e6


@dataclass(slots=True)
class Spent:
    """What was spent. ``server_us`` is None where the kernel does not tell, ``statements`` if none are counted."""

    wall_s: float = 0.0
    client_us: float = 0.0
    server_us: float | None = None
    wal_bytes: float = 0.0
    commits: float = 0.0
    statements: float | None = None

    def add(self, other: Spent) -> None:
        """Add what was spent in another stretch."""
        self.wall_s += other.wall_s
        self.client_us += other.client_us
        if other.server_us is not None:
            self.server_us = (self.server_us or 0.0) + other.server_us
        self.wal_bytes += other.wal_bytes
        self.commits += other.commits
        if other.statements is not None:
            self.statements = (self.statements or 0.0) + other.statements

    def each(self, name: str, count: float) -> dict[str, float]:
        """Return the figures for one of ``count`` things, under ``name``."""
        figures = {
            f"{name}, client CPU": self.client_us / count,
            f"{name}, WAL": self.wal_bytes / count,
            f"{name}, commits": self.commits / count,
        }
        if self.server_us is not None:
            figures[f"{name}, server CPU"] = self.server_us / count
        if self.statements is not None:
            figures[f"{name}, statements"] = self.statements / count
        return figures


@dataclass(slots=True)
class Meter:
    """Reads the counters of a server, and the CPU time of backends of one database."""

    connection: psycopg.AsyncConnection[Any]
    counts_statements: bool = False
    _wal: float = field(default=0.0, init=False)
    _commits: float = field(default=0.0, init=False)
    _pids: list[int] = field(default_factory=list[int], init=False)

    @asynccontextmanager
    async def measured(
        self, applications: list[str], client_us: Callable[[], float] = own_cpu_us
    ) -> AsyncGenerator[Spent, None]:
        """Measure the block, on the server the backends of these names; what it gives is filled at the end.

        ``client_us`` reads the client's CPU time.
        """
        spent = Spent()
        await self._read(applications)
        wal, commits, statements = self._wal, self._commits, await self._statements()
        server = {pid: cpu_us(pid) for pid in self._pids}
        client, wall = client_us(), time.perf_counter()
        yield spent
        spent.wall_s = time.perf_counter() - wall
        spent.client_us = client_us() - client
        await self._read(applications)
        spent.wal_bytes, spent.commits = self._wal - wal, self._commits - commits
        if self.counts_statements:
            spent.statements = await self._statements() - statements
        used = [_difference(cpu_us(pid), server.get(pid, 0.0)) for pid in self._pids]
        if used and None not in used:
            spent.server_us = sum(each for each in used if each is not None)

    async def _statements(self) -> float:
        if not self.counts_statements:
            return 0.0
        found = await (await self.connection.execute(_STATEMENTS)).fetchone()
        assert found is not None
        return float(found[0])

    async def _read(self, applications: list[str]) -> None:
        found = await self.connection.execute(_COUNTERS, [applications])
        row = await found.fetchone()
        assert row is not None
        self._wal, self._commits, self._pids = row


def _difference(now: float | None, before: float | None) -> float | None:
    return None if now is None or before is None else now - before


def cpu_us(pid: int) -> float | None:
    """Return the CPU time of a process in microseconds, or None where the kernel does not tell.

    From schedstat: the ticks of ``stat`` are 10,000 microseconds long.
    """
    try:
        return int(Path(f"/proc/{pid}/schedstat").read_text(encoding="ascii").split()[0]) / 1e3
    except (OSError, ValueError, IndexError):
        return None
