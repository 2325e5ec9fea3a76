"""Cancelling runs, through real workers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from continuum import (
    RunCancelled,
    RunNotActive,
    RunNotFound,
    await_children,
    child,
    start_child,
    wait_signal,
    workflow,
)
from tests.conformance.cluster import Cluster, Gate, failing
from tests.conformance.flows import add, counts, parent_of_waiter, waiter
from tests.until import soon, until


def _any(found: list[Any]) -> Callable[[], Awaitable[bool]]:
    async def there() -> bool:
        return bool(found)

    return there


async def test_runs_that_no_worker_has_are_cancelled(cluster: Cluster) -> None:
    """CA03 a suspended run without engine is cancelled."""
    never_begun = await cluster.start(parent_of_waiter, "x", id="pending")
    async with cluster.worker([parent_of_waiter, waiter]):
        suspended = await cluster.start(parent_of_waiter, "y", id="suspended")
        await cluster.until_entry("suspended", "child_started")
    again = await cluster.start(parent_of_waiter, "z", id="another")
    for run in (never_begun, suspended, again):
        assert (await run.describe()).worker_id is None
        await run.cancel("enough")
        with pytest.raises(RunCancelled, match="enough"):
            await run.result(timeout=1)
        assert {found.state for found in await cluster.client.tree(run.id)} == {"cancelled"}


async def test_another_workers_run_is_cancelled_and_that_worker_stops(cluster: Cluster) -> None:
    """CA06 a run owned by another live worker is cancelled and that worker stops."""
    gate = Gate()

    @workflow
    async def flow() -> None:
        for _ in range(10):
            await gate.held()

    async with cluster.worker([flow, gate.held]) as worker:
        run = await cluster.start(flow)
        await gate.entered()
        await run.cancel()
        await until(_any(gate.ended))

        async def gone() -> bool:
            return worker.status()["runs"] == 0

        await until(gone)
        gate.open()
        assert await run.history() == []
    assert len(gate.calls) == 1


async def test_an_activity_sees_the_cancellation(cluster: Cluster) -> None:
    """CA09 an in-place activity sees cancellation."""
    gate = Gate()

    @workflow
    async def kid() -> None:
        await gate.held("kid")

    @workflow
    async def parent() -> None:
        start_child(kid)
        await gate.held("parent")

    @workflow
    async def gives_up() -> str:
        try:
            async with asyncio.timeout(0.05):
                await gate.held("late")
        except TimeoutError:
            return await wait_signal("on", str)
        raise AssertionError("it returned")

    async with cluster.worker([parent, kid, gives_up, gate.held]):
        run = await cluster.start(parent)
        await gate.entered(2)
        await run.cancel()

        async def cancelled(times: int) -> bool:
            return gate.ended == ["cancelled"] * times

        await until(lambda: cancelled(2))
        run = await cluster.start(gives_up)
        await until(lambda: cancelled(3))
        await run.signal("on", "gave up")
        assert await run.result(timeout=10) == "gave up"


async def test_a_cancelled_tree(cluster: Cluster) -> None:
    """CH05 cancelling the parent cancels every in-flight descendant."""
    gate = Gate()

    @workflow
    async def tree(levels: int) -> None:
        if levels == 0:
            await gate.held()
            return
        await child(counts, 1, id="ended")
        await await_children([start_child(tree, levels - 1, id=f"k{number}") for number in range(3)])

    sources = [tree, counts, add, gate.held]
    async with cluster.worker(sources), cluster.worker(sources):
        run = await cluster.start(tree, 3, id="t")
        await gate.entered(27)
        awaiting = asyncio.gather(run.result(), cluster.client.get_run("t/k1/k1").result(), return_exceptions=True)
        await run.cancel("enough")
        found = await cluster.client.tree("t")
        histories = {one.id: await cluster.entries(one.id) for one in found}
        errors = await soon(awaiting)

        async def stopped() -> bool:
            return len(gate.ended) == 27

        await until(stopped)
        assert {one.id: await cluster.entries(one.id) for one in found} == histories
    ended = {one.id for one in found if one.state == "completed"}
    assert ended == {one.id for one in found if one.id.endswith("/ended")}
    assert {one.state for one in found if one.id not in ended} == {"cancelled"}
    assert [type(error).__name__ for error in errors] == ["RunCancelled"] * 2


async def test_descendants_of_a_cancelled_run_say_so(cluster: Cluster) -> None:
    """CH06 descendants carry error `parent_cancelled`."""
    async with cluster.worker([parent_of_waiter, waiter]):
        run = await cluster.start(parent_of_waiter, "x", id="p")
        await cluster.until_entry("p", "child_started")
        await run.cancel("enough")
        with pytest.raises(RunCancelled) as caught:
            await cluster.client.get_run("p/kid").result(timeout=10)
    assert caught.value.parent_cancelled
    root, kid = await cluster.client.tree("p")
    assert root.error is not None
    assert kid.error is not None
    assert (root.error.message, kid.error.type) == ("enough", "parent_cancelled")


async def test_nothing_is_journaled_after_a_cancel(cluster: Cluster) -> None:
    """CH07 no entry is ever appended to a run after its cancel commits, though its engine still runs."""
    async with cluster.worker([counts, add]) as worker:
        for number in range(10):
            run = await cluster.start(counts, 10_000, id=f"r{number}")
            await cluster.until_entry(run.id, "activity_completed")
            await run.cancel()
            entries = await cluster.entries(run.id)

            async def gone() -> bool:
                return worker.status()["runs"] == 0

            await until(gone)
            assert await cluster.entries(run.id) == entries


async def test_who_awaits_a_cancelled_run_is_told(cluster: Cluster) -> None:
    """CA07 awaiters of the run and of descendants wake."""

    @workflow
    async def parent() -> str:
        return await child(waiter, "kid", id="kid")

    async with cluster.worker([parent, waiter]):
        run = await cluster.start(parent, id="p")
        await cluster.until_state("p/kid", "running")
        awaiting = [asyncio.ensure_future(cluster.client.get_run(id).result()) for id in ("p", "p/kid", "p")]
        await asyncio.sleep(0)
        await run.cancel("enough")
        found = await soon(asyncio.gather(*awaiting, return_exceptions=True))
    assert [type(error) for error in found] == [RunCancelled] * 3


async def test_ended_and_unknown_runs_are_not_cancelled(cluster: Cluster) -> None:
    """CA05 ended run: `RunNotActive(state)`, nothing changes."""

    @workflow
    async def flow(fail: bool) -> str:
        if fail:
            raise ValueError("no")
        return "done"

    async with cluster.worker([flow]):
        runs = [await cluster.start(flow, fail) for fail in (False, True)]
        await soon(runs[0].result())
        await failing(runs[1])
    for run, state in zip(runs, ("completed", "failed"), strict=True):
        before = await run.describe()
        with pytest.raises(RunNotActive) as caught:
            await run.cancel()
        assert caught.value.state == state
        assert await run.describe() == before


async def test_an_unknown_run_is_not_cancelled(cluster: Cluster) -> None:
    """CA04 unknown run: `RunNotFound`."""
    with pytest.raises(RunNotFound):
        await cluster.client.cancel("nobody")


async def test_cancelling_twice_is_harmless(cluster: Cluster) -> None:
    """CA11 cancelling a cancelled run is harmless."""

    @workflow
    async def flow() -> None:
        await wait_signal("never")

    async with cluster.worker([flow]):
        run = await cluster.start(flow)
        await run.cancel("first")
        before = await run.describe()
        await run.cancel("second")
        assert await run.describe() == before
        with pytest.raises(RunCancelled, match="first"):
            await run.result(timeout=10)
