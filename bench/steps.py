"""Steps: many runs at once in one worker process, and one run alone.

The rule: the runs are there before anything is measured, and fall due together. Measured is from then until the
last has completed, by the server's clock: claims, turns, activities, commits. Whoever looks on does no work.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from itertools import pairwise

from bench.flows import STEPS, many_steps, ten_steps
from bench.meter import Spent
from bench.place import Place
from bench.worker import APPLICATIONS, WorkerProcess, running_worker
from continuum.client import Client

LEAD_S = 1.5  # for the runs to be written before they are due
ALONE = "step of one run alone, p50"
_TIMES = b"select at_us from continuum.events where run_id = $1 and type = 'activity_completed' order by seq"
_PAYLOAD = b"select payload from continuum.events where type = 'activity_completed' order by at_us desc limit 1"


async def many(place: Place, name: str, *, runs: int, warm: int, in_flight: int) -> dict[str, float]:
    """Return what steps cost in ``runs`` workflows of ten, of which ``in_flight`` are in memory at a time."""
    rows = await place.rows()
    async with running_worker(place.url, f"--cache={in_flight}") as worker:
        await warm_up(place, warm)
        seconds, spent = await together(place, [worker], runs)
    started = runs + warm
    rows = (await place.rows() - rows - started) / (started * STEPS)  # that they were started is not a step's cost
    steps = runs * STEPS
    return {name: steps / seconds, **spent.each(name, steps), f"{name}, rows": rows}


async def together(
    place: Place,
    workers: Sequence[WorkerProcess],
    runs: int,
    watched: AbstractAsyncContextManager[object] | None = None,
) -> tuple[float, Spent]:
    """Let workers run workflows of ten steps that fall due together; return the seconds, and what was spent.

    ``watched`` is entered for as long as that takes.
    """

    def client_us() -> float:
        return sum(worker.cpu_us() for worker in workers)

    batch, due_us = place.name("steps"), int((time.time() + LEAD_S) * 1e6)
    await place.start(ten_steps, batch, runs, due_us=due_us)
    await asyncio.sleep(due_us / 1e6 - time.time() - 0.05)
    async with place.meter.measured(APPLICATIONS, client_us) as spent, watched or nullcontext():
        await asyncio.sleep(due_us / 1e6 - time.time())
        await place.say_due(ten_steps)
        ended_us = await place.ended(batch, runs)
    return (ended_us - due_us) / 1e6, spent


async def warm_up(place: Place, runs: int) -> None:
    """Let a worker that has just begun run some workflows: imports, prepared statements, caches."""
    name = place.name("warm")
    await place.start(ten_steps, name, runs)
    await place.ended(name, runs)


async def alone(place: Place, client: Client, steps: int) -> float:
    """Return the median milliseconds from one step's end to the next one's, in a run that has them in sequence."""
    run = await client.start(many_steps, steps)
    assert await run.result() == steps
    found = await (await place.own.execute(_TIMES, [run.id])).fetchall()
    times: list[int] = [row[0] for row in found]
    assert len(times) == steps
    return statistics.median(later - earlier for earlier, later in pairwise(times)) / 1e3


async def payload_of_a_step(place: Place) -> bytes:
    """Run some steps, and return what one of them wrote."""
    async with running_worker(place.url):
        await warm_up(place, 1)
    found = await (await place.own.execute(_PAYLOAD)).fetchone()
    assert found is not None
    return bytes(found[0])
