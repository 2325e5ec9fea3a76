"""How soon: from a start to the result, from a signal to the activity that it lets begin, where nothing else runs.

The rule: client and worker are two processes, and each event begins after a pause of its own, so that it meets
neither the end of the one before nor always the same moment of somebody's rhythm.
"""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass, field

from bench.flows import nothing, until_told
from continuum.client import Client

RESULT, RESULTS = "start to result, p50", "start to result, all rounds"
SIGNAL, SIGNALS = "signal to activity, p50", "signal to activity, all rounds"
WARM = 200  # at once, before what counts
PAUSE_S = (0.015, 0.035)


@dataclass(slots=True)
class Latencies:
    """Takes the times of single events, in milliseconds."""

    client: Client
    _chance: random.Random = field(default_factory=lambda: random.Random(7))

    async def results(self, count: int) -> list[float]:
        """Return how long it took from each start to its result."""
        await asyncio.gather(*(self._result() for _ in range(WARM)))
        return [await self._result() for _ in range(count)]

    async def signals(self, count: int) -> list[float]:
        """Return how long it took from each signal, to a run that waits in memory, until an activity ran."""
        await asyncio.gather(*(self._signal() for _ in range(WARM)))
        return [await self._signal() for _ in range(count)]

    async def _result(self) -> float:
        await self._pause()
        started = time.perf_counter()
        run = await self.client.start(nothing, 7)
        assert await run.result() == 7
        return (time.perf_counter() - started) * 1e3

    async def _signal(self) -> float:
        run = await self.client.start(until_told)
        await self._pause()
        sent_ns = time.monotonic_ns()
        await run.signal("go")
        return (await run.result() - sent_ns) / 1e6

    async def _pause(self) -> None:
        await asyncio.sleep(self._chance.uniform(*PAUSE_S))
