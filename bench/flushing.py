"""Rows through the flusher, and the same rows through the plain group commit.

The rule: as many runs as the batch is to be large, each with one commit of one entry under way at all times, so
that batches form as they do in an engine. Both sides are driven alike, and their tables hold other runs too.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress

from bench.group_commit import NAME, TABLES, GroupCommit
from bench.meter import Meter, Spent
from continuum._core.entries import Entry
from continuum._journal.commit import Commit, Committed, NewRoot
from continuum._journal.connections import Connection
from continuum._journal.journal import PostgresJournal

BATCHES = (1, 20, 200)
OTHERS = 50_000  # runs that are there too: beside an empty table every plan is a good one
OURS = ["continuum flush", "continuum journal", "continuum hints", "continuum large"]
WORKER = "bench"
TURNS, TURN_S = 4, 0.25
PAYLOAD = b'{"order":"o-123456","items":[{"sku":"a-1","n":2},{"sku":"b-22","n":1}],"total":1234,"note":"%b"}' % (
    b"x" * 26
)
assert len(PAYLOAD) == 120
T0 = 1_700_000_000_000_000
Step = Callable[[int, int], Awaitable[None]]


class Counting:
    """Hooks that count the flushes."""

    def __init__(self) -> None:
        self.flushes = 0

    async def reach(self, point: str) -> None:
        """Count, and go on."""
        self.flushes += point == "flush.committed"


class Flushing:
    """The tables, the runs and both writers. ``measure`` may be called any number of times."""

    def __init__(self, journal: PostgresJournal, hooks: Counting, plain: Connection) -> None:
        self._journal = journal
        self._hooks = hooks
        self._plain = plain
        self._tokens: list[int] = []
        self._next = [1] * max(BATCHES)
        self._plain_next = [1] * max(BATCHES)

    async def prepare(self) -> None:
        """Make the yardstick's tables, fill both with others' runs, and lease our own."""
        for definition in TABLES:
            await self._plain.execute(definition)
        journal, plain = (
            "continuum.runs (run_id, workflow, version, input, state)",
            "plain.runs (run_id, input, state)",
        )
        for table, columns in ((journal, "'other', 1, '{}', 'suspended'"), (plain, "'{}', 'suspended'")):
            fill = f"insert into {table} select 'other-' || i, {columns} from generate_series(1, {OTHERS}) i"
            await self._plain.execute(fill.encode())
        runs = [NewRoot(_run_id(number), "steps", 1, b"null") for number in range(max(BATCHES))]
        await self._journal.start(runs)
        claimed = {run.run_id: run.token for run in await self._journal.claim([("steps", 1)], len(runs))}
        self._tokens = [claimed[run.run_id] for run in runs]
        await self._plain.execute(
            b"insert into plain.runs (run_id, lease_owner, lease_token) "
            b"select 'run-' || lpad(i::text, 6, '0'), $1, 1 from generate_series(0, $2) i",
            [WORKER, max(BATCHES) - 1],
        )
        await self._plain.execute(b"vacuum analyze")

    async def measure(self, meter: Meter) -> dict[str, float]:
        """Return the figures of one round. Ours and the yardstick take turns, so both meet the same machine."""
        figures: dict[str, float] = {}
        for batch in BATCHES:
            ours, theirs = f"flusher, {batch} in flight", f"{NAME}, {batch} in flight"
            count, flushes, other_count, spent, other_spent = 0, 0, 0, Spent(), Spent()
            for _ in range(TURNS):
                before = self._hooks.flushes
                count += await _turn(meter, OURS, batch, self._flush, spent)
                flushes += self._hooks.flushes - before
                other_count += await self._yardstick(meter, batch, other_spent)
            figures |= {ours: count / spent.wall_s, **spent.each(ours, count)}
            figures[f"{ours}, flushes"] = flushes / count
            figures |= {theirs: other_count / other_spent.wall_s, **other_spent.each(theirs, other_count)}
        return figures

    async def _yardstick(self, meter: Meter, batch: int, spent: Spent) -> int:
        writer = GroupCommit(self._plain, WORKER)

        async def append(index: int, at: int) -> None:
            seq, self._plain_next[index] = self._plain_next[index], self._plain_next[index] + 1
            key = f"step-{seq}"
            await writer.append(_run_id(index), 1, seq, T0 + at, "activity_completed", key, PAYLOAD)

        running = asyncio.create_task(writer.run())
        try:
            return await _turn(meter, [f"continuum {NAME}"], batch, append, spent)
        finally:
            running.cancel()
            with suppress(asyncio.CancelledError):
                await running

    async def _flush(self, index: int, at: int) -> None:
        seq, self._next[index] = self._next[index], self._next[index] + 1
        entry = Entry("activity_completed", f"step-{seq}", T0 + at, PAYLOAD)
        (outcome,) = await self._journal.submit(Commit(_run_id(index), self._tokens[index], 1, seq, (entry,)))
        assert isinstance(outcome, Committed)


def _run_id(number: int) -> str:
    return f"run-{number:06d}"


async def _turn(meter: Meter, applications: list[str], batch: int, step: Step, spent: Spent) -> int:
    async with meter.measured(applications) as turn:
        count = await _keep_going(batch, step, TURN_S)
    spent.add(turn)
    return count


async def _keep_going(batch: int, step: Step, seconds: float) -> int:
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
