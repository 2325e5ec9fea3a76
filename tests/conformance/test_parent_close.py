"""Parents that end first, through real workers: children that close with them, and children that go on."""

from __future__ import annotations

from typing import Any

import pytest

from continuum import (
    RunCancelled,
    RunFailed,
    await_children,
    child,
    continue_as_new,
    start_child,
    wait_signal,
    workflow,
)
from tests.conformance.cluster import FORGETFUL, Cluster, Told
from tests.conformance.flows import add, idle
from tests.until import soon

GONE, HERE = "cancelled", ("pending", "running", "suspended")


@workflow
async def level(depth: int) -> None:
    """Start a child of each policy, that is such a run itself, and wait for ever."""
    if depth:
        start_child(level, depth - 1, id="closes", on_parent_close="cancel")
        start_child(level, depth - 1, id="stays")
    await wait_signal("never")


@workflow
async def top(ending: str) -> str:
    start_child(level, 2, id="closes", on_parent_close="cancel")
    start_child(level, 2, id="stays", on_parent_close="abandon")
    await wait_signal("end")
    if ending == "fails":
        raise ValueError("no")
    return "done"


async def states(cluster: Cluster, run_id: str) -> dict[str, str]:
    found = await cluster.client.tree(run_id)
    return {one.id.removeprefix(f"{run_id}/"): one.state for one in found if one.id != run_id}


@pytest.mark.parametrize("settings", [{}, FORGETFUL], ids=["resident", "forgetful"])
@pytest.mark.parametrize("ending", ["returns", "fails"])
async def test_a_parent_that_ends_first_abandons_or_cancels(
    cluster: Cluster, settings: dict[str, float], ending: str
) -> None:
    """CH26 three levels: what closes falls with all below it, what stays goes on with all below it."""
    async with cluster.worker([top, level], **settings), cluster.worker([top, level], **settings):
        run = await cluster.start(top, ending, id="t")
        for branch in ("closes", "stays"):
            for below in ("closes", "stays"):
                await cluster.until_entry(f"t/{branch}/{below}", "child_started", "stays")
        awaiting = cluster.client.get_run("t/closes/stays").result(timeout=10)
        await run.signal("end")
        if ending == "fails":
            with pytest.raises(RunFailed):
                await run.result(timeout=10)
        else:
            assert await run.result(timeout=10) == "done"
        found = await states(cluster, "t")
        with pytest.raises(RunCancelled):
            await soon(awaiting)
    assert len(found) == 14
    assert {state for run_id, state in found.items() if run_id.startswith("closes")} == {GONE}
    assert {state for run_id, state in found.items() if run_id.startswith("stays")} <= set(HERE)
    errors = {one.id: one.error for one in await cluster.client.tree("t") if one.error is not None}
    assert {str(error and error.type) for run_id, error in errors.items() if run_id.startswith("t/closes/")} == {
        "parent_cancelled"
    }
    closed = errors["t/closes"]
    assert (closed.type, "'t' ended" in closed.message) == ("parent_closed", True)


async def test_children_that_have_ended_stay_as_they_are(cluster: Cluster) -> None:
    """CH26 with all of them ended nothing is closed."""

    @workflow
    async def kid(n: int) -> int:
        return await add(n, n)

    @workflow
    async def parent() -> int:
        refs = [start_child(kid, n, id=f"k{n}", on_parent_close="cancel") for n in range(3)]
        return sum(await await_children(refs))

    async with cluster.worker([parent, kid, add]):
        assert await cluster.result(parent, id="p") == 6
    assert set((await states(cluster, "p")).values()) == {"completed"}


async def test_a_chain_closes_the_children_of_all_its_generations_at_its_end(cluster: Cluster) -> None:
    """CH26, CN06 continue-as-new is no close."""

    @workflow
    async def chain(n: int) -> str:
        if n < 2:  # the last one has none of its own
            start_child(idle, id=f"of-{n}", on_parent_close="cancel")
            continue_as_new(n + 1)
        await wait_signal("end")
        return "done"

    async with cluster.worker([chain, idle], **FORGETFUL):
        run = await cluster.start(chain, 0, id="c")
        await cluster.until_generation("c", 3)
        assert set((await states(cluster, "c")).values()) <= set(HERE)
        await run.signal("end")
        assert await run.result(timeout=10) == "done"
        assert await states(cluster, "c") == {"of-0": GONE, "of-1": GONE}


async def test_a_parent_that_ends_at_once_closes_what_it_has_just_started(cluster: Cluster) -> None:
    """CH26, CH31 start and close in one commit."""

    @workflow
    async def parent() -> str:
        for n in range(5):
            start_child(idle, id=f"k{n}", on_parent_close="cancel")
        return "done"

    async with cluster.worker([parent, idle]):
        assert await cluster.result(parent, id="p") == "done"
        assert set((await states(cluster, "p")).values()) == {GONE}


async def test_a_child_that_closes_its_children_tells_its_parent(cluster: Cluster) -> None:
    """CH26, CH01 such an end reaches the parent as any other."""
    told = Told()

    @workflow
    async def kid() -> str:
        start_child(idle, id="below", on_parent_close="cancel")
        return "ended"

    @workflow
    async def parent() -> list[Any]:
        return [await child(kid, id=f"k{n}") for n in range(3)]

    async with cluster.worker([parent, kid, idle], listeners=[told]):
        assert await cluster.result(parent, id="p") == ["ended"] * 3
    found = await states(cluster, "p")
    assert [found[f"k{n}/below"] for n in range(3)] == [GONE] * 3
    assert len(told.of("child.completed", parent_run_id="p")) == 3
