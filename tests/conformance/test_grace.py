"""Runs that are asked to stop and get a while for it, through real workers."""

from __future__ import annotations

import asyncio
import math
from datetime import timedelta
from typing import Any

import pytest

from continuum import (
    ChildCancelled,
    ChildFailed,
    Retry,
    RunCancelled,
    RunFailed,
    RunNotActive,
    RunNotFound,
    activity,
    child,
    continue_as_new,
    start_child,
    wait_signal,
    workflow,
)
from tests.conformance.cluster import FORGETFUL, Cluster, Gate, Told
from tests.conformance.flows import add, double, idle, waiter
from tests.until import until

LONG = 3600


@workflow
async def careful(mode: str) -> str:
    """Wait; when asked to stop, clean up with an activity and a child, and end as ``mode`` says."""
    start_child(idle, id="below")
    try:
        await wait_signal("never")
    except asyncio.CancelledError:
        await add(1, 2)
        await child(double, 3, id="clean-up")
        if mode == "returns":
            return "cleaned up"
        if mode == "fails":
            raise ValueError("the clean-up failed") from None
        if mode == "goes on":
            continue_as_new("returns")
        raise
    raise AssertionError("nobody sends that")


SOURCES = [careful, idle, double, add]


@workflow
async def deaf(what: str) -> None:
    """Wait for ever, asked to stop or not."""
    start_child(idle, id="below")
    while True:
        try:
            await wait_signal(what)
        except asyncio.CancelledError:
            continue


async def states(cluster: Cluster, run_id: str) -> dict[str, str]:
    found = await cluster.client.tree(run_id)
    return {one.id.removeprefix(run_id): one.state for one in found}


@pytest.mark.parametrize("settings", [{}, FORGETFUL], ids=["resident", "forgetful"])
@pytest.mark.parametrize("mode", ["re-raises", "goes on"])
async def test_clean_up_runs_and_then_all_below_falls(
    cluster: Cluster, settings: dict[str, float], mode: str
) -> None:
    """CA10 cooperative cancel: the clean-up awaits an activity and a child, then the cascade."""
    async with cluster.worker(SOURCES, **settings):
        run = await cluster.start(careful, mode, id="r")
        await cluster.until_state("r/below", "running", "suspended")
        await run.cancel("enough", grace=LONG)
        with pytest.raises(RunCancelled, match="enough"):
            await run.result(timeout=10)
    assert await states(cluster, "r") == {"": "cancelled", "/below": "cancelled", "/clean-up": "completed"}
    root, below, _ = await cluster.client.tree("r")
    assert root.error is not None
    assert below.error is not None
    assert (root.error.type, below.error.type) == ("cancelled", "parent_cancelled")
    kinds = [kind for kind, _ in await cluster.entries("r")]
    assert kinds[1:] == ["cancel_requested", "activity_completed", "child_started", "child_completed"]


async def test_a_run_that_returns_has_completed_and_leaves_what_is_below(cluster: Cluster) -> None:
    """CA10 returning completes it."""
    async with cluster.worker(SOURCES):
        run = await cluster.start(careful, "returns", id="r")
        await cluster.until_entry("r", "child_started")
        await run.cancel("enough", grace=timedelta(hours=1))
        assert await run.result(timeout=10) == "cleaned up"
        assert (await states(cluster, "r"))["/below"] in ("pending", "running", "suspended")
        with pytest.raises(RunNotActive):
            await run.cancel(grace=1)


async def test_a_run_whose_clean_up_fails_has_failed(cluster: Cluster) -> None:
    """CA10 raising something else fails it, whatever its retry policy."""

    @workflow
    async def parent() -> None:
        with pytest.raises(ChildFailed, match="the clean-up failed"):
            await child(careful, "fails", id="kid", retry=Retry(max_attempts=3))

    async with cluster.worker([parent, *SOURCES]):
        run = await cluster.start(parent, id="p")
        await cluster.until_entry("p/kid", "child_started")
        await cluster.client.cancel("p/kid", "enough", grace=LONG)
        await run.result(timeout=10)
        with pytest.raises(RunFailed, match="the clean-up failed"):
            await cluster.client.get_run("p/kid").result(timeout=10)
    assert (await cluster.client.get_run("p/kid").describe()).generation == 1


async def test_whoever_looks_at_a_run_that_was_asked_to_stop_is_told_until_it_has_ended(cluster: Cluster) -> None:
    async with cluster.worker([deaf, idle]):
        run = await cluster.start(deaf, "x", id="r")
        await cluster.until_state("r/below", "running", "suspended")
        assert (await run.describe()).stop_by is None
        await run.cancel("too dear", grace=LONG)
        found = await run.describe()
        assert found.stop_reason == "too dear"
        assert found.stop_by is not None
        assert found.stop_by > found.created_at + timedelta(seconds=LONG)
        for tree in (await cluster.client.tree("r"), await cluster.client.tree("r", values=False)):
            assert [(one.stop_by, one.stop_reason) for one in tree] == [(found.stop_by, "too dear"), (None, None)]
        assert [one.stop_by for one in await cluster.client.list_runs()] == [found.stop_by]
        with pytest.raises(TimeoutError, match=r"asked to stop by \d{4}-.* UTC \(too dear\)"):
            await run.result(timeout=0)
        await run.cancel("now")
        ended = await run.describe()
        assert (ended.stop_by, ended.stop_reason) == (None, None)


@pytest.mark.parametrize("settings", [{}, FORGETFUL], ids=["resident", "forgetful"])
async def test_a_run_that_does_not_stop_is_cancelled_when_the_grace_is_over(
    cluster: Cluster, settings: dict[str, float]
) -> None:
    """CA10 the deadline is kept by whoever is there."""
    async with cluster.worker([deaf, idle], **settings):
        run = await cluster.start(deaf, "x", id="r")
        await cluster.until_state("r/below", "running", "suspended")
        await run.cancel("enough", grace=0.05)
        with pytest.raises(RunCancelled, match="enough"):
            await run.result(timeout=10)
    assert set((await states(cluster, "r")).values()) == {"cancelled"}


async def test_the_grace_of_runs_that_nobody_has_passes_too(cluster: Cluster) -> None:
    """CA10 a run that is pending, or waits without an engine, or is of code that nobody has."""
    pending = await cluster.start(idle, id="pending")
    async with cluster.worker([deaf, idle]):
        suspended = await cluster.start(deaf, "x", id="suspended")
        await cluster.until_entry("suspended", "child_started")
    other = await cluster.start(idle, id="other")
    for run in (suspended, other, pending):
        await run.cancel("enough", grace=0.01)
    async with cluster.worker([double, add]):
        for run in (suspended, other, pending):
            with pytest.raises(RunCancelled, match="enough"):
                await run.result(timeout=10)


async def test_the_earlier_of_two_deadlines_counts(cluster: Cluster) -> None:
    """CA10, CA11 a second request shortens the grace, a longer one changes nothing, and the run is told once."""
    async with cluster.worker([deaf, idle]):
        run = await cluster.start(deaf, "x", id="r")
        await cluster.until_entry("r", "child_started")
        await run.cancel("first", grace=LONG)
        await cluster.until_entry("r", "cancel_requested")
        await run.cancel("second", grace=2 * LONG)
        await run.cancel("third", grace=0.01)
        with pytest.raises(RunCancelled, match="first"):
            await run.result(timeout=10)
        assert [kind for kind, _ in await cluster.entries("r")].count("cancel_requested") == 1
        await run.cancel("too late", grace=LONG)


@pytest.mark.parametrize("grace", [None, 0, 0.0, timedelta(0)])
async def test_a_plain_cancel_ends_the_grace(cluster: Cluster, grace: Any) -> None:
    """CA10, CA11 no grace is as ever: at once, and together."""
    async with cluster.worker([deaf, idle]):
        run = await cluster.start(deaf, "x", id="r")
        await cluster.until_entry("r", "child_started")
        await run.cancel("slowly", grace=LONG)
        await cluster.until_entry("r", "cancel_requested")
        await run.cancel("now", grace=grace)
        with pytest.raises(RunCancelled, match="now"):
            await run.result(timeout=10)
        assert set((await states(cluster, "r")).values()) == {"cancelled"}


async def test_a_parent_hears_that_its_child_let_itself_be_cancelled(cluster: Cluster) -> None:
    """CA10, CH04 only the addressed run is asked; its parent goes on."""
    told = Told()

    @workflow
    async def parent() -> str:
        try:
            return await child(careful, "re-raises", id="kid")
        except ChildCancelled as error:
            return f"{error.reason}, {await add(1, 1)}"

    async with cluster.worker([parent, *SOURCES], listeners=[told]):
        run = await cluster.start(parent, id="p")
        await cluster.until_entry("p/kid", "child_started")
        await cluster.client.cancel("p/kid", "enough", grace=LONG)
        assert await run.result(timeout=10) == "enough, 2"
    assert len(told.of("child.cancelled", child_run_id="p/kid")) == 1
    assert (await states(cluster, "p"))["/kid/below"] == "cancelled"


async def test_who_is_asked_before_it_begins(cluster: Cluster) -> None:
    """CA10 a run that is asked while it waits for a worker hears of it in its first wait."""
    run = await cluster.start(careful, "re-raises", id="r")
    await run.cancel("enough", grace=LONG)
    async with cluster.worker(SOURCES):
        with pytest.raises(RunCancelled, match="enough"):
            await run.result(timeout=10)


async def test_an_activity_under_way_sees_the_request(cluster: Cluster) -> None:
    """CA09, CA10 its await is cancelled, and so is it."""
    gate = Gate()

    @workflow
    async def flow() -> None:
        await gate.held()

    async with cluster.worker([flow, gate.held]):
        run = await cluster.start(flow)
        await gate.entered()
        await run.cancel("enough", grace=LONG)
        with pytest.raises(RunCancelled, match="enough"):
            await run.result(timeout=10)

        async def cancelled() -> bool:
            return gate.ended == ["cancelled"]

        await until(cancelled)


async def test_a_clean_up_outlives_its_worker(cluster: Cluster) -> None:
    """CA10 the request is in the journal: another worker goes on with the clean-up."""
    gate = Gate()

    @workflow
    async def flow() -> None:
        try:
            await wait_signal("never")
        finally:
            await gate.held("clean-up")

    async with cluster.worker([flow, gate.held], drain=0.1):
        run = await cluster.start(flow, id="r")
        await cluster.until_state("r", "running")
        await run.cancel("enough", grace=LONG)
        await gate.entered()
    gate.open()
    async with cluster.worker([flow, gate.held]):
        with pytest.raises(RunCancelled, match="enough"):
            await run.result(timeout=10)
    assert gate.calls == ["clean-up"] * 2


async def test_whom_nobody_can_ask(cluster: Cluster) -> None:
    """CA04, CA05 with a grace, too."""
    with pytest.raises(RunNotFound):
        await cluster.client.cancel("nobody", grace=1)

    @workflow
    async def flow() -> str:
        return "done"

    async with cluster.worker([flow]):
        run = await cluster.start(flow)
        await run.result(timeout=10)
        before = await run.describe()
        with pytest.raises(RunNotActive) as caught:
            await run.cancel(grace=1)
        assert caught.value.state == "completed"
        assert await run.describe() == before


@pytest.mark.parametrize("grace", [-1, math.nan, math.inf, "5", True, timedelta(seconds=-1), [1]])
async def test_a_bad_grace_is_one_error(cluster: Cluster, grace: Any) -> None:
    """CA10 nothing is asked for."""
    run = await cluster.start(waiter, "x")
    with pytest.raises((TypeError, ValueError), match="grace"):
        await run.cancel(grace=grace)
    assert (await run.describe()).state == "pending"


async def test_a_signal_may_come_while_it_cleans_up(cluster: Cluster) -> None:
    """CA10 all that a workflow may do it may do in its clean-up."""

    @workflow
    async def flow() -> str:
        try:
            await wait_signal("never")
        except asyncio.CancelledError:
            return await wait_signal("last words", str)
        raise AssertionError("nobody sends that")

    @activity
    async def nothing() -> None: ...

    async with cluster.worker([flow, nothing], **FORGETFUL):
        run = await cluster.start(flow, id="r")
        await run.cancel("enough", grace=LONG)
        await cluster.until_entry("r", "cancel_requested")
        await run.signal("last words", "so long")
        assert await run.result(timeout=10) == "so long"
