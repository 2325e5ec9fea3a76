"""The plain group commit at work: its tables, its runs, and as many rows under way as a batch is to be large.

The rule: whatever is set beside it is driven alike, and its tables hold other runs too.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress

from bench.group_commit import NAME, TABLES, GroupCommit
from bench.meter import Meter, Spent
from continuum._journal.connections import Connection

BATCHES = (1, 20, 200)
OTHERS = 50_000  # runs that are there too: beside an empty table every plan is a good one
WORKER = "bench"
PAYLOAD = b'{"order":"o-123456","items":[{"sku":"a-1","n":2},{"sku":"b-22","n":1}],"total":1234,"note":"%b"}' % (
    b"x" * 26
)
assert len(PAYLOAD) == 120
T0 = 1_700_000_000_000_000
Step = Callable[[int, int], Awaitable[None]]


class Yardstick:
    """The tables in a schema of their own, and one writer. ``payload`` is what each row carries."""

    def __init__(self, connection: Connection, payload: bytes = PAYLOAD) -> None:
        self.connection = connection
        self.payload = payload
        self._next = [1] * max(BATCHES)

    async def prepare(self) -> None:
        """Make the tables, fill them with others' runs, and lease our own."""
        for definition in TABLES:
            await self.connection.execute(definition)
        await self.connection.execute(
            b"insert into plain.runs (run_id, input, state) "
            b"select 'other-' || i, '{}', 'suspended' from generate_series(1, $1) i",
            [OTHERS],
        )
        await self.connection.execute(
            b"insert into plain.runs (run_id, lease_owner, lease_token) "
            b"select 'run-' || lpad(i::text, 6, '0'), $1, 1 from generate_series(0, $2) i",
            [WORKER, max(BATCHES) - 1],
        )

    async def turn(self, meter: Meter, batch: int, seconds: float, spent: Spent) -> int:
        """Write for a while with ``batch`` rows under way; return how many. Adds what they took to ``spent``."""
        writer = GroupCommit(self.connection, WORKER)

        async def append(index: int, at: int) -> None:
            seq, self._next[index] = self._next[index], self._next[index] + 1
            key = f"step-{seq}"
            await writer.append(run_id_of(index), 1, seq, T0 + at, "activity_completed", key, self.payload)

        running = asyncio.create_task(writer.run())
        try:
            async with meter.measured([f"continuum {NAME}"]) as turn:
                count = await keep_going(batch, append, seconds)
            spent.add(turn)
            return count
        finally:
            running.cancel()
            with suppress(asyncio.CancelledError):
                await running


def run_id_of(number: int) -> str:
    """Return the id of one of the runs that are written to."""
    return f"run-{number:06d}"


async def keep_going(batch: int, step: Step, seconds: float) -> int:
    """Keep ``batch`` steps under way for a while; return how many were done, when none is under way any more."""
    until = time.perf_counter() + seconds

    async def one_run(index: int) -> int:
        at = 0
        while time.perf_counter() < until:
            await step(index, at)
            at += 1
        return at

    async with asyncio.TaskGroup() as group:
        runs = [group.create_task(one_run(index)) for index in range(batch)]
    return sum(run.result() for run in runs)
