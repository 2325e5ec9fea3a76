"""Children: started by a parent, ended with a message to its inbox, their outcomes taken in.

The rule: 200 at a time, each part waited for before the next, so that each part's share can be told. The journal
and the yardstick, plain statements that do the same, take turns, so both meet the same machine.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from bench.flushing import OURS
from bench.group_commit import NAME
from bench.meter import Meter, Spent
from bench.plain_families import TABLES, PlainFamily
from bench.yardstick import PAYLOAD, T0
from continuum._core.effects import Message, NewRun
from continuum._core.entries import Entry
from continuum._journal.commit import Commit, Committed, Complete, Lease, NewRoot
from continuum._journal.connections import Connection
from continuum._journal.journal import PostgresJournal
from continuum.policies import ChildOptions

TOGETHER = 200
TURNS, BATCHES_A_TURN = 3, 5
CHILDREN = TURNS * BATCHES_A_TURN * TOGETHER
WAYS = {"children leased at birth": True, "children claimed": False}
PARTS = ("start", "claim", "end", "mail", "drain")
_OPTIONS = ChildOptions()
Batch = Callable[[int], Awaitable[None]]


class Clock:
    """Adds up the seconds of each part."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(PARTS, 0.0)
        self._since = 0.0

    def begin(self) -> None:
        """Begin the first part."""
        self._since = time.perf_counter()

    def end(self, part: str) -> None:
        """End a part, which begins the next."""
        now = time.perf_counter()
        self.seconds[part] += now - self._since
        self._since = now


@dataclass(slots=True)
class Side:
    """One of the two that take turns: its figures' name, its connections' names, and what does the n-th batch."""

    name: str
    applications: list[str]
    batch: Batch
    clock: Clock
    spent: Spent = field(default_factory=Spent)
    _batches: int = 0

    async def warm(self) -> None:
        """Do one batch that does not count."""
        await self._next()
        self.clock.seconds = dict.fromkeys(PARTS, 0.0)

    async def turn(self, meter: Meter) -> None:
        """Do the batches of one turn."""
        async with meter.measured(self.applications) as spent:
            for _ in range(BATCHES_A_TURN):
                await self._next()
        self.spent.add(spent)

    async def _next(self) -> None:
        await self.batch(self._batches)
        self._batches += 1

    def figures(self) -> dict[str, float]:
        """Return the figures of all turns."""
        parts = {
            f"{self.name}, {part}": seconds / CHILDREN * 1e6
            for part, seconds in self.clock.seconds.items()
            if seconds
        }
        return {self.name: CHILDREN / self.spent.wall_s, **self.spent.each(self.name, CHILDREN), **parts}


@dataclass(slots=True)
class Families:
    """Parents that start children, one parent of each side a measurement and way."""

    journal: PostgresJournal
    plain: Connection
    _parents: int = 0

    async def prepare(self) -> None:
        """Make the yardstick's tables; those of the plain group commit must be there."""
        for definition in TABLES:
            await self.plain.execute(definition)

    async def measure(self, meter: Meter) -> dict[str, float]:
        """Return the figures of one round."""
        figures: dict[str, float] = {}
        for name, at_birth in WAYS.items():
            self._parents += 1
            run_id = f"parent-{self._parents:04d}"
            sides = (await self._ours(name, run_id, at_birth), await self._theirs(name, run_id, at_birth))
            for side in sides:
                await side.warm()
            for _ in range(TURNS):
                for side in sides:
                    await side.turn(meter)
            for side in sides:
                figures |= side.figures()
        return figures

    async def _ours(self, name: str, run_id: str, at_birth: bool) -> Side:
        await self.journal.start([NewRoot(run_id, "parent", 1, b"null")])
        (run,) = await self.journal.claim([("parent", 1)], 1)
        family, clock = Family(self.journal, Lease(run.run_id, run.token)), Clock()

        async def batch(number: int) -> None:
            seq, keys = _place(number)
            clock.begin()
            leases = await family.start(seq, keys, at_birth)
            clock.end("start")
            if not at_birth:
                leases = [
                    Lease(run.run_id, run.token) for run in await self.journal.claim([("leaf", 1)], TOGETHER)
                ]
                clock.end("claim")
            assert len(leases) == TOGETHER
            await family.end(leases)
            clock.end("end")
            mail = (await self.journal.mail([run_id]))[run_id]
            assert len(mail) == TOGETHER
            clock.end("mail")
            entries = tuple(Entry(message.type, message.key, T0, message.payload) for message in mail)
            await family.drain(seq + TOGETHER, entries, tuple(message.id for message in mail))
            clock.end("drain")

        return Side(name, OURS, batch, clock)

    async def _theirs(self, name: str, run_id: str, at_birth: bool) -> Side:
        family, clock = PlainFamily(self.plain, run_id), Clock()
        await family.prepare()

        async def batch(number: int) -> None:
            seq, keys = _place(number)
            clock.begin()
            held = await family.start(seq, keys, at_birth)
            clock.end("start")
            if not at_birth:
                held = await family.claim(TOGETHER)
                clock.end("claim")
            assert len(held) == TOGETHER
            await family.end(held)
            clock.end("end")
            mail = await family.mail(TOGETHER)
            assert len(mail) == TOGETHER
            clock.end("mail")
            await family.drain(seq + TOGETHER, mail)
            clock.end("drain")

        return Side(f"{NAME}, {name}", [f"continuum {NAME}"], batch, clock)


@dataclass(frozen=True, slots=True)
class Family:
    """One parent and its children in the journal."""

    journal: PostgresJournal
    parent: Lease

    async def start(self, seq: int, keys: Sequence[str], at_birth: bool) -> list[Lease]:
        """Start the children; return their leases, if they are leased at birth."""
        parent = self.parent
        children = tuple(
            NewRun(f"{parent.run_id}/{key}", parent.run_id, key, 1, "leaf", 1, PAYLOAD, _OPTIONS) for key in keys
        )
        entries = tuple(Entry("child_started", child.key, T0, b'{"input":%b}' % PAYLOAD) for child in children)
        claimed = len(keys) if at_birth else 0
        commit = Commit(parent.run_id, parent.token, 1, seq, entries, children=children, claimed=claimed)
        _expect(await self.journal.commit(commit))
        return [Lease(child.run_id, 1) for child in children] if at_birth else []

    async def end(self, leases: Sequence[Lease]) -> None:
        """Complete the children and tell their parent, each by a commit of its own."""
        futures = []
        for lease in leases:
            parent, _, key = lease.run_id.rpartition("/")
            told = Message(parent, "child_completed", key, b'{"result":%b}' % PAYLOAD)
            commit = Commit(lease.run_id, lease.token, 1, 1, messages=(told,), status=Complete(PAYLOAD))
            futures.append(self.journal.submit(commit))
        for future in futures:
            _expect(await future)

    async def drain(self, seq: int, entries: tuple[Entry, ...], consumed: tuple[int, ...]) -> None:
        """Take the messages in."""
        parent = self.parent
        _expect(await self.journal.commit(Commit(parent.run_id, parent.token, 1, seq, entries, consumed)))


def _place(batch: int) -> tuple[int, list[str]]:
    """Return where the entries of a batch begin, and its children's keys."""
    keys = [f"child-{number:07d}" for number in range(batch * TOGETHER, (batch + 1) * TOGETHER)]
    return 1 + batch * 2 * TOGETHER, keys


def _expect(outcomes: Sequence[object]) -> None:
    (outcome,) = outcomes
    assert isinstance(outcome, Committed), outcome
    assert not outcome.existed
    assert not outcome.undelivered
