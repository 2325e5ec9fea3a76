"""Which child is meant: ids, keys, refs that are kept or carried, through real workers."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from continuum import (
    ChildFailed,
    ChildRef,
    DuplicateChildId,
    await_children,
    child,
    continue_as_new,
    start_child,
    wait_signal,
    workflow,
)
from tests.conformance.cluster import FORGETFUL, Cluster
from tests.conformance.flows import add, double, fails, idle, waiter


async def test_a_replay_gives_the_same_ids_and_results(cluster: Cluster) -> None:
    """CH12 replay yields the same ids and results."""
    seen: list[list[str]] = []

    @workflow
    async def parent() -> tuple[list[str], list[int]]:
        refs = [start_child(double, 1), start_child(double, 2, id="named"), start_child(double, 3)]
        seen.append([ref.id for ref in refs])
        first = await refs[0]
        await wait_signal("go")
        return [ref.id for ref in refs], [first, *await await_children(refs)]

    sources = [parent, double, add]
    async with cluster.worker(sources):
        run = await cluster.start(parent, id="p")
        await cluster.until_entry("p", "child_completed", "double-2")
    before = await cluster.children("p")
    await run.signal("go")
    async with cluster.worker(sources):
        ids, results = await run.result(timeout=10)
    assert ids == ["p/double-1", "p/named", "p/double-2"] == seen[0] == seen[-1]
    assert len(seen) > 1, "it was replayed"
    assert results == [2, 2, 4, 6]
    assert await cluster.children("p") == before, "no child is new, and none was run again"


async def test_ids_are_made_of_the_parents_id_and_a_key(cluster: Cluster) -> None:
    """CH16 the id is `{parent}/{key}`, unnamed ordinals per name and task path."""

    @workflow
    async def other(n: int) -> int:
        return n

    @workflow
    async def parent() -> list[str]:
        async def two() -> list[str]:
            return [start_child(double, 1).id, start_child(other, 1).id, start_child(double, 2).id]

        ids = await two()
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(two()), group.create_task(two())]
        return [*ids, start_child(double, 9, id="mine").id, *tasks[0].result(), *tasks[1].result()]

    async with cluster.worker([parent, double, other, add]):
        ids = await cluster.result(parent, id="p")
    main = ["p/double-1", "p/other-1", "p/double-2", "p/mine"]
    assert ids[:4] == main
    assert ids[4:7] == [f"p/t1.{key}" for key in ("double-1", "other-1", "double-2")]
    assert ids[7:] == [f"p/t2.{key}" for key in ("double-1", "other-1", "double-2")]
    assert sorted(f"p/{key}" for key in await cluster.children("p")) == sorted(ids)


async def test_unawaited_children_are_reached_after_the_parent_continued(cluster: Cluster) -> None:
    """CH22 unawaited children stay reachable by the cascade after the parent continues as new."""

    @workflow
    async def parent(n: int) -> None:
        start_child(idle, id=f"kid{n}")
        if n:
            continue_as_new(n - 1)
        await idle.function()

    async with cluster.worker([parent, idle]):
        run = await cluster.start(parent, 2, id="p")
        await cluster.until_entry("p", "child_started", "kid0")
        await run.cancel()
        children = await cluster.children("p")
    assert {(key, found.state) for key, found in children.items()} == {(f"kid{n}", "cancelled") for n in range(3)}
    assert {found.error.type for found in children.values() if found.error} == {"parent_cancelled"}


@dataclass
class Relay:
    left: int
    refs: list[ChildRef[str]]


async def test_a_ref_is_carried_into_the_next_generation(cluster: Cluster) -> None:
    """CH23 a ref carried into the next generation can be awaited."""

    @workflow
    async def parent(relay: Relay) -> list[str]:
        if relay.left:
            relay.refs.append(start_child(waiter, f"kid{relay.left}", id=f"kid{relay.left}"))
            if relay.left == 1:  # the first has ended by now
                await wait_signal("on")
            continue_as_new(Relay(relay.left - 1, relay.refs))
        return await await_children(relay.refs)

    async with cluster.worker([parent, waiter], **FORGETFUL):
        run = await cluster.start(parent, Relay(2, []), id="p")
        await cluster.until_entry("p", "child_started", "kid1")
        await cluster.client.signal("p/kid2", "go", "early")
        await cluster.until_state("p/kid2", "completed")
        await run.signal("on")
        await cluster.until_waiting("p", "child kid1")
        await cluster.client.signal("p/kid1", "go", "late")
        assert await run.result(timeout=10) == ["kid2 early", "kid1 late"]
    assert (await run.describe()).generation == 3


async def test_awaiting_a_ref_twice_gives_the_same_answer(cluster: Cluster) -> None:
    """CH24 awaiting a ref twice gives the same answer."""

    @workflow
    async def parent() -> list[str]:
        good, bad = start_child(double, 2), start_child(fails, "no")
        told = [str(await good)]
        for _ in range(2):
            try:
                await bad
            except ChildFailed as error:
                told.append(error.message)
        await wait_signal("go")
        outcomes = [await good.outcome(), await bad.outcome()]
        return [*told, str(await good), *(type(outcome).__name__ for outcome in outcomes)]

    sources = [parent, double, fails, add]
    async with cluster.worker(sources, **FORGETFUL):
        run = await cluster.start(parent, id="p")
        await cluster.until_waiting("p", "signal go")
        await run.signal("go")
        assert await run.result(timeout=10) == ["4", "no", "no", "4", "Completed", "Failed"]


async def test_one_key_names_one_child(cluster: Cluster) -> None:
    """CH25 same key, same workflow and input: same child; otherwise `DuplicateChildId`."""

    @workflow
    async def parent() -> list[object]:
        first, again = start_child(double, 2, id="kid"), start_child(double, 2, id="kid")
        told: list[object] = [first == again]
        for flow, given in ((double, 3), (idle, None)):
            try:
                start_child(flow, given, id="kid")
            except DuplicateChildId as error:
                told.append("kid" in str(error))
        return [*told, await first, await again, await child(double, 2, id="kid")]

    async with cluster.worker([parent, double, idle, add]):
        assert await cluster.result(parent, id="p") == [True, True, True, 4, 4, 4]
    assert set(await cluster.children("p")) == {"kid"}


async def test_one_key_names_one_child_across_generations(cluster: Cluster) -> None:
    """CH25 same key in a later generation: the same child if it is the same, else raised at the first await."""

    @workflow
    async def changed(generation: int) -> list[str]:
        ref = start_child(waiter, f"kid{generation}", id="kid")
        if generation == 1:
            continue_as_new(2)
        try:
            return [await ref]
        except DuplicateChildId as error:
            return [str("kid" in str(error))]

    @workflow
    async def unchanged(generation: int) -> list[str]:
        ref = start_child(waiter, "kid", id="kid")
        if generation < 3:
            continue_as_new(generation + 1)
        return [await ref]

    @workflow
    async def ended(generation: int) -> int:
        result = await child(double, 4, id="kid")
        if generation < 3:
            continue_as_new(generation + 1)
        return result

    async with cluster.worker([changed, unchanged, ended, waiter, double, add], **FORGETFUL):
        assert await cluster.result(ended, 1, id="e") == 8
        assert await cluster.result(changed, 1, id="c") == ["True"]
        run = await cluster.start(unchanged, 1, id="u")
        await cluster.until_waiting("u", "child kid")
        await cluster.client.signal("u/kid", "go", "went")
        assert await run.result(timeout=10) == ["kid went"]
    assert set(await cluster.children("u")) == {"kid"} == set(await cluster.children("e"))
