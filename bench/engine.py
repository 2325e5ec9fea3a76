"""What the engine costs: steps, children, how soon, and nothing to do. One worker process, ``continuum worker``.

The rule: durable writes on a server of our own, which is thrown away. In every round the yardstick, the plain
fenced group commit, runs before and after what stands beside it: 200 rows in flight, each as large as a step's
entry. Autovacuum is off, so that none of its runs falls into a measurement: a round begins with a vacuum instead.
"""

from __future__ import annotations

import gc
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from statistics import median

from bench import steps
from bench.disk import COMMIT, commit_ms, make_commit_table
from bench.ending import Ending
from bench.fanout import families, name_of
from bench.group_commit import NAME
from bench.idle import ASLEEP, EMPTY, Idle, idle_places
from bench.latency import RESULT, RESULTS, SIGNAL, SIGNALS, Latencies
from bench.meter import Spent
from bench.place import Place, opened
from bench.report import Line, facts, say, show
from bench.server import DISKS, SLOW, connection, delay_commits, make_database, measure_on_own_server, server_facts
from bench.worker import running_worker
from bench.yardstick import BATCHES, OTHERS, Yardstick
from continuum._journal.connections import Connection
from continuum.client import connect

BATCH = max(BATCHES)
YARDSTICK = f"{NAME}, {BATCH} in flight"
COSTS = {"client CPU": "us/", "server CPU": "us/", "WAL": "bytes/", "commits": "/", "statements": "/"}
ROWS = {"rows": "/"}
# Runs that are there too, and their histories: beside a table that was found empty some plan is a bad one.
FILL_OTHERS = (
    b"""insert into continuum.runs (run_id, workflow, version, input, state)
select 'other-' || i, 'other', 1, '{}', 'suspended' from generate_series(1, $1) i""",
    b"""insert into continuum.events (run_id, at_us, generation, seq, type, key, payload)
select 'other-' || i, 0, 1, 1, 'activity_completed', 'step-1', '{}' from generate_series(1, $1) i""",
)


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is done in a round."""

    runs: int = 5_000
    in_flight: int = 1_000
    warm: int = 500
    families: tuple[int, ...] = (1_000, 10_000)
    alone: int = 1_000
    results: int = 200
    signals: int = 100
    idle_s: float = 10.0
    suspended: int = 1_000
    yardstick_s: float = 0.5


def run(rounds: int, ending: Ending, sizes: Sizes | None = None) -> None:
    """Measure on a server of our own and print a JSON line for each figure.

    Raises ``InMemory`` if there is no disk to measure on, ``KeyboardInterrupt`` when told to end.
    """
    measure_on_own_server(ending, lambda url, found: _measure(url, rounds, found, sizes or Sizes()))


async def _measure(url: str, rounds: int, found: dict[str, object], sizes: Sizes) -> None:
    async with AsyncExitStack() as stack:
        admin = await stack.enter_async_context(connection(url, "bench"))
        await make_commit_table(admin)
        commit_us = round(await commit_ms(admin) * 1e3)
        engine = await stack.enter_async_context(_engine(admin, url, sizes))
        about = {"plain_commit_us": commit_us, "payload_bytes": len(engine.yardstick.payload)}
        say(facts(rounds) | found | about | await server_facts(admin))
        samples: dict[str, list[float]] = {}
        for _ in range(rounds):
            gc.collect()
            for name, values in (await engine.measure()).items():
                samples.setdefault(name, []).extend(values)
        show(lines(sizes), samples)


@dataclass(frozen=True, slots=True)
class Engine:
    """The databases that are measured in. ``measure`` may be called any number of times."""

    admin: Connection
    place: Place
    yardstick: Yardstick
    idle: Idle
    sizes: Sizes

    async def measure(self) -> dict[str, list[float]]:
        """Return the figures of one round."""
        await self.place.own.execute(b"vacuum analyze")
        figures: dict[str, float] = {}
        for suffix, delay_us in DISKS.items():
            await delay_commits(self.admin, delay_us)
            found = await self._throughput(with_children=not delay_us)
            figures |= {name + suffix: value for name, value in found.items()}
        together = steps_name(self.sizes)
        figures[slowed_name(self.sizes)] = figures[together + SLOW] / figures[together]
        await delay_commits(self.admin, 0)
        found, times = await self._latencies()
        figures |= found | await self.idle.measure(self.sizes.idle_s)
        return {name: [value] for name, value in figures.items()} | times

    async def _throughput(self, *, with_children: bool) -> dict[str, float]:
        sizes, spent = self.sizes, Spent()
        count = await self._yardstick(spent)
        figures = await steps.many(
            self.place, steps_name(sizes), runs=sizes.runs, warm=sizes.warm, in_flight=sizes.in_flight
        )
        if with_children:
            figures |= await families(self.place, sizes.families)
        count += await self._yardstick(spent)
        return {YARDSTICK: count / spent.wall_s, **spent.each(YARDSTICK, count), **figures}

    async def _yardstick(self, spent: Spent) -> int:
        return await self.yardstick.turn(self.place.meter, BATCH, self.sizes.yardstick_s, spent)

    async def _latencies(self) -> tuple[dict[str, float], dict[str, list[float]]]:
        sizes, place = self.sizes, self.place
        async with running_worker(place.url), connect(place.url, migrate=False) as client:
            await steps.warm_up(place, sizes.warm)
            figures = {COMMIT: await commit_ms(self.admin)}
            figures[steps.ALONE] = await steps.alone(place, client, sizes.alone)
            latencies = Latencies(client)
            times = {
                RESULTS: await latencies.results(sizes.results),
                SIGNALS: await latencies.signals(sizes.signals),
            }
        return figures | {RESULT: median(times[RESULTS]), SIGNAL: median(times[SIGNALS])}, times


@asynccontextmanager
async def _engine(admin: Connection, url: str, sizes: Sizes) -> AsyncGenerator[Engine, None]:
    async with (
        opened(await make_database(admin, url, "engine")) as place,
        connection(place.url, NAME) as plain,
        idle_places(admin, url, sizes.suspended) as idle,
    ):
        for fill in FILL_OTHERS:
            await place.own.execute(fill, [OTHERS])
        yardstick = Yardstick(plain, await steps.payload_of_a_step(place))
        await yardstick.prepare()
        yield Engine(admin, place, yardstick, idle, sizes)


def steps_name(sizes: Sizes) -> str:
    """Return the name of the figure."""
    return f"steps, {sizes.in_flight:,} in flight"


def slowed_name(sizes: Sizes) -> str:
    """Return the name of what a slow disk leaves of the throughput."""
    return f"{steps_name(sizes)}, slow disk beside a normal one"


def lines(sizes: Sizes) -> list[Line]:
    """Return what is printed, in order. Bounds are for a plain disk."""
    together, largest = steps_name(sizes), max(sizes.families)
    found = [Line(COMMIT, "ms"), Line(steps.ALONE, "ms", COMMIT, ratio_at_most=3)]
    found += rate(YARDSTICK, "row")
    found += rate(together, "step", at_least=40_000, ratio_at_least=0.25, commits=0.02, wal_bytes=400)
    found.append(Line(name_of(sizes.families[0], first=True), "children/s", YARDSTICK))
    for size in sizes.families:
        found += rate(name_of(size), "child", at_least=15_000 if size == largest else None, wal_bytes=2_600)
    found.append(Line(RESULT, "ms", COMMIT, at_most=3))
    found.append(Line(RESULTS, "ms", p99=True, p99_at_most=15))
    found.append(Line(SIGNAL, "ms", COMMIT, at_most=3))
    found.append(Line(SIGNALS, "ms", p99=True))
    for name in (EMPTY, ASLEEP):
        found.append(Line(name, "statements/s", at_most=2))
        found.append(Line(f"{name}, client CPU", "% of a core", at_most=0.5))
        found.append(Line(f"{name}, server CPU", "% of a core"))
    slow = rate(YARDSTICK, "row") + rate(together, "step")
    found += [replace(line, name=line.name + SLOW, beside=line.beside and line.beside + SLOW) for line in slow]
    return [*found, Line(slowed_name(sizes), "times", at_least=0.7)]


def rate(
    name: str,
    one: str,
    *,
    at_least: float | None = None,
    ratio_at_least: float | None = None,
    commits: float | None = None,
    wal_bytes: float | None = None,
) -> list[Line]:
    """Return the lines of a rate and of what one costs, beside the yardstick's.

    ``commits`` and ``wal_bytes`` are the most that one may cost.
    """
    many = {"row": "rows/s", "step": "steps/s", "child": "children/s", "timer": "timers/s"}[one]
    beside = None if name == YARDSTICK else YARDSTICK
    most = {"commits": commits, "WAL": wal_bytes}
    found = [Line(name, many, beside, at_least=at_least, ratio_at_least=ratio_at_least)]
    for cost, unit in COSTS.items():
        theirs = beside and f"{beside}, {cost}"
        found.append(Line(f"{name}, {cost}", unit + one, theirs, at_most=most.get(cost)))
    if beside is not None:
        found += [Line(f"{name}, {cost}", unit + one) for cost, unit in ROWS.items()]
    return found
