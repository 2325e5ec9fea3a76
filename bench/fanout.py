"""Children: one parent that starts many at once, which do nothing, and waits for all of them.

The rule: measured is what the caller sees, from before the parent is started until its result is here. The first
family of a worker is a figure of its own: on 3.11 a definition's first turns are watched, and that costs.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from bench.flows import parent
from bench.place import Place
from bench.worker import APPLICATIONS, WorkerProcess, running_worker
from continuum.client import Client, connect

WARM_PARENTS, WARM_CHILDREN = 200, 3  # two turns or more of each parent: past those that are watched
ROWS_OF_A_ROOT = 3  # written, claimed, completed


def name_of(children: int, *, first: bool = False) -> str:
    """Return the name of the figure."""
    return f"children of one parent, {children:,}{', first of a worker' if first else ''}"


async def families(place: Place, sizes: Sequence[int]) -> dict[str, float]:
    """Return what a child costs in families of these sizes. One worker does all of it, with its usual settings."""
    rows = await place.rows()
    async with running_worker(place.url) as worker, connect(place.url, migrate=False) as client:
        figures = await family(place, worker, client, name_of(sizes[0], first=True), sizes[0])
        await warm_up(place)
        for size in sizes:
            figures |= await family(place, worker, client, name_of(size), size)
    roots, children = WARM_PARENTS + 1 + len(sizes), WARM_PARENTS * WARM_CHILDREN + sizes[0] + sum(sizes)
    each = (await place.rows() - rows - ROWS_OF_A_ROOT * roots) / children
    return figures | {f"{name_of(size)}, rows": each for size in sizes}


async def warm_up(place: Place) -> None:
    """Let a worker that has just begun run some small families."""
    warm = place.name("parents")
    await place.start(parent, warm, WARM_PARENTS, given=WARM_CHILDREN)
    await place.ended(warm, WARM_PARENTS * (1 + WARM_CHILDREN))


async def family(place: Place, worker: WorkerProcess, client: Client, name: str, size: int) -> dict[str, float]:
    """Run one family and return what each of its children costs."""
    async with place.meter.measured(APPLICATIONS, worker.cpu_us) as spent:
        started = time.perf_counter()
        run = await client.start(parent, size)
        assert await run.result() == size
        seconds = time.perf_counter() - started
    return {name: size / seconds, **spent.each(name, size)}
