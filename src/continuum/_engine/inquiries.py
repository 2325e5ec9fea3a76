"""Questions about children that an earlier generation started.

The rule: a child's own row answers, read under the parent's lease. What it answers is an event like others; if the
child lives, its end will come as a message.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TypeAlias

from continuum._core import events as e
from continuum._core.effects import NewRun
from continuum._core.failure import decode_failure
from continuum._engine.clock import Clock
from continuum._engine.outages import Retrying
from continuum._engine.resident import Resident
from continuum._engine.turns import Turns
from continuum._journal.commit import End
from continuum._journal.protocol import Journal
from continuum.definitions import Definitions
from continuum.errors import Failure

_Inquiry: TypeAlias = tuple[Resident, str, str, NewRun | None]  # who asks, the child's key and id, what it started
MOST_AT_ONCE = 1_000


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

    def compare(self, run: Resident, child: NewRun) -> None:
        """Find out whether the run that has this child's id is the same child."""
        self._put(run, child.key, child.run_id, child)

    async def run(self) -> None:
        """Answer until cancelled."""
        retrying = Retrying("asking about children")
        while True:
            await self._some.wait()
            self._some.clear()
            while self._waiting:
                batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), MOST_AT_ONCE))]
                async with retrying:
                    await self._answer([inquiry for inquiry in batch if not inquiry[0].gone])
                if retrying.failed:
                    self._waiting.extendleft(reversed(batch))

    def _put(self, run: Resident, key: str, run_id: str, child: NewRun | None) -> None:
        run.inquiries += 1
        self._waiting.append((run, key, run_id, child))
        self._some.set()

    async def _answer(self, batch: list[_Inquiry]) -> None:
        ends = await self._journal.ends([run_id for _, _, run_id, _ in batch])
        others = {run_id for _, _, run_id, child in batch if child is not None and await self._is_another(child)}
        for run, key, run_id, _ in batch:
            run.inquiries -= 1
            if run_id in others:
                words = f"child {run_id!r} is already started, with another workflow or another input"
                failed = e.ChildStartFailed(self._clock.now_us(), key, f"{words}; give each child its own id=")
                self._turns.arrive(run, failed)
            elif run_id in ends:
                try:
                    self._turns.arrive(run, self._outcome(key, ends[run_id]))
                except Exception as error:  # noqa: BLE001 - whatever the row holds, it is one run's trouble
                    run.cannot_read(f"the end of child {run_id!r}", error)
                    self._turns.schedule(run)

    async def _is_another(self, child: NewRun) -> bool:
        found = await self._journal.describe(child.run_id)
        return found is not None and not self._is_same(child, found.workflow, found.input)

    def _is_same(self, child: NewRun, workflow: str, given: bytes) -> bool:
        if child.workflow != workflow:
            return False
        flow = self._definitions.workflows.get((child.workflow, child.version))
        return given == child.input if flow is None else flow.input.means_the_same(given, child.input)

    def _outcome(self, key: str, end: End) -> e.Event:
        now = self._clock.now_us()
        if end.state == "completed":
            return e.ChildCompleted(now, key, b"null" if end.result is None else end.result)
        failure = Failure(end.state, "") if end.error is None else decode_failure(end.error)
        if end.state == "cancelled":
            return e.ChildCancelled(now, key, failure.message or failure.type)
        return e.ChildFailed(now, key, failure)
