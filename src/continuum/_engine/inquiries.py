"""Questions about children that an earlier generation started.

The rule: a child's own row answers, read under the parent's lease. What it answers is an event like others; if the
child lives, its end will come as a message. Until it is said whether a child that was started is the one that has
its id, nothing that is heard of that one reaches the run.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable
from typing import NamedTuple, TypeAlias

from continuum._core import commands as c
from continuum._core import events as e
from continuum._core.effects import NewRun
from continuum._core.failure import CHILD_TIMED_OUT, decode_failure
from continuum._engine.clock import Clock
from continuum._engine.outages import Retrying
from continuum._engine.resident import Arrival, Resident
from continuum._engine.turns import Turns
from continuum._journal.commit import End
from continuum._journal.protocol import Journal
from continuum.definitions import Definitions
from continuum.errors import Failure

Started: TypeAlias = NewRun | c.StartChild
MOST_AT_ONCE = 1_000
MOST_COMPARED = 100  # in one statement, which reads their inputs


class _Inquiry(NamedTuple):
    """Who asks, in which generation, about which child; and what it started, if that is to be compared."""

    run: Resident
    key: str
    run_id: str
    started: Started | None
    generation: int


class Inquiries:
    """Looks children up for their parents."""

    def __init__(self, journal: Journal, turns: Turns, clock: Clock, definitions: Definitions) -> None:
        self._journal = journal
        self._turns = turns
        self._clock = clock
        self._definitions = definitions
        self._waiting: deque[_Inquiry] = deque()
        self._some = asyncio.Event()

    def ask(self, run: Resident, key: str, run_id: str) -> None:
        """Ask how a child of an earlier generation ended, if it has."""
        self._put(run, key, run_id, None)

    def compare(self, run: Resident, children: Iterable[Started]) -> None:
        """Find out whether the runs that have these children's ids are the same children."""
        for child in children:
            run.comparing.setdefault(child.key, [])
            self._put(run, child.key, child.run_id, child)
        for ended in run.withhold():
            self._turns.submit(ended)  # its end comes by mail, and is withheld until then

    async def run(self) -> None:
        """Answer until cancelled."""
        retrying = Retrying("asking about children")
        while True:
            await self._some.wait()
            self._some.clear()
            while self._waiting:
                batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), MOST_AT_ONCE))]
                async with retrying:
                    await self._answer([inquiry for inquiry in batch if not inquiry.run.gone])
                if retrying.failed:
                    self._waiting.extendleft(reversed(batch))

    def _put(self, run: Resident, key: str, run_id: str, started: Started | None) -> None:
        run.inquiries += 1
        self._waiting.append(_Inquiry(run, key, run_id, started, run.claimed.generation))
        self._some.set()

    async def _answer(self, batch: list[_Inquiry]) -> None:
        ends = await self._journal.ends([inquiry.run_id for inquiry in batch])
        others = await self._others(batch)
        for inquiry in batch:
            run, key = inquiry.run, inquiry.key
            run.inquiries -= 1
            withheld: list[Arrival] = []
            if inquiry.started is not None:
                if run.claimed.generation != inquiry.generation:
                    continue  # who started it hears of nothing any more; a later one that awaits it asks itself
                withheld = run.comparing.pop(key, withheld)
                if (inquiry.run_id, inquiry.generation) in others:
                    self._turns.arrive(run, self._refusal(inquiry))
            if inquiry.run_id in ends and not withheld:
                self._tell(run, key, inquiry.run_id, ends[inquiry.run_id])
            for arrival in withheld:
                self._turns.arrive(run, arrival.event, arrival.mail)

    async def _others(self, batch: list[_Inquiry]) -> set[tuple[str, int]]:
        """Return run ids, each with the generation that started it, that are another child's."""
        others: set[tuple[str, int]] = set()
        compared = [(inquiry, inquiry.started) for inquiry in batch if inquiry.started is not None]
        for at in range(0, len(compared), MOST_COMPARED):
            some = compared[at : at + MOST_COMPARED]
            rows = await self._journal.views.describe_all([inquiry.run_id for inquiry, _ in some])
            found = {row.run_id: row for row in rows}
            for inquiry, started in some:
                row = found.get(inquiry.run_id)
                if row is not None and not self._is_same(started, row.workflow, row.input):
                    others.add((inquiry.run_id, inquiry.generation))
        return others

    def _refusal(self, inquiry: _Inquiry) -> e.Event:
        words = f"child {inquiry.run_id!r} is already started, with another workflow or another input"
        return e.ChildStartFailed(self._clock.now_us(), inquiry.key, f"{words}; give each child its own id=")

    def _tell(self, run: Resident, key: str, run_id: str, end: End) -> None:
        try:
            self._turns.arrive(run, self._outcome(key, end))
        except Exception as error:  # noqa: BLE001 - whatever the row holds, it is one run's trouble
            run.cannot_read(f"the end of child {run_id!r}", error)
            self._turns.schedule(run)

    def _is_same(self, child: Started, workflow: str, given: bytes) -> bool:
        if child.workflow != workflow:
            return False
        flow = self._definitions.workflows.get((child.workflow, child.version))
        return given == child.input if flow is None else flow.input.means_the_same(given, child.input)

    def _outcome(self, key: str, end: End) -> e.Event:
        now = self._clock.now_us()
        if end.state == "completed":
            return e.ChildCompleted(now, key, b"null" if end.result is None else end.result)
        failure = Failure(end.state, "") if end.error is None else decode_failure(end.error)
        if end.state == "cancelled" and failure.timed_out:
            return e.ChildFailed(now, key, CHILD_TIMED_OUT)  # as its parent heard then
        if end.state == "cancelled":
            return e.ChildCancelled(now, key, failure.message or failure.type)
        return e.ChildFailed(now, key, failure)
