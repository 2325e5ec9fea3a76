"""Families of every shape: deep, wide, many, and one whose parent is out of memory while its children run.

The rule: the shapes are small here, and as large as users have them with CONTINUUM_LONG=1.
"""

from __future__ import annotations

import asyncio
import os

import pytest

from continuum import RunHandle, activity, await_children, start_child, workflow
from continuum._engine.hooks import EngineHooks
from tests.conformance.cluster import Cluster
from tests.until import PATIENCE_S, until

LONG = bool(os.environ.get("CONTINUUM_LONG"))
LEVELS = (10, 10, 10, 10) if LONG else (3, 3, 3, 3)
OF_ONE = 10_000 if LONG else 1_000
PARENTS, EACH = (1_000 if LONG else 30), 10
BATCHES, A_BATCH = 3, (300 if LONG else 60)  # all in activities at once: a worker has 1,000
ENOUGH_S = 180.0 if LONG else PATIENCE_S
REPLAYS_A_BATCH = 3  # one is needed; a batch may come in parts


@workflow
async def leaf(number: int) -> int:
    return number


@workflow
async def many_leaves(count: int) -> int:
    return sum(await await_children([start_child(leaf, number) for number in range(count)]))


@workflow
async def tree(levels: list[int]) -> int:
    """Have as many children as the first level says, each with the other levels below it; count the leaves."""
    if not levels:
        return 1
    return sum(
        await await_children([start_child(tree, levels[1:], id=f"c{number}") for number in range(levels[0])])
    )


async def test_four_levels_of_fan_out_complete(cluster: Cluster) -> None:
    """CH37 four levels of fan-out complete, and nobody in between is left."""
    expected = [1]
    for width in LEVELS:
        expected.append(expected[-1] * width)
    async with cluster.worker([tree]), cluster.worker([tree]):
        run = await cluster.start(tree, list(LEVELS), id="t")
        assert await run.result(timeout=ENOUGH_S) == expected[-1]
    found = await cluster.client.tree("t", limit=20_000)
    assert {one.state for one in found} == {"completed"}
    assert [sum(one.depth == depth for one in found) for depth in range(len(expected))] == expected


async def test_very_many_children_of_one_parent_complete(cluster: Cluster) -> None:
    """CH02 a fan-out of thousands: every result comes back, and each child leaves two entries."""
    async with cluster.worker([many_leaves, leaf]), cluster.worker([leaf]):
        run = await cluster.start(many_leaves, OF_ONE)
        assert await run.result(timeout=ENOUGH_S) == sum(range(OF_ONE))
    kinds = [event.type for event in await run.history()]
    assert kinds.count("child_started") == kinds.count("child_completed") == OF_ONE
    assert len(kinds) == 2 * OF_ONE


async def test_very_many_parents_complete(cluster: Cluster) -> None:
    """CH01 every one of many parents gets its own children's results."""
    async with cluster.worker([many_leaves, leaf]), cluster.worker([many_leaves, leaf]):
        runs: list[RunHandle[int]] = [await cluster.start(many_leaves, EACH) for _ in range(PARENTS)]
        results = await asyncio.gather(*(run.result(timeout=ENOUGH_S) for run in runs))
    assert results == [sum(range(EACH))] * PARENTS


class Loads:
    """Counts how often a worker reads a run's journal."""

    def __init__(self, run_id: str) -> None:
        self._run_id = run_id
        self.count = 0

    def at(self, point: str, run_id: str) -> None:
        self.count += (point, run_id) == ("claim.adopted", self._run_id)


@pytest.mark.parametrize("where", ["elsewhere", "here"])
async def test_a_passivated_parent_is_replayed_for_each_batch_and_not_for_each_child(
    cluster: Cluster, where: str
) -> None:
    """CH29 a parent that is out of memory while its children run costs a replay a batch of outcomes."""
    opened = [asyncio.Event() for _ in range(BATCHES)]
    entered: list[int] = []
    begun: list[int] = []

    @activity
    async def held(batch: int) -> None:
        entered.append(batch)
        await opened[batch].wait()

    @workflow
    async def waits(batch: int) -> int:
        await held(batch)
        return batch

    @workflow
    async def parent() -> int:
        begun.append(1)
        refs = [start_child(waits, batch) for batch in range(BATCHES) for _ in range(A_BATCH)]
        return sum(await await_children(refs))

    async def all_entered() -> bool:
        return len(entered) == BATCHES * A_BATCH

    loads, theirs = Loads("p"), [waits, held]
    ours = [parent] if where == "elsewhere" else [parent, *theirs]
    async with (
        cluster.worker(ours, passivate_after=0.2, hooks=EngineHooks(points=loads)),
        cluster.worker(theirs),
    ):
        run = await cluster.start(parent, id="p")
        await until(all_entered)
        before, loads_before = len(begun), loads.count
        for batch, event in enumerate(opened):
            await _has_outcomes(cluster, batch * A_BATCH)
            found = await cluster.until_state("p", "suspended")
            assert found.worker_id is None, "it is out of memory"
            event.set()
        assert await run.result(timeout=ENOUGH_S) == sum(range(BATCHES)) * A_BATCH
    assert BATCHES <= len(begun) - before <= BATCHES * REPLAYS_A_BATCH
    assert BATCHES <= loads.count - loads_before <= BATCHES * REPLAYS_A_BATCH


async def _has_outcomes(cluster: Cluster, count: int) -> None:
    """Wait until so many outcomes are in the parent's journal."""

    async def there() -> bool:
        return sum(kind == "child_completed" for kind, _ in await cluster.entries("p")) >= count

    await until(there)
