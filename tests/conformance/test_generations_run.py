"""Chains of generations, through real workers."""

from __future__ import annotations

import asyncio
import gc
import logging

import pytest

from continuum import RunCancelled, activity, child, continue_as_new, start_child, wait_signal, workflow
from continuum._engine.hooks import EngineHooks
from tests.conformance.cluster import FORGETFUL, Cluster, Gate, Raising
from tests.conformance.flows import add
from tests.journal.proxy import Proxy, proxied
from tests.until import until


@workflow
async def countdown(n: int) -> str:
    await add(n, n)
    if n:
        continue_as_new(n - 1)
    return "zero"


async def test_a_chain_has_one_id_and_a_fresh_history_each(cluster: Cluster) -> None:
    """CN01 same run id, next generation, fresh history, one commit."""
    async with cluster.worker([countdown, add]):
        run = await cluster.start(countdown, 2, id="r")
        assert await run.result(timeout=10) == "zero"
    found = await run.describe()
    assert (found.id, found.generation, found.input) == ("r", 3, 2)
    by_generation = [await run.history(generation) for generation in (1, 2, 3)]
    assert [[event.type for event in events] for events in by_generation] == [
        ["activity_completed"],
        ["run_started", "activity_completed"],
        ["run_started", "activity_completed"],
    ]
    assert [events[0].payload.get("input") for events in by_generation[1:]] == [1, 0]
    assert [
        event.payload["result"] for events in by_generation for event in events if "result" in event.payload
    ] == [
        4,
        2,
        0,
    ]


async def test_what_a_generation_left_does_not_reach_the_next(cluster: Cluster) -> None:
    """CN01 fresh history: timers and activities of the generation before are gone."""
    gate = Gate()

    @workflow
    async def chain(n: int) -> list[object]:
        left = [asyncio.create_task(asyncio.sleep(0.02)), asyncio.create_task(gate.held(n))]
        await add(n, n)
        if n:
            continue_as_new(n - 1)
        await wait_signal("go")
        return [task.done() for task in left]

    async with cluster.worker([chain, add, gate.held]):
        run = await cluster.start(chain, 3, id="r")
        await cluster.until_generation("r", 4)
        await cluster.until_entry("r", "timer_fired", generation=4)
        gate.open()
        await cluster.until_entry("r", "activity_completed", "held-1", generation=4)
        await run.signal("go")
        assert await run.result(timeout=10) == [True, True]
    last = [entry for entry in await cluster.entries("r", 4) if entry[0] in ("timer_fired", "activity_completed")]
    assert len(last) == 3
    assert gate.ended.count("returned") == 1


async def test_who_awaits_a_chain_gets_its_last_result(cluster: Cluster) -> None:
    """CN02 the final result only."""

    @workflow
    async def chain(n: int) -> int:
        if n < 30:
            continue_as_new(n + 1)
        return n

    async with cluster.worker([chain]), cluster.worker([chain]):
        assert await cluster.result(chain, 0) == 30


async def test_a_replay_in_a_later_generation_reaches_the_same_point(cluster: Cluster) -> None:
    """CN03 replay reaches the same point."""
    ran: list[int] = []

    @activity
    async def note(n: int) -> int:
        ran.append(n)
        return n

    @workflow
    async def chain(n: int) -> list[int]:
        found = [await note(n), await note(-n)]
        if n < 3:
            continue_as_new(n + 1)
        return [*found, await wait_signal("go", int), await note(n * 10)]

    async with cluster.worker([chain, note]):
        run = await cluster.start(chain, 1, id="r")
        await cluster.until_generation("r", 3)
    async with cluster.worker([chain, note]):
        await run.signal("go", 7)
        assert await run.result(timeout=10) == [3, -3, 7, 30]
    assert ran == [1, -1, 2, -2, 3, -3, 30]


async def test_what_a_run_is_labelled_with_stays(cluster: Cluster) -> None:
    """CN04 attributes, namespace, parent link stay."""

    @workflow
    async def parent() -> str:
        return await child(countdown, 3, id="kid")

    async with cluster.worker([parent, countdown, add]):
        run = await cluster.start(parent, id="p", namespace="blue")
        assert await run.result(timeout=10) == "zero"
    kid = (await cluster.children("p"))["kid"]
    assert (kid.parent_run_id, kid.namespace, kid.depth, kid.generation) == ("p", "blue", 1, 4)


@pytest.mark.parametrize("settings", [{}, FORGETFUL], ids=["resident", "forgetful"])
async def test_unread_signals_are_copied_in_order(cluster: Cluster, settings: dict[str, float]) -> None:
    """CN05 unread signals are copied and stay readable, in order."""

    @workflow
    async def reader(read: list[str]) -> list[str]:
        if not read:
            await wait_signal("begin")
        read.append(await wait_signal("word", str))
        if len(read) < 6:
            continue_as_new(read)
        return read

    async with cluster.worker([reader], **settings):
        run = await cluster.start(reader, [], id="r")
        for word in ("this", "is", "read"):
            await run.signal("word", word)
        await run.signal("begin")
        await cluster.until_generation("r", 4)
        for word in ("in", "this", "order"):
            await run.signal("word", word)
        assert await run.result(timeout=10) == ["this", "is", "read", "in", "this", "order"]


async def test_a_chain_is_cancelled_whatever_its_generation(cluster: Cluster) -> None:
    """CA12 a chain's run is cancelled whatever its generation."""

    @workflow
    async def chain(n: int) -> None:
        if n == 0:
            await wait_signal("never")
        continue_as_new(n - 1)

    async with cluster.worker([chain]):
        for generations in (0, 1, 5):
            run = await cluster.start(chain, generations)
            await cluster.until_generation(run.id, generations + 1)
            await run.cancel("enough")
            with pytest.raises(RunCancelled, match="enough"):
                await run.result(timeout=10)
            assert (await run.describe()).generation == generations + 1


@pytest.mark.parametrize("point", ["turn.begin", "turn.taken", "turn.committed"])
async def test_a_crash_while_continuing(cluster: Cluster, point: str, caplog: pytest.LogCaptureFixture) -> None:
    """CR12 kill mid-continue-as-new: exactly one next generation."""
    caplog.set_level(logging.CRITICAL)
    raising = Raising(point, "r", times=2)
    async with cluster.worker([countdown, add], lease=60, hooks=EngineHooks(points=raising)):
        run = await cluster.start(countdown, 5, id="r")
        assert await run.result(timeout=10) == "zero"
    assert raising.raised == 2
    await _has_generations(cluster, "r", 6)


@pytest.mark.parametrize("fault", ["lose_answer", "lose_client", "lose_statement"])
async def test_a_connection_lost_while_continuing(
    cluster: Cluster, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    """CR12 connection lost mid-continue-as-new: exactly one next generation."""
    caplog.set_level(logging.CRITICAL)

    @activity
    async def break_it(n: int) -> int:
        if n % 3 == 0:
            getattr(proxies[0], fault)("flush")
        return n

    @workflow
    async def breaking(n: int) -> str:
        await break_it(n)
        if n:
            continue_as_new(n - 1)
        return "zero"

    proxies: list[Proxy] = []
    async with (
        proxied(cluster.url) as proxy,
        cluster.at(proxy.url) as behind,
        behind.worker([breaking, break_it], lease=30),
    ):
        proxies.append(proxy)
        run = await cluster.start(breaking, 5, id="r")

        async def ended() -> bool:
            return (await run.describe()).state == "completed"

        await until(ended)
    await _has_generations(cluster, "r", 6)


async def _has_generations(cluster: Cluster, run_id: str, count: int) -> None:
    """Insist that there are so many generations, each of one activity."""
    events = await cluster.client.get_run(run_id).history()
    activities = [event.generation for event in events if event.type == "activity_completed"]
    assert activities == list(range(1, count + 1))
    assert (await cluster.client.get_run(run_id).describe()).generation == count


@workflow
async def with_a_helper(n: int) -> str:
    async def help_out() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            start_child(countdown, 0, id=f"stray-{n}")

    helper = asyncio.create_task(help_out())
    await asyncio.sleep(0)
    if n < 3:
        continue_as_new(n + 1)
    helper.cancel()
    return "done"


@workflow
async def collecting(n: int) -> int:
    for _ in range(6):
        gc.collect()
        await asyncio.sleep(0.005)
    return n


async def test_what_a_generation_leaves_behind_acts_nowhere(cluster: Cluster) -> None:
    """CN01 fresh history: tasks of the generation before are let go, and clean up in nobody's turn."""
    async with cluster.worker([with_a_helper, collecting, countdown, add]):
        others = [await cluster.start(collecting, at, id=f"other-{at}") for at in range(2)]
        run = await cluster.start(with_a_helper, 0, id="r")
        assert await run.result(timeout=10) == "done"
        for at, other in enumerate(others):
            assert await other.result(timeout=10) == at
            assert [event.type for event in await other.history()] == ["timer_fired"] * 6
            assert await cluster.children(other.id) == {}
