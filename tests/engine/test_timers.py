"""The heap of timers, on a loop whose time jumps and beside a database whose clock is set."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from continuum._core.requests import LAST_US
from continuum._engine.clock import Clock
from continuum._engine.resident import Resident
from continuum._engine.timers import Timers
from tests.engine.virtual_time import in_virtual_time

START_US = 1_700_000_000_000_000
S = 1_000_000
YEAR_S = 365 * 86_400


class Sleepers:
    """A heap of timers with the database's clock, which ``set`` sets; ``fired`` says who was woken, and when."""

    def __init__(self) -> None:
        self.time = asyncio.get_running_loop().time
        self.clock = Clock(self.time)
        self.timers = Timers(self.clock, self._fire)
        self.clock.moved = self.timers.look_anew
        self.fired: list[tuple[str, float]] = []
        self.beat()

    def beat(self, ahead_s: float = 0) -> None:
        """Read the database's clock, which is so much ahead of what it once said."""
        self.clock.set(START_US + int((ahead_s + self.time()) * S), self.time())

    def sleep(self, name: str, seconds: float) -> None:
        """Set a timer as a turn does that is taken now."""
        run = cast("Resident", _Run())
        self.timers.arm(run, name, self.clock.now_us() + int(seconds * S))

    def _fire(self, run: Any, key: str) -> None:
        del run.timers[key]
        self.fired.append((key, round(self.time(), 3)))


class _Run:
    """What the heap knows of a run."""

    def __init__(self) -> None:
        self.timers: dict[str, int] = {}


@in_virtual_time
async def test_timers_fire_in_the_order_they_are_due_and_when_they_are() -> None:
    sleepers = Sleepers()
    for number in (5, 1, 3, 4, 2):
        sleepers.sleep(f"t{number}", number)
    await asyncio.sleep(10)
    assert sleepers.fired == [(f"t{number}", number) for number in (1, 2, 3, 4, 5)]


@in_virtual_time
async def test_more_timers_due_at_once_than_one_callback_fires_all_fire() -> None:
    sleepers = Sleepers()
    for number in range(2_500):
        sleepers.sleep(f"t{number}", 1)
    await asyncio.sleep(1.1)
    assert [key for key, _ in sleepers.fired] == [f"t{number}" for number in range(2_500)]


@in_virtual_time
async def test_a_timer_of_centuries_fires_then() -> None:
    """ST08: sleeps of years, on a loop that looks once in a while."""
    sleepers = Sleepers()
    sleepers.sleep("ten years", 10 * YEAR_S)
    sleepers.timers.arm(cast("Resident", _Run()), "the end of time", LAST_US)
    await asyncio.sleep(11 * YEAR_S)
    assert sleepers.fired == [("ten years", 10 * YEAR_S)]


@in_virtual_time
async def test_a_timer_set_after_the_clock_went_forward_and_back_waits_as_long_as_it_says() -> None:
    """The jump is over; who stood still until the clock is there again would sleep for a year."""
    sleepers = Sleepers()
    sleepers.beat(YEAR_S)
    sleepers.sleep("while it was ahead", 1)
    await asyncio.sleep(2)
    sleepers.beat()
    sleepers.sleep("after", 10)
    await asyncio.sleep(20)
    assert sleepers.fired == [("while it was ahead", 1), ("after", 12)]


@in_virtual_time
async def test_a_clock_that_runs_a_little_fast_makes_no_timer_late() -> None:
    sleepers = Sleepers()
    sleepers.sleep("t", 3_500)
    while not sleepers.fired:
        await asyncio.sleep(2)
        sleepers.beat(ahead_s=sleepers.time() * 0.08)  # as a host's does whose time is being mended
    ((_, fired_at),) = sleepers.fired
    assert 3_500 / 1.08 <= fired_at < 3_500 / 1.08 + 2.5, "one beat late at most"


@in_virtual_time
async def test_what_is_due_by_a_clock_that_was_set_forward_fires_at_once() -> None:
    sleepers = Sleepers()
    sleepers.sleep("a day", 86_400)
    await asyncio.sleep(5)
    sleepers.beat(2 * 86_400)
    await asyncio.sleep(1)
    assert sleepers.fired == [("a day", 5)]


@in_virtual_time
async def test_no_timer_fires_before_its_time_by_a_clock_that_was_set_back() -> None:
    sleepers = Sleepers()
    sleepers.sleep("a minute", 60)
    await asyncio.sleep(5)
    sleepers.beat(-3600)
    await asyncio.sleep(3600)
    assert sleepers.fired == []
    await asyncio.sleep(61)
    assert sleepers.fired == [("a minute", 3660)]
