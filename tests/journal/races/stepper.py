"""Stopping a journal at a named point, and letting it go on.

The rule: a test waits for things that happen, never for time to pass. Every wait has a deadline, and says what it
waited for when it is over.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from random import Random
from typing import TypeVar

from continuum._journal.hooks import POINTS

T = TypeVar("T")
DEADLINE_S = 15.0
LOOK_S = 0.002


class Stop:
    """One visit to one point: the journal waits there until ``let_go``."""

    def __init__(self, point: str) -> None:
        self.point = point
        self._arrived = asyncio.Event()
        self._free = asyncio.Event()

    async def reached(self) -> None:
        """Wait until the journal stands at the point."""
        await before_deadline(self._arrived.wait(), f"the journal to reach {self.point}")

    def has_come(self) -> bool:
        return self._arrived.is_set()

    def let_go(self) -> None:
        """Let the journal go on."""
        self._free.set()

    async def visit(self) -> None:
        self._arrived.set()
        await self._free.wait()


class Stepper:
    """Hooks with which a test steps a journal. ``visits`` counts how often each point was reached.

    With ``chance`` the journal tarries a little at half of all points: so a storm widens the gaps.
    """

    def __init__(self, chance: Random | None = None) -> None:
        self.chance = chance
        self.visits: Counter[str] = Counter()
        self._stops: dict[str, list[Stop]] = {}
        self._never: set[str] = set()

    def stop_at(self, point: str) -> Stop:
        """Stop the journal at its next visit to ``point``; a second call is for the visit after."""
        assert point in POINTS, point
        stop = Stop(point)
        self._stops.setdefault(point, []).append(stop)
        return stop

    def never_pass(self, point: str) -> None:
        """Let nothing pass ``point`` any more: what a process that died there would have done is not done."""
        assert point in POINTS, point
        self._never.add(point)

    def lets_pass(self, point: str) -> bool:
        return point not in self._never

    async def reach(self, point: str) -> None:
        assert point in POINTS, point
        self.visits[point] += 1
        if self.chance is not None and self.chance.random() < 0.5:
            await asyncio.sleep(self.chance.random() * 0.003)
        if point in self._never:
            await asyncio.Event().wait()
        if self._stops.get(point):
            await self._stops[point].pop(0).visit()


async def before_deadline(what: Awaitable[T], name: str, seconds: float = DEADLINE_S) -> T:
    """Return the result of ``what``; an assertion fails if it takes too long."""
    try:
        async with asyncio.timeout(seconds):
            return await what
    except TimeoutError:
        raise AssertionError(f"waited {seconds:g} s for {name}") from None


async def until(condition: Callable[[], Awaitable[T]], name: str, seconds: float = DEADLINE_S) -> T:
    """Return what ``condition`` gives as soon as it is true of anything."""

    async def look() -> T:
        while not (found := await condition()):
            await asyncio.sleep(LOOK_S)
        return found

    return await before_deadline(look(), name, seconds)
