"""Deleting what is over, through the client, beside workers that go on."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from continuum import (
    InvalidSetting,
    RunNotFound,
    continue_as_new,
    start_child,
    wait_signal,
    workflow,
)
from continuum.cli.prune import age
from tests.conformance.cluster import FORGETFUL, Cluster

NOW = timedelta(0)


@workflow
async def quick() -> str:
    return "done"


@workflow
async def waits() -> str:
    await wait_signal("go")
    return "gone on"


@workflow
async def parent(kept: bool) -> str:
    """Starts a child that ends and is never awaited, and one that lives as long as it is told to."""
    start_child(quick, id="quick")
    if kept:
        start_child(waits, id="kept")
    await wait_signal("go")
    return "ended"


async def ids(cluster: Cluster) -> set[str]:
    found = {run.id for run in await cluster.client.list_runs()}
    return found | {below.id for root in found for below in await cluster.client.tree(root)}


async def test_an_unawaited_child_of_a_live_parent_is_not_pruned(cluster: Cluster) -> None:
    """CH28 an unawaited child of a live parent is not pruned; with its parent it is."""
    async with cluster.worker([parent, quick], **FORGETFUL):
        run = await cluster.start(parent, False, id="p")
        await cluster.until_state("p/quick", "completed")
        await cluster.until_waiting("p", "signal go")
        assert await cluster.client.prune(older_than=NOW) == 0
        assert await ids(cluster) == {"p", "p/quick"}
        await run.signal("go")
        await run.result(timeout=10)
        assert await cluster.client.prune(older_than=timedelta(days=1)) == 0, "it ended just now"
        assert await cluster.client.prune(older_than=NOW) == 1
    assert await ids(cluster) == set()
    for gone in ("p", "p/quick"):
        with pytest.raises(RunNotFound):
            await cluster.client.get_run(gone).describe()
        with pytest.raises(RunNotFound):
            await cluster.client.get_run(gone).history()


async def test_a_child_that_lives_on_keeps_its_whole_tree(cluster: Cluster) -> None:
    """CH28 an abandoned child that lives keeps its ended parent, and ends as it would."""
    async with cluster.worker([parent, quick, waits], **FORGETFUL):
        run = await cluster.start(parent, True, id="p")
        await run.signal("go")
        await run.result(timeout=10)
        await cluster.until_state("p/quick", "completed")
        assert await cluster.client.prune(older_than=0) == 0
        assert await ids(cluster) == {"p", "p/quick", "p/kept"}
        await cluster.client.signal("p/kept", "go")
        assert await cluster.client.get_run("p/kept").result(timeout=10) == "gone on"
        assert await cluster.client.prune(older_than=0) == 1
    assert await ids(cluster) == set()


async def test_an_id_that_was_pruned_is_free_again(cluster: Cluster) -> None:
    """CH28 and nothing of the old run meets the new one."""
    async with cluster.worker([parent, quick, waits]):
        for _ in range(2):
            run = await cluster.start(parent, False, id="p")
            await run.signal("go")
            assert await run.result(timeout=10) == "ended"
            await cluster.until_state("p/quick", "completed")
            assert [kind for kind, _ in await cluster.entries("p")].count("signal_received") == 1
            assert await cluster.client.prune(older_than=0) == 1


async def test_at_most_so_many_trees_go_at_a_call(cluster: Cluster) -> None:
    """CH28 pruning is bounded, and says when nothing is left."""
    async with cluster.worker([quick]):
        for number in range(5):
            await cluster.result(quick, id=f"r{number}")
    assert [await cluster.client.prune(older_than=0, limit=2) for _ in range(4)] == [2, 2, 1, 0]


@workflow
async def counts(n: int) -> int:
    await wait_signal("on")
    if n < 5:
        continue_as_new(n + 1)
    return n


@pytest.mark.parametrize("settings", [{}, FORGETFUL], ids=["resident", "forgetful"])
async def test_old_generations_can_be_pruned_while_the_run_goes_on(
    cluster: Cluster, settings: dict[str, Any]
) -> None:
    """CN10 old generations can be pruned; the run does not notice."""
    async with cluster.worker([counts], **settings):
        run = await cluster.start(counts, 1, id="c")
        for number in range(2, 5):
            await run.signal("on")
            await cluster.until_generation("c", number)
        before = await run.history()
        assert {event.generation for event in before} == {1, 2, 3, 4}
        assert await run.prune_generations(keep=2) == len([e for e in before if e.generation < 3])
        assert await run.history() == [event for event in before if event.generation >= 3]
        assert await run.prune_generations(keep=2) == 0
        assert await run.prune_generations() == len([e for e in before if e.generation == 3])
        assert await run.history() == [event for event in before if event.generation == 4]
    async with cluster.worker([counts], **settings):
        for _ in range(2):
            await run.signal("on")
        assert await run.result(timeout=10) == 5
    assert (await run.describe()).input == 1, "that of the first generation stands in the row"


async def test_what_cannot_be_pruned_is_refused(cluster: Cluster) -> None:
    """CN10 what is no number of generations is refused, and a run that is not there."""
    run = cluster.client.get_run("nobody")
    with pytest.raises(RunNotFound):
        await run.prune_generations()
    for keep, kind in ((0, InvalidSetting), (-1, InvalidSetting), ("2", TypeError), (True, TypeError)):
        with pytest.raises(kind, match="keep is a whole number"):
            await run.prune_generations(keep=keep)  # type: ignore[arg-type]
    for older_than, kind in ((-1, ValueError), (float("nan"), ValueError), ("30d", TypeError), (None, TypeError)):
        with pytest.raises(kind, match="older_than"):
            await cluster.client.prune(older_than=older_than)  # type: ignore[arg-type]
    with pytest.raises(InvalidSetting, match="limit is a whole number from 1"):
        await cluster.client.prune(older_than=0, limit=0)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("30d", timedelta(days=30)),
        ("2w", timedelta(days=14)),
        ("1.5h", timedelta(minutes=90)),
        ("10 min", timedelta(minutes=10)),
        ("0s", timedelta(0)),
    ],
)
def test_an_age_is_read(text: str, meant: timedelta) -> None:
    assert age(text) == meant
