"""What the journal costs on Postgres: flushes, children, claims, cascades; all of it again on a slow disk.

The rule: durable writes on a server of our own (fsync on), which is thrown away. A disk that takes 2 ms is
imitated by ``commit_delay``; its figures end in "slow disk". Each round measures everything, the yardsticks too.
Bounds are for a plain disk. On the slow one the commit itself takes 2 ms of what is bounded, so the time of one
plain commit stands beside it.
"""

from __future__ import annotations

import gc
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import replace

from bench.backlog import SHAPES, Backlog
from bench.disk import COMMIT, commit_ms, make_commit_table
from bench.ending import Ending
from bench.families import PARTS, WAYS, Families
from bench.flushing import Counting, Flushing
from bench.group_commit import NAME
from bench.meter import Meter
from bench.report import Line, facts, say, show
from bench.server import (
    DISKS,
    SETTINGS,
    SLOW,
    connection,
    delay_commits,
    make_database,
    own_server,
    server_facts,
)
from bench.yardstick import BATCHES, WORKER, Yardstick
from continuum._journal.connections import Connection
from continuum._journal.journal import PostgresJournal

CLAIMS = "claim, all rounds"


def run(rounds: int, ending: Ending) -> None:
    """Measure on a server of our own and print a JSON line for each figure.

    Raises ``InMemory`` if there is no disk to measure on, ``KeyboardInterrupt`` when told to end.
    """
    with own_server(ending, SETTINGS) as (url, found):
        ending.run(_measure(url, rounds, found))


async def _measure(url: str, rounds: int, found: dict[str, object]) -> None:
    async with AsyncExitStack() as stack:
        admin = await stack.enter_async_context(connection(url, "bench"))
        await make_commit_table(admin)
        commit_us = round(await commit_ms(admin) * 1e3)
        say(facts(rounds) | found | {"plain_commit_us": commit_us} | await server_facts(admin))
        flushing, families, meter = await _small(stack, url, admin)
        backlog = await _full(stack, url, admin)
        samples: dict[str, list[float]] = {}
        for _ in range(rounds):
            for suffix, delay_us in DISKS.items():
                await delay_commits(admin, delay_us)
                gc.collect()
                figures = {COMMIT: await commit_ms(admin)}
                figures |= await flushing.measure(meter) | await families.measure(meter)
                figures |= await backlog.measure()
                samples.setdefault(CLAIMS + suffix, []).extend(backlog.take_claims())
                for name, value in figures.items():
                    samples.setdefault(name + suffix, []).append(value)
        await delay_commits(admin, 0)
        show([*lines(""), *lines(SLOW)], samples)


def lines(suffix: str) -> list[Line]:
    """Return what is printed, in order."""
    found = [Line(COMMIT, "ms")]
    for batch in BATCHES:
        ours = f"flusher, {batch} in flight"
        found += _beside(ours, f"{NAME}, {batch} in flight", "row", 0.5 if batch == max(BATCHES) else None)
        found.append(Line(f"{ours}, flushes", "/row"))
    for name in WAYS:
        found += _beside(name, f"{NAME}, {name}", "child", 0.5, PARTS)
    found.append(Line("claim, p50", "ms", COMMIT, at_most=5))
    found.append(Line(CLAIMS, "ms", p99=True))
    found.append(Line("neighbour alone, flush p99", "ms"))
    for name in SHAPES:
        p99 = f"{name}, neighbour's flush p99"
        found.append(Line(name, "s", at_most=1))
        found.append(Line(p99, "ms", "neighbour alone, flush p99", at_most=100, judged="worst round"))
    return [replace(line, name=line.name + suffix, beside=line.beside and line.beside + suffix) for line in found]


def _beside(
    ours: str, theirs: str, one: str, ratio_at_least: float | None, parts: Sequence[str] = ()
) -> list[Line]:
    """Return the lines of both sides: the rate, whose ratio may be bounded, what one costs, and its parts."""
    rate = {"row": "rows/s", "child": "children/s"}[one]
    found = [Line(theirs, rate), Line(ours, rate, theirs, ratio_at_least=ratio_at_least)]
    costs = [("client CPU", "us/"), ("server CPU", "us/"), ("WAL", "bytes/"), ("commits", "/")]
    for part, unit in [*((part, "us/") for part in parts), *costs]:
        found.append(Line(f"{theirs}, {part}", unit + one))
        found.append(Line(f"{ours}, {part}", unit + one, f"{theirs}, {part}"))
    return found


async def _small(stack: AsyncExitStack, url: str, admin: Connection) -> tuple[Flushing, Families, Meter]:
    """Make the database for flushes and children, beside the yardstick's tables."""
    url = await make_database(admin, url, "flushes")
    hooks = Counting()
    journal = await stack.enter_async_context(PostgresJournal(url, hooks=hooks).open())
    await journal.register(WORKER, 3600, {})
    plain = await stack.enter_async_context(connection(url, NAME))
    flushing = Flushing(journal, hooks, Yardstick(plain))
    await flushing.prepare()
    families = Families(journal, plain)
    await families.prepare()
    return flushing, families, Meter(await stack.enter_async_context(connection(url, "meter")))


async def _full(stack: AsyncExitStack, url: str, admin: Connection) -> Backlog:
    """Make the database that is full."""
    url = await make_database(admin, url, "backlog")
    journal = await stack.enter_async_context(PostgresJournal(url).open())
    await journal.register(WORKER, 3600, {})
    backlog = Backlog(journal, await stack.enter_async_context(connection(url, "filler")))
    await backlog.prepare()
    return backlog
