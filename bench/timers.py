"""Timers of suspended runs: 100,000 of them, due one after the other within a minute; one worker, and two.

The rule: the runs lie there as a worker has left them, each with a timer that is the only thing it waits for. How
late one is, is told by the server's clock: from when its timer is due until its run has completed, in one commit
with the timer. So it is all that a user waits: until a worker looks, claims, loads, replays and writes. Order is
that of the firing; one is out of order if more than a claim's batch of runs due later have fired before it.
"""

from __future__ import annotations

import gc
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass

from bench.disk import commit_ms, make_commit_table
from bench.ending import Ending
from bench.flows import nap
from bench.place import Place, opened
from bench.report import Line, facts, say, show
from bench.server import connection, make_database, measure_on_own_server, server_facts
from bench.worker import APPLICATIONS, running_worker
from continuum._engine.settings import WorkerSettings
from continuum._journal.connections import Connection

BATCH = WorkerSettings().claim_batch
COSTS = {"client CPU": "us/timer", "server CPU": "us/timer", "WAL": "bytes/timer"} | dict.fromkeys(
    ("commits", "statements"), "/timer"
)
FILL = b"""
insert into continuum.runs (run_id, workflow, version, input, state, started_at, next_wakeup_at, lease_token)
select $1 || '-' || lpad(i::text, 7, '0'), $2, 1, ((i * $4 / 1e6)::text)::json, 'suspended', since,
  since + i * $4 * interval '1 microsecond', 1
from generate_series(1, $3::bigint) i, (select now() + $5 * interval '1 second' as since) s
order by md5(i::text)"""
_FIRED = b"""
select row_number() over (order by r.started_at + (r.input::text)::float8 * interval '1 second'),
  (extract(epoch from r.completed_at - r.started_at) - (r.input::text)::float8) * 1000
from continuum.runs r join continuum.events e using (run_id)
where r.run_id > $1 || '-' and r.run_id < $1 || '.' and e.type = 'timer_fired' order by e.at_us, r.run_id"""


@dataclass(frozen=True, slots=True)
class Sizes:
    """How many timers, within how long, by how many workers."""

    timers: int = 100_000
    within_s: float = 60.0
    lead_s: float = 5.0  # from when they are there until the first is due: workers start meanwhile
    workers: tuple[int, ...] = (1, 2)


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
            for workers in sizes.workers:
                gc.collect()
                for name, values in (await _round(admin, url, number, workers, sizes)).items():
                    samples.setdefault(name, []).extend(values)
        show([line for workers in sizes.workers for line in lines(sizes, workers)], samples)


async def _round(
    admin: Connection, url: str, number: int, workers: int, sizes: Sizes
) -> dict[str, Sequence[float]]:
    name = name_of(sizes, workers)
    async with (
        opened(await make_database(admin, url, f"timers_{number}_{workers}")) as place,
        AsyncExitStack() as stack,
    ):
        batch = place.name("nap")
        step_us = sizes.within_s * 1e6 / sizes.timers
        lead_s = sizes.lead_s + sizes.timers / 20_000  # and the filling itself takes a while
        await place.own.execute(FILL, [batch, nap.name, sizes.timers, step_us, lead_s])
        await place.own.execute(b"vacuum analyze")
        running = [await stack.enter_async_context(running_worker(place.url)) for _ in range(workers)]

        def client_us() -> float:
            return sum(worker.cpu_us() for worker in running)

        async with place.meter.measured(APPLICATIONS, client_us) as spent:
            await place.ended(batch, sizes.timers)
        late_ms, inversions = await fired(place, batch)
    assert len(late_ms) == sizes.timers
    each = {figure: [value] for figure, value in spent.each(name, sizes.timers).items()}
    return {f"{name}, late": late_ms, f"{name}, out of order": [float(inversions)], **each}


async def fired(place: Place, batch: str) -> tuple[list[float], int]:
    """Return how late each was, and how many fired after more than a batch of runs that were due later."""
    rows = await (await place.own.execute(_FIRED, [batch])).fetchall()
    furthest, inversions = 0, 0
    for rank, _ in rows:
        inversions += furthest - rank > BATCH
        furthest = max(furthest, rank)
    return [float(late) for _, late in rows], inversions


def name_of(sizes: Sizes, workers: int) -> str:
    """Return the name of the figures."""
    return f"{sizes.timers:,} timers within {sizes.within_s:g} s, {workers} worker{'s' * (workers > 1)}"


def lines(sizes: Sizes, workers: int) -> list[Line]:
    """Return what is printed, in order. One worker alone keeps the order; several keep it each by itself."""
    name, alone = name_of(sizes, workers), workers == 1
    found = [
        Line(f"{name}, late", "ms", p99=True, at_most=1_000, judged="worst round"),
        Line(f"{name}, out of order", "timers", at_most=0 if alone else None),
    ]
    return found + [Line(f"{name}, {cost}", unit) for cost, unit in COSTS.items()]
