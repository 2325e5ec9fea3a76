"""Parents and children, through real workers."""

from __future__ import annotations

import pytest

from continuum import (
    ChildCancelled,
    ChildDepthExceeded,
    ChildFailed,
    ChildTimedOut,
    await_child,
    await_children,
    child,
    continue_as_new,
    now,
    start_child,
    wait_signal,
    workflow,
)
from continuum._engine.hooks import EVENTS
from tests.conformance.cluster import FORGETFUL, Cluster, Told, failing
from tests.conformance.flows import add, double, fails, idle, waiter
from tests.until import until


async def test_a_childs_result_comes_back(cluster: Cluster) -> None:
    """CH01 `child` returns the child's result."""

    @workflow
    async def parent(n: int) -> list[int]:
        ref = start_child(double, n + 1)
        return [await child(double, n), await await_child(ref), await ref]

    async with cluster.worker([parent, double, add]):
        assert await cluster.result(parent, 4, id="p") == [8, 10, 10]
        children = await cluster.children("p")
        assert [(key, found.result) for key, found in children.items()] == [("double-1", 10), ("double-2", 8)]


@pytest.mark.parametrize(
    ("settings", "together"),
    [({}, True), (FORGETFUL, False)],
    ids=["resident, one worker", "forgetful, two workers"],
)
async def test_a_childs_large_result_comes_back(
    cluster: Cluster, settings: dict[str, float], together: bool
) -> None:
    """CH01 `child` returns the child's result, also one too large to be kept twice."""

    @workflow
    async def large(size: int) -> str:
        return "é" * size

    @workflow
    async def parent(size: int) -> list[str]:
        refs = [start_child(large, size, id="large"), start_child(large, 3, id="small")]
        found = await await_children(refs)
        await wait_signal("go")
        return [text[:3] + str(len(text)) for text in (*found, await refs[0])]

    kids, parents = ([parent, large], [idle]) if together else ([large], [parent])
    async with cluster.worker(kids, **settings), cluster.worker(parents, **settings):
        run = await cluster.start(parent, 1_500_000, id="p")
        await cluster.until_entry("p", "child_completed", "large")
        await cluster.until_entry("p", "child_completed", "small")
        if settings:
            await cluster.until_state("p", "suspended")
        await run.signal("go")
        assert await run.result(timeout=10) == ["ééé1500000", "ééé3", "ééé1500000"]
    payloads = {event.key: event.payload for event in await run.history() if event.type == "child_completed"}
    assert len(payloads["large"]["result"]) == 1_500_000


async def test_a_childs_failure_is_raised_with_all_of_it(cluster: Cluster) -> None:
    """CH03 a child's failure raises `ChildFailed` with the original type, message, traceback and cause chain."""

    @workflow
    async def parent() -> dict[str, str]:
        try:
            await child(fails, "it broke")
        except ChildFailed as error:
            return {
                "type": error.type,
                "message": error.message,
                "traceback": error.traceback,
                "root": str(error.root_cause),
                "causes": f"{error.__cause__} <- {error.__cause__ and error.__cause__.__cause__}",
                "child": f"{error.child_run_id} {error.workflow}",
            }
        raise AssertionError("it did not fail")

    async with cluster.worker([parent]), cluster.worker([fails]):
        told = await cluster.result(parent, id="p")
    assert (told["type"], told["message"], told["child"]) == ("ValueError", "it broke", "p/fails-1 fails")
    assert "in fails" in told["traceback"]
    assert told["root"] == "KeyError: 'missing'"
    assert told["causes"] == "ValueError: it broke <- KeyError: 'missing'"


async def test_an_uncaught_failure_of_a_child_fails_its_parent(cluster: Cluster) -> None:
    """CH03 a child's failure that nobody catches fails the parent, with the whole chain."""

    @workflow
    async def parent() -> None:
        await child(fails, "it broke")

    async with cluster.worker([parent, fails]):
        error = await failing(await cluster.start(parent))
    assert [cause.type for cause in error.failure.chain()] == ["ChildFailed", "ValueError", "KeyError"]


async def test_a_child_cancelled_on_its_own(cluster: Cluster) -> None:
    """CH04 a child cancelled on its own raises `ChildCancelled` in the parent."""

    @workflow
    async def parent() -> list[str]:
        try:
            await child(waiter, "kid", id="kid")
        except ChildCancelled as error:
            return [error.child_run_id, error.workflow, error.reason]
        raise AssertionError("it was not cancelled")

    async with cluster.worker([parent, waiter]):
        run = await cluster.start(parent, id="p")
        await cluster.until_entry("p", "child_started", "kid")
        await cluster.client.cancel("p/kid", "not wanted")
        assert await run.result(timeout=10) == ["p/kid", "waiter", "not wanted"]
        assert (await run.describe()).state == "completed"


async def test_a_child_that_ended_while_its_parent_was_down(cluster: Cluster) -> None:
    """CH18 a child that ended while the parent was down is found."""

    @workflow
    async def parent() -> str:
        return await child(waiter, "kid", id="kid")

    async with cluster.worker([waiter]):
        async with cluster.worker([parent]):
            run = await cluster.start(parent, id="p")
            await cluster.until_entry("p", "child_started", "kid")
        await cluster.client.signal("p/kid", "go", "went")
        await cluster.until_state("p/kid", "completed")
        assert (await run.describe()).state == "suspended"
        async with cluster.worker([parent]):
            assert await run.result(timeout=10) == "kid went"


async def test_an_ended_child_is_awaited_without_suspending(cluster: Cluster) -> None:
    """CH19 a child already ended when awaited resolves without suspending."""

    @workflow
    async def parent() -> tuple[bool, bool, int]:
        ref = start_child(double, 3, id="kid")
        await wait_signal("go")
        ended, before = ref.done(), now()
        result = await ref
        return ended, before == now(), result

    async with cluster.worker([parent, double, add]):
        run = await cluster.start(parent, id="p")
        await cluster.until_entry("p", "child_completed", "kid")
        await run.signal("go")
        assert await run.result(timeout=10) == (True, True, 6)
    assert await cluster.entries("p") == [
        ("child_started", "kid"),
        ("child_completed", "kid"),
        ("signal_received", "go"),
    ]


async def test_a_child_that_continues_as_new_gives_its_last_result(cluster: Cluster) -> None:
    """CH20 a child that continues as new gives its final result."""

    @workflow
    async def countdown(n: int) -> str:
        await add(n, 0)
        if n:
            continue_as_new(n - 1)
        return "zero"

    @workflow
    async def parent() -> list[str]:
        return [await child(countdown, 3, id="kid"), *await await_children([start_child(countdown, 2)])]

    async with cluster.worker([parent]), cluster.worker([countdown, add]):
        assert await cluster.result(parent, id="p") == ["zero", "zero"]
    assert (await cluster.children("p"))["kid"].generation == 4
    assert [kind for kind, key in await cluster.entries("p") if key == "kid"] == [
        "child_started",
        "child_completed",
    ]


async def test_what_is_told_of_runs_and_children(cluster: Cluster) -> None:
    """CH39 telemetry events and their fields."""

    @workflow
    async def parent(n: int) -> None:
        refs = [start_child(double, 1, id="good"), start_child(fails, "no", id="bad")]
        refs.append(start_child(idle, id="gone"))
        refs[2].cancel()
        await await_children(refs, return_exceptions=True)
        if n:
            continue_as_new(n - 1)
        await wait_signal("go")

    told = Told()
    async with cluster.worker([parent, double, fails, idle, add], listeners=[told], **FORGETFUL):
        run = await cluster.start(parent, 0, id="p")
        await told.until("run.suspended", run_id="p")
        await run.signal("go")
        await run.result(timeout=10)
        await told.until("run.completed", run_id="p")
    for name, fields in told.events:
        assert set(fields) == set(EVENTS[name]), name
    about = {"parent_run_id": "p"}
    for name, key, flow in (("completed", "good", double), ("failed", "bad", fails), ("cancelled", "gone", idle)):
        expected = {**about, "child_run_id": f"p/{key}", "workflow": flow.name}
        assert expected in told.of("child.started")
        assert told.of(f"child.{name}") == [expected]
    assert told.of("run.failed") == [{"run_id": "p/bad", "workflow": "fails", "error": "ValueError: no"}]
    assert {found["run_id"] for found in told.of("run.completed")} == {"p", "p/good"}


async def test_a_start_below_the_allowed_depth_raises(cluster: Cluster) -> None:
    """CH08 a start beyond `max_child_depth` raises in the parent."""

    @workflow
    async def deeper() -> int:
        try:
            return 1 + await child(deeper)
        except ChildDepthExceeded:
            return 0

    async with cluster.worker([deeper]):
        assert await cluster.result(deeper, id="d") == 10
    assert max(found.depth for found in await cluster.client.tree("d")) == 10


async def test_the_depth_is_a_setting_and_the_cascade_goes_deeper(cluster: Cluster) -> None:
    """CH09 depth is configurable and the cascade reaches every live level whatever the setting."""

    @workflow
    async def deeper() -> int:
        try:
            ref = start_child(deeper)
        except ChildDepthExceeded:
            await wait_signal("never")
            raise
        return 1 + await ref

    async with cluster.worker([deeper], max_child_depth=14):
        run = await cluster.start(deeper, id="d")
        deepest = "d" + 14 * "/deeper-1"

        async def there() -> bool:
            return len(await cluster.client.tree("d")) == 15

        await until(there)
    async with cluster.worker([deeper], max_child_depth=2):
        await run.cancel()
        tree = await cluster.client.tree("d")
    assert tree[-1].id == deepest
    assert {found.state for found in tree} == {"cancelled"}


async def test_a_child_bears_its_parents_namespace(cluster: Cluster) -> None:
    """CH10 namespace and attributes are inherited."""

    @workflow
    async def parent() -> int:
        return await child(double, 2, id="kid")

    async with cluster.worker([parent, double, add]):
        assert await cluster.result(parent, id="p", namespace="blue") == 4
    assert [found.namespace for found in await cluster.client.tree("p")] == ["blue", "blue"]


async def test_a_childs_timeout(cluster: Cluster) -> None:
    """CH34 child timeout."""

    @workflow
    async def parent() -> str:
        try:
            await child(idle, id="kid", timeout=0.05)
        except ChildTimedOut as error:
            return error.child_run_id
        raise AssertionError("it ended")

    async with cluster.worker([parent, idle]):
        assert await cluster.result(parent, id="p") == "p/kid"
        await cluster.until_state("p/kid", "cancelled")
