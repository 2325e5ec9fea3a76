"""Workers that come, go, lack code, hear nothing or meet trouble."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

import psycopg
import pytest

from continuum import (
    RunHandle,
    activity,
    await_children,
    start_child,
    workflow,
)
from continuum._engine.hooks import POINTS, EngineHooks
from tests.conformance.cluster import FORGETFUL, Cluster, Gate, Raising, dark
from tests.conformance.flows import add, counts, parent_of_waiter, waiter
from tests.journal.harness import blocked
from tests.journal.proxy import Proxy, proxied
from tests.until import soon, until

# --- code


async def test_a_child_whose_code_nobody_has_waits_visibly(cluster: Cluster) -> None:
    """CH27 child code registered nowhere: visible as waiting, starts when a worker with it joins."""
    async with cluster.worker([parent_of_waiter], **FORGETFUL):
        run = await cluster.start(parent_of_waiter, "me", id="p")
        kid = await cluster.until_waiting("p/kid", "a worker with workflow 'waiter' version 1; none is running")
        assert kid.state == "pending"
        found = await cluster.until_waiting("p", "child kid", "waiter")
        assert found.state == "suspended"
        with pytest.raises(TimeoutError, match="child kid"):
            await run.result(timeout=0.05)
        await cluster.client.signal("p/kid", "go", "early")
        async with cluster.worker([waiter]):
            assert await run.result(timeout=10) == "parent of me early"


async def test_children_run_on_other_workers(cluster: Cluster) -> None:
    """CH35 children run on other workers than the parent's."""
    gate = Gate()

    @workflow
    async def kid(n: int) -> int:
        return await gate.held(n)

    @workflow
    async def parent(n: int) -> list[int]:
        return await await_children([start_child(kid, number, id=f"k{number}") for number in range(n)])

    async with cluster.worker([parent]) as parents, cluster.worker([kid, gate.held]) as kids:
        run = await cluster.start(parent, 30, id="p")
        await gate.entered(30)
        assert (await run.describe()).worker_id == parents.id
        assert {found.worker_id for found in (await cluster.children("p")).values()} == {kids.id}
        gate.open()
        assert await run.result(timeout=10) == list(range(30))


async def test_without_notifications_polls_find_everything(cluster: Cluster) -> None:
    """CH36 a parent with no local engine is picked up by the dispatcher's poll with all NOTIFYs dropped."""
    async with proxied(cluster.url) as proxy, cluster.at(proxy.url) as deaf:
        proxy.deaf = True
        async with deaf.worker([parent_of_waiter], **FORGETFUL), deaf.worker([waiter]):
            run = await deaf.start(parent_of_waiter, "me", id="p")
            await deaf.until_state("p/kid", "running")
            found = await deaf.until_state("p", "suspended")
            assert found.worker_id is None, "no engine has it"
            await deaf.client.signal("p/kid", "go", "on")
            assert await run.result(timeout=10) == "parent of me on"


# --- coming and going


async def test_due_timers_fire_after_downtime(cluster: Cluster) -> None:
    """CR07 due timers fire after downtime."""

    @workflow
    async def sleeper() -> str:
        await asyncio.sleep(0.1)
        await add(1, 1)
        await asyncio.sleep(0)
        return "awake"

    async with cluster.worker([sleeper, add]):
        runs = [await cluster.start(sleeper, id=f"r{number}") for number in range(5)]
        for run in runs:
            await cluster.until_state(run.id, "running")
    began = time.monotonic()

    async def due() -> bool:
        return time.monotonic() > began + 0.1

    await until(due)
    async with cluster.worker([sleeper, add]):
        assert await soon(asyncio.gather(*(run.result() for run in runs))) == ["awake"] * 5
    fired = [event for event in await runs[0].history() if event.type == "timer_fired"]
    found = await runs[0].describe()
    assert found.started_at is not None
    assert (fired[0].at - found.started_at).total_seconds() >= 0.09


async def test_a_drain_hands_over_at_once(cluster: Cluster) -> None:
    """LF16 drain stops claims first, hands over at once, is idempotent and bounded."""
    gate = Gate()

    @workflow
    async def busy() -> str:
        return await gate.held("done")

    async with cluster.worker([waiter, busy, gate.held], lease=60, drain=10) as first:
        waiting = [await cluster.start(waiter, f"w{number}", id=f"w{number}") for number in range(20)]
        at_work = await cluster.start(busy)
        await gate.entered()
        for run in waiting:
            await cluster.until_state(run.id, "running")
        stopping = asyncio.gather(first.stop(), first.stop())
        for run in waiting:
            assert (await cluster.until_state(run.id, "suspended")).worker_id is None
        assert not first.ready
        late = await cluster.start(waiter, "late")
        assert (await at_work.describe()).state == "running", "it keeps what runs"
        assert not stopping.done()
        gate.open()
        await soon(stopping)
        await soon(first.stop())
        assert await at_work.result(timeout=0.1) == "done"
        assert (await late.describe()).state == "pending"
        async with cluster.worker([waiter, busy, gate.held]):
            for run in (*waiting, late):
                await run.signal("go", "on")
            assert (await soon(asyncio.gather(*(run.result() for run in waiting))))[3] == "w3 on"
            assert await late.result(timeout=10) == "late on"


async def test_a_drain_in_the_middle_of_loading(cluster: Cluster, caplog: pytest.LogCaptureFixture) -> None:
    """LF16 drain hands over at once, also what is just being loaded."""
    run = await cluster.start(waiter, "x")
    async with cluster.worker([waiter]):  # one that nobody has held before has nothing to be loaded
        await cluster.until_state(run.id, "running")
    await run.signal("look", 1)  # so that somebody takes it up again
    caplog.set_level(logging.WARNING, "continuum.engine")
    with psycopg.connect(cluster.url) as somebody:
        somebody.execute("lock table continuum.events in access exclusive mode")
        async with cluster.worker([waiter], lease=60, drain=1) as worker:
            await blocked(cluster.url, "journal")
            stopping = asyncio.ensure_future(worker.stop())

            async def drains() -> bool:
                return not worker.ready

            await until(drains)
            somebody.rollback()
            await soon(stopping)
    assert [record.getMessage() for record in caplog.records if record.name == "continuum.engine"] == []
    assert (await run.describe()).worker_id is None


async def test_a_drain_does_not_wait_for_ever(cluster: Cluster) -> None:
    """LF16 drain is bounded: what still runs is stopped and is run again elsewhere."""
    gate = Gate()

    @workflow
    async def busy() -> str:
        await add(1, 1)
        return await gate.held("done")

    async with cluster.worker([busy, add, gate.held], lease=60, drain=0.05) as first:
        run = await cluster.start(busy)
        await gate.entered()
        await soon(first.stop())
        assert gate.ended == ["cancelled"]
        assert (await run.describe()).worker_id is None
    gate.open()
    async with cluster.worker([busy, add, gate.held]):
        assert await run.result(timeout=10) == "done"
    assert len(gate.calls) == 2


async def test_what_a_silent_worker_left_is_taken_over(cluster: Cluster) -> None:
    """CR04 an orphaned lease is taken over within a bound."""
    ran: list[int] = []
    gate = Gate()

    @activity
    async def note(n: int) -> int:
        ran.append(n)
        return n

    @workflow
    async def flow() -> list[object]:
        return [await note(1), await gate.held("held"), await note(2)]

    sources = [flow, note, gate.held]
    async with (
        proxied(cluster.url) as proxy,
        cluster.at(proxy.url) as behind,
        cluster.worker(sources) as heir,
        behind.worker(sources) as lost,
    ):
        run = await _start_on(cluster, flow, lost.id, gate)
        ran.clear()
        with dark(proxy):
            await gate.entered(len(gate.calls) + 1)
            assert (await run.describe()).worker_id == heir.id
            gate.open()
            assert await run.result(timeout=10) == [1, "held", 2]
        assert lost.id
    assert ran == [2], "what is recorded is not run again, and the lost worker goes on with nothing"
    assert [key for _, key in await cluster.entries(run.id)] == ["note-1", "held-1", "note-2"]


async def _start_on(cluster: Cluster, flow: Any, worker_id: str, gate: Gate) -> RunHandle[Any]:
    """Start runs until one is with this worker, and in its activity."""
    for number in range(100):
        before = len(gate.calls)
        run = await cluster.start(flow, id=f"r{number}")
        await gate.entered(before + 1)
        if (await run.describe()).worker_id == worker_id:
            return run
        await run.cancel()
    raise AssertionError("that worker takes nothing")


# --- trouble


@pytest.mark.parametrize("fault", ["lose_answer", "lose_client", "lose_statement"])
async def test_a_database_error_at_completion_is_no_failure(cluster: Cluster, fault: str) -> None:
    """CR13 a database error at completion is not a business failure."""
    struck = []

    @activity
    async def break_it(proxy_number: int) -> int:
        struck.append(getattr(proxies[proxy_number], fault)("flush"))
        return 7

    @workflow
    async def flow() -> int:
        try:
            return await break_it(0)
        except Exception:
            return 0

    proxies: list[Proxy] = []
    async with proxied(cluster.url) as proxy, cluster.at(proxy.url) as behind:
        proxies.append(proxy)
        async with behind.worker([flow, break_it, counts, add], lease=10):
            run = await cluster.start(flow, id="r")
            await soon(until(_any(struck)))
            await soon(struck[0].struck.wait())
            proxy.faults.clear()

            async def ended() -> bool:
                proxy.faults.clear()
                return (await run.describe()).completed_at is not None

            await until(ended)
            assert await run.result(timeout=10) == 7
            assert await cluster.result(counts, 5) == 10
    assert await cluster.entries("r") == [("activity_completed", "break_it-1")]


def _any(found: list[Any]) -> Callable[[], Awaitable[bool]]:
    async def there() -> bool:
        return bool(found)

    return there


@pytest.mark.parametrize("point", sorted(POINTS))
async def test_an_engine_task_that_dies_is_resumed_soon(
    cluster: Cluster, point: str, caplog: pytest.LogCaptureFixture
) -> None:
    """CR14 an engine task that dies on a healthy worker is resumed promptly, not after a lease time."""
    caplog.set_level(logging.CRITICAL, "continuum.engine")
    raising = Raising(point, "r")
    hooks = EngineHooks(points=raising)
    async with cluster.worker([counts, waiter, add], lease=60, hooks=hooks):
        run = await cluster.start(counts, 4, id="r")
        other = await cluster.start(counts, 4, id="s")
        assert await run.result(timeout=5) == 6
        assert await other.result(timeout=5) == 6
    assert raising.raised


async def test_a_fenced_worker_goes_on_with_other_runs(cluster: Cluster) -> None:
    """LF12 a fenced-out worker drops its copy and goes on with other runs."""
    gate, free = Gate(), Gate()

    @workflow
    async def held(name: str) -> str:
        return str(await (gate if name == "fenced" else free).held(name))

    async with cluster.worker([held, free.held]):
        fenced, other = await cluster.start(held, "fenced"), await cluster.start(held, "other")
        await gate.entered()
        await free.entered()
        await fenced.cancel()
        await until(_any(gate.ended))
        free.open()
        assert await other.result(timeout=10) == "other"
        assert await cluster.result(held, "new") == "new"
    assert gate.ended == ["cancelled"]


async def test_a_workflow_that_blocks_the_loop_is_reported(
    cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    """RP08 a workflow that blocks the loop is reported with its stack."""
    caplog.set_level(logging.WARNING, "continuum.engine")

    def reported() -> bool:
        return any("turn_that_blocks" in record.getMessage() for record in list(caplog.records))

    def turn_that_blocks() -> None:
        while not (reported() or patience.finished.is_set()):
            pass

    @workflow
    async def blocks() -> str:
        turn_that_blocks()
        return "done"

    patience = threading.Timer(5, lambda: None)
    patience.start()
    async with cluster.worker([blocks], blocked_after=0.1, lease=60):
        run = await cluster.start(blocks, id="slow-one")
        assert await run.result(timeout=10) == "done"
    patience.cancel()
    assert reported()
    assert any("slow-one" in record.getMessage() for record in caplog.records)
