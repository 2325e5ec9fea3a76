"""Many children at once, through real workers."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from continuum import (
    Cancelled,
    ChildCancelled,
    ChildFailed,
    Completed,
    Failed,
    RunNotActive,
    as_completed,
    await_children,
    child,
    side_effect,
    start_child,
    wait_signal,
    workflow,
)
from tests.conformance.cluster import FORGETFUL, Cluster, Gate
from tests.conformance.flows import add, double, fails, idle, waiter
from tests.until import soon


async def test_a_fan_out_keeps_the_order_of_its_refs(cluster: Cluster) -> None:
    """CH02 fan-out of many keeps the order of refs."""

    @workflow
    async def parent(n: int) -> list[list[int]]:
        refs = [start_child(double, number, id=f"n{number}") for number in range(n)]
        return [
            list(await asyncio.gather(*refs)),
            await await_children(refs),
            [await ref for ref in reversed(refs)],
        ]

    async with cluster.worker([parent, double, add]), cluster.worker([parent, double, add]):
        for n in (300, 2200):
            gathered, awaited, backwards = await cluster.result(parent, n)
            assert gathered == awaited == list(range(0, 2 * n, 2)) == backwards[::-1]


@pytest.mark.parametrize("settings", [{}, FORGETFUL], ids=["resident", "forgetful"])
async def test_children_go_together_with_everything_else(cluster: Cluster, settings: dict[str, float]) -> None:
    """CH21 composes with side effects, timers, signals."""
    calls: list[str] = []

    @workflow
    async def kid(name: str) -> list[str]:
        drawn = side_effect(lambda: calls.append(name) or f"drawn by {name}", type=str)
        await asyncio.sleep(0.02)
        return [drawn, await wait_signal("go", str), str(await add(1, 2))]

    @workflow
    async def parent() -> list[list[str]]:
        refs = [start_child(kid, name, id=name) for name in "abc"]
        drawn = side_effect(lambda: calls.append("parent") or 7, type=int)
        await asyncio.sleep(0.03)
        for ref in refs:
            ref.signal("go", f"{drawn}")
        try:
            async with asyncio.timeout(0.01):
                await wait_signal("never")
        except TimeoutError:
            return await await_children(refs)
        raise AssertionError("it came")

    async with cluster.worker([parent, kid, add], **settings):
        result = await cluster.result(parent)
    assert result == [[f"drawn by {name}", "7", "3"] for name in "abc"]
    assert sorted(calls) == ["a", "b", "c", "parent"]


async def test_starts_before_a_wait_are_one_commit(cluster: Cluster) -> None:
    """CH31 N starts before a wait are one commit."""

    @workflow
    async def parent(n: int) -> None:
        refs = [start_child(double, number, id=f"n{number:04}") for number in range(n)]
        start_child(idle)
        await refs[0]

    async with cluster.worker([parent]):
        for n in (50, 3000):
            run = await cluster.start(parent, n, id=f"p{n}")
            await cluster.until_entry(run.id, "child_started")
            assert [kind for kind, _ in await cluster.entries(run.id)] == ["child_started"] * (n + 1)
            assert cluster.transactions(run.id) == 1
            children = await cluster.client.list_children(run.id, limit=5000)
            assert len(children) == n + 1
            assert len({found.created_at for found in children}) == 1, "they were inserted in one transaction"
            await run.cancel()


@pytest.mark.parametrize("settings", [{}, FORGETFUL], ids=["resident", "forgetful"])
async def test_what_decided_among_many_survives_a_replay(cluster: Cluster, settings: dict[str, float]) -> None:
    """CH33 `outcome()`, `await_children`, `as_completed`; the deciding set survives replay."""
    decided: list[list[str]] = []

    @workflow
    async def parent() -> tuple[list[str], list[str], list[str]]:
        refs = [start_child(waiter, f"k{number}", id=f"k{number}") for number in range(6)]
        refs.append(start_child(fails, "no", id="bad"))
        first: list[str] = []
        async for ref in as_completed(refs):
            first.append(ref.id)
            if len(first) == 3:
                break
        decided.append(first)
        await wait_signal("on")
        refs[5].cancel("enough")
        kinds: list[str] = []
        for ref in refs:
            match await ref.outcome():
                case Completed(value):
                    kinds.append(value)
                case Failed(error):
                    kinds.append(error.message)
                case Cancelled(reason):
                    kinds.append(reason)
        everything = await await_children(refs, return_exceptions=True)
        try:
            await await_children(refs)
        except (ChildFailed, ChildCancelled) as error:
            kinds.append(f"first: {error.message}")
        return first, kinds, [type(one).__name__ for one in everything]

    sources = [parent, waiter, fails]
    async with cluster.worker(sources, **settings):
        run = await cluster.start(parent, id="p")
        await cluster.until_entry("p", "child_failed", "bad")
        for number in (3, 1):
            await cluster.client.signal(f"p/k{number}", "go", "now")
            await cluster.until_entry("p", "child_completed", f"k{number}")
    async with cluster.worker(sources, **settings):
        for number in (0, 2, 4):
            await cluster.client.signal(f"p/k{number}", "go", "then")
            await cluster.until_entry("p", "child_completed", f"k{number}")
        await run.signal("on")
        first, kinds, types = await run.result(timeout=10)
    assert first == ["p/bad", "p/k3", "p/k1"] == decided[0] == decided[-1]
    assert len(decided) > 1
    assert kinds == ["k0 then", "k1 now", "k2 then", "k3 now", "k4 then", "enough", "no", "first: no"]
    assert types == ["str"] * 5 + ["ChildCancelled", "ChildFailed"]


async def test_three_levels_of_fan_out_complete(cluster: Cluster) -> None:
    """CH37 three levels of fan-out (10 by 10 by 10) complete."""

    @workflow
    async def top(n: int) -> int:
        return sum(await await_children([start_child(middle, n, id=f"m{number}") for number in range(n)]))

    @workflow
    async def middle(n: int) -> int:
        return sum(await await_children([start_child(low, n, id=f"l{number}") for number in range(n)]))

    @workflow
    async def low(n: int) -> int:
        return sum(await asyncio.gather(*(child(leaf, number) for number in range(n))))

    @workflow
    async def leaf(n: int) -> int:
        return n

    async with cluster.worker([top, middle, low, leaf]), cluster.worker([top, middle, low, leaf]):
        assert await cluster.result(top, 10, id="t") == 10 * 10 * 45
    tree = await cluster.client.tree("t")
    assert len(tree) == 1111
    assert {(found.state, found.depth) for found in tree} == {("completed", depth) for depth in range(4)}


@pytest.mark.parametrize("named", [True, False], ids=["named", "unnamed"])
async def test_gathered_chains_replay_without_swapped_results(cluster: Cluster, named: bool) -> None:
    """CH38 gather over two-step chains of children replays with no swapped results."""
    gate, replays = Gate(), []

    @workflow
    async def first(n: int) -> int:
        await asyncio.sleep((n * 7 % 5) / 100)
        return n * 10

    @workflow
    async def second(n: int) -> int:
        if n % 3 == 0:
            await gate.held(n)
        return n + 1

    @workflow
    async def parent(count: int) -> list[int]:
        replays.append(1)

        async def chain(n: int) -> int:
            middle = await child(first, n, id=f"a{n}" if named else None)
            return await child(second, middle, id=f"b{n}" if named else None)

        return list(await asyncio.gather(*(chain(n) for n in range(count))))

    sources = [first, second, gate.held]
    async with cluster.worker(sources):
        async with cluster.worker([parent], **FORGETFUL):
            run = await cluster.start(parent, 20)
            await gate.entered(7)
        gate.open()
        async with cluster.worker([parent], **FORGETFUL):
            assert await run.result(timeout=10) == [n * 10 + 1 for n in range(20)]
    assert len(replays) > 1


async def test_children_that_complete_while_their_parent_is_cancelled(cluster: Cluster) -> None:
    """CH30 child completing while the parent is cancelled: no deadlock, no escape."""

    @workflow
    async def parent(n: int) -> list[int]:
        return await await_children([start_child(double, number) for number in range(n)])

    async with cluster.worker([parent, double, add]), cluster.worker([double, add]):
        for number in range(10):
            run = await cluster.start(parent, 40, id=f"p{number}")
            await cluster.until_entry(run.id, "child_started")
            with contextlib.suppress(RunNotActive):
                await soon(run.cancel())
            tree = await cluster.client.tree(run.id)
            assert {found.state for found in tree} <= {"completed", "cancelled"}, "nothing lives on"
