"""This worker's sign of life, and what becomes of the leases of those that give none.

The rule: one heartbeat holds all leases of a worker, and it rides on the loop that does the work: a loop that
hangs loses them. Who was declared dead drops everything and begins again under a new id. Nobody takes over from
others before it has been connected for a lease time; the database sees to that.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable

from continuum._engine.clock import Clock
from continuum._engine.loading import Loader
from continuum._engine.outages import Retrying
from continuum._engine.residents import Residents
from continuum._engine.suspects import Suspects
from continuum._journal.backoff import LONGEST_PAUSE_S
from continuum._journal.commit import SWEEP_EVERY_S, Lease
from continuum._journal.protocol import Journal

logger = logging.getLogger("continuum.engine")
SPREAD = (0.9, 1.1)
MOST_NAMED = 10  # runs, in one line of the log


class Heartbeat:
    """Beats. Calls ``reborn`` when this worker was declared dead.

    Sets ``silence`` when another one is silent, ``overdue`` when a run was to have stopped by now, and ``unswept``
    when it is time for a sweep.
    """

    def __init__(
        self,
        journal: Journal,
        clock: Clock,
        every_s: float,
        chance: random.Random,
        reborn: Callable[[], Awaitable[None]],
    ) -> None:
        self.silence = asyncio.Event()
        self.overdue = asyncio.Event()
        self.unswept = asyncio.Event()
        self.workers = 1  # alive, this one included
        self.beat_at = 0.0  # loop time of the last one that got through
        self._journal = journal
        self._clock = clock
        self._every_s = every_s
        self._chance = chance
        self._reborn = reborn
        self._now = asyncio.Event()

    def soon(self) -> None:
        """Beat at once: somebody says that this worker lost leases."""
        self._now.set()

    async def run(self) -> None:
        """Beat until cancelled."""
        # Longer pauses than its own could let another worker, back before this one, take it for dead.
        retrying = Retrying("heartbeat", longest_s=min(self._every_s, LONGEST_PAUSE_S))
        while True:
            async with retrying:
                await self.once()
            if retrying.failed:
                continue
            self._now.clear()
            try:
                async with asyncio.timeout(self._every_s * self._chance.uniform(*SPREAD)):
                    await self._now.wait()
            except TimeoutError:
                pass

    async def first(self) -> None:
        """Give the first sign of life under a new id, and read the clock."""
        await self._beat()

    async def once(self) -> None:
        """Give a sign of life."""
        if not await self._beat():
            logger.warning("this worker was declared dead; it drops its runs and begins again under a new id")
            await self._reborn()

    async def _beat(self) -> bool:
        """Beat, and read the database's clock."""
        time = asyncio.get_running_loop().time
        asked_at = time()
        beat = await self._journal.beat()
        self._clock.set(beat.now_us, asked_at)
        self.workers = max(1, beat.workers)
        self.beat_at = time()
        if beat.silent:
            self.silence.set()
        if beat.overdue:
            self.overdue.set()
        if beat.unswept:
            self.unswept.set()
        return beat.alive


class Leases:
    """Compares the leases in the database with the runs in memory."""

    def __init__(self, journal: Journal, residents: Residents, loader: Loader, suspects: Suspects) -> None:
        self._journal = journal
        self._residents = residents
        self._loader = loader
        self._suspects = suspects
        self._stray: set[Lease] = set()
        self._doubts, self._settled = 1, 0

    def doubt(self) -> None:
        """Look the next time even if no run is here: there may be leases all the same."""
        self._doubts += 1

    async def once(self) -> bool:
        """Drop runs that are no longer ours; release those that twice in a row were ours and not here.

        A claim whose answer was lost leaves such a lease; one whose answer is on its way looks the same once.
        Returns whether to look again soon. With no run here it asks only if there is a doubt.
        """
        doubts = self._doubts
        if doubts == self._settled and not (self._stray or len(self._residents)):
            return False
        before = {run.run_id: run.claimed.token for run in self._residents.by_id.values()}
        leases = await self._journal.leases()
        self._settled = doubts
        held = {lease.run_id: lease.token for lease in leases}
        lost: list[str] = []
        for run_id, token in before.items():
            run = self._residents.by_id.get(run_id)
            if run is not None and run.claimed.token == token and held.get(run_id, -1) != token:
                if run.loading or (run.committing and run.run_id in held):
                    continue  # a new lease of ours, or a commit that is told its outcome
                lost.append(run_id)
                self._residents.drop(run)
        if lost:  # in one line: a cascade takes thousands
            first = ", ".join(map(repr, lost[:MOST_NAMED])) + (", …" if len(lost) > MOST_NAMED else "")
            logger.info("%d runs were taken away or cancelled; their copies are dropped: %s", len(lost), first)
        waiting = self._suspects.holds() | self._loader.holds()
        stray = {
            lease for lease in leases if lease.run_id not in self._residents.by_id and lease.run_id not in waiting
        }
        again, self._stray = stray & self._stray, stray
        if again:
            logger.warning("%d leases of this worker have no run in memory; they are released", len(again))
            await self._journal.release(list(again))
        return bool(stray - again)


async def take_over(journal: Journal) -> bool:
    """Release the runs of workers that gave no sign of life; return whether this one has leases itself."""
    done = await journal.take_over()
    if done.workers:
        logger.warning("declared dead: %s; %d runs released", ", ".join(done.workers), done.released)
    for run_id in done.parked:
        logger.error("run %r is parked: workers die whenever they try it", run_id)
    if done.workers or done.released:
        await sweep(journal, every_s=0)  # who died between a commit and its hints woke nobody
    return done.held


async def cancel_overdue(journal: Journal) -> None:
    """Cancel runs that were asked to stop and have not, whoever has them, if anybody does."""
    while ended := await journal.cancel_overdue():
        logger.info("%d runs were cancelled: their grace had passed", ended)


async def sweep(journal: Journal, *, every_s: float = SWEEP_EVERY_S) -> None:
    """Do the slow sweep, if nobody did within ``every_s``; a part at a time."""
    while True:
        swept = await journal.sweep(every_s=every_s)
        if swept is None or swept.finished:
            return
