"""``map_children``: the window, what decides a map, and what becomes of the rest."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from tests.core.harness import Run, recorded

from continuum import (
    Cancelled,
    Completed,
    Failed,
    Failure,
    MapFailed,
    MapResult,
    activity,
    map_children,
    random,
    start_child,
    wait_signal,
    workflow,
)
from continuum._core import commands as c
from continuum._core.entries import event_of_entry

BOOM = Failure("ValueError", "boom")


@workflow
async def part(number: int) -> str | None:
    return str(number)


@activity
async def page(at: int) -> list[int]:
    return []


def keys(run: Run) -> list[str]:
    """Return the keys of the children that the last turn started."""
    return [command.key for command in run.commands if isinstance(command, c.StartChild)]


def cancelled(run: Run) -> list[str]:
    return [command.key for command in run.commands if isinstance(command, c.CancelChild)]


def decided(run: Run) -> c.DecideMap:
    (found,) = [command for command in run.commands if isinstance(command, c.DecideMap)]
    return found


def told(done: MapResult[Any]) -> dict[str, Any]:
    """Return a map's result as plain values."""
    return {
        "results": done.results,
        "outcomes": [None if found is None else type(found).__name__ for found in done.outcomes],
        "decided_by": [ref.id for ref in done.decided_by],
        "counts": [done.completed, done.failed, done.cancelled],
    }


def mapping(items: Callable[[], Any] = lambda: range(4), **options: Any) -> Run:
    """Return a run that maps ``part`` over the items and returns what it came to, or says how it failed."""

    @workflow
    async def flow() -> dict[str, Any]:
        try:
            return told(await map_children(part, items(), **options))
        except MapFailed as error:
            return {**told(error.result), "error": str(error), "cause": repr(error.__cause__)}

    return Run(flow)


# Fresh, recorded, pending.


@workflow
async def two_at_a_time(count: int) -> list[str | None]:
    return (await map_children(part, range(count), concurrency=2)).results


STARTED = [recorded("child_started", f"part-{n + 1}", workflow="part", version=1, input=n) for n in range(3)]
ENDED = [recorded("child_completed", f"part-{n}", result=f"r{n}") for n in (1, 2, 3)]
DECIDED = recorded(
    "map_decided", "map_part-1", why="all", started=3, completed=3, failed=0, cancelled=0, decided_by=[]
)


def test_a_fresh_map_starts_as_many_as_it_may_and_the_next_in_the_turn_that_makes_room() -> None:
    """CH33 ``map_children``: a sliding window."""
    run = Run(two_at_a_time, 3)
    assert keys(run) == ["part-1", "part-2"]
    run.child_completed("part-2", "r2")
    assert keys(run) == ["part-3"]
    run.restart()
    run.child_completed("part-3", None)
    assert run.commands == ()
    run.child_completed("part-1", "r1")
    assert run.result == ["r1", "r2", None], "in the order of the items, and None is a value"
    assert decided(run) == c.DecideMap("map_part-1", "all", 3, 3, 0, 0)


def test_a_recorded_map_is_decided_again() -> None:
    run = Run.replayed(two_at_a_time, 3, *STARTED[:2], ENDED[0], STARTED[2], ENDED[1], ENDED[2], DECIDED)
    assert run.result == ["r1", "r2", "r3"]


def test_a_map_recorded_but_pending_waits_for_the_children_it_has_in_flight() -> None:
    run = Run.replayed(two_at_a_time, 3, *STARTED[:2], ENDED[0], STARTED[2])
    assert run.open == ()
    assert run.machine.waiting_for() == "child part-2 (part); child part-3 (part)"
    run.child_completed("part-3", "r3")
    run.child_completed("part-2", "r2")
    assert run.result == ["r1", "r2", "r3"]


# What decides.


def test_a_map_of_nothing_is_decided_at_once() -> None:
    run = mapping(list)
    assert decided(run).why == "all"
    assert run.result == {"results": [], "outcomes": [], "decided_by": [], "counts": [0, 0, 0]}


def test_the_first_that_complete_decide_and_the_rest_is_cancelled() -> None:
    run = mapping(min_successful=2, tolerate_failures=None)
    run.child_failed("part-1", BOOM)
    run.child_completed("part-4", "r4")
    run.child_completed("part-2", "r2")
    assert cancelled(run) == ["part-3"]
    assert decided(run) == c.DecideMap("map_part-1", "enough", 4, 2, 1, 0, ("part-4", "part-2"))
    assert run.result == {
        "results": ["r2", "r4"],
        "outcomes": ["Failed", "Completed", None, "Completed"],
        "decided_by": ["run-1/part-4", "run-1/part-2"],
        "counts": [2, 1, 0],
    }


def test_the_rest_may_be_abandoned() -> None:
    run = mapping(min_successful=1, rest="abandon", concurrency=2)
    run.child_completed("part-2", "r2")
    assert cancelled(run) == []
    assert run.result["outcomes"] == [None, "Completed", None, None], "those never started are None, too"


def test_one_failure_fails_a_map_that_tolerates_none() -> None:
    run = mapping(concurrency=2)
    run.child_completed("part-1", "r1")
    run.child_failed("part-2", BOOM)
    assert (keys(run), cancelled(run)) == ([], ["part-3"])
    assert decided(run) == c.DecideMap("map_part-1", "too_many_failed", 3, 1, 1, 0, ("part-2",))
    assert run.result["results"] == ["r1"]
    assert run.result["decided_by"] == ["run-1/part-2"]
    assert "tolerate_failures is 0" in run.result["error"]
    assert "ValueError: boom" in run.result["cause"]


def test_a_cancelled_child_counts_as_one_that_failed() -> None:
    run = mapping(tolerate_failures=1)
    run.child_cancelled("part-3")
    assert run.closing is None
    run.child_failed("part-1", BOOM)
    assert run.result["counts"] == [0, 1, 1]
    assert run.result["decided_by"] == ["run-1/part-3", "run-1/part-1"]
    assert "ChildCancelled" in run.result["cause"], "the first of them"


def test_failures_within_the_tolerance_are_outcomes() -> None:
    outcomes: list[Any] = []

    @workflow
    async def flow() -> list[str | None]:
        done = await map_children(part, range(3), tolerate_failures=None)
        outcomes[:] = done.outcomes
        return done.results

    run = Run(flow)
    run.child_failed("part-1", BOOM)
    run.child_cancelled("part-2", "no need")
    run.child_completed("part-3")
    assert run.result == [None]
    first, second, third = outcomes
    assert isinstance(first, Failed)
    assert first.error.message == "boom"
    assert (second, third) == (Cancelled("no need"), Completed(None))


def test_a_map_fails_as_soon_as_too_few_are_left_to_complete() -> None:
    run = mapping(lambda: iter(range(3)), min_successful=3, tolerate_failures=None)
    run.child_completed("part-1", "r1")
    run.child_failed("part-2", BOOM)
    assert cancelled(run) == ["part-3"]
    assert decided(run) == c.DecideMap("map_part-1", "too_few", 3, 1, 1, 0, ("part-2",))
    assert "min_successful=3" in run.result["error"]


def test_too_few_items_fail_a_map_without_a_cause() -> None:
    run = mapping(lambda: iter(range(1)), min_successful=2)
    assert decided(run).why == "too_few", "known as soon as the items have run out"
    assert (run.result["counts"], run.result["cause"]) == ([0, 0, 0], "None")


def test_a_failed_map_that_is_let_through_fails_the_run_with_its_cause() -> None:
    run = Run(two_at_a_time, 3)
    run.child_failed("part-1", BOOM)
    assert [failure.type for failure in run.failure.chain()] == ["MapFailed", "ChildFailed", "ValueError"]


@pytest.mark.parametrize(
    "options", [{"min_successful": 1}, {"tolerate_failures": 1}, {"rest": "abandon"}], ids=str
)
def test_a_replay_under_another_policy_diverges(options: dict[str, Any]) -> None:
    @workflow
    async def flow() -> list[str | None]:
        try:
            return (await map_children(part, range(3), **options)).results
        except MapFailed:
            return []

    failed = recorded("child_failed", "part-2", error={"type": "ValueError", "message": "boom"})
    entry = recorded(
        "map_decided",
        "map_part-1",
        why="too_many_failed",
        started=3,
        completed=1,
        failed=1,
        cancelled=0,
        decided_by=["part-2"],
    )
    cancel = recorded("child_cancel_requested", "part-3", reason="the map that started it was decided")
    journal = *STARTED, ENDED[0], failed, entry, cancel
    assert Run.replayed(two_all, None, *journal).result == []
    run = Run.replayed(flow, None, *journal, allow_fault=True)
    assert run.divergence.key in ("map_part-1", "part-3")


@workflow
async def two_all() -> list[str | None]:
    try:
        return (await map_children(part, range(3))).results
    except MapFailed:
        return []


# Names.


async def counted(number: int) -> AsyncIterator[int]:
    for n in range(number):
        yield n


def generated(number: int) -> Iterator[int]:
    yield from range(number)


@pytest.mark.parametrize("items", [range, generated, counted, lambda n: list(range(n))])
def test_children_have_the_same_names_however_their_items_are_pulled(items: Callable[[int], Any]) -> None:
    run = mapping(lambda: items(3), concurrency=2)
    assert keys(run) == ["part-1", "part-2"]
    run.child_completed("part-1")
    assert keys(run) == ["part-3"]
    run.restart()
    run.child_completed("part-2")
    run.child_completed("part-3")
    assert run.result["counts"] == [3, 0, 0]


def test_a_second_map_of_a_task_goes_on_counting_and_each_task_counts_by_itself() -> None:
    @workflow
    async def flow() -> list[int]:
        await map_children(part, range(1))
        both = await asyncio.gather(map_children(part, range(1)), map_children(part, range(1)))
        return [done.completed for done in both]

    run = Run(flow)
    run.child_completed("part-1")
    assert keys(run) == ["t1.part-1", "t2.part-1"]
    run.child_completed("t2.part-1")
    assert decided(run).key == "t2.map_part-1"
    run.child_completed("t1.part-1")
    assert run.result == [1, 1]


def test_an_item_names_its_child_and_options_are_those_of_a_child() -> None:
    run = mapping(id=lambda n: f"p{n}", timeout=5, priority=2, concurrency=1)
    command = run.commands[0]
    assert isinstance(command, c.StartChild)
    assert (command.key, command.options.priority) == ("p0", 2)
    run.fired()
    assert "ChildTimedOut" in run.result["cause"]


def test_one_child_for_two_items_of_one_id_and_input_counts_for_both() -> None:
    run = mapping(lambda: [7, 7], id=lambda n: f"p{n}")
    assert keys(run) == ["p7"]
    run.child_completed("p7", "r7")
    assert run.result["results"] == ["r7", "r7"]


def test_a_child_that_has_ended_already_takes_no_room() -> None:
    @workflow
    async def flow() -> list[str | None]:
        await start_child(part, 0, id="p0")
        return (await map_children(part, range(2), id=lambda n: f"p{n}", concurrency=1)).results

    run = Run(flow)
    run.child_completed("p0", "early")
    assert keys(run) == ["p1"]
    run.child_completed("p1", "late")
    assert run.result == ["early", "late"]


# Items that are wrong.


def failing_items() -> Iterator[int]:
    yield 0
    yield 1
    raise LookupError("no more pages")


async def failing_pages() -> AsyncIterator[int]:
    for n in failing_items():
        yield n


@pytest.mark.parametrize(
    ("items", "options", "type_", "position"),
    [
        (lambda: [0, "one"], {}, "EncodeError", 1),
        (failing_items, {}, "LookupError", 2),
        (failing_pages, {}, "LookupError", 2),
        (lambda: range(2), {"id": lambda n: "same"}, "DuplicateChildId", 1),
        (lambda: range(2), {"id": lambda n: "a/b"}, "InvalidId", 0),
        (lambda: range(2), {"id": lambda n: None if n else "ok"}, "TypeError", 1),
        (lambda: range(2), {"id": lambda n: f"{1 // (1 - n)}"}, "ZeroDivisionError", 1),
        (lambda: counted(2), {"id": lambda n: f"{1 // (1 - n)}"}, "ZeroDivisionError", 1),
    ],
)
def test_an_item_that_cannot_be_started_ends_the_map_and_names_its_position(
    items: Callable[[], Any], options: dict[str, Any], type_: str, position: int
) -> None:
    notes: list[str] = []

    @workflow
    async def flow() -> str:
        try:
            await map_children(part, items(), **options)
        except Exception as error:
            notes.extend(error.__notes__)
            return type(error).__name__
        return "taken"

    run = Run(flow)
    assert run.result == type_
    assert notes == [f"at item {position} (the first is 0) of map_children(part, ...)"]
    assert cancelled(run) == keys(run), "the rest is cancelled"
    assert len(keys(run)) == position


def test_a_source_that_fails_later_ends_the_map() -> None:
    run = Run(paged, [0, 5])
    run.completed("t1.page-1", [0])
    assert keys(run) == ["part-1"]
    run.failed("t1.page-2", BOOM)
    assert cancelled(run) == ["part-1"]
    assert run.failure.type == "ActivityFailed"


@workflow
async def paged(starts: list[int]) -> list[str | None]:
    async def items() -> AsyncIterator[int]:
        for start in starts:
            for item in await page(start):
                yield item

    return (await map_children(part, items(), concurrency=2)).results


def test_a_source_may_await_activities_and_is_asked_when_there_is_room() -> None:
    run = Run(paged, [0, 5])
    assert keys(run) == []
    run.completed("t1.page-1", [0, 1, 2])
    assert keys(run) == ["part-1", "part-2"]
    run.child_completed("part-1", "r1")
    assert keys(run) == ["part-3"]
    run.restart()
    run.child_completed("part-2", "r2")
    assert [request.key for request in run.open] == ["t1.page-2"]  # type: ignore[union-attr]
    run.child_completed("part-3", "r3")
    assert run.closing is None, "there may be more items"
    run.completed("t1.page-2", [])
    assert run.result == ["r1", "r2", "r3"]


def test_a_source_that_hangs_does_not_hold_the_result_back() -> None:
    closed: list[str] = []

    async def items() -> AsyncIterator[int]:
        try:
            yield 0
            await wait_signal("never")
        finally:
            closed.append("closed")

    run = mapping(items, min_successful=1)
    run.child_completed("part-1", "r1")
    assert run.result["results"] == ["r1"]


def test_a_source_is_closed_when_the_map_is_decided_and_the_run_goes_on() -> None:
    closed: list[str] = []

    @workflow
    async def flow() -> int:
        async def items(first: int) -> AsyncIterator[int]:
            try:
                yield first
                yield first
                await wait_signal("never")
            except asyncio.CancelledError:
                closed.append("cancelled")
                raise
            finally:
                closed.append("closed")

        done = await map_children(part, items(0), min_successful=1, concurrency=1)
        more = await map_children(part, items(1), min_successful=1, concurrency=3)
        await wait_signal("go")
        return done.completed + more.completed

    run = Run(flow)
    run.replayable = False  # it tells the test what happens, on a replay again
    run.child_completed("part-1")
    assert closed == ["closed"], "it waited for room"
    run.child_completed("part-2")
    run.signal("go")
    assert run.result == 2
    assert closed == ["closed", "cancelled", "closed"]


def test_a_source_that_takes_its_cancellation_for_something_else_starts_nothing_more() -> None:
    async def items() -> AsyncIterator[int]:
        yield 0
        try:
            await wait_signal("never")
        except asyncio.CancelledError:
            yield 1

    @workflow
    async def flow() -> int:
        done = await map_children(part, items(), min_successful=1)
        await wait_signal("go")
        return done.completed

    run = Run(flow)
    run.child_completed("part-1")
    assert keys(run) == []
    run.signal("go")
    assert run.result == 1


def test_a_source_that_cleans_up_for_long_is_left_to_it() -> None:
    @workflow
    async def flow() -> int:
        async def items() -> AsyncIterator[int]:
            try:
                yield 0
                await wait_signal("never")
            finally:
                await page(7)

        done = await map_children(part, items(), min_successful=1)
        await wait_signal("go")
        return done.completed

    run = Run(flow)
    run.child_completed("part-1")
    assert [request.key for request in run.open] == ["t1.page-1"]  # type: ignore[union-attr]
    run.completed("t1.page-1", [])
    run.signal("go")
    assert run.result == 1


class Numbers:
    """An async iterable that is no generator, and has nothing to close."""

    def __init__(self, count: int) -> None:
        self.left = count

    def __aiter__(self) -> Numbers:
        return self

    async def __anext__(self) -> int:
        if not self.left:
            raise StopAsyncIteration
        self.left -= 1
        return self.left


def test_an_async_iterator_without_a_close_is_one_like_others() -> None:
    run = mapping(lambda: Numbers(2))
    run.child_completed("part-1")
    run.child_completed("part-2")
    assert run.result["counts"] == [2, 0, 0]


def test_a_generator_of_items_may_ask_what_a_workflow_may_ask() -> None:
    def items() -> Iterator[int]:
        for _ in range(3):
            start_child(part, 100)
            yield random().randrange(10)

    run = mapping(items, concurrency=2)
    assert keys(run) == ["part-1", "part-2", "part-3", "part-4"], "in the task that maps"
    run.restart()
    run.child_completed("part-2")
    assert keys(run) == ["part-5", "part-6"]


def test_a_source_that_waits_for_something_cancelled_ends_the_map() -> None:
    @workflow
    async def flow() -> str:
        async def items() -> AsyncIterator[int]:
            yield 0
            waiting = asyncio.get_running_loop().create_future()
            waiting.cancel()
            await waiting

        try:
            await map_children(part, items())
        except asyncio.CancelledError:
            return "cancelled"
        return "ended"

    run = Run(flow)
    assert run.result == "cancelled"
    assert cancelled(run) == ["part-1"]


# Cancelling.


@pytest.mark.parametrize("rest", ["cancel", "abandon"])
def test_cancelling_the_wait_leaves_the_rest_as_asked_and_goes_through(rest: str) -> None:
    @workflow
    async def flow() -> str:
        try:
            async with asyncio.timeout(10):
                await map_children(part, range(3), concurrency=2, rest=rest)  # type: ignore[arg-type]
        except TimeoutError:
            await wait_signal("go")
            return "late"
        return "in time"

    run = Run(flow)
    run.child_completed("part-1")
    run.fired()
    assert cancelled(run) == (["part-2", "part-3"] if rest == "cancel" else [])
    run.restart()
    run.child_cancelled("part-2")
    run.signal("go")
    assert run.result == "late"


def test_a_cancelled_run_cancels_its_map() -> None:
    run = Run(two_at_a_time, 3)
    run.cancel("enough")
    assert cancelled(run) == ["part-1", "part-2"]
    assert isinstance(run.closing, c.CancelRun)


# Wrong calls.


@pytest.mark.parametrize(
    ("options", "type_", "words"),
    [
        ({"concurrency": 0}, ValueError, "concurrency is at least 1"),
        ({"concurrency": True}, TypeError, "concurrency is a whole number"),
        ({"concurrency": 2.5}, TypeError, "concurrency is a whole number"),
        ({"min_successful": 0}, ValueError, "min_successful is at least 1"),
        ({"min_successful": 4}, ValueError, "min_successful is 4, of 3 items"),
        ({"min_successful": "2"}, TypeError, "min_successful is a whole number"),
        ({"tolerate_failures": -1}, ValueError, "tolerate_failures must not be negative"),
        ({"tolerate_failures": False}, TypeError, "tolerate_failures is a whole number"),
        ({"rest": "forget"}, ValueError, "rest is 'cancel' or 'abandon'"),
        ({"collect": 1}, TypeError, "collect is True or False"),
        ({"id": "p"}, TypeError, "id is a function"),
        ({"timeot": 5}, TypeError, "did you mean 'timeout'?"),
        ({"concurency": 5}, TypeError, "did you mean 'concurrency'?"),
        (
            {"zzz": 5},
            TypeError,
            "options are: attributes, collect, concurrency, id, min_successful, on_parent_close",
        ),
        ({"items": 7}, TypeError, "items is an iterable"),
        ({"items": {"a", "b"}}, TypeError, "has no order that a replay could repeat; pass sorted(items)"),
        ({"items": frozenset({1})}, TypeError, "pass sorted(items)"),
        ({"flow": page}, TypeError, "takes a workflow's definition"),
    ],
)
def test_a_wrong_call_is_refused_at_the_call(options: dict[str, Any], type_: type, words: str) -> None:
    refused: list[Exception] = []

    @workflow
    async def flow() -> None:
        given = {"flow": part, "items": range(3), **options}
        try:
            map_children(given.pop("flow"), given.pop("items"), **given)
        except Exception as error:
            refused.append(error)

    assert Run(flow).commands == (c.CompleteRun(b"null"),)
    (error, *_) = refused
    assert isinstance(error, type_)
    assert words in str(error)


# Nothing kept.


@workflow
async def uncollected(items: list[int]) -> dict[str, Any]:
    done = await map_children(part, items, id=lambda n: f"p{n}", concurrency=1, collect=False)
    await wait_signal("go")
    return told(done)


def test_a_map_that_collects_nothing_counts() -> None:
    run = Run(uncollected, [0, 1])
    run.child_completed("p0", "r0")
    assert not run.machine.children.knows("p0"), "it is let go"
    assert run.machine.children.workflow_of("p0") == "part"
    assert run.machine.children.has_ended("p0")
    run.child_completed("p1", "r1")
    run.restart()
    run.signal("go")
    assert run.result == {"results": [], "outcomes": [], "decided_by": [], "counts": [2, 0, 0]}


def test_a_key_that_was_let_go_is_for_the_journal_to_say_whose_it_is() -> None:
    run = Run(uncollected, [0, 0])
    run.child_completed("p0", "r0")
    assert keys(run) == ["p0"], "asked for again, as a later generation asks"
    assert not run.machine.children.knows_all
    run.child_completed("p0", "r0")
    run.signal("go")
    assert run.result["counts"] == [2, 0, 0]


def test_a_key_that_was_let_go_and_is_anothers_ends_the_map() -> None:
    @workflow
    async def flow() -> str:
        try:
            await map_children(part, [0, 1], id=lambda n: "same", concurrency=1, collect=False)
        except Exception as error:
            return f"{type(error).__name__} {error.__notes__}"
        return "taken"

    run = Run(flow)
    run.child_completed("same", "r0")
    run.child_start_failed("same", "it is another one")
    assert "DuplicateChildId" in run.result
    assert "at item 1" in run.result


def test_a_child_that_was_let_go_at_its_timeout_and_reports_its_end_is_not_known_again() -> None:
    @workflow
    async def flow() -> int:
        options: Any = {"timeout": 5, "tolerate_failures": None, "collect": False}
        done = await map_children(part, [0], **options)
        await wait_signal("go")
        return done.failed

    run = Run(flow)
    run.fired()
    run.child_cancelled("part-1", "timeout")
    assert not run.machine.children.knows("part-1")
    run.restart()
    run.signal("go")
    assert run.result == 1


def test_the_rest_of_a_map_that_collects_nothing_is_let_go_as_it_ends() -> None:
    @workflow
    async def flow() -> list[str]:
        done = await map_children(part, range(3), min_successful=1, collect=False)
        await wait_signal("go")
        (ref,) = done.decided_by
        return [ref.id, str(await ref)]

    run = Run(flow)
    run.child_completed("part-2", "r2")
    run.child_cancelled("part-1")
    run.child_cancelled("part-3")
    known = [run.machine.children.knows(f"part-{n}") for n in (1, 2, 3)]
    assert known == [False, True, False], "but for the one that decided"
    run.restart()
    run.signal("go")
    assert run.result == ["run-1/part-2", "r2"]


@pytest.mark.parametrize("collect", [True, False])
def test_the_work_for_an_item_does_not_grow_with_their_number(collect: bool) -> None:
    @workflow
    async def flow(count: int) -> int:
        return (await map_children(part, range(count), concurrency=10, collect=collect)).completed

    def calls(count: int) -> int:
        made = 0

        def count_call(frame: Any, event: str, arg: Any) -> None:
            nonlocal made
            made += event == "call"

        run = Run(flow, count)
        run.replayable = False
        events = [recorded("child_completed", f"part-{n + 1}", result="r") for n in range(count)]
        told = [event_of_entry(entry) for entry in events]
        sys.setprofile(count_call)
        try:
            turns = [run.machine.apply(event) for event in told]
        finally:
            sys.setprofile(None)
        assert turns[-1].closing == c.CompleteRun(str(count).encode())
        return made

    assert calls(2_000) < 10.5 * calls(200)
