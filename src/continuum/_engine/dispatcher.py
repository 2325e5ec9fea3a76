"""Claims due runs: as many as there is room for, as soon as somebody says so, and now and then in any case.

The rule: polling is the truth, a hint makes it sooner. A worker claims only what it has the code for. Runs that
were with a worker that died are suspects: each has its first turn alone, with its id in the heartbeat.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from collections.abc import Collection, Sequence
from contextlib import suppress

from continuum._engine.activities import Activities
from continuum._engine.loading import Loader
from continuum._engine.outages import Retrying
from continuum._engine.resident import Resident
from continuum._engine.residents import Residents
from continuum._journal.commit import Claimed
from continuum._journal.protocol import Journal
from continuum.definitions import Definitions

logger = logging.getLogger("continuum.engine")
DEAF = 0.25  # of a poll's pause, while hints do not come through
# How long a suspect's activities are watched before the next suspect has its turn: all of them share the first.
WATCHED_S, LONGEST_S, SHORTEST_S = 5.0, 1.0, 0.01
LOOK_S = 0.01


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

    def told(self, names: Collection[str]) -> None:
        """Take a hint that runs of these definitions are due; of none: that some may be."""
        if not names or not self._names.isdisjoint(names):
            self._some.set()

    async def run(self) -> None:
        """Claim until cancelled."""
        retrying = Retrying("claiming runs")
        while self._mine:
            async with retrying:
                await self._claim()
            pause = self._poll_s * (1 if self._journal.hears else DEAF) * self._chance.uniform(0.8, 1.2)
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._some.wait()

    async def _claim(self) -> None:
        while True:
            self._some.clear()
            limit = min(self._batch, self._residents.room - len(self._suspects))
            if limit <= 0:
                return
            first = self._mine.pop(0)  # each definition is the first to be looked at in turn
            self._mine.append(first)
            claimed = await self._journal.claim(self._mine, limit)
            if claimed:
                self._suspects.put([run for run in claimed if run.suspected])
                await self._loader.adopt([run for run in claimed if not run.suspected])
            if len(claimed) < limit:
                return


class Suspects:
    """Gives each suspect its first turn alone."""

    def __init__(self, journal: Journal, loader: Loader, activities: Activities) -> None:
        self._journal = journal
        self._loader = loader
        self._activities = activities
        self._waiting: deque[Claimed] = deque()
        self._some = asyncio.Event()

    def __len__(self) -> int:
        return len(self._waiting)

    def holds(self) -> set[str]:
        """Return the runs that wait here."""
        return {claimed.run_id for claimed in self._waiting}

    def put(self, claimed: Sequence[Claimed]) -> None:
        """Take in runs that were claimed."""
        self._waiting.extend(claimed)
        if self._waiting:
            self._some.set()

    def clear(self) -> None:
        """Forget them: their leases are lost."""
        self._waiting.clear()

    async def run(self) -> None:
        """Try suspects until cancelled."""
        retrying = Retrying("naming a suspect")
        while True:
            await self._some.wait()
            self._some.clear()
            while self._waiting:
                watched_s = min(LONGEST_S, max(SHORTEST_S, WATCHED_S / len(self._waiting)))
                async with retrying:
                    if not (await self._journal.suspect(self._waiting[0].run_id)).alive:
                        break
                    await self._try(self._waiting.popleft(), watched_s)
            with suppress(Exception):  # the next heartbeat says the same
                await self._journal.suspect(None)

    async def _try(self, claimed: Claimed, watched_s: float) -> None:
        for run in await self._loader.adopt([claimed]):
            run.suspect = True
            with suppress(TimeoutError):
                async with asyncio.timeout(WATCHED_S):
                    await _rest(run)
            for _ in range(int(watched_s / LOOK_S)):
                if run.gone or not self._activities.busy(run):
                    break
                await asyncio.sleep(LOOK_S)
            run.suspect = False


async def _rest(run: Resident) -> None:
    while not (run.gone or run.at_rest):
        future = asyncio.get_running_loop().create_future()
        run.resting.append(future)
        await future
