"""Continuing as new: one run, generation after generation."""

import asyncio
from dataclasses import dataclass
from typing import Any

import pytest
from tests.core.harness import START_US, Run, recorded

from continuum import (
    ChildRef,
    ChildTimedOut,
    activity,
    continue_as_new,
    start_child,
    uuid4,
    wait_signal,
    workflow,
)
from continuum._core.commands import AwaitChild, CancelChild, ContinueRun, StartTimer
from continuum._core.events import SignalReceived


@activity
async def fetch(page: int) -> str:
    return str(page)


@workflow
async def part(number: int) -> str:
    return str(number)


@workflow
async def pages(page: int) -> str:
    await fetch(page)
    if page < 3:
        continue_as_new(page + 1)
    return "all"


def fetched(page: int) -> object:
    return recorded("activity_completed", "fetch-1", name="fetch", input={"page": page}, result="x")


def test_a_fresh_continuation_closes_the_generation_with_the_next_input() -> None:
    run = Run(pages, 1)
    run.completed("fetch-1", "x")
    assert run.command == ContinueRun(b"2")


def test_a_recorded_continuation_is_reached_again() -> None:
    """CN03: a replay reaches the same point."""
    run = Run.replayed(pages, 1, fetched(1))
    assert (run.commands, run.closing) == ((), ContinueRun(b"2"))


def test_a_continuation_that_is_not_reached_yet_is_pending() -> None:
    run = Run.replayed(pages, 1, recorded("activity_started", "fetch-1", attempt=1))
    assert (run.command.key, run.closing) == ("fetch-1", None)


def test_the_last_generation_gives_the_result_of_the_chain() -> None:
    run = Run(pages, 1)
    for _ in range(2):
        run.completed("fetch-1", "x")
        run = run.next_generation()
    run.completed("fetch-1", "x")
    assert (run.context.generation, run.result) == (3, "all")


def test_a_changed_input_of_the_continued_generation_diverges() -> None:
    """CN08: a generation replayed with another input than it recorded diverges."""
    run = Run.replayed(pages, 2, fetched(1), allow_fault=True)
    assert run.divergence.key == "fetch-1"


# Signals.


@workflow
async def counting(total: int) -> int:
    total += await wait_signal("add", int)
    await wait_signal("next")
    continue_as_new(total)


def test_unread_signals_are_carried_over_in_order() -> None:
    """CN05: unread signals are copied and stay readable, in order."""
    run = Run(counting, 0)
    run.signal("add", 1)
    run.signal("add", 10, delivery_id="d-10")
    run.signal("other", "for later")
    run.signal("add", 100)
    run.signal("next")
    assert isinstance(run.closing, ContinueRun)
    told = [(signal.name, signal.payload, signal.delivery_id) for signal in run.closing.unread]
    assert told == [("add", b"10", "d-10"), ("other", b'"for later"', None), ("add", b"100", None)]
    second = run.next_generation()
    second.signal("next")
    assert second.closing.input == b"11"
    assert [signal.name for signal in second.closing.unread] == ["other", "add"]


def test_carried_signals_are_there_in_the_first_turn() -> None:
    @workflow
    async def flow() -> list[int]:
        return [await wait_signal("add", int), await wait_signal("add", int)]

    carried = [SignalReceived(START_US, "add", b"1"), SignalReceived(START_US, "add", b"2", "d-2")]
    assert Run(flow, generation=2, carried=carried).result == [1, 2]


def test_a_generation_with_carried_signals_restarts_like_any_other() -> None:
    carried = [SignalReceived(START_US, "add", b"1")]
    run = Run(counting, 0, generation=2, carried=carried)
    run.restart().signal("next")
    assert run.restart().closing == ContinueRun(b"1")


def test_more_carried_signals_than_entries_is_a_fault() -> None:
    run = Run(counting, 0, allow_fault=True)
    machine, started = run.machine, run.started
    fresh = type(machine)(counting, run.context)
    turn = fresh.replay(type(started)(started.at_us, b"0", carried=2), [])
    assert "2 carried signals" in str(turn.fault)
    fresh.discard()


# Children.


@dataclass
class Batch:
    refs: list[ChildRef[str]]
    results: list[str]


@workflow
async def batch(given: Batch) -> list[str]:
    if not given.refs and not given.results:
        continue_as_new(Batch([start_child(part, n, id=f"p{n}") for n in range(2)], []))
    return given.results + await asyncio.gather(*given.refs)


def test_a_ref_carried_into_the_next_generation_is_asked_for_and_awaited() -> None:
    """CH23: a ref carried into the next generation can be awaited."""
    run = Run(batch, Batch([], [])).next_generation()
    assert run.commands == (AwaitChild("p0", "run-1/p0"), AwaitChild("p1", "run-1/p1"))
    run.child_completed("p1", "B")
    assert run.restart().open == (AwaitChild("p0", "run-1/p0"),)
    run.child_completed("p0", "A")
    assert run.result == ["A", "B"]


def test_a_carried_ref_is_decoded_as_its_annotation_says() -> None:
    @workflow
    async def flow(ref: ChildRef[Batch]) -> str:
        return type(await ref).__name__

    run = Run(flow, ChildRef("run-1/x"), generation=2)
    run.child_completed("x", {"refs": [], "results": []})
    assert run.result == "Batch"


def test_an_outcome_nobody_in_this_generation_started_is_kept_for_its_ref() -> None:
    @workflow
    async def flow(ref: ChildRef[str]) -> str:
        await fetch(1)
        return await ref

    run = Run(flow, ChildRef("run-1/x", "part"), generation=2)
    run.child_completed("x", "early")
    run.completed("fetch-1", "x")
    assert run.result == "early"


def test_the_timeout_of_a_child_is_carried_and_kept_by_the_next_generation() -> None:
    @workflow
    async def flow(ref: ChildRef[str] | None) -> str:
        if ref is None:
            ref = start_child(part, 1, id="slow", timeout=60)
            start_child(part, 2, id="quick", timeout=60)
            await fetch(1)
            continue_as_new(ref)
        try:
            return await ref
        except ChildTimedOut as error:
            return f"{error.child_run_id} {error.type}"

    first = Run(flow, None)
    first.child_completed("quick", "done")
    first.completed("fetch-1", "x")
    due = START_US + 60_000_000
    assert first.closing.child_deadlines == (("slow", due),)
    second = first.next_generation()
    assert second.commands == (StartTimer("slow.timeout", due), AwaitChild("slow", "run-1/slow"))
    second.restart().fired()
    assert second.commands[0] == CancelChild("slow", "run-1/slow", "timeout", timed_out=True)
    assert second.result == "run-1/slow TimeoutError"


def test_a_timeout_is_carried_through_generations_that_do_not_look_at_the_child() -> None:
    @workflow
    async def flow(n: int) -> None:
        if n == 1:
            start_child(part, 1, id="p", timeout=60)
        await wait_signal("next")
        continue_as_new(n + 1)

    run = Run(flow, 1)
    for _ in range(2):
        run.signal("next")
        assert run.closing.child_deadlines == (("p", START_US + 60_000_000),)
        run = run.next_generation()
    run.child_completed("p", "in time")
    assert run.open == ()
    run.restart().signal("next")
    assert run.closing == ContinueRun(b"4")


def test_a_deadline_that_passed_between_two_generations_cancels_the_child_at_once() -> None:
    @workflow
    async def flow(n: int) -> None:
        await wait_signal("next")

    run = Run(flow, 2, generation=2, child_deadlines=(("p", START_US - 1),))
    assert run.command == CancelChild("p", "run-1/p", "timeout", timed_out=True)
    assert run.restart().open == ()


# Where and how it may be called.


def test_from_another_task_than_the_main_one_it_is_refused() -> None:
    @workflow
    async def flow(page: int) -> str:
        async def inner() -> None:
            continue_as_new(page + 1)

        try:
            await asyncio.gather(inner())
        except RuntimeError as error:
            return f"{type(error).__name__}: {error}"
        return ""

    run = Run(flow, 1)
    assert run.result.startswith("WorkflowMisuse: continue_as_new()")
    assert "main task" in run.result


@pytest.mark.parametrize("value", ["two", None, 2.5, {"page": 2}])
def test_a_value_that_is_no_input_is_refused(value: Any) -> None:
    @workflow
    async def flow(page: int) -> None:
        continue_as_new(value)

    failure = Run(flow, 1).failure
    assert failure.type == "EncodeError"
    assert "input of workflow 'flow'" in failure.message


def test_except_exception_does_not_stop_it() -> None:
    @workflow
    async def flow(page: int) -> str:
        try:
            continue_as_new(page + 1)
        except Exception:
            return "caught"

    assert Run(flow, 1).closing == ContinueRun(b"2")


@pytest.mark.parametrize("block", ["task group", "timeout", "try"])
def test_it_leaves_blocks_of_the_main_task(block: str) -> None:
    @workflow
    async def flow(page: int) -> None:
        if block == "task group":
            async with asyncio.TaskGroup() as group:
                group.create_task(fetch(page))
                await asyncio.sleep(0)
                continue_as_new(page + 1)
        elif block == "timeout":
            async with asyncio.timeout(60):
                continue_as_new(page + 1)
        else:
            try:
                continue_as_new(page + 1)
            finally:
                await asyncio.sleep(0)

    run = Run(flow, 1)
    assert run.closing == ContinueRun(b"2")


def test_tasks_that_still_wait_are_dropped() -> None:
    ended: list[str] = []

    @workflow
    async def flow(page: int) -> None:
        async def inner() -> None:
            try:
                await fetch(page)
            finally:
                ended.append("inner")
                await fetch(99)

        task = asyncio.create_task(inner())
        await asyncio.sleep(0)
        assert not task.done()
        continue_as_new(page + 1)

    run = Run(flow, 1)
    assert [type(command).__name__ for command in run.commands] == ["RunActivity", "ContinueRun"]
    run.machine.discard()
    assert ended == ["inner"]


def test_a_pending_cancel_beats_the_continuation() -> None:
    """CN07: a workflow that is cancelled before it continues is cancelled."""
    run = Run(pages, 1)
    run.cancel("stop")
    assert type(run.closing).__name__ == "CancelRun"


def test_derived_values_differ_between_generations() -> None:
    @workflow
    async def flow(ids: list[str]) -> list[str]:
        ids = [*ids, str(uuid4())]
        if len(ids) < 3:
            continue_as_new(ids)
        return ids

    run = Run(flow, []).next_generation().next_generation()
    assert len(set(run.result)) == 3
