"""What years leave in the tables: trees of runs that have ended, each run with ten entries.

The rule: it looks like the history of real work. Ids are made of time, as the client makes them, so they come in
their order; a tree is a root and four children; a value has the size of a step's; some few have failed.
"""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass, field

from bench.server import connection
from bench.yardstick import PAYLOAD
from continuum._journal.connections import Connection

CHILDREN, ENTRIES = 4, 10
RUNS = 1 + CHILDREN
COMMON, RARE = "order", "audit"  # every hundredth root is of the rare workflow
NOBODY = "nobody"  # a namespace without runs
TABLES = ("runs", "events", "inbox")
_AT_ONCE = 100_000  # trees, of an insert
_ID = "01900000-0000-7000-8000-"
_TREE = f"'{_ID}' || lpad(to_hex(t), 12, '0')"
_RUN = f"{_TREE} || case when c > 0 then '/item-' || c else '' end"
_SERIES = f"from generate_series($1::bigint, $2::bigint) t cross join generate_series(0, {CHILDREN}) c"
_SINCE = "timestamptz '2024-01-01' + t * interval '1 second'"
_FILL_RUNS = f"""
insert into continuum.runs (run_id, depth, workflow, version, state, lease_token, created_at, started_at,
  completed_at, input, result, error)
select {_RUN}, least(c, 1), case when t % 100 = 0 then '{RARE}' else '{COMMON}' end, 1,
  case when t % 500 = 0 and c = 0 then 'failed' else 'completed' end, 1, {_SINCE}, {_SINCE}, {_SINCE},
  '{{"order":"o-123456","cents":4200,"express":false}}', '{{"paid":true,"receipt":"r-123456"}}',
  case when t % 500 = 0 and c = 0 then '{{"type":"Declined","message":"no money"}}'::json end
{_SERIES} order by t, c"""
_FILL_EVENTS = f"""
insert into continuum.events (run_id, at_us, generation, seq, type, key, payload)
select {_RUN}, 1704067200000000 + t * 1000000 + s, 1, s,
  case when c > 0 or s > 8 then 'activity_completed' when s <= 4 then 'child_started' else 'child_completed' end,
  case when c > 0 or s > 8 then 'step-' || s else 'item-' || 1 + s % 4 end, '{PAYLOAD.decode()}'
{_SERIES} cross join generate_series(1, {ENTRIES}) s order by t, c, s"""
_SIZES = b"""
select c.relname, pg_table_size(c.oid)::float8, pg_indexes_size(c.oid)::float8, greatest(c.reltuples, 1)::float8
from pg_class c where c.relnamespace = 'continuum'::regnamespace and c.relkind = 'r'"""


def id_of(tree: int, child: int = 0) -> str:
    """Return the id of a tree's root, or of one of its children, from 1."""
    root = f"{_ID}{tree:012x}"
    return f"{root}/item-{child}" if child else root


@dataclass(slots=True)
class Past:
    """The history of one database. ``trees`` are there, the oldest of them is the first that is pruned."""

    url: str
    connection: Connection
    trees: int = 0
    _next: int = 1
    _chance: random.Random = field(default_factory=lambda: random.Random(7))

    async def add(self, trees: int) -> None:
        """Insert that many trees, younger than those that are there."""
        async with connection(self.url, "filler") as other:
            for first in range(self._next, self._next + trees, _AT_ONCE):
                span = [first, min(first + _AT_ONCE, self._next + trees) - 1]
                await asyncio.gather(
                    self.connection.execute(_FILL_RUNS.encode(), span),
                    other.execute(_FILL_EVENTS.encode(), span),
                )
        self._next += trees
        self.trees += trees

    def pruned(self, trees: int) -> None:
        """Note that the oldest are gone."""
        self.trees -= trees

    def some_tree(self) -> int:
        """Return one of the trees by chance."""
        return self.some_trees(1)[0]

    def some_trees(self, count: int) -> list[int]:
        """Return so many different ones."""
        return self._chance.sample(range(self._next - self.trees, self._next), count)

    async def vacuum(self) -> float:
        """Vacuum the journal's tables as autovacuum would, with all their indexes; return the seconds it took."""
        started = time.perf_counter()
        for table in TABLES:
            await self.connection.execute(f"vacuum (index_cleanup on) continuum.{table}".encode())
        return time.perf_counter() - started

    async def sizes(self) -> dict[str, float]:
        """Return the bytes of a row, in its table and in its indexes, and what all tables come to in MB."""
        figures, total = dict[str, float](), 0.0
        for name, table, indexes, rows in await (await self.connection.execute(_SIZES)).fetchall():
            total += table + indexes
            if name in ("runs", "events"):
                figures |= {f"{name}, a row": table / rows, f"{name}, a row, indexes": indexes / rows}
        return figures | {"tables and indexes": total / 1e6}
