"""A database for the engine's figures: how runs get in, how one knows that they have ended, what was written.

The rule: whatever looks on from here is not counted, and costs next to nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from bench.meter import Meter
from bench.server import connection
from bench.worker import APPLICATIONS
from continuum._journal.commit import NewRoot
from continuum._journal.connections import Connection
from continuum._journal.journal import PostgresJournal
from continuum.workflow import Workflow

AT_ONCE = 500
LOOK_S = 0.01
# The last in the order of ids, which is the order they fall due in: few rows are read before the end is near.
_UNENDED = b"""
select run_id from continuum.runs where run_id > $1 || '-' and run_id < $1 || '.' and completed_at is null
order by run_id desc limit 1"""
_ENDED = b"""
select count(*), count(*) filter (where state = 'completed'),
  (extract(epoch from max(completed_at)) * 1000000)::bigint
from continuum.runs where run_id > $1 || '-' and run_id < $1 || '.'"""
_ROWS = b"""
select coalesce(sum(n_tup_ins + n_tup_upd + n_tup_del), 0)::float8 from pg_stat_user_tables
where schemaname = 'continuum'"""
_OTHERS = b"select 1 from pg_stat_activity where datname = current_database() and application_name = any($1)"


@dataclass(slots=True)
class Place:
    """A database with the journal's tables in it. ``own`` is for looking on, ``meter`` for measuring."""

    url: str
    own: Connection
    meter: Meter
    _names: int = field(default=0, init=False)

    def name(self, what: str) -> str:
        """Return a name for runs that none had before."""
        self._names += 1
        return f"{what}{self._names:04d}"

    async def start(
        self, flow: Workflow[int, Any], name: str, count: int, *, given: int = 0, due_us: int | None = None
    ) -> None:
        """Start runs ``name-…`` of a workflow, due at once or each a microsecond after the other."""
        async with PostgresJournal(self.url).open(migrating=False) as journal:
            for first in range(0, count, AT_ONCE):
                runs = [
                    NewRoot(
                        f"{name}-{number:07d}",
                        flow.name,
                        flow.version,
                        flow.input.encode(given),
                        wakeup_us=None if due_us is None else due_us + number,
                    )
                    for number in range(first, min(first + AT_ONCE, count))
                ]
                assert len(await journal.start(runs)) == len(runs)

    async def vacuum(self) -> None:
        """Leave no work to a vacuum that would fall into a measurement, and let plans know the tables."""
        await self.own.execute(b"vacuum analyze")

    async def say_due(self, flow: Workflow[Any, Any]) -> None:
        """Say that runs of a workflow are due, as whoever starts some does."""
        await self.own.execute(b"select pg_notify('continuum_run_ready', $1)", [f"{flow.name}:{flow.version}"])

    async def ended(self, name: str, count: int) -> int:
        """Wait until the runs ``name-…`` have completed; return when the last one did, by the server's clock.

        Of ``count`` runs, their children included.
        """
        await self.becomes_empty(_UNENDED, name)
        found = await self._row(_ENDED, name)
        assert found is not None
        assert found[:2] == (count, count), found
        return int(found[2])

    async def rows(self) -> float:
        """Return how many rows of the journal were ever inserted, updated or deleted.

        A connection tells at its end, so this waits for the end of those that worked on it.
        """
        await self.becomes_empty(_OTHERS, APPLICATIONS)
        found = await self._row(_ROWS)
        assert found is not None
        return float(found[0])

    async def becomes_empty(self, sql: bytes, *values: object) -> None:
        """Ask again and again until a statement finds nothing."""
        while await self._row(sql, *values) is not None:  # noqa: ASYNC110 - nobody here is told of it
            await asyncio.sleep(LOOK_S)

    async def _row(self, sql: bytes, *values: object) -> tuple[Any, ...] | None:
        return await (await self.own.execute(sql, values)).fetchone()


@asynccontextmanager
async def opened(url: str) -> AsyncGenerator[Place, None]:
    """Make the journal's tables in a database, and connect to it."""
    async with PostgresJournal(url).open():
        pass
    async with connection(url, "onlooker") as own, connection(url, "meter") as meter:
        await own.execute(b"create extension pg_stat_statements")
        for uncounted in (own, meter):
            await uncounted.execute(b"set pg_stat_statements.track = 'none'")
        yield Place(url, own, Meter(meter, counts_statements=True))
