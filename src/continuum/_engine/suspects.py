"""Runs that were with a worker that died: each is tried alone, for one of them may be what killed it.

The rule: the run that is tried is named in the heartbeat, so that a death is charged to it and to nobody else. It
comes through when it has come to rest, or has written something: what it does next is tried after the next death.
Who came through is forgiven. So an innocent run would have to be the one named at three deaths in a row.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from collections.abc import Sequence

from continuum._engine.activities import Activities
from continuum._engine.loading import Loader
from continuum._engine.outages import Retrying
from continuum._engine.resident import Resident
from continuum._journal.commit import Claimed
from continuum._journal.protocol import Journal

logger = logging.getLogger("continuum.engine")
# How long activities of suspects are watched: all share a second, and a share too short to show anything is none.
# So a worker that died with hundreds of runs costs no more than their loading. Each further death within ten
# minutes doubles what they share, within bounds. One that was charged has a second for itself; from the fourth
# death on twice as long with each, for what kills may take its time.
WATCHED_S, SHORTEST_S, LONGEST_S, MOST_SHARED_S = 1.0, 0.02, 10.0, 15.0
PATIENT_DEATHS = 3
LOOK_S = 0.01
REST_S = 5.0  # for a suspect's first turns
AT_ONCE = 100  # loaded, and forgiven


class Suspects:
    """Gives each suspect its first turn alone."""

    def __init__(self, journal: Journal, loader: Loader, activities: Activities, chance: random.Random) -> None:
        self._journal = journal
        self._loader = loader
        self._activities = activities
        self._chance = chance
        self._waiting: deque[Claimed] = deque()
        self._loaded: deque[Resident] = deque()
        self._through: list[str] = []
        self._deaths: int = 0  # as the last beat told
        self._spent_s: float = 0.0  # of what suspects share, since the last death
        self._some = asyncio.Event()

    def __len__(self) -> int:
        return len(self._waiting)

    def holds(self) -> set[str]:
        """Return the runs that wait here and are not loaded."""
        return {claimed.run_id for claimed in self._waiting}

    def put(self, claimed: Sequence[Claimed]) -> None:
        """Take in runs that were claimed. Those charged with deaths come last, the others in any order."""
        if claimed:
            waiting = [*self._waiting, *claimed]
            self._chance.shuffle(waiting)
            self._waiting = deque(sorted(waiting, key=_deaths))
            self._some.set()

    def clear(self) -> None:
        """Forget them: their leases are lost."""
        self._waiting.clear()
        self._through.clear()

    def got_on(self, run: Resident) -> None:
        """Forgive a run that has written something, and that was tried without a verdict."""
        run.unjudged = False
        self._through.append(run.run_id)
        self._some.set()

    async def run(self) -> None:
        """Try suspects until cancelled."""
        retrying = Retrying("trying suspects")
        while True:
            await self._some.wait()
            self._some.clear()
            async with retrying:
                await self._try_all()
            if retrying.failed:
                self._some.set()

    async def _try_all(self) -> None:
        count = len(self._waiting) + len(self._loaded)
        while self._waiting or self._loaded:
            if not self._loaded:
                batch = [self._waiting.popleft() for _ in range(min(AT_ONCE, len(self._waiting)))]
                self._loaded.extend(await self._loader.fetch(batch))
            while self._loaded:
                run = self._loaded[0]
                if not run.gone:
                    beat = await self._journal.suspect(run.run_id)
                    count = max(count, len(self._waiting) + len(self._loaded))
                    if beat.alive and await self._came_through(run, self._share_s(run, beat.deaths, count)):
                        self._through.append(run.run_id)
                self._loaded.popleft()
            await self._forgive()
        if count:
            await self._journal.suspect(None)
        await self._forgive()

    async def _forgive(self) -> None:
        through, self._through = self._through, []
        if through:
            await self._journal.clear_suspicion(through)

    async def _came_through(self, run: Resident, watched_s: float) -> bool:
        """Let a suspect have its first turn; return whether it came to rest, or wrote something."""
        seq = run.seq
        run.suspect = True
        self._loader.begin(run)
        await _rest(run)
        looks = round(watched_s / LOOK_S)
        while looks and not self._is_through(run, seq):
            looks -= 1
            self._spent_s += LOOK_S
            await asyncio.sleep(LOOK_S)
        run.suspect = False
        if self._is_through(run, seq):
            return True
        run.unjudged = True
        return False

    def _share_s(self, run: Resident, deaths: int, count: int) -> float:
        """Return how long a suspect's activities are watched, of ``count`` after so many recent ``deaths``."""
        if deaths != self._deaths:
            self._deaths, self._spent_s = deaths, 0.0
        doubled = min(deaths, 20)
        alone_s = min(WATCHED_S * 2.0 ** max(0, doubled - PATIENT_DEATHS), LONGEST_S)
        if run.claimed.deaths:
            return alone_s
        shared_s = min(WATCHED_S * 2.0 ** (doubled - 1), MOST_SHARED_S)
        share_s = min(alone_s, shared_s / count, shared_s - self._spent_s)
        return share_s if share_s >= SHORTEST_S else 0.0

    def _is_through(self, run: Resident, seq: int) -> bool:
        return run.gone or run.seq > seq or not self._activities.busy(run)


async def _rest(run: Resident) -> None:
    """Wait until a run has come to rest, for a while."""
    try:
        async with asyncio.timeout(REST_S):
            while not (run.gone or run.at_rest):
                future = asyncio.get_running_loop().create_future()
                run.resting.append(future)
                await future
    except TimeoutError:
        logger.info("run %r did not come to rest within %.0f s", run.run_id, REST_S)


def _deaths(claimed: Claimed) -> int:
    return claimed.deaths
