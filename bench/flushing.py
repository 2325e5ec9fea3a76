"""Rows through the flusher, and the same rows through the plain group commit.

The rule: as many runs as the batch is to be large, each with one commit of one entry under way at all times, so
that batches form as they do in an engine. Both sides are driven alike, and their tables hold other runs too.
"""

from __future__ import annotations

from bench.group_commit import NAME
from bench.meter import Meter, Spent
from bench.yardstick import BATCHES, OTHERS, PAYLOAD, T0, Step, Yardstick, keep_going, run_id_of
from continuum._core.entries import Entry
from continuum._journal.commit import Commit, Committed, NewRoot
from continuum._journal.journal import PostgresJournal

OURS = ["continuum flush", "continuum journal", "continuum hints", "continuum large"]
TURNS, TURN_S = 4, 0.25


class Counting:
    """Hooks that count the flushes."""

    def __init__(self) -> None:
        self.flushes = 0

    async def reach(self, point: str) -> None:
        """Count, and go on."""
        self.flushes += point == "flush.committed"


class Flushing:
    """The tables, the runs and both writers. ``measure`` may be called any number of times."""

    def __init__(self, journal: PostgresJournal, hooks: Counting, yardstick: Yardstick) -> None:
        self._journal = journal
        self._hooks = hooks
        self._yardstick = yardstick
        self._tokens: list[int] = []
        self._next = [1] * max(BATCHES)

    async def prepare(self) -> None:
        """Make the yardstick's tables, fill the journal's with others' runs too, and lease our own."""
        await self._yardstick.prepare()
        await self._yardstick.connection.execute(
            b"insert into continuum.runs (run_id, workflow, version, input, state) "
            b"select 'other-' || i, 'other', 1, '{}', 'suspended' from generate_series(1, $1) i",
            [OTHERS],
        )
        runs = [NewRoot(run_id_of(number), "steps", 1, b"null") for number in range(max(BATCHES))]
        await self._journal.start(runs)
        claimed = {run.run_id: run.token for run in await self._journal.claim([("steps", 1)], len(runs))}
        self._tokens = [claimed[run.run_id] for run in runs]
        await self._yardstick.connection.execute(b"vacuum analyze")

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
                other_count += await self._yardstick.turn(meter, batch, TURN_S, other_spent)
            figures |= {ours: count / spent.wall_s, **spent.each(ours, count)}
            figures[f"{ours}, flushes"] = flushes / count
            figures |= {theirs: other_count / other_spent.wall_s, **other_spent.each(theirs, other_count)}
        return figures

    async def _flush(self, index: int, at: int) -> None:
        seq, self._next[index] = self._next[index], self._next[index] + 1
        entry = Entry("activity_completed", f"step-{seq}", T0 + at, PAYLOAD)
        (outcome,) = await self._journal.submit(Commit(run_id_of(index), self._tokens[index], 1, seq, (entry,)))
        assert isinstance(outcome, Committed)


async def _turn(meter: Meter, applications: list[str], batch: int, step: Step, spent: Spent) -> int:
    async with meter.measured(applications) as turn:
        count = await keep_going(batch, step, TURN_S)
    spent.add(turn)
    return count
