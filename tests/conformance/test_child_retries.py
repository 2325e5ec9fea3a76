"""Children that are tried again, through real workers."""

from __future__ import annotations

import asyncio
import dataclasses
import logging

import pytest

from continuum import (
    ChildFailed,
    ChildTimedOut,
    Retry,
    RunCancelled,
    RunFailed,
    activity,
    child,
    continue_as_new,
    run_info,
    start_child,
    wait_signal,
    workflow,
)
from continuum._engine.hooks import EngineHooks
from continuum.testing import History, assert_replays, read_history
from tests.conformance.cluster import FORGETFUL, Cluster, Raising, Told
from tests.conformance.flows import add, waiter

SOON = Retry(max_attempts=3, initial=0.02, jitter=0)
LATER = Retry(max_attempts=3, initial=3600)


class Flaky:
    """``attempt``: an activity that fails the first times; ``work``: a workflow that fails with it."""

    def __init__(self, failures: int) -> None:
        self.tried: list[int] = []

        @activity
        async def attempt(n: int) -> str:
            self.tried.append(n)
            if len(self.tried) <= failures:
                raise ConnectionError(f"attempt {len(self.tried)}")
            return f"done {n}"

        @workflow
        async def work(n: int) -> str:
            return f"{await attempt(n)} at attempt {run_info().attempt}"

        self.attempt = attempt
        self.work = work


@pytest.mark.parametrize("settings", [{}, FORGETFUL], ids=["resident", "forgetful"])
async def test_a_child_that_fails_is_tried_again(cluster: Cluster, settings: dict[str, float]) -> None:
    """CH34 a child with retry= begins again as its next generation; its parent hears of the last one alone."""
    flaky, told = Flaky(2), Told()

    @workflow
    async def parent() -> str:
        return await child(flaky.work, 7, id="kid", retry=SOON)

    async with cluster.worker([parent, flaky.work, flaky.attempt], listeners=[told], **settings):
        run = await cluster.start(parent, id="p")
        assert await run.result(timeout=10) == "done 7 at attempt 3"
    assert await cluster.entries("p") == [("child_started", "kid"), ("child_completed", "kid")]
    kid = cluster.client.get_run("p/kid")
    assert (await kid.describe()).generation == 3
    starts = [event for event in await kid.history() if event.type == "run_started"]
    assert [(event.payload["attempt"], event.payload["input"]) for event in starts] == [(2, 7), (3, 7)]
    assert [event.payload["error"]["cause"]["message"] for event in starts] == ["attempt 1", "attempt 2"]
    assert [event["attempt"] for event in told.of("run.retried", run_id="p/kid")] == [2, 3]
    assert "attempt 2" in told.of("run.retried", attempt=3)[0]["error"]
    assert (len(told.of("child.failed")), len(told.of("child.completed"))) == (0, 1)
    assert_replays(flaky.work, await read_history(kid))


async def test_a_child_that_has_no_attempts_left_fails(cluster: Cluster) -> None:
    """CH34 the last failure is the child's."""
    flaky = Flaky(99)

    @workflow
    async def parent(retry: bool) -> str:
        with pytest.raises(ChildFailed) as caught:
            await child(flaky.work, 7, retry=SOON if retry else None)
        return str(caught.value)

    async with cluster.worker([parent, flaky.work, flaky.attempt]):
        assert "attempt 3" in await cluster.result(parent, True)
        assert "attempt 4" in await cluster.result(parent, False)
    assert len(flaky.tried) == 4


async def test_a_child_that_waits_for_its_next_attempt_says_so(cluster: Cluster) -> None:
    """CH34 it waits visibly, holds no worker, and falls with its parent."""
    flaky = Flaky(1)

    @workflow
    async def parent() -> str:
        return await child(flaky.work, 7, id="kid", retry=LATER)

    async with cluster.worker([parent, flaky.work, flaky.attempt]):
        run = await cluster.start(parent, id="p")
        found = await cluster.until_waiting("p/kid", "attempt 2 of 3 after ActivityFailed", "attempt 1")
        assert (found.generation, found.worker_id) == (2, None)
        await run.cancel("enough")
        with pytest.raises(RunCancelled):
            await cluster.client.get_run("p/kid").result(timeout=10)
    assert flaky.tried == [7]


async def test_mail_does_not_hurry_an_attempt_and_a_request_to_stop_does(cluster: Cluster) -> None:
    """CH34 signals wait with the run for its next attempt, and are read in it."""
    begun: list[int] = []

    @activity
    async def begin() -> None:
        begun.append(len(begun) + 1)

    @workflow
    async def work() -> str:
        await begin()
        if run_info().attempt == 1:
            raise ValueError("no")
        return await wait_signal("go", str)

    @workflow
    async def parent() -> str:
        return await child(work, id="kid", retry=LATER)

    async with cluster.worker([parent, work, begin], **FORGETFUL):
        await cluster.start(parent, id="p")
        await cluster.until_waiting("p/kid", "attempt 2")
        kid = cluster.client.get_run("p/kid")
        await kid.signal("go", "now")
        assert (await kid.describe()).waiting_for is not None
        await kid.cancel("enough", grace=3600)
        with pytest.raises(RunCancelled, match="enough"):
            await kid.result(timeout=10)
    assert begun == [1]


async def test_what_an_attempt_has_not_read_the_next_one_reads(cluster: Cluster) -> None:
    """CH34 unread signals are carried, in order."""

    @workflow
    async def work() -> list[str]:
        if run_info().attempt < 3:
            await wait_signal("fail")
            raise ValueError("no")
        return [await wait_signal("word", str) for _ in range(3)]

    @workflow
    async def parent() -> list[str]:
        return await child(work, id="kid", retry=SOON)

    async with cluster.worker([parent, work], **FORGETFUL):
        run = await cluster.start(parent, id="p")
        await cluster.until_entry("p", "child_started")
        kid = cluster.client.get_run("p/kid")
        await kid.signal("word", "one")
        await kid.signal("fail")
        await cluster.until_generation("p/kid", 2)
        await kid.signal("word", "two")
        await kid.signal("word", "three")
        await kid.signal("fail")
        assert await run.result(timeout=10) == ["one", "two", "three"]


async def test_an_attempt_without_delay_begins_at_once(cluster: Cluster) -> None:
    """CH34 with initial=0 the next generation stays where it is."""
    flaky = Flaky(2)

    @workflow
    async def parent() -> str:
        return await child(flaky.work, 7, id="kid", retry=Retry(max_attempts=3, initial=0))

    async with cluster.worker([parent, flaky.work, flaky.attempt]):
        assert await cluster.result(parent) == "done 7 at attempt 3"


async def test_a_timeout_bounds_all_attempts_of_a_child(cluster: Cluster) -> None:
    """CH34 timeout= is its whole life, retries included."""
    flaky = Flaky(1)

    @workflow
    async def parent() -> str:
        with pytest.raises(ChildTimedOut):
            await child(flaky.work, 7, id="kid", timeout=0.1, retry=LATER)
        return "given up"

    async with cluster.worker([parent, flaky.work, flaky.attempt]):
        assert await cluster.result(parent, id="p") == "given up"
        with pytest.raises(RunCancelled):
            await cluster.client.get_run("p/kid").result(timeout=10)


async def test_named_errors_are_not_tried_again(cluster: Cluster) -> None:
    """CH34 a non_retryable error fails at once, also behind an activity and another child."""
    tried: list[str] = []

    class Declined(Exception):
        pass

    @activity
    async def pay(how: str) -> None:
        tried.append(how)
        raise Declined(how)

    @workflow
    async def below(how: str) -> None:
        await pay(how)

    @workflow
    async def work(how: str) -> None:
        await (child(below, how) if how == "below" else pay(how))

    @workflow
    async def parent(how: str) -> None:
        await child(work, how, retry=Retry(max_attempts=3, initial=0, non_retryable=(Declined,)))

    async with cluster.worker([parent, work, below, pay]):
        for how in ("activity", "below"):
            with pytest.raises(RunFailed, match="Declined"):
                await cluster.result(parent, how)
    assert tried == ["activity", "below"]


@pytest.mark.parametrize("point", ["turn.begin", "turn.taken", "turn.committed"])
async def test_a_crash_while_a_child_begins_again(
    cluster: Cluster, point: str, caplog: pytest.LogCaptureFixture
) -> None:
    """CH34, CR12 whatever is lost, each attempt is made once."""
    caplog.set_level(logging.CRITICAL)
    flaky, raising = Flaky(2), Raising(point, "p/kid", times=2)

    @workflow
    async def parent() -> str:
        return await child(flaky.work, 7, id="kid", retry=SOON)

    sources = [parent, flaky.work, flaky.attempt]
    async with cluster.worker(sources, lease=60, hooks=EngineHooks(points=raising)):
        assert await cluster.result(parent, id="p") == "done 7 at attempt 3"
    assert raising.raised == 2
    kinds = [kind for kind, _ in await cluster.entries("p/kid")]
    failed = ["activity_failed", "run_started"]
    assert kinds == [*failed, *failed, "activity_completed"]


async def test_another_worker_makes_the_next_attempt(cluster: Cluster) -> None:
    """CH34, CH35 the worker that made the first is gone."""
    flaky = Flaky(1)

    @workflow
    async def parent() -> str:
        return await child(flaky.work, 7, id="kid", retry=Retry(max_attempts=2, initial=0.3))

    sources = [parent, flaky.work, flaky.attempt]
    async with cluster.worker(sources):
        run = await cluster.start(parent, id="p")
        await cluster.until_generation("p/kid", 2)
    async with cluster.worker(sources):
        assert await run.result(timeout=10) == "done 7 at attempt 2"
        assert (await cluster.client.get_run("p/kid").describe()).generation == 2


async def test_children_of_a_failed_attempt_live_on(cluster: Cluster) -> None:
    """CH34, CH26 a retry closes nothing: the same id is the same child in the next attempt."""

    @workflow
    async def job() -> str:
        ref = start_child(waiter, "x", id="kid", on_parent_close="cancel")
        if run_info().attempt == 1:
            await wait_signal("fail")
            raise ValueError("no")
        return await ref

    @workflow
    async def parent() -> str:
        return await child(job, id="job", retry=SOON)

    async with cluster.worker([parent, job, waiter]):
        run = await cluster.start(parent, id="p")
        await cluster.until_entry("p/job", "child_started")
        await cluster.client.signal("p/job", "fail")
        await cluster.until_generation("p/job", 2)
        await cluster.until_entry("p/job", "run_started")
        await cluster.client.signal("p/job/kid", "go", "on")
        assert await run.result(timeout=10) == "x on"


async def test_another_input_of_the_next_generation_diverges(cluster: Cluster) -> None:
    """CN08 another input diverges: no entry but the next start tells of it."""

    def chain(step: int) -> object:
        @workflow(name="chain")
        async def flow(n: int) -> int:
            await add(n, n)
            if n < 3:
                continue_as_new(n + step)
            return n

        return flow

    recorded = chain(1)
    async with cluster.worker([recorded, add]):
        run = await cluster.start(recorded, 1, id="r")
        assert await run.result(timeout=10) == 3
    history = await read_history(run)
    assert_replays(recorded, history)  # type: ignore[arg-type]  # made by a function
    with pytest.raises(AssertionError, match="generation 1") as caught:
        assert_replays(chain(2), history)  # type: ignore[arg-type]
    assert "recorded: the next generation's input 2" in str(caught.value)
    assert "decided:  3" in str(caught.value)


async def test_a_replay_that_would_not_have_failed_is_found(cluster: Cluster) -> None:
    """CN08, CH34 of an attempt that failed, the code of today must fail the same way."""

    def work_of(error: type[Exception] | None) -> object:
        @workflow(name="work")
        async def work(n: int) -> int:
            await add(n, n)
            if error is not None and run_info().attempt == 1:
                raise error("no")
            return n

        return work

    @workflow
    async def parent() -> int:
        return await child(work_of(ValueError), 7, id="kid", retry=SOON)  # type: ignore[call-overload]

    async with cluster.worker([parent, work_of(ValueError), add]):
        assert await cluster.result(parent, id="p") == 7
    history: History = await read_history(cluster.client.get_run("p/kid"))
    assert_replays(work_of(ValueError), history)  # type: ignore[arg-type]
    for other in (None, KeyError):
        with pytest.raises(AssertionError, match="began anew"):
            assert_replays(work_of(other), history)  # type: ignore[arg-type]
    with pytest.raises(AssertionError, match="start is missing"):
        assert_replays(
            work_of(ValueError),  # type: ignore[arg-type]
            dataclasses.replace(history, generation=3, events=history.events),
        )


async def test_many_children_are_tried_again_together(cluster: Cluster) -> None:
    """CH34 among many, each by itself."""
    failed: set[int] = set()

    @activity
    async def once(n: int) -> int:
        if n not in failed:
            failed.add(n)
            raise ConnectionError(str(n))
        return n

    @workflow
    async def work(n: int) -> int:
        return await once(n)

    @workflow
    async def parent(count: int) -> int:
        return sum(await asyncio.gather(*[child(work, n, retry=SOON) for n in range(count)]))

    async with cluster.worker([parent, work, once]), cluster.worker([parent, work, once]):
        assert await cluster.result(parent, 50, id="p") == sum(range(50))
    assert {kid.generation for kid in (await cluster.children("p")).values()} == {2}


async def test_an_attempt_begins_at_its_time(cluster: Cluster) -> None:
    """CH34 the next start is stamped with the time it is due."""
    flaky = Flaky(1)

    @workflow
    async def parent() -> str:
        return await child(flaky.work, 7, id="kid", retry=Retry(max_attempts=2, initial=0.2, jitter=0))

    async with cluster.worker([parent, flaky.work, flaky.attempt]):
        assert await cluster.result(parent, id="p") == "done 7 at attempt 2"
    events = await cluster.client.get_run("p/kid").history()
    failed, begun, completed = events
    assert round((begun.at - failed.at).total_seconds(), 6) == 0.2
    assert completed.at >= begun.at
