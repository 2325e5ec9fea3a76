"""What runs inherit and may know of themselves, and what a child says to its parent, through real workers."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from opentelemetry import trace

from continuum import (
    Retry,
    activity,
    activity_info,
    child,
    continue_as_new,
    parent,
    run_info,
    start_child,
    wait_signal,
    workflow,
)
from tests.conformance.cluster import FORGETFUL, Cluster

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
BOTH = pytest.mark.parametrize("settings", [{}, FORGETFUL], ids=["resident", "forgetful"])
Labels = list[Any]


def labels() -> Labels:
    info = run_info()
    return [info.namespace, info.attributes, info.traceparent]


@workflow
async def grandchild() -> list[Labels]:
    before = labels()
    await wait_signal("go")
    return [before, labels()]


@workflow
async def middle() -> list[Labels]:
    mine = labels()
    return [mine, *await child(grandchild, id="kid", attributes={"step": 2, "leaf": True})]


@workflow
async def top() -> list[Labels]:
    mine = labels()
    return [mine, *await child(middle, id="kid", attributes={"step": 1})]


@BOTH
async def test_labels_are_inherited_over_three_levels(cluster: Cluster, settings: dict[str, Any]) -> None:
    """CH10 namespace and attributes are inherited, a child's own attributes added. CH11 so is the trace context.

    The last level says so once live and once more when it was waiting: by a replay, if it has left memory.
    """
    given = {"tenant": "t1", "step": 0}
    expected = [
        ["blue", given, TRACE],
        ["blue", {"tenant": "t1", "step": 1}, TRACE],
        ["blue", {"tenant": "t1", "step": 2, "leaf": True}, TRACE],
    ]
    flows = [top, middle, grandchild]
    async with cluster.worker(flows, **settings), cluster.worker(flows, **settings):
        run = await cluster.start(top, id="p", namespace="blue", attributes=given, traceparent=TRACE)
        await (cluster.until_waiting("p/kid/kid", "signal go") if settings else born(cluster, "p/kid/kid"))
        await cluster.client.signal("p/kid/kid", "go")
        assert await run.result(timeout=10) == [*expected, expected[-1]]
    tree = await cluster.client.tree("p")
    assert [[found.namespace, found.attributes, found.traceparent] for found in tree] == expected
    light = await cluster.client.tree("p", values=False)
    assert [(found.id, found.state, found.input, found.result) for found in light[1:]] == [
        (found.id, found.state, None, None) for found in tree[1:]
    ]


async def born(cluster: Cluster, run_id: str) -> None:
    """Wait until there is such a run."""
    await cluster.until_state(run_id, "pending", "running", "suspended")


async def test_who_goes_through_its_attributes_does_so_alike_in_another_worker(cluster: Cluster) -> None:
    """CH10 the order of names and the spelling of numbers are the same before the database has seen them."""
    said: list[str] = []

    @workflow
    async def lists() -> str:
        for name, given in run_info().attributes.items():
            await echo(f"{name}: {given!r}")
        return await wait_signal("go", str)

    @workflow
    async def above() -> str:
        return await child(lists, id="kid", attributes={"zz": 1e20, "a": {"d": -0.0, "c": 1}, "bbb": 2})

    @activity
    async def echo(words: str) -> None:
        said.append(words)

    for round_ in range(2):
        async with cluster.worker([above, lists, echo]):
            if round_ == 0:
                run = await cluster.start(above, id="p", attributes={"y": 1e16, "b": 1})
                await cluster.until_entry("p/kid", "activity_completed", "echo-5")
            else:
                await cluster.client.signal("p/kid", "go", "on")
                assert await run.result(timeout=10) == "on"
    assert said == [
        "a: {'c': 1, 'd': 0.0}",
        "b: 1",
        "bbb: 2",
        "y: 10000000000000000",
        "zz: 100000000000000000000",
    ]


@BOTH
async def test_labels_stay_from_generation_to_generation(cluster: Cluster, settings: dict[str, Any]) -> None:
    """CN04 attributes, namespace and parent link stay; a child of a later generation inherits the same."""

    @workflow
    async def chain(seen: list[Labels]) -> list[Labels]:
        await asyncio.sleep(0.02)
        info = run_info()
        seen.append([info.generation, info.parent_run_id, *labels()])
        if len(seen) < 3:
            continue_as_new(seen)
        return [*seen, await child(tells)]

    @workflow
    async def tells() -> Labels:
        return labels()

    @workflow
    async def root() -> list[Labels]:
        return await child(chain, [], id="kid", attributes={"own": 1})

    given: dict[str, Any] = {"tenant": "t1"}
    async with cluster.worker([root, chain, tells], **settings):
        run = await cluster.start(root, id="p", namespace="blue", attributes=given, traceparent=TRACE)
        inherited = ["blue", {**given, "own": 1}, TRACE]
        assert await run.result(timeout=10) == [*([n, "p", *inherited] for n in (1, 2, 3)), inherited]


@BOTH
async def test_a_child_signals_its_parent(cluster: Cluster, settings: dict[str, Any]) -> None:
    """CH21 a child reports to its parent by signals, each once, in their order."""

    @workflow
    async def reporter(count: int) -> str:
        above = parent()
        assert above is not None
        for number in range(count):
            above.signal("progress", number)
            await asyncio.sleep(0.005)
        return above.id

    @workflow
    async def listens(count: int) -> list[Any]:
        ref = start_child(reporter, count, id="kid")
        heard = [await wait_signal("progress", int) for _ in range(count)]
        return [*heard, await ref]

    async with cluster.worker([listens, reporter], **settings), cluster.worker([listens, reporter], **settings):
        run = await cluster.start(listens, 12, id="p")
        assert await run.result(timeout=10) == [*range(12), "p"]
    assert [key for kind, key in await cluster.entries("p") if kind == "signal_received"] == ["progress"] * 12


async def test_a_signal_to_a_parent_that_has_ended_is_nothing(cluster: Cluster) -> None:
    """CH21 a signal to a parent that has ended changes nothing, and harms nobody."""

    @workflow
    async def late() -> str:
        await wait_signal("go")
        above = parent()
        assert above is not None
        above.signal("progress", 1)
        await asyncio.sleep(0)
        return "said"

    @workflow
    async def leaves() -> None:
        start_child(late, id="kid")

    async with cluster.worker([leaves, late]):
        await cluster.result(leaves, id="p")
        before = await cluster.client.get_run("p").describe()
        await cluster.client.signal("p/kid", "go")
        assert await cluster.client.get_run("p/kid").result(timeout=10) == "said"
        assert await cluster.client.get_run("p").describe() == before


async def test_an_activity_knows_what_it_is_called_for_and_is_part_of_the_trace(cluster: Cluster) -> None:
    """CH11 the trace context reaches activities, on the loop and in threads, in each attempt."""
    told: list[Any] = []

    def note() -> None:
        info, span = activity_info(), trace.get_current_span().get_span_context()
        told.append((info.run_id, info.generation, info.key, info.name, info.attempt, info.traceparent))
        assert f"00-{span.trace_id:032x}-{span.span_id:016x}-{span.trace_flags:02x}" == TRACE
        assert span.is_remote
        if info.attempt == 1:
            raise OSError("again")

    @activity(retry=Retry(max_attempts=2, initial=0))
    async def on_loop() -> None:
        await asyncio.sleep(0)
        note()

    @activity(retry=Retry(max_attempts=2, initial=0))
    def in_thread() -> None:
        note()

    @workflow
    async def kid(again: bool) -> None:
        await on_loop()
        await in_thread()
        if again:
            continue_as_new(False)

    @workflow
    async def root() -> None:
        await child(kid, True, id="kid")

    async with cluster.worker([root, kid, on_loop, in_thread]):
        await cluster.result(root, id="p", traceparent=TRACE)
    assert told == [
        ("p/kid", generation, f"{name}-1", name, attempt, TRACE)
        for generation in (1, 2)
        for name in ("on_loop", "in_thread")
        for attempt in (1, 2)
    ]


async def test_a_run_without_a_trace_has_activities_without_one(cluster: Cluster) -> None:
    """CH11 no trace context is made up."""

    @activity
    async def looks() -> list[Any]:
        return [activity_info().traceparent, trace.get_current_span().get_span_context().is_valid]

    @workflow
    async def flow() -> list[Any]:
        return [run_info().traceparent, *await looks()]

    async with cluster.worker([flow, looks]):
        assert await cluster.result(flow) == [None, None, False]


@BOTH
async def test_each_attempt_of_a_child_knows_its_number_and_keeps_its_labels(
    cluster: Cluster, settings: dict[str, Any]
) -> None:
    """CH34 retry of a child: ``run_info().attempt``. CH10 namespace and attributes stay."""

    @workflow
    async def fickle() -> list[Any]:
        await asyncio.sleep(0.01)
        if run_info().attempt < 3:
            raise ValueError("not yet")
        return [run_info().attempt, run_info().generation, *labels()]

    @workflow
    async def root() -> list[Any]:
        return await child(fickle, id="kid", retry=Retry(max_attempts=5, initial=0.01), attributes={"own": 1})

    async with cluster.worker([root, fickle], **settings):
        run = await cluster.start(root, id="p", namespace="blue", attributes={"tenant": "t1"}, traceparent=TRACE)
        assert await run.result(timeout=10) == [3, 3, "blue", {"tenant": "t1", "own": 1}, TRACE]
