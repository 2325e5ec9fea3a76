"""Children: started by a parent, ended with a message to its inbox, their outcomes taken in.

The rule: 200 at a time, each part waited for before the next, so that each part's share can be told. A child's
way is two entries of its parent, its own row inserted, ended and, unless it is leased at birth, claimed, and a
message that comes and goes: as many rows of the plain group commit are its yardstick.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from bench.flushing import OURS, PAYLOAD, T0
from bench.meter import Meter
from continuum._core.effects import Message, NewRun
from continuum._core.entries import Entry
from continuum._journal.commit import Commit, Committed, Complete, Lease, NewRoot
from continuum._journal.journal import PostgresJournal
from continuum.policies import ChildOptions

TOGETHER = 200
CHILDREN = 3_000
ROWS = {"children leased at birth": 6, "children claimed": 7}
PARTS = ("start", "claim", "end", "mail", "drain")
_OPTIONS = ChildOptions()


@dataclass(slots=True)
class Families:
    """Parents that start children, one parent a measurement."""

    journal: PostgresJournal
    _parents: int = 0
    _seconds: dict[str, float] = field(default_factory=dict[str, float])

    async def measure(self, meter: Meter) -> dict[str, float]:
        """Return the figures of one round."""
        figures: dict[str, float] = {}
        for name, at_birth in (("children leased at birth", True), ("children claimed", False)):
            parent = await self._parent()
            await self._batch(parent, 1, 0, at_birth)  # a warm one
            self._seconds = dict.fromkeys(PARTS, 0.0)
            async with meter.measured(OURS) as spent:
                for number in range(1, CHILDREN // TOGETHER + 1):
                    await self._batch(parent, 1 + number * 2 * TOGETHER, number * TOGETHER, at_birth)
            figures |= {name: CHILDREN / spent.wall_s, **spent.each(name, CHILDREN)}
            for part in PARTS:
                if part != "claim" or not at_birth:
                    figures[f"{name}, {part}"] = self._seconds[part] / CHILDREN * 1e6
        return figures

    async def _parent(self) -> Lease:
        self._parents += 1
        run_id = f"parent-{self._parents:04d}"
        await self.journal.start([NewRoot(run_id, "parent", 1, b"null")])
        (run,) = await self.journal.claim([("parent", 1)], 1)
        return Lease(run.run_id, run.token)

    async def _batch(self, parent: Lease, seq: int, first: int, at_birth: bool) -> None:
        keys = [f"child-{number:07d}" for number in range(first, first + TOGETHER)]
        clock = time.perf_counter()
        await self._start(parent, seq, keys, at_birth)
        clock = self._part("start", clock)
        if at_birth:
            leases = [Lease(f"{parent.run_id}/{key}", 1) for key in keys]
        else:
            found = await self.journal.claim([("leaf", 1)], TOGETHER)
            leases = [Lease(run.run_id, run.token) for run in found]
            clock = self._part("claim", clock)
        assert len(leases) == TOGETHER
        await self._end(leases)
        clock = self._part("end", clock)
        mail = (await self.journal.mail([parent.run_id]))[parent.run_id]
        assert len(mail) == TOGETHER
        clock = self._part("mail", clock)
        entries = tuple(Entry(letter.type, letter.key, T0, letter.payload) for letter in mail)
        consumed = tuple(letter.id for letter in mail)
        commit = Commit(parent.run_id, parent.token, 1, seq + TOGETHER, entries, consumed)
        _expect(await self.journal.commit(commit))
        self._part("drain", clock)

    async def _start(self, parent: Lease, seq: int, keys: Sequence[str], at_birth: bool) -> None:
        children = tuple(
            NewRun(f"{parent.run_id}/{key}", parent.run_id, key, 1, "leaf", 1, PAYLOAD, _OPTIONS) for key in keys
        )
        entries = tuple(Entry("child_started", child.key, T0, b'{"input":%b}' % PAYLOAD) for child in children)
        claimed = TOGETHER if at_birth else 0
        commit = Commit(parent.run_id, parent.token, 1, seq, entries, children=children, claimed=claimed)
        _expect(await self.journal.commit(commit))

    async def _end(self, leases: Sequence[Lease]) -> None:
        futures = []
        for lease in leases:
            parent, _, key = lease.run_id.rpartition("/")
            told = Message(parent, "child_completed", key, b'{"result":%b}' % PAYLOAD)
            commit = Commit(lease.run_id, lease.token, 1, 1, messages=(told,), status=Complete(PAYLOAD))
            futures.append(self.journal.submit(commit))
        for future in futures:
            _expect(await future)

    def _part(self, name: str, since: float) -> float:
        now = time.perf_counter()
        self._seconds[name] = self._seconds.get(name, 0.0) + now - since
        return now


def _expect(outcomes: Sequence[object]) -> None:
    (outcome,) = outcomes
    assert isinstance(outcome, Committed), outcome
    assert not outcome.existed
    assert not outcome.undelivered
