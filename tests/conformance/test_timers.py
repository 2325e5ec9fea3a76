"""Timers of runs that no worker has in memory: who claims them, in which order, and that none is forgotten."""

from __future__ import annotations

import asyncio
import os
from datetime import timedelta

import pytest

from continuum import wait_signal, workflow
from tests.conformance.cluster import FORGETFUL, Cluster
from tests.journal.harness import select
from tests.until import until

LONG = bool(os.environ.get("CONTINUUM_LONG"))
MANY = 2_000 if LONG else 500  # more than one claim takes, and than the cache below holds
# Runs that fell asleep an hour ago, one due a millisecond after the other; their rows lie in another order.
_ASLEEP = """
insert into continuum.runs (run_id, workflow, version, input, state, started_at, next_wakeup_at, lease_token)
select 'r-' || lpad(i::text, 5, '0'), 'nap', 1, (i * 0.001)::text::json, 'suspended', since,
  since + i * interval '1 millisecond', 1
from generate_series(1, %s) i, (select date_trunc('second', now() - interval '1 hour') as since) s
order by md5(i::text)"""
_FIRED = """
select run_id from continuum.events where type = 'timer_fired' order by at_us, run_id"""
_UNENDED = "select 1 from continuum.runs where completed_at is null limit 1"


@workflow
async def nap(seconds: float) -> float:
    await asyncio.sleep(seconds)
    return seconds


@workflow
async def naps(seconds: list[float]) -> int:
    for one in seconds:
        await asyncio.sleep(one)
    return len(seconds)


@workflow
async def patient(seconds: float | None) -> str:
    try:
        return await wait_signal("go", str, timeout=None if seconds is None else timedelta(seconds=seconds))
    except ValueError as error:
        return str(error)


async def _all_ended(cluster: Cluster) -> None:
    async def ended() -> bool:
        return not select(cluster.url, _UNENDED)

    while not await ended():  # as long as it takes, if only it goes on
        before = select(cluster.url, "select count(*) from continuum.events")[0][0]

        async def more() -> bool:
            return await ended() or select(cluster.url, "select count(*) from continuum.events")[0][0] > before

        await until(more)


@pytest.mark.parametrize("cache", [10_000, 150] if LONG else [150])
async def test_one_worker_fires_the_timers_of_suspended_runs_in_the_order_they_are_due(
    cluster: Cluster, cache: int
) -> None:
    """ST09 suspended runs that are due are claimed and woken in the order of their timers, and none is lost."""
    select(cluster.url, _ASLEEP + " returning 1", MANY)
    async with cluster.worker([nap], cache=cache):
        await _all_ended(cluster)
    fired = [run_id for (run_id,) in select(cluster.url, _FIRED)]
    assert fired == [f"r-{number:05}" for number in range(1, MANY + 1)]


async def test_two_workers_share_the_timers_and_fire_each_once(cluster: Cluster) -> None:
    """ST09 workers that claim beside each other lose no timer, and fire none twice."""
    select(cluster.url, _ASLEEP + " returning 1", MANY)
    async with cluster.worker([nap]), cluster.worker([nap]):
        await _all_ended(cluster)
    fired = [run_id for (run_id,) in select(cluster.url, _FIRED)]
    assert sorted(fired) == [f"r-{number:05}" for number in range(1, MANY + 1)]
    wrong = (
        "select run_id from continuum.runs where state <> 'completed' or result::text::float <> input::text::float"
    )
    assert select(cluster.url, wrong) == []


async def test_a_worker_comes_when_a_suspended_run_is_due_and_not_at_its_next_poll(cluster: Cluster) -> None:
    """ST09 what the last claim says of the next timer is when the worker looks: its poll would come in an hour."""
    async with cluster.worker([nap, naps], poll=3600, heartbeat=0.2, **FORGETFUL):
        assert await cluster.result(naps, [0.2, 0.1, 0.15]) == 3


@pytest.mark.parametrize("seconds", [3 * 365 * 86_400, timedelta(days=365 * 1_000_000).total_seconds()])
async def test_a_wait_of_years_or_of_a_million_is_held_by_nobody_and_ends_when_it_is_told_to(
    cluster: Cluster, seconds: float
) -> None:
    """ST08 sleeps of years: what lies past the year 9999 is due at its end."""
    asleep = await cluster.start(nap, seconds)
    run = await cluster.start(patient, seconds)
    async with cluster.worker([nap, patient], **FORGETFUL):
        await cluster.until_state(asleep.id, "suspended")
        found = await cluster.until_state(run.id, "suspended")
        assert "signal go" in (found.waiting_for or "")
        await run.signal("go", "on")
        assert await run.result(timeout=10) == "on"
        assert (await asleep.describe()).state == "suspended"
