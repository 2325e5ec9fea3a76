"""Starts, signals and cancellations in callers' own transactions, and what workers make of them."""

from __future__ import annotations

import asyncio
import logging
import os

import psycopg
import pytest

import continuum
from continuum import RunCancelled, RunNotFound, start_child, wait_signal, workflow
from continuum._engine.hooks import EngineHooks
from tests.conformance.cluster import FORGETFUL, Cluster
from tests.journal.harness import blocked, select
from tests.journal.proxy import proxied
from tests.until import until

BOTH = pytest.mark.parametrize("settings", [{}, FORGETFUL], ids=["resident", "forgetful"])
RARELY = {"poll": 60, "lease": 60, "heartbeat": 20}  # nothing but a notification is in time
LOOKED_FOR_LEASES = """
select 1 from pg_stat_activity where query like 'select run_id, lease_token from%%' and state = 'idle'
  and datname = current_database() and query_start > %s"""


class RaisingOnce:
    """Points of the engine: at one of them each run that is named fails once, and is read anew."""

    def __init__(self, point: str) -> None:
        self.point = point
        self.named: set[str] = set()

    def at(self, point: str, run_id: str) -> None:
        if point == self.point and run_id in self.named:
            self.named.remove(run_id)
            raise RuntimeError(f"raised at {point}")


@workflow
async def gets(names: list[str]) -> list[int]:
    return [await wait_signal(name, int) for name in names]


@workflow
async def keeps(n: int) -> list[list[int]]:
    """A parent of ``n`` runs that wait."""
    refs = [start_child(gets, ["never"], id=f"k{number}") for number in range(n)]
    return [await ref for ref in refs]


@BOTH
async def test_a_rollback_leaves_nothing(cluster: Cluster, settings: dict[str, float]) -> None:
    """SV06 rollback leaves nothing: no run, no signal, and what was cancelled goes on."""
    async with cluster.worker([gets, keeps], **settings):
        old = await cluster.start(gets, ["one"], id="old")
        family = await cluster.start(keeps, 2, id="family")
        await cluster.until_state("old", "running", "suspended")
        await cluster.until_state("family/k1", "running", "suspended")
        async with await psycopg.AsyncConnection.connect(cluster.url) as caller:
            new = await cluster.client.start(gets, [], id="new", connection=caller)
            await old.signal("one", 13, connection=caller)
            await family.cancel(connection=caller)
            await caller.rollback()
        with pytest.raises(RunNotFound):
            await new.describe()
        await old.signal("one", 1)
        assert await old.result(timeout=10) == [1]
        for number in range(2):
            await cluster.client.signal(f"family/k{number}", "never", number)
        assert await family.result(timeout=10) == [[0], [1]]


@BOTH
async def test_a_commit_wakes_workers_when_the_client_is_gone(
    cluster: Cluster, settings: dict[str, float]
) -> None:
    """SV06 what the caller commits is taken up at once, though the client was closed before."""
    async with cluster.worker([gets, keeps], **RARELY, **settings):
        old = await cluster.start(gets, ["one"], id="old")
        family = await cluster.start(keeps, 2, id="family")
        await cluster.until_state("old", "running", "suspended")
        await cluster.until_state("family/k1", "running", "suspended")
        async with await psycopg.AsyncConnection.connect(cluster.url) as caller:
            async with continuum.connect(cluster.url, migrate=False) as client:
                await client.start(gets, ["two"], id="new", connection=caller)
                await client.signal("new", "two", 2, connection=caller)
                await client.signal("old", "one", 1, connection=caller)
                await client.cancel("family", connection=caller)
            await caller.commit()
        assert await old.result(timeout=10) == [1]
        assert await cluster.client.get_run("new").result(timeout=10) == [2]
        with pytest.raises(RunCancelled):
            await family.result(timeout=10)


async def test_polls_and_the_sweep_find_what_no_notification_told(cluster: Cluster) -> None:
    """SV06 with every NOTIFY lost, what the caller commits is found all the same."""
    async with (
        proxied(cluster.url) as proxy,
        cluster.at(proxy.url) as behind,
        behind.worker([gets], **FORGETFUL),
    ):
        proxy.deaf = True
        old = await cluster.start(gets, ["one"], id="old")
        await cluster.until_waiting("old", "one")
        async with await psycopg.AsyncConnection.connect(cluster.url) as caller:
            new = await behind.client.start(gets, ["two"], id="new", connection=caller)
            await new.signal("two", 2, connection=caller)
            await old.signal("one", 1, connection=caller)
        assert await new.result(timeout=10) == [2]
        async with behind.client.open_journal() as journal:
            while (swept := await journal.sweep(every_s=0)) is None or not swept.finished:
                pass
        assert await old.result(timeout=10) == [1]


@BOTH
@pytest.mark.parametrize("ends", ["commit", "rollback"] if os.environ.get("CONTINUUM_LONG") else ["commit"])
async def test_an_open_transaction_stalls_nobody(cluster: Cluster, ends: str, settings: dict[str, float]) -> None:
    """SV06 while a transaction with all three stays open, the runs that it cancels wait and no others."""
    async with cluster.worker([gets, keeps], **settings), cluster.worker([gets, keeps], **settings):
        mine = await cluster.start(gets, ["one", "two"], id="mine")
        family = await cluster.start(keeps, 3, id="family")
        others = [await cluster.start(gets, ["one"], id=f"other{number}") for number in range(20)]
        await cluster.until_state("mine", "running", "suspended")
        await cluster.until_state("family/k2", "running", "suspended")
        async with await psycopg.AsyncConnection.connect(cluster.url) as caller:
            new = await cluster.client.start(gets, [], id="new", connection=caller)
            await mine.signal("two", 2, connection=caller)
            await family.cancel(connection=caller)
            for number in range(3):
                await cluster.client.signal(f"family/k{number}", "never", number)  # each has a turn to write
            await mine.signal("one", 1)
            for run in others:
                await run.signal("one", 1)
            for run in others:
                assert await run.result(timeout=10) == [1]
            assert await cluster.result(keeps, 0) == []
            await cluster.until_entry("mine", "signal_received", "one")
            fallen = await cluster.start(keeps, 2, id="fallen")
            await cluster.until_state("fallen/k1", "running", "suspended")
            await fallen.cancel()
            with pytest.raises(RunNotFound):
                await new.describe()
            assert {run.completed_at for run in await cluster.client.tree("family")} == {None}
            await (caller.commit if ends == "commit" else caller.rollback)()
        if ends == "commit":
            assert await mine.result(timeout=10) == [1, 2]
            assert await new.result(timeout=10) == []
            with pytest.raises(RunCancelled):
                await family.result(timeout=10)
            assert {run.state for run in await cluster.client.tree("family")} == {"cancelled"}
        else:
            assert await family.result(timeout=10) == [[0], [1], [2]]
            await mine.signal("two", 3)
            assert await mine.result(timeout=10) == [1, 3]


async def test_a_held_run_keeps_no_other_from_being_read_anew(
    cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    """SV06 a run that an open transaction holds waits, also when it is read anew; the others do not."""
    caplog.set_level(logging.CRITICAL)
    raising = RaisingOnce("turn.taken")
    async with cluster.worker([gets], lease=60, poll=0.05, hooks=EngineHooks(points=raising)):
        runs = {name: await cluster.start(gets, ["one", "two"], id=name) for name in ("held", "a", "b", "c")}
        for run in runs.values():
            await run.signal("one", 1)
            await cluster.until_entry(run.id, "signal_received", "one")
        others = [run for name, run in runs.items() if name != "held"]
        async with await psycopg.AsyncConnection.connect(cluster.url) as caller:
            raising.named = set(runs)
            await runs["held"].cancel(connection=caller)
            for run in runs.values():
                await run.signal("two", 2)
            for run in others:
                assert await run.result(timeout=10) == [1, 2]
            assert (await runs["held"].describe()).completed_at is None
            await caller.rollback()
        assert await runs["held"].result(timeout=10) == [1, 2]
    assert not raising.named


async def test_a_child_of_an_unknown_commit_is_found_when_that_has_ended(
    cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    """CR18 a commit whose answer is lost goes on behind a lock: its child is born later and is not forgotten."""
    caplog.set_level(logging.CRITICAL)

    @workflow
    async def bears() -> list[int]:
        await wait_signal("now")
        return await start_child(gets, ["go"], id="kid")

    async with (
        proxied(cluster.url) as proxy,
        cluster.at(proxy.url) as behind,
        behind.worker([bears, gets], lease=60, heartbeat=5),
    ):
        assert await cluster.result(gets, []) == []  # so that there is a connection for a fault to strike
        run = await cluster.start(bears, id="r")
        await cluster.until_state("r", "running", "suspended")
        async with await psycopg.AsyncConnection.connect(cluster.url) as caller:
            await caller.execute("select 1 from continuum.runs where run_id = 'r' for update")
            fault = proxy.lose_client("flush")
            await run.signal("now")
            ((before,),) = select(cluster.url, "select clock_timestamp()")
            await asyncio.wait_for(fault.struck.wait(), 10)
            await blocked(cluster.url)

            async def left_out() -> bool:
                """Whether the run was to be reclaimed, and its lease was looked for after that."""
                return bool(select(cluster.url, LOOKED_FOR_LEASES, before))

            await until(left_out)
        await cluster.until_state("r/kid", "running", "suspended")
        await cluster.client.signal("r/kid", "go", 7)
        assert await run.result(timeout=10) == [7]
