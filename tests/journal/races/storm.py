"""Storms: many lanes race the same scenario at once, each on run ids of its own, with delays drawn by a seed.

The rule: lanes share workers, so that one flush carries commits of several lanes. When a round is over everything
it left is served, by the ways that the storm allows, and the tables are compared with what the sides were told.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from random import Random
from typing import Any

from continuum._journal.journal import PostgresJournal
from continuum._journal.lane import Lane
from continuum._journal.statements import Statement
from continuum.errors import DatabaseUnreachable
from tests.journal.proxy import proxied
from tests.journal.races.round import Round, Storm
from tests.journal.races.sides import Worker, session
from tests.journal.races.stepper import Stepper, before_deadline, until

LANES = 6
SHORT = 20 if os.environ.get("CONTINUUM_LONG") else 10  # rounds of a storm; `make races` sets more
SLOW_SHARE = 0.3  # of statements that are committed a little after they were carried out
ROUND_S = 60.0
MOST_TRIES = 20
REACH_S = 5.0  # POKE, or the sweep, must have armed every run with mail by then


def rounds() -> int:
    return int(os.environ.get("CONTINUUM_RACE_ROUNDS", SHORT))


def seed() -> int:
    return int(os.environ.get("CONTINUUM_RACE_SEED") or Random().randrange(10**9))


Scenario = Callable[[Round], Awaitable[None]]


def slow_down(lane: Lane, chance: Random) -> None:
    """Let some statements of a lane be committed a little later than they were carried out."""
    plain = {"rows": lane.rows, "rows_now": lane.rows_now}

    def slowed(name: str) -> Callable[..., Awaitable[list[tuple[Any, ...]]]]:
        async def run(statement: Statement, values: dict[str, Any]) -> list[tuple[Any, ...]]:
            if chance.random() > SLOW_SHARE or statement.text.startswith(b"discard"):
                return await plain[name](statement, values)
            async with lane._lock:
                connection = await lane.ready()
                await lane.answered(connection, b"begin")
                try:
                    rows = await lane.answered(connection, statement.text, statement.arguments(values))
                    await asyncio.sleep(chance.random() * 0.003)
                except Exception:
                    await lane.answered(connection, b"rollback")
                    raise
                await lane.answered(connection, b"commit")
                return rows

        return run

    lane.rows = slowed("rows")  # type: ignore[method-assign, assignment]
    lane.rows_now = slowed("rows_now")  # type: ignore[method-assign, assignment]


@asynccontextmanager
async def brewing(
    url: str, *, poked: bool, breaking: bool = False, names: Sequence[str] = "abc"
) -> AsyncIterator[Storm]:
    """A storm's workers, until the end of the block. ``breaking``: they flush through a proxy."""
    number = seed()
    chance = Random(number)
    async with AsyncExitStack() as stack:
        proxy = await stack.enter_async_context(proxied(url)) if breaking else None
        team: list[Worker] = []
        for name in names:
            stepper = Stepper(Random(chance.random()))
            if not poked:
                stepper.never_pass("poke.begin")
            journal = PostgresJournal(url, hooks=stepper)
            if proxy is not None:
                journal._flush_lane.url = proxy.url
            await stack.enter_async_context(journal.open(migrating=False))
            await journal.register(name, 600, {})
            for lane in (journal._flush_lane, *journal._lanes._all):
                slow_down(lane, Random(chance.random()))
            team.append(Worker(name, journal, stepper))
        storm = Storm(url, number, team, poked, proxy=proxy)
        async with asyncio.TaskGroup() as tasks:
            sweeping = [] if poked else [tasks.create_task(_sweep(storm, one)) for one in team[:2]]
            yield storm
            for task in sweeping:
                task.cancel()
        for worker in team:
            worker.die_silently()


async def _sweep(storm: Storm, worker: Worker) -> None:
    """Sweep all the time, in small parts."""
    chance = Random(f"{storm.seed} {worker.name}")
    while True:
        try:
            swept = await worker.journal.sweep(every_s=0, budget=chance.randint(1, 12))
        except DatabaseUnreachable as error:
            storm.problems.append(f"a sweep failed: {error}")
            return
        if swept is not None:
            storm.tally["armed by the sweep"] += swept.armed
            storm.tally["mail of the dead"] += swept.dropped
        await asyncio.sleep(chance.random() * 0.04)


async def rage(
    storm: Storm, scenario: Scenario, check: Callable[[Round], Awaitable[None]], count: int, lanes: int = LANES
) -> None:
    """Run ``count`` rounds of ``scenario``, spread over lanes."""

    async def lane(number: int) -> None:
        chance = Random(f"{storm.seed} {number}")
        async with session(storm.url) as db, session(storm.url) as raw:
            for turn in range(number, count, lanes):
                name = f"{getattr(scenario, '__name__', 'race')}-{number}-{turn:06}-"
                found = Round(storm, name, chance, db, raw)
                await before_deadline(_one(found, scenario, check), f"round {name}", ROUND_S)
                if len(storm.problems) > 50:
                    return

    async with asyncio.TaskGroup() as tasks:
        for number in range(lanes):
            tasks.create_task(lane(number))


async def _one(found: Round, scenario: Scenario, check: Callable[[Round], Awaitable[None]]) -> None:
    await scenario(found)
    await settle(found)
    await check(found)
    for table in ("events", "inbox", "tasks", "cancellations", "runs"):
        sql = f"delete from continuum.{table} where run_id > $1 and run_id < $1 || '~'"
        await found.db.rows(sql, found.prefix)
    found.storm.tally["rounds"] += 1
    found.storm.tally["messages"] += sum(found.sent.values())
    found.storm.tally["cancels"] += len(found.cancelled)


# --- after a round

_UNSERVED = """select count(*) from continuum.runs r where r.run_id > $1 and r.run_id < $1 || '~'
  and r.lease_owner is null and r.state in ('pending', 'running', 'suspended')
  and coalesce(r.next_wakeup_at > now(), true)
  and exists (select 1 from continuum.inbox i where i.run_id = r.run_id)"""
_DUE = """select count(*) from continuum.runs r where r.run_id > $1 and r.run_id < $1 || '~'
  and r.lease_owner is null and r.next_wakeup_at <= now()"""
_HELD = """select r.run_id, r.lease_token, r.lease_owner from continuum.runs r
  where r.run_id > $1 and r.run_id < $1 || '~' and r.lease_owner is not null
  and exists (select 1 from continuum.inbox i where i.run_id = r.run_id)"""


async def settle(found: Round) -> None:
    """Serve all mail that the round left. By POKE, or without it by the sweep, each run must become reachable."""
    unserved = await found.db.one(_UNSERVED, found.prefix)
    found.storm.tally["waiting for POKE" if found.storm.poked else "waiting for the sweep"] += unserved

    async def reachable() -> bool:
        return not await found.db.one(_UNSERVED, found.prefix)

    try:
        await until(reachable, "unleased runs with mail to be due", REACH_S)
    except AssertionError:
        found.problem(f"{await found.db.one(_UNSERVED, found.prefix)} runs with mail are due for nobody")
        for _ in range(2):  # the first goes on where another one stopped
            await found.db.run("sweep", every=0, budget=100_000)
    # Leases of workers that were never there.
    await found.db.run("take_over", worker=None, limit=1000, charges=100, error=None)
    while await found.db.one(_DUE, found.prefix):  # a claim skips what a sweep holds for a moment
        await found.claim(found.worker())
    for _ in range(MOST_TRIES):  # a connection may break while the mail is served, too
        held = await found.db.rows(_HELD, found.prefix)
        for run_id, token, owner in held:
            await _serve_resident(found, run_id, token, owner)
        if not held:
            return


async def _serve_resident(found: Round, run_id: str, token: int, owner: str) -> None:
    if owner not in {worker.name for worker in found.storm.team}:
        found.problem(f"{run_id} is held by {owner}")
        return
    residents = await found.worker(owner).journal.residents_with_mail()
    if run_id not in residents:
        found.problem(f"{run_id} is not among the residents with mail")
    await found.serve(found.worker(owner), run_id, token)
