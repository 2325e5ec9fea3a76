"""What a worker asks that has nothing to do: beside no run at all, and beside many that are suspended."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import pytest
from bench.flows import until_told

from continuum import Definitions
from continuum._engine.engine import Engine
from continuum._engine.settings import WorkerSettings
from continuum._journal.commit import NewRoot
from continuum._journal.memory.journal import MemoryJournal, Straight
from continuum._journal.memory.store import Memory
from tests.engine.virtual_time import in_virtual_time

T = TypeVar("T")
BEGUN_US = 1_700_000_000_000_000
HOUR_S, WINDOW_S = 3600, 10
MOST_A_SECOND, MOST_IN_A_WINDOW = (
    1.66,
    20,
)  # a poll a second, a beat every two, a look and a third of a sweep every ten
SUSPENDED = 200


class Counting(Straight):
    """A wire that writes down what goes over it, and when."""

    def __init__(self) -> None:
        self.asked: list[tuple[float, str]] = []

    async def __call__(self, what: str, operation: Callable[..., T], *values: Any) -> T:
        self.asked.append((asyncio.get_running_loop().time(), what))
        return await super().__call__(what, operation, *values)


@pytest.mark.parametrize("suspended", [0, SUSPENDED])
@in_virtual_time
async def test_an_idle_worker_asks_less_than_two_things_a_second(suspended: int) -> None:
    loop = asyncio.get_running_loop()
    memory = Memory(lambda: BEGUN_US + int(loop.time() * 1e6))
    memory.start(
        [NewRoot(f"r{number}", until_told.name, until_told.version, b"null") for number in range(suspended)]
    )
    async with working(memory, Straight(), passivate_after=0.2):
        await asyncio.sleep(WINDOW_S)
    assert [run.state for run in memory.runs.values()] == ["suspended"] * suspended
    wire = Counting()
    async with working(memory, wire):
        await asyncio.sleep(WINDOW_S)  # it has looked at everything once
        wire.asked.clear()
        await asyncio.sleep(HOUR_S)
        asked = list(wire.asked)
    counts = Counter(what for _, what in asked)
    assert set(counts) == {"claim", "beat", "take_over", "sweep", "cancel_overdue"}
    assert HOUR_S / 33 < counts["sweep"] < HOUR_S / 30, "after half a minute, with the next heartbeat"
    assert len(asked) / HOUR_S < MOST_A_SECOND
    times = [at for at, _ in asked]
    most = max(
        sum(begin <= at < begin + WINDOW_S for at in times[first : first + 30])
        for first, begin in enumerate(times)
    )
    assert most <= MOST_IN_A_WINDOW


@in_virtual_time
async def test_an_idle_worker_finds_a_lease_that_it_knows_nothing_of() -> None:
    """Such as a commit leaves whose answer is lost: then nobody asks with every look which leases there are."""
    loop = asyncio.get_running_loop()
    memory = Memory(lambda: BEGUN_US + int(loop.time() * 1e6))
    wire = Counting()
    async with working(memory, wire):
        await asyncio.sleep(WINDOW_S)
        memory.start([NewRoot("r", until_told.name, until_told.version, b"null")])
        (worker_id,) = memory.workers
        assert len(memory.claim(worker_id, [(until_told.name, until_told.version)], 1)) == 1
        wire.asked.clear()
        while memory.runs["r"].token == 1:
            await asyncio.sleep(0.1)
            assert [what for _, what in wire.asked].count("take_over") <= 1, (
                "found at the first look, settled soon"
            )
        assert [what for _, what in wire.asked].count("leases") == 2
        await asyncio.sleep(WINDOW_S)
        assert memory.runs["r"].state == "suspended"


@asynccontextmanager
async def working(memory: Memory, wire: Straight, **settings: Any) -> AsyncIterator[None]:
    """An engine of its own, with the settings that a worker has by default."""
    async with MemoryJournal(memory, wire=wire).open() as journal:
        made = WorkerSettings(**settings)
        engine = Engine(journal, Definitions([until_told]), made, chance=random.Random(7))
        running = asyncio.ensure_future(engine.run())
        await engine.registered.wait()
        yield
        engine.drain()
        await running
