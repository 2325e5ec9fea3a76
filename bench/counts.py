"""What things cost by count: statements, commits, rows, WAL and notifications of one of each kind.

The rule: each kind has a worker process of its own, and is counted many at once or one after the other, for what
is written together shares statements and commits. Each run is started by a statement of its own, as by a client.
Rows of a worker that does nothing are taken off. Counts depend on the machine only as far as batches do; the
server's CPU stands beside them, and does.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from statistics import median
from typing import Any

from psycopg import Notify

from bench.columns import short
from bench.ending import Ending
from bench.flows import STEPS, chain, many_steps, nap, nothing, parent, ten_steps, until_told
from bench.place import Place, opened
from bench.report import Line, facts, say, show
from bench.server import COUNTED, SETTINGS, connection, make_database, own_server, server_facts
from bench.worker import APPLICATIONS, running_worker
from continuum._journal.hints import CHANNELS
from continuum.client import Client, connect
from continuum.workflow import Workflow

COSTS = dict.fromkeys(("statements", "commits", "rows", "notifications"), "") | {
    "told": "bytes",
    "WAL": "bytes",
    "server CPU": "us",
}
IDLE = "a second of an idle worker"
IDLE_ONE, BUSY_ONE, CLIENT = "an idle worker process", "a busy one", "a client"
ASLEEP_S = 1.0
OUT_OF_MEMORY = "--passivate-after=0.1"
_CONNECTIONS = b"""
select count(*) from pg_stat_activity where datname = current_database() and application_name = any($1)"""
Work = Callable[[Client, int], Awaitable[None]]


def _runs(flow: Workflow[Any, Any], given: Any, each: int = 1) -> Work:
    """Return what starts runs of a flow and waits for all of them; a run is ``each`` of what counts."""

    async def work(client: Client, count: int) -> None:
        runs = [await client.start(flow, given) for _ in range(count // each)]
        await asyncio.gather(*(run.result() for run in runs))

    return work


def _one(flow: Workflow[Any, Any]) -> Work:
    """Return what starts one run that is given how many of what counts it is to have."""

    async def work(client: Client, count: int) -> None:
        await (await client.start(flow, count)).result()

    return work


def _in_turn(work: Work) -> Work:
    """Return what does the same, but each after the one before."""

    async def one_by_one(client: Client, count: int) -> None:
        for _ in range(count):
            await work(client, 1)

    return one_by_one


async def _signals(client: Client, count: int) -> None:
    runs = [await client.start(until_told) for _ in range(count)]
    for run in runs:
        await run.signal("go")
    await asyncio.gather(*(run.result() for run in runs))


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of thing, and what does so many of it. Before that it does ``warm`` of it, uncounted."""

    name: str
    count: int
    warm: int
    work: Work
    options: tuple[str, ...] = ()
    workers: int = 1


_NOTHINGS, _NAPS = _runs(nothing, 0), _runs(nap, ASLEEP_S)
KINDS = (
    Kind("a run that does nothing, alone", 50, 20, _in_turn(_NOTHINGS)),
    Kind("a run that does nothing, alone, four workers", 50, 20, _in_turn(_NOTHINGS), workers=4),
    Kind("a run that does nothing, of 1,000", 1_000, 100, _NOTHINGS),
    Kind("a run that does nothing, of 1,000, four workers", 1_000, 100, _NOTHINGS, workers=4),
    Kind("a step, alone", 200, 50, _one(many_steps)),
    Kind("a step, of 1,000 runs", 10_000, 1_000, _runs(ten_steps, 0, STEPS)),
    Kind("a child, of 1,000", 1_000, 100, _one(parent)),
    Kind("a run that sleeps in memory, of 1,000", 1_000, 100, _NAPS),
    Kind("a run that sleeps outside memory, of 1,000", 1_000, 100, _NAPS, (OUT_OF_MEMORY,)),
    Kind("a run that is sent a signal and takes a step, alone", 50, 20, _in_turn(_signals)),
    Kind("a run that is sent a signal and takes a step, of 1,000", 1_000, 100, _signals),
    Kind("a generation with a step", 200, 50, _one(chain)),
)


def run(rounds: int, ending: Ending) -> None:
    """Count on a server of our own; print a JSON line for each figure, and rows of a table on stderr.

    Raises ``InMemory`` if there is no disk to measure on, ``KeyboardInterrupt`` when told to end.
    """
    settings = SETTINGS | COUNTED
    with own_server(ending, settings) as (url, found):
        ending.run(_measure(url, rounds, found))


async def _measure(url: str, rounds: int, found: dict[str, object]) -> None:
    async with connection(url, "bench") as admin:
        say(facts(rounds) | found | await server_facts(admin))
        url = await make_database(admin, url, "counts")
    samples: dict[str, list[float]] = {}
    async with opened(url) as place, _ears(url) as ears:
        for _ in range(rounds):
            figures, overhead = await _idle(place, ears)
            for kind in KINDS:
                figures |= await _counted(place, ears, kind, overhead)
            for name, value in figures.items():
                samples.setdefault(name, []).append(value)
    show(lines(), samples)
    for row in table(samples):
        print(row, file=sys.stderr)


@dataclass(slots=True)
class Ears:
    """A connection that hears all that workers are told."""

    connection: Any
    heard: int = 0
    told_bytes: int = 0

    def hear(self, notify: Notify) -> None:
        """Count a notification, as each worker gets it."""
        self.heard += 1
        self.told_bytes += len(notify.payload)

    async def so_far(self) -> tuple[int, int]:
        """Return how many there were, and their bytes."""
        await self.connection.execute(b"select 1")  # what has come is handed out with an answer
        return self.heard, self.told_bytes


@asynccontextmanager
async def _ears(url: str) -> AsyncGenerator[Ears, None]:
    async with connection(url, "ears") as ears:
        await ears.execute(b"set pg_stat_statements.track = 'none'")
        found = Ears(ears)
        ears.add_notify_handler(found.hear)
        for name in CHANNELS.values():
            await ears.execute(f"listen {name.replace('{schema}', 'continuum')}".encode())
        yield found


async def _idle(place: Place, ears: Ears, seconds: float = 10.0) -> tuple[dict[str, float], float]:
    """Return what an idle worker costs in a second, and how many rows it writes to begin and to end."""
    rows = await place.rows()
    async with running_worker(place.url):
        await asyncio.sleep(2.0)
        async with _counting(place, ears, IDLE, seconds) as figures:
            await asyncio.sleep(seconds)
        figures[IDLE_ONE] = await _connections(place)
    return figures, await place.rows() - rows


async def _counted(place: Place, ears: Ears, kind: Kind, overhead: float) -> dict[str, float]:
    rows = await place.rows()
    async with connect(place.url, migrate=False) as client:
        async with AsyncExitStack() as workers:
            for _ in range(kind.workers):
                await workers.enter_async_context(running_worker(place.url, *kind.options))
            await kind.work(client, kind.warm)
            async with _counting(place, ears, kind.name, kind.count) as figures:
                await kind.work(client, kind.count)
            both = await _connections(place)
        figures[CLIENT] = await _connections(place)
    figures[BUSY_ONE] = (both - figures[CLIENT]) / kind.workers
    rows = await place.rows() - rows - overhead * kind.workers
    figures[f"{kind.name}, rows"] = rows / (kind.count + kind.warm)
    return figures


@asynccontextmanager
async def _counting(place: Place, ears: Ears, name: str, count: float) -> AsyncGenerator[dict[str, float], None]:
    figures: dict[str, float] = {}
    heard, told_bytes = await ears.so_far()
    async with place.meter.measured(APPLICATIONS) as spent:
        yield figures
    heard_now, told_now = await ears.so_far()
    figures |= spent.each(name, count)
    figures[f"{name}, notifications"] = (heard_now - heard) / count
    figures[f"{name}, told"] = (told_now - told_bytes) / count


async def _connections(place: Place) -> float:
    row = await (await place.own.execute(_CONNECTIONS, [APPLICATIONS])).fetchone()
    assert row is not None
    return float(row[0])


def lines() -> list[Line]:
    """Return what is printed, in order."""
    names = [IDLE, *(kind.name for kind in KINDS)]
    found = [Line(f"{name}, {cost}", unit) for name in names for cost, unit in COSTS.items()]
    return [*found, *(Line(name, "connections") for name in (IDLE_ONE, BUSY_ONE, CLIENT))]


def table(samples: dict[str, list[float]]) -> list[str]:
    """Return rows of a table: medians, a row for each kind."""
    rows = [f"| | {' | '.join(COSTS)} |", "|---" * (len(COSTS) + 1) + "|"]
    for name in (IDLE, *(kind.name for kind in KINDS)):
        cells = [samples.get(f"{name}, {cost}") for cost in COSTS]
        rows.append(f"| {name} | {' | '.join('' if each is None else short(median(each)) for each in cells)} |")
    held = ", ".join(f"{max(samples[name]):g} of {name}" for name in (IDLE_ONE, BUSY_ONE, CLIENT))
    rows.append(f"Connections: {held}.")
    return rows
