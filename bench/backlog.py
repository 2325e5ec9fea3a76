"""Claims and cascades in a full table: 1,000,000 suspended runs, 100,000 ready ones, 100,000 messages to others.

The rule: everything that is timed goes through the journal; the tables are filled by SQL. The neighbour of a
cascade is a process of its own, since in ours it would only wait for our event loop. Autovacuum is off for these
tables, so that none of its runs falls into a measurement; instead each measurement begins with a vacuum.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from bench.report import p99
from continuum._journal.commit import Lease
from continuum._journal.connections import Connection
from continuum._journal.journal import PostgresJournal

SUSPENDED, READY, MESSAGES = 1_000_000, 100_000, 100_000
CLAIMS, AT_ONCE = 50, 100
QUIET_S = 0.7
# Half of the suspended have a wake-up time, so they stand in the index of what is due; some of each are asked for.
DEFINITIONS = [("ready", 1), *((f"flow-{number}", 1) for number in range(5))]
TABLES = ("runs", "inbox", "events")
_FILL = (
    f"""insert into continuum.runs
  (run_id, workflow, version, state, started_at, next_wakeup_at, input, waiting_for)
select 'idle-' || lpad(i::text, 8, '0'), 'flow-' || i % 10, 1, 'suspended', now(),
  case when i % 2 = 0 then now() + interval '1 day' + i * interval '1 second' end, '{{"n":1}}', 'a signal'
from generate_series(1, {SUSPENDED}) i""",
    f"""insert into continuum.runs (run_id, workflow, version, next_wakeup_at, input)
select 'ready-' || lpad(i::text, 8, '0'), 'ready', 1, now() - random() * interval '1 hour', '{{"n":1}}'
from generate_series(1, {READY}) i""",
    """insert into continuum.runs (run_id, workflow, version, state, lease_owner, lease_token, input)
select 'busy-' || lpad(i::text, 6, '0'), 'busy', 1, 'running', 'somebody', 1, 'null'
from generate_series(1, 1000) i""",
    f"""insert into continuum.inbox (run_id, type, key, payload)
select 'busy-' || lpad((1 + i % 1000)::text, 6, '0'), 'signal_received', 'go', '{{"payload":1}}'
from generate_series(1, {MESSAGES}) i""",
    *(f"alter table continuum.{table} set (autovacuum_enabled = off)" for table in TABLES),
    "vacuum analyze",
)
# A tree: its root and inner runs are leased by others, its leaves are suspended, every tenth of them has mail.
_ROW = "insert into continuum.runs (run_id, depth, workflow, version, state, lease_owner, lease_token, input)"
_INNER = _ROW + " select {id}, {depth}, 'tree', 1, 'running', 'somebody', 1, 'null' from {series}"
_LEAVES = _ROW + " select {id}, {depth}, 'tree', 1, 'suspended', null, 1, 'null' from {series}"
_MAIL = b"""insert into continuum.inbox (run_id, type, key, payload)
select run_id, 'signal_received', 'go', '{"payload":1}' from continuum.runs
where run_id > $1 || '/' and run_id < $1 || '0' and state = 'suspended' and run_id like '%0'"""
SHAPES = {"cascade, 10,000 flat": (10_000,), "cascade, 10 x 10 x 100": (10, 10, 100)}


@dataclass(slots=True)
class Backlog:
    """The full table. ``measure`` may be called any number of times; a worker must be registered."""

    journal: PostgresJournal
    connection: Connection
    _trees: int = 0
    _claims_ms: list[float] = field(default_factory=list[float])

    async def prepare(self) -> None:
        """Fill the tables."""
        for sql in _FILL:
            await self.connection.execute(sql.encode())

    async def measure(self) -> dict[str, float]:
        """Return the figures of one round."""
        await self.connection.execute(f"vacuum {', '.join(f'continuum.{table}' for table in TABLES)}".encode())
        return await self._claims() | await self._cascades()

    def take_claims(self) -> list[float]:
        """Return the milliseconds of every claim since the last call."""
        taken, self._claims_ms = self._claims_ms, []
        return taken

    async def _claims(self) -> dict[str, float]:
        times: list[float] = []
        taken: list[Lease] = []
        for _ in range(CLAIMS):
            started = time.perf_counter()
            runs = await self.journal.claim(DEFINITIONS, AT_ONCE)
            times.append((time.perf_counter() - started) * 1e3)
            assert len(runs) == AT_ONCE
            taken += [Lease(run.run_id, run.token) for run in runs]
        assert len(await self.journal.release(taken)) == len(taken)
        self._claims_ms += times
        return {"claim, p50": statistics.median(times)}

    async def _cascades(self) -> dict[str, float]:
        figures: dict[str, float] = {}
        async with running_neighbour(self.journal.url) as neighbour:
            quiet = await neighbour.latencies(asyncio.sleep(QUIET_S))
            figures["neighbour alone, flush p99"] = p99(quiet)
            for name, widths in SHAPES.items():
                root, below = await self._tree(widths)
                busy = await neighbour.latencies(self._cascade(root, below, name, figures))
                figures[f"{name}, neighbour's flush p99"] = p99(busy)
        return figures

    async def _cascade(self, root: str, below: int, name: str, figures: dict[str, float]) -> None:
        started = time.perf_counter()
        done = await self.journal.cancel(root, "bench")
        figures[name] = time.perf_counter() - started
        assert done.runs == below + 1

    async def _tree(self, widths: tuple[int, ...]) -> tuple[str, int]:
        self._trees += 1
        root = f"tree-{self._trees:04d}"
        below, path, series = 0, f"'{root}'", "(values (1)) v"
        await self._insert(_INNER.format(id=path, depth=0, series=series))
        for depth, width in enumerate(widths, 1):
            path += f" || '/' || lpad(i{depth}::text, 5, '0')"
            series += f" cross join generate_series(1, {width}) i{depth}"
            rows = _LEAVES if depth == len(widths) else _INNER
            below += await self._insert(rows.format(id=path, depth=depth, series=series))
        await self.connection.execute(_MAIL, [root])
        return root, below

    async def _insert(self, sql: str) -> int:
        return (await self.connection.execute(sql.encode())).rowcount


@dataclass(slots=True)
class Neighbour:
    """A process that flushes without a pause; see ``neighbour.py``."""

    _process: asyncio.subprocess.Process

    async def latencies(self, work: object) -> list[float]:
        """Return the milliseconds of the flushes that were under way while ``work`` was done."""
        assert asyncio.iscoroutine(work)
        await self._ask()
        await work
        return await self._ask()

    async def _ask(self) -> list[float]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(b"\n")
        line = await self._process.stdout.readline()
        found: list[float] = json.loads(line)
        return found


@asynccontextmanager
async def running_neighbour(url: str) -> AsyncGenerator[Neighbour, None]:
    """Run a neighbour for the block."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "bench.neighbour",
        url,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=64_000_000,
        start_new_session=True,  # Ctrl-C is ours to act on; it ends with its input
    )
    try:
        assert process.stdout is not None
        assert await process.stdout.readline() == b"ready\n"
        yield Neighbour(process)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        await process.wait()
