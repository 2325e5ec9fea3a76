"""Timers of resident runs: one heap, one callback of the event loop.

The rule: a timer fires when the database's clock says so, as far as this process knows it. What is cancelled stays
in the heap until its time comes, or until half of the heap is such.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable

from continuum._engine.clock import Clock
from continuum._engine.resident import Resident

MOST_AT_ONCE = 1_000  # fired in one callback; then others have their turn
LONGEST_S = 3600.0  # between looks: a loop that is asked to wait for centuries need not be able to
LATE_S = 1e-6  # a look is that late: one that is early by a rounding would look again at once, for ever


class Timers:
    """``fire`` is called with a run and the key of its timer when that is due."""

    def __init__(self, clock: Clock, fire: Callable[[Resident, str], None]) -> None:
        self._clock = clock
        self._fire = fire
        self._heap: list[tuple[int, int, Resident, str]] = []
        self._count = 0
        self._next: asyncio.TimerHandle | None = None
        self._next_us = 0
        self._tidy_at = 1_000

    def arm(self, run: Resident, key: str, due_us: int) -> None:
        """Set a timer of a run."""
        run.timers[key] = due_us
        self._count += 1
        heapq.heappush(self._heap, (due_us, self._count, run, key))
        if len(self._heap) >= self._tidy_at:
            self._tidy()
        if self._next is None or due_us < self._next_us:
            self._look_at(due_us)

    def look_anew(self) -> None:
        """Look when the next one is due: the clock was set."""
        if self._heap:
            self._look_at(self._heap[0][0])

    def close(self) -> None:
        """Forget everything."""
        self._heap.clear()
        if self._next is not None:
            self._next.cancel()
            self._next = None

    def _look_at(self, due_us: int) -> None:
        if self._next is not None:
            self._next.cancel()
        loop = asyncio.get_running_loop()
        when = min(self._clock.loop_time(due_us) + LATE_S, loop.time() + LONGEST_S)
        self._next_us = due_us
        self._next = loop.call_at(when, self._look)

    def _look(self) -> None:
        """Fire what is due, in the order it is due."""
        self._next = None
        now = self._clock.now_us()
        for _ in range(MOST_AT_ONCE):
            if not self._heap or self._heap[0][0] > now:
                break
            due_us, _, run, key = heapq.heappop(self._heap)
            if run.timers.get(key) == due_us:  # not cancelled; who has gone has none
                self._fire(run, key)
        if self._heap:
            self._look_at(self._heap[0][0])

    def _tidy(self) -> None:
        self._heap = [timer for timer in self._heap if timer[2].timers.get(timer[3]) == timer[0]]
        heapq.heapify(self._heap)
        self._tidy_at = max(1_000, 2 * len(self._heap))
