"""Families of every shape: wide, many, deep, shared, cancelled, chained, mapped. Workers are ``continuum worker``.

The rule: what a child does costs nothing, and measured is what a caller sees: from the start until the result is
here. A child of a large family is set beside one of a small family of the same round. Each shape has a worker of
its own that has run the flow before, for a definition's first turns are watched on 3.11, and that costs.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from bench.backlog import running_neighbour
from bench.disk import commit_ms, make_commit_table
from bench.ending import Ending
from bench.engine import FILL_OTHERS
from bench.fanout import families, name_of
from bench.flows import IN_WINDOW, WIDE, chain, dormitory, mapping, parent, tree
from bench.place import Place, opened
from bench.report import Line, facts, p99, say, show
from bench.server import connection, make_database, measure_on_own_server, server_facts
from bench.worker import APPLICATIONS, WorkerProcess, running_worker
from bench.yardstick import OTHERS
from continuum._journal.connections import Connection
from continuum.client import Client, connect
from continuum.workflow import Workflow

COSTS = {"client CPU": "us/child", "server CPU": "us/child", "WAL": "bytes/child"} | dict.fromkeys(
    ("commits", "statements"), "/child"
)
DEARER_AT_MOST = 1.3  # a child of the largest family than one of the smallest
WARM_CHILDREN, WARM_RUNS = 3, 200
QUIET_S = 0.7
CASCADE = "cascade over live children"
ALONE, MEANWHILE = "neighbour alone, flush p99", f"{CASCADE}, neighbour's flush p99"
FIRST, LAST = "a generation, the first of a chain", "a generation, the last of a chain"
_LOOKED = b"""select (payload->>'result')::bigint from continuum.events
where run_id = $1 and type = 'activity_completed' order by generation"""
_UNBORN = (
    b"select 1 from continuum.runs where run_id > $1 || '/' and run_id < $1 || '0' and state = 'pending' limit 1"
)


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is done in a round. The families of one parent rise; the least has the first worker's warming."""

    of_one: tuple[int, ...] = (1_000, 10_000, 50_000)
    parents: int = 1_000
    of_each: int = 10
    levels: int = 4
    shared: int = 10_000
    share_cache: int = 2_000  # of each worker that shares: with room for all the parent's would keep them
    cancelled: int = 10_000
    generations: int = 5_000
    edge: int = 500  # generations at each end of the chain that are compared
    mapped: int = 10_000


def run(rounds: int, ending: Ending, sizes: Sizes | None = None) -> None:
    """Measure on a server of our own and print a JSON line for each figure.

    Raises ``InMemory`` if there is no disk to measure on, ``KeyboardInterrupt`` when told to end.
    """
    measure_on_own_server(ending, lambda url, found: _measure(url, rounds, found, sizes or Sizes()))


async def _measure(url: str, rounds: int, found: dict[str, object], sizes: Sizes) -> None:
    async with connection(url, "bench") as admin:
        await make_commit_table(admin)
        about: dict[str, object] = {"plain_commit_us": round(await commit_ms(admin) * 1e3)}
        say(facts(rounds) | found | about | await server_facts(admin))
        samples: dict[str, list[float]] = {}
        for number in range(rounds):
            gc.collect()
            for name, value in (await _round(admin, url, number, sizes)).items():
                samples.setdefault(name, []).append(value)
        show(lines(sizes), samples)


async def _round(admin: Connection, url: str, number: int, sizes: Sizes) -> dict[str, float]:
    """Return the figures of one round, in a database of its own."""
    async with opened(await make_database(admin, url, f"shapes_{number}")) as place:
        for fill in FILL_OTHERS:
            await place.own.execute(fill, [OTHERS])
        await place.own.execute(b"vacuum analyze")
        figures = await families(place, sizes.of_one)
        figures |= _dearer(sizes, figures)
        figures |= await _many_parents(place, sizes)
        figures |= await _deep(place, sizes)
        figures |= await _shared(place, sizes)
        figures |= await _cancelled(place, sizes)
        figures |= await _chained(place, sizes)
        return figures | await _mapped(place, sizes)


@dataclass(frozen=True, slots=True)
class Working:
    """Workers that have done some work, and who asks them for more."""

    place: Place
    client: Client
    workers: list[WorkerProcess]

    def cpu_us(self) -> float:
        """Return the CPU time of all of them."""
        return sum(worker.cpu_us() for worker in self.workers)

    async def family(self, name: str, flow: Workflow[int, int], given: int, children: int) -> dict[str, float]:
        """Run one and return what each of its children costs."""
        async with self.place.meter.measured(APPLICATIONS, self.cpu_us) as spent:
            started = time.perf_counter()
            run = await self.client.start(flow, given)
            await run.result()
            seconds = time.perf_counter() - started
        return {name: children / seconds, **spent.each(name, children)}


@asynccontextmanager
async def _working(
    place: Place, flow: Workflow[int, int], *options: str, given: int = WARM_CHILDREN, workers: int = 1
) -> AsyncGenerator[Working, None]:
    """Run workers for the block, which have run ``flow`` and small families before it begins."""
    async with AsyncExitStack() as stack:
        running = [await stack.enter_async_context(running_worker(place.url, *options)) for _ in range(workers)]
        client = await stack.enter_async_context(connect(place.url, migrate=False))
        warm = place.name("warm")
        await place.start(parent, warm, WARM_RUNS, given=WARM_CHILDREN)
        await place.ended(warm, WARM_RUNS * (1 + WARM_CHILDREN))
        await (await client.start(flow, given)).result()
        yield Working(place, client, running)


async def _many_parents(place: Place, sizes: Sizes) -> dict[str, float]:
    name, batch = _parents_name(sizes), place.name("parents")
    children = sizes.parents * sizes.of_each
    async with _working(place, parent) as working:
        async with place.meter.measured(APPLICATIONS, working.cpu_us) as spent:
            started = time.perf_counter()
            await place.start(parent, batch, sizes.parents, given=sizes.of_each)
            await place.ended(batch, sizes.parents + children)
            seconds = time.perf_counter() - started
        return {name: children / seconds, **spent.each(name, children)}


async def _deep(place: Place, sizes: Sizes) -> dict[str, float]:
    async with _working(place, tree, given=2) as working:
        return await working.family(_tree_name(sizes), tree, sizes.levels, _below(sizes))


async def _shared(place: Place, sizes: Sizes) -> dict[str, float]:
    """Measure two workers, and how much of their work the less busy one did."""
    name = _shared_name(sizes)
    async with _working(place, parent, f"--cache={sizes.share_cache}", workers=2) as working:
        before = [worker.cpu_us() for worker in working.workers]
        figures = await working.family(name, parent, sizes.shared, sizes.shared)
        used = [worker.cpu_us() - had for worker, had in zip(working.workers, before, strict=True)]
    return figures | {f"{name}, the less busy one's part": min(used) / sum(used) * 100}


async def _cancelled(place: Place, sizes: Sizes) -> dict[str, float]:
    """Measure a cancellation of children that are in a worker's memory, and what somebody else feels of it."""
    options = (f"--cache={2 * sizes.cancelled + WARM_RUNS}", "--passivate-after=3600")
    async with _working(place, parent, *options) as working, running_neighbour(place.url) as neighbour:
        run = await working.client.start(dormitory, sizes.cancelled)
        while not await working.client.list_children(run.id, limit=1):
            pass
        await place.becomes_empty(_UNBORN, run.id)
        quiet = await neighbour.latencies(asyncio.sleep(QUIET_S))
        seconds: list[float] = []

        async def cancel() -> None:
            started = time.perf_counter()
            await run.cancel()
            seconds.append(time.perf_counter() - started)

        busy = await neighbour.latencies(cancel())
    return {CASCADE: seconds[0], ALONE: p99(quiet), MEANWHILE: p99(busy)}


async def _chained(place: Place, sizes: Sizes) -> dict[str, float]:
    """Measure the ends of a chain, by the times at which its generations looked at the clock."""
    async with _working(place, chain, given=WARM_RUNS) as working:
        run = await working.client.start(chain, sizes.generations)
        await run.result()
    rows = await (await place.own.execute(_LOOKED, [run.id])).fetchall()
    at_ns: list[int] = [row[0] for row in rows]
    assert len(at_ns) == sizes.generations > 2 * sizes.edge
    return {
        FIRST: (at_ns[sizes.edge] - at_ns[0]) / sizes.edge / 1e3,
        LAST: (at_ns[-1] - at_ns[-1 - sizes.edge]) / sizes.edge / 1e3,
    }


async def _mapped(place: Place, sizes: Sizes) -> dict[str, float]:
    async with _working(place, mapping) as working:
        return await working.family(_mapped_name(sizes), mapping, sizes.mapped, sizes.mapped)


def _dearer(sizes: Sizes, figures: dict[str, float]) -> dict[str, float]:
    """Return how much dearer a child of the largest family is than one of the smallest: in time and in CPU."""
    small, large = name_of(sizes.of_one[0]), name_of(sizes.of_one[-1])

    def cpu(name: str) -> float:
        return figures[f"{name}, client CPU"] + figures.get(f"{name}, server CPU", 0.0)

    return {
        _dearer_name(sizes, "time"): figures[small] / figures[large],
        _dearer_name(sizes, "CPU"): cpu(large) / cpu(small),
    }


def lines(sizes: Sizes) -> list[Line]:
    """Return what is printed, in order."""
    small = name_of(sizes.of_one[0])
    found = [line for size in sizes.of_one for line in _rate(name_of(size), small)]
    found += [Line(_dearer_name(sizes, what), "times", at_most=DEARER_AT_MOST) for what in ("time", "CPU")]
    for name in (_parents_name(sizes), _tree_name(sizes), _shared_name(sizes)):
        found += _rate(name, small)
    found.append(Line(f"{_shared_name(sizes)}, the less busy one's part", "%"))
    found += _rate(_mapped_name(sizes), small)
    found += [Line(CASCADE, "s", at_most=1), Line(ALONE, "ms")]
    found.append(Line(MEANWHILE, "ms", ALONE, at_most=100, judged="worst round"))
    found += [Line(FIRST, "us"), Line(LAST, "us", FIRST)]
    return found


def _rate(name: str, small: str) -> list[Line]:
    """Return the lines of a rate and of what a child costs, beside one of the smallest family."""
    beside = None if name == small else small
    found = [Line(name, "children/s", beside)]
    return found + [Line(f"{name}, {cost}", unit, beside and f"{small}, {cost}") for cost, unit in COSTS.items()]


def _below(sizes: Sizes) -> int:
    return sum(WIDE**depth for depth in range(1, sizes.levels + 1))


def _dearer_name(sizes: Sizes, what: str) -> str:
    return f"a child of {sizes.of_one[-1]:,} beside one of {sizes.of_one[0]:,}, {what}"


def _parents_name(sizes: Sizes) -> str:
    return f"children of {sizes.parents:,} parents, {sizes.of_each} each"


def _tree_name(sizes: Sizes) -> str:
    return f"children in a tree, {' x '.join([str(WIDE)] * sizes.levels)}"


def _shared_name(sizes: Sizes) -> str:
    return f"children of one parent, {sizes.shared:,}, two workers"


def _mapped_name(sizes: Sizes) -> str:
    return f"map_children, {sizes.mapped:,}, {IN_WINDOW:,} at a time"
