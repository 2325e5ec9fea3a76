"""Claims due runs: as many as there is room for, when the next is due, when somebody says so, and now and then.

The rule: polling is the truth; a hint, and what the last claim said of the next due time, make it sooner. A worker
claims only what it has the code for. Runs that were with a worker that died are suspects, and no business of its
own.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
from collections.abc import Callable, Collection
from contextlib import suppress

from continuum._engine.loading import Loader
from continuum._engine.outages import Retrying
from continuum._engine.residents import Residents
from continuum._engine.suspects import Suspects
from continuum._journal.protocol import Journal
from continuum.definitions import Definitions

logger = logging.getLogger("continuum.engine")
DEAF = 0.25  # of a poll's pause, while hints do not come through
GATHER_S = 0.02  # between claims of what falls due; all workers share it, for each would claim what one can


class Dispatcher:
    """Claims, and hands what it claimed to the loader or, if suspected, to ``Suspects``."""

    def __init__(
        self,
        journal: Journal,
        residents: Residents,
        loader: Loader,
        suspects: Suspects,
        definitions: Definitions,
        *,
        batch: int,
        poll_s: float,
        chance: random.Random,
    ) -> None:
        self.hungry: Callable[[], None]
        self.in_doubt: Callable[[], None]
        self.workers: Callable[[], int]
        self._journal = journal
        self._residents = residents
        self._loader = loader
        self._suspects = suspects
        self._mine = list(definitions.workflows)
        self._names = {f"{name}:{version}" for name, version in self._mine}
        self._batch = batch
        self._poll_s = poll_s
        self._chance = chance
        self._some = asyncio.Event()
        self._stopped = False
        self._hungry = False  # more may be due than there was room for
        self._due_at: float | None = None  # loop time at which the next run is due, as of the last claim
        self._wakes_at = math.inf  # loop time at which it claims again, if it is not claiming
        self._worthwhile = min(batch, max(1, residents.most // 10))

    def stop(self) -> None:
        """Claim nothing more and let ``run`` return. A claim under way is not cut off: it might happen unheard."""
        self._stopped = True
        self._some.set()

    def told(self, names: Collection[str]) -> None:
        """Take a hint that runs of these definitions are due; of none: that some may be."""
        if not names or not self._names.isdisjoint(names):
            self._some.set()

    async def run(self) -> None:
        """Claim until told to stop."""
        retrying = Retrying("claiming runs")
        while self._mine and not self._stopped:
            self._due_at = None
            async with retrying:
                await self._claim()
            if retrying.failed:  # it may have happened all the same
                self.in_doubt()
            wakes_at = asyncio.get_running_loop().time() + self._pause_s()
            self._wakes_at = min(wakes_at, self._wakes_at)
            with suppress(TimeoutError):
                async with asyncio.timeout_at(wakes_at):
                    await self._some.wait()
            self._wakes_at = math.inf

    def falls_due(self, at: float) -> None:
        """Take note that a run that has left this worker is due at a loop time: the last claim did not know it."""
        if at < self._wakes_at:
            self._wakes_at = at
            asyncio.get_running_loop().call_at(at, self._some.set)

    def room_made(self) -> None:
        """Claim again if there was no room, and there is some now: enough to be worth a statement."""
        if self._hungry and self._room() >= self._worthwhile:
            self._hungry = False
            self._some.set()

    def _pause_s(self) -> float:
        """Return how long to sleep: until the next run is due, at most until the next poll.

        Of several workers each comes a while late by chance, so that the first finds the run about ``GATHER_S``
        after its time, and all together claim no more often than one alone would.
        """
        poll_s = self._poll_s * (1 if self._journal.hears else DEAF) * self._chance.uniform(0.8, 1.2)
        if self._due_at is None:
            return poll_s
        workers = self.workers()
        late_s = self._chance.uniform(0, GATHER_S * (workers - 1))
        due_s = self._due_at - asyncio.get_running_loop().time() + late_s
        return min(poll_s, max(due_s, GATHER_S * workers))

    def _room(self) -> int:
        return self._residents.room - len(self._suspects)

    async def _claim(self) -> None:
        while not self._stopped:
            self._some.clear()
            limit = min(self._batch, self._room())
            self._hungry = limit < self._worthwhile
            if self._hungry:
                self.hungry()
                return
            first = self._mine.pop(0)  # each definition is the first to be looked at in turn
            self._mine.append(first)
            claimed = await self._journal.claim(self._mine, limit)
            self._due_at = None
            if claimed.due_in_s is not None:
                self._due_at = asyncio.get_running_loop().time() + claimed.due_in_s
            if claimed:
                self._suspects.put([run for run in claimed if run.suspected])
                await self._loader.adopt([run for run in claimed if not run.suspected], just_claimed=True)
            if len(claimed) < limit:
                return
