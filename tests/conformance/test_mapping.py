"""``map_children``, through real workers."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest

from continuum import (
    Activity,
    DuplicateChildId,
    EncodeError,
    MapFailed,
    activity,
    await_children,
    map_children,
    wait_signal,
    workflow,
)
from continuum._engine.hooks import EngineHooks
from tests.conformance.cluster import FORGETFUL, Cluster, Raising, Told, failing
from tests.conformance.flows import add, double, fails, waiter

SETTINGS = pytest.mark.parametrize("settings", [{}, FORGETFUL], ids=["resident", "forgetful"])
LIVE = ("pending", "running", "suspended")


@activity
async def page(at: int) -> list[int]:
    return list(range(at, min(at + 5, 23)))


async def pages() -> AsyncIterator[int]:
    at = 0
    while items := await page(at):
        for item in items:
            yield item
        at += len(items)


def looking(cluster: Cluster, parent: str) -> tuple[Activity[..., Any], list[int]]:
    """Return an activity that notes how many of a run's children live, by their rows, and its notes."""
    seen: list[int] = []

    @activity
    async def look(number: int) -> int:
        children = await cluster.client.list_children(parent, limit=1000)
        seen.append(sum(child.state in LIVE for child in children))
        return number * 10

    return look, seen


@SETTINGS
@pytest.mark.parametrize("paged", [True, False], ids=["paged", "at hand"])
async def test_never_more_children_than_asked_for_are_in_flight(
    cluster: Cluster, settings: dict[str, float], paged: bool
) -> None:
    """CH33 `map_children` keeps its window, with two workers and items that an activity pages in."""
    look, seen = looking(cluster, "p")

    @workflow
    async def kid(number: int) -> int:
        return await look(number)

    @workflow
    async def parent() -> tuple[list[int], int]:
        done = await map_children(kid, pages() if paged else range(23), concurrency=4)
        return done.results, done.completed

    sources = [parent, kid, look, page]
    async with cluster.worker(sources, **settings), cluster.worker(sources, **settings):
        results, completed = await cluster.result(parent, id="p")
    assert results == [10 * n for n in range(23)]
    assert completed == 23
    assert len(seen) >= 23
    assert max(seen) <= 4
    entries = await cluster.entries("p")
    assert [key for kind, key in entries if kind == "map_decided"] == ["map_kid-1"]
    assert {key for kind, key in entries if kind == "child_started"} == {f"kid-{n + 1}" for n in range(23)}


@pytest.mark.parametrize("rest", ["cancel", "abandon"])
@SETTINGS
async def test_those_that_decided_a_map_survive_a_replay(
    cluster: Cluster, settings: dict[str, float], rest: Any
) -> None:
    """CH33 `map_children`: what decided survives replay; the rest is cancelled or goes on."""
    decided: list[list[str]] = []

    @workflow
    async def parent() -> tuple[list[str | None], list[str]]:
        done = await map_children(
            waiter, "abcde", id=lambda name: f"k{name}", concurrency=4, min_successful=2, rest=rest
        )
        decided.append([ref.id for ref in done.decided_by])
        await wait_signal("on")
        return [getattr(found, "value", None) for found in done.outcomes], [await ref for ref in done.decided_by]

    async with cluster.worker([parent, waiter], **settings):
        run = await cluster.start(parent, id="p")
        for name in "db":
            await cluster.until_entry("p", "child_started", f"k{name}")
            await cluster.client.signal(f"p/k{name}", "go", "now")
            await cluster.until_entry("p", "child_completed", f"k{name}")
        await cluster.until_entry("p", "map_decided")
    async with cluster.worker([parent, waiter], **settings):
        await run.signal("on")
        assert await run.result(timeout=10) == ([None, "b now", None, "d now", None], ["d now", "b now"])
    assert decided == [["p/kd", "p/kb"]] * len(decided)
    assert len(decided) > 1, "it was replayed"
    (entry,) = [event.payload for event in await run.history() if event.type == "map_decided"]
    assert (entry["why"], entry["decided_by"], entry["started"]) == ("enough", ["kd", "kb"], 5)
    states = {key: child.state for key, child in (await cluster.children("p")).items()}
    assert {states["kb"], states["kd"]} == {"completed"}
    left = {states["ka"], states["kc"], states["ke"]}
    assert left == {"cancelled"} if rest == "cancel" else left <= set(LIVE)


async def test_a_map_that_fails_tells_why_to_who_waits_for_the_run(cluster: Cluster) -> None:
    """CH33 `map_children` beyond what it tolerates, uncaught; the cause is there."""

    @workflow
    async def parent() -> None:
        await map_children(fails, ["one", "two"], concurrency=1)

    async with cluster.worker([parent, fails]):
        error = await failing(await cluster.start(parent, id="p"))
    assert error.type == "MapFailed"
    assert [failure.type for failure in error.failure.chain()] == [
        "MapFailed",
        "ChildFailed",
        "ValueError",
        "KeyError",
    ]
    assert set(await cluster.children("p")) == {"fails-1"}, "the second was never started"


@SETTINGS
async def test_a_map_goes_on_after_every_lost_answer(
    cluster: Cluster, settings: dict[str, float], caplog: pytest.LogCaptureFixture
) -> None:
    """CH33 a worker that falls over after any commit of the parent changes nothing of a map."""
    caplog.set_level(logging.CRITICAL)
    look, seen = looking(cluster, "p")
    raising = Raising("turn.committed", "p", times=50)

    @workflow
    async def kid(number: int) -> int:
        if number == 3:
            raise ValueError("three")
        return await look(number)

    @workflow
    async def parent() -> tuple[list[int], int]:
        done = await map_children(kid, pages(), concurrency=3, tolerate_failures=1)
        return done.results, done.failed

    async with cluster.worker([parent, kid, look, page], lease=60, hooks=EngineHooks(points=raising), **settings):
        results, failed = await cluster.result(parent, id="p")
    assert (results, failed) == ([10 * n for n in range(23) if n != 3], 1)
    assert raising.raised > 5
    assert max(seen) <= 3
    keys = [key for kind, key in await cluster.entries("p") if kind in ("child_completed", "child_failed")]
    assert sorted(keys) == sorted(f"kid-{n + 1}" for n in range(23)), "each end is told once"


# Nothing kept.


@SETTINGS
async def test_a_map_that_collects_nothing_tells_of_every_child(
    cluster: Cluster, settings: dict[str, float]
) -> None:
    """CH33 `map_children(collect=False)`: counts, and a listener hears each child's workflow."""
    told = Told()

    @workflow
    async def parent() -> int:
        return (await map_children(double, range(40), concurrency=5, collect=False)).completed

    async with cluster.worker([parent, double, add], listeners=[told], **settings):
        assert await cluster.result(parent, id="p") == 40
    assert len(told.of("child.completed", parent_run_id="p", workflow="double")) == 40


@SETTINGS
async def test_a_child_that_several_items_name_is_told_of_once(
    cluster: Cluster, settings: dict[str, float]
) -> None:
    """CH39 CH25 `collect=False` forgets who has ended, and the journal answers again; listeners hear it once."""
    told = Told()

    @workflow
    async def parent() -> list[int]:
        same: Any = {"id": str, "concurrency": 2, "collect": False}
        return [(await map_children(double, [1, 2, 3, 1, 2, 3, 1], **same)).completed for _ in range(3)]

    async with cluster.worker([parent, double, add], listeners=[told], **settings):
        assert await cluster.result(parent, id="p") == [7, 7, 7]
        await told.until("run.completed", run_id="p")
    for what in ("child.started", "child.completed"):
        assert sorted(event["child_run_id"] for event in told.of(what)) == ["p/1", "p/2", "p/3"], what


@SETTINGS
async def test_refs_of_those_that_decided_a_map_know_how_they_ended(
    cluster: Cluster, settings: dict[str, float]
) -> None:
    """CH33 CH39 also with `collect=False`; who asks them makes no entry, and listeners hear nothing twice."""
    told = Told()

    @workflow
    async def parent() -> list[Any]:
        done = await map_children(double, [1, 2, 3], concurrency=1, min_successful=2, collect=False)
        known = [ref.result() for ref in done.decided_by if ref.done()]
        try:
            await map_children(fails, ["no"], id=str, timeout=60, collect=False)
        except MapFailed as error:
            known += [str(ref.exception()) for ref in error.result.decided_by if ref.done()]
        return [*known, *await await_children(done.decided_by)]

    async with cluster.worker([parent, double, add, fails], listeners=[told], **settings):
        two, four, failure, *again = await cluster.result(parent, id="p")
        await told.until("run.completed", run_id="p")
    assert (two, four, again) == (2, 4, [2, 4])
    assert "no" in failure
    assert len(told.of("child.completed")) == 2
    assert len(told.of("child.failed")) == 1


async def test_children_that_fall_with_an_item_that_is_none_begin_nothing(cluster: Cluster) -> None:
    """CH33 children that the same commit starts and cancels are never run."""
    called: list[int] = []

    @activity
    async def acts(number: int) -> None:
        called.append(number)

    @workflow
    async def kid(number: int) -> None:
        await acts(number)

    @workflow
    async def parent() -> str:
        wrong: Any = [1, 2, 3, "no number"]
        with pytest.raises(EncodeError):
            await map_children(kid, wrong)
        return await wait_signal("go", str)

    async with cluster.worker([parent, kid, acts]):
        run = await cluster.start(parent, id="p")
        await cluster.until_entry("p", "child_cancelled", "kid-3")
        await run.signal("go", "on")
        assert await run.result(timeout=10) == "on"
    assert called == []


@workflow
async def again(names: list[str]) -> str:
    """Map twice under the same ids, keeping nothing; the second time names[1] is the input."""
    ids: Any = {"id": lambda name: "kid", "collect": False}
    await map_children(waiter, names[:1], **ids)
    await wait_signal("on")
    try:
        done = await map_children(waiter, names[1:], **ids)
    except DuplicateChildId as error:
        return error.__notes__[0]
    return f"{done.completed} completed"


@pytest.mark.parametrize("lost", [False, True], ids=["answered", "answer lost"])
@pytest.mark.parametrize(
    ("names", "wanted"), [(["a", "a"], "1 completed"), (["a", "b"], "at item 0")], ids=["same", "other"]
)
@SETTINGS
async def test_a_key_that_was_let_go_is_still_its_childs(
    cluster: Cluster,
    settings: dict[str, float],
    names: list[str],
    wanted: str,
    lost: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """CH25 a key used again after `collect=False` has let its child go: same child, or `DuplicateChildId`."""
    caplog.set_level(logging.CRITICAL)
    raising = Raising("turn.committed", "p", times=0)
    async with cluster.worker([again, waiter], lease=60, hooks=EngineHooks(points=raising), **settings):
        run = await cluster.start(again, names, id="p")
        await cluster.until_entry("p", "child_started", "kid")
        await cluster.client.signal("p/kid", "go", "now")
        await cluster.until_entry("p", "map_decided")
        raising.left = 1 if lost else 0
        await run.signal("on")
        assert (await run.result(timeout=10)).startswith(wanted)
    assert raising.raised == lost
    assert set(await cluster.children("p")) == {"kid"}
