"""What a worker's listeners are told of children, and what nobody is told."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import pytest

from continuum import (
    ChildCancelled,
    ChildFailed,
    ChildRef,
    ChildTimedOut,
    activity,
    await_children,
    child,
    continue_as_new,
    start_child,
    wait_signal,
    workflow,
)
from tests.conformance.cluster import FORGETFUL, Cluster, Told
from tests.journal.proxy import Proxy, proxied
from tests.until import until

BOTH = pytest.mark.parametrize("settings", [{}, FORGETFUL], ids=["resident", "forgetful"])


@workflow
async def idle() -> None:
    await wait_signal("never")


@workflow
async def waits(n: int) -> int:
    await wait_signal("go")
    return n


def of_children(told: Told) -> list[tuple[str, str, str]]:
    """Return what was told of children but their starts: what, which, and its workflow."""
    return [
        (name.rpartition(".")[2], fields["child_run_id"], fields["workflow"])
        for name, fields in told.events
        if name.startswith("continuum.child.") and not name.endswith("started")
    ]


@BOTH
async def test_a_child_whose_time_is_over_is_told_of_once_as_failed(
    cluster: Cluster, settings: dict[str, Any]
) -> None:
    """CH39 a timeout is a failure of the child; that it is cancelled then is no news."""

    @workflow
    async def parent() -> None:
        with pytest.raises(ChildTimedOut):
            await child(idle, id="kid", timeout=0.05)
        await wait_signal("go")

    told = Told()
    async with cluster.worker([parent, idle], listeners=[told], **settings):
        run = await cluster.start(parent, id="p")
        await cluster.until_state("p/kid", "cancelled")
        await run.signal("go")
        await run.result(timeout=10)
        await told.until("run.completed", run_id="p")
    assert of_children(told) == [("failed", "p/kid", "idle")]


@BOTH
async def test_a_child_of_an_earlier_generation_is_told_of_with_its_workflow(
    cluster: Cluster, settings: dict[str, Any]
) -> None:
    """CH39 refs carried over generations, and children that nobody awaits."""

    @workflow
    async def parent(refs: list[ChildRef[int]]) -> int:
        if not refs:
            continue_as_new([start_child(waits, n, id=f"kid-{n}") for n in range(3)])
        await await_children(refs[:2])
        await wait_signal("end")
        return 0

    told = Told()
    async with cluster.worker([parent, waits], listeners=[told], **settings):
        run = await cluster.start(parent, [], id="p")
        await cluster.until_generation("p", 2)
        for n in range(3):
            await cluster.client.signal(f"p/kid-{n}", "go")
        await told.until("child.completed", 3)
        await run.signal("end")
        await run.result(timeout=10)
    assert sorted(of_children(told)) == [("completed", f"p/kid-{n}", "waits") for n in range(3)]
    assert len(told.of("child.started")) == 3


@BOTH
async def test_a_later_generation_is_told_the_same_of_a_child_whose_time_was_over(
    cluster: Cluster, settings: dict[str, Any]
) -> None:
    """CH39 by the message that it was cancelled and by its row; listeners have heard it already."""

    @workflow
    async def parent(refs: list[ChildRef[None]]) -> list[str]:
        if not refs:
            ref = start_child(idle, id="kid", timeout=0.05)
            with pytest.raises(ChildTimedOut):
                await ref
            continue_as_new([ref])
        answers: list[str] = []
        for ref in (refs[0], start_child(idle, id="kid")):
            try:
                await ref
            except (ChildFailed, ChildCancelled) as error:
                answers.append(type(error).__name__)
            await wait_signal("go")
        return answers

    told = Told()
    async with cluster.worker([parent, idle], listeners=[told], **settings):
        run = await cluster.start(parent, [], id="p")
        for _ in range(2):
            await run.signal("go")
        assert await run.result(timeout=10) == ["ChildTimedOut", "ChildTimedOut"]
        await told.until("run.completed", run_id="p")
    assert of_children(told) == [("failed", "p/kid", "idle")]


async def test_what_falls_in_a_cascade_falls_silently(cluster: Cluster) -> None:
    """CH39 no parent lives to hear of it: a child that its parent cancels is told of, what lies below is not."""

    @workflow
    async def middle() -> None:
        await child(idle, id="low")

    @workflow
    async def parent() -> None:
        refs = [start_child(middle, id="one"), start_child(middle, id="two")]
        await wait_signal("cancel")
        refs[0].cancel()
        await refs[0].outcome()
        await wait_signal("never")

    told = Told()
    async with cluster.worker([parent, middle, idle], listeners=[told]):
        run = await cluster.start(parent, id="p")
        for low in ("p/one/low", "p/two/low"):
            await cluster.until_state(low, "running", "suspended")
        await run.signal("cancel")
        await told.until("child.cancelled")
        await run.cancel()
        assert {found.state for found in await cluster.client.tree("p")} == {"cancelled"}
    assert of_children(told) == [("cancelled", "p/one", "middle")]


async def test_a_cascade_is_a_line_in_the_log_and_not_one_for_each_run(
    cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    """Who cancels thousands of runs finds them in the tables, not in the log of each worker."""
    caplog.set_level(logging.INFO, "continuum")

    @workflow
    async def parent() -> None:
        await await_children([start_child(idle, id=f"kid-{n}") for n in range(20)])

    async with cluster.worker([parent, idle]):
        run = await cluster.start(parent, id="p")
        await cluster.until_entry("p", "child_started", "kid-19")
        caplog.clear()
        await run.cancel()

        async def dropped() -> bool:
            return "21 runs were taken away or cancelled" in caplog.text

        await until(dropped)
    assert sum("kid-" in record.getMessage() for record in caplog.records) == 1
    assert "p/kid-19" not in caplog.text


async def test_a_listener_that_raises_harms_nobody(cluster: Cluster, caplog: pytest.LogCaptureFixture) -> None:
    """CH39 it is logged; the run goes on and the other listeners hear of everything."""

    def broken(name: str, fields: Mapping[str, Any]) -> None:
        raise RuntimeError(f"no {name}")

    @workflow
    async def parent() -> int:
        return await child(quick, id="kid")

    @workflow
    async def quick() -> int:
        return 3

    told = Told()
    async with cluster.worker([parent, quick], listeners=[broken, told]):
        assert await cluster.result(parent, id="p") == 3
        await told.until("run.completed", run_id="p")
    assert of_children(told) == [("completed", "p/kid", "quick")]
    assert "a listener failed on continuum.child.completed" in caplog.text


@pytest.mark.parametrize("fault", ["lose_answer", "lose_client", "lose_statement"])
async def test_a_commit_in_doubt_is_told_of_once_if_it_was_durable(
    cluster: Cluster, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    """CH39 a connection that breaks doubles nothing; what the journal turns out to have is told."""
    caplog.set_level(logging.CRITICAL)

    @activity
    async def break_it() -> None:
        getattr(proxies[0], fault)("flush")

    @workflow
    async def parent() -> None:
        for _ in range(3):
            await break_it()
            await child(quick)

    @workflow
    async def quick() -> None:
        await nothing()

    @activity
    async def nothing() -> None:
        pass

    proxies: list[Proxy] = []
    told = Told()
    async with proxied(cluster.url) as proxy, cluster.at(proxy.url) as behind:
        proxies.append(proxy)
        async with behind.worker([parent, quick, break_it, nothing], listeners=[told], lease=30):
            run = await cluster.start(parent, id="p")

            async def ended() -> bool:
                return (await run.describe()).completed_at is not None

            await until(ended)
    ids = [f"p/quick-{n}" for n in (1, 2, 3)]
    assert [fields["child_run_id"] for fields in told.of("child.started")] == ids
    assert of_children(told) == [("completed", run_id, "quick") for run_id in ids]
