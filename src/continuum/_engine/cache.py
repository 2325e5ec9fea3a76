"""Which runs stay in memory: those that do something, and those that did lately.

The rule: a run that only waits leaves after a while, sooner when memory is short, and costs nothing from then on.
What it waits for wakes it: mail, or its earliest timer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import suppress

from continuum._engine.activities import Activities
from continuum._engine.clock import Clock
from continuum._engine.resident import Resident, TurnTaken
from continuum._engine.residents import Residents
from continuum._engine.turns import Turns
from continuum._journal.commit import Passivate

MOST_AT_ONCE = 1_000
SHORT_S = 0.1  # how long a run must have waited to leave when memory is short
LEAST_PAUSE_S, LONGEST_PAUSE_S = 0.01, 1.0  # between looks
SHARE = 20  # a look at all runs is followed by a pause of so many times what it took


class Cache:
    """Lets runs leave. ``reserve`` is how much room there shall be for others."""

    def __init__(
        self,
        residents: Residents,
        turns: Turns,
        activities: Activities,
        clock: Clock,
        *,
        after_s: float,
        reserve: int,
    ) -> None:
        self._residents = residents
        self._turns = turns
        self._activities = activities
        self._clock = clock
        self._after_s = after_s
        self._reserve = min(reserve, residents.most // 2)
        self._pause_s = min(LONGEST_PAUSE_S, after_s / 4)
        self._wanted = asyncio.Event()

    def make_room(self) -> None:
        """Look at once: somebody waits for room."""
        self._wanted.set()

    async def run(self) -> None:
        """Let runs leave until cancelled."""
        now = self._clock.loop_now
        while True:
            self._wanted.clear()
            began = now()
            pause = SHORT_S if self._let_leave() else self._pause_s
            least = min(max(LEAST_PAUSE_S, SHARE * (now() - began)), LONGEST_PAUSE_S)
            with suppress(TimeoutError):
                async with asyncio.timeout(max(pause, least)):
                    await self._wanted.wait()
                    await asyncio.sleep(least)

    def _let_leave(self) -> bool:
        """Passivate those that have waited long enough; return whether memory is short."""
        now = asyncio.get_running_loop().time()
        short = self._residents.room < self._reserve
        after_s = min(self._after_s, SHORT_S) if short else self._after_s
        until = now - after_s  # of thousands of children nearly all have their turn or their commit before them
        idle = [
            run
            for run in self._residents.by_id.values()
            if run.active_at <= until and not (run.committing or run.queued)
        ]
        if short:
            idle.sort(key=_active_at)
        soon_us = self._clock.now_us() + int(after_s * 1_000_000)
        self.passivate(idle, soon_us, MOST_AT_ONCE)
        return short

    def passivate(self, runs: Iterable[Resident], soon_us: int, most: int) -> int:
        """Passivate up to ``most`` of ``runs`` that only wait, and not for a timer before ``soon_us``."""
        count = 0
        for run in runs:
            if count >= most:
                break
            if not self.waits(run):
                continue
            wakeup_us = min(run.timers.values(), default=None)
            if wakeup_us is not None and wakeup_us <= soon_us:
                continue
            self._passivate(run, wakeup_us)
            count += 1
        return count

    def waits(self, run: Resident) -> bool:
        """Say whether a run only waits."""
        return (
            run.at_rest
            and run.machine is not None
            and not (run.gone or run.reading or run.more_mail or run.owed or run.suspect or run.inquiries)
            and not self._activities.busy(run)
        )

    def _passivate(self, run: Resident, wakeup_us: int | None) -> None:
        assert run.machine is not None
        left = TurnTaken(run)
        left.commit = run.standing(Passivate(wakeup_us, run.machine.waiting_for()))
        run.committing = True
        self._turns.submit(left)


def _active_at(run: Resident) -> float:
    return run.active_at
