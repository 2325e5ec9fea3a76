"""Many children at once: ours, and asyncio's own functions over refs."""

import asyncio
from typing import Any

import pytest
from tests.core.harness import Run, recorded

from continuum import (
    ChildFailed,
    ChildRef,
    Failure,
    Workflow,
    as_completed,
    await_child,
    await_children,
    child,
    start_child,
    workflow,
)
from continuum._core import events as e
from continuum._core.commands import CancelChild, CompleteRun
from continuum._core.ends import is_only_noted
from continuum._core.machine import Machine, RunContext, Turn


@workflow
async def part(number: int) -> str:
    return str(number)


def start(count: int = 3) -> list[ChildRef[str]]:
    return [start_child(part, number, id=f"p{number}") for number in range(count)]


def started(count: int = 3) -> list[object]:
    return [recorded("child_started", f"p{n}", workflow="part", version=1, input=n) for n in range(count)]


def completed(*numbers: int) -> list[object]:
    return [recorded("child_completed", f"p{number}", result=f"r{number}") for number in numbers]


@workflow
async def by_await_children() -> list[str]:
    return await await_children(start())


@workflow
async def by_gather() -> list[str]:
    return await asyncio.gather(*start())


@workflow
async def by_wait() -> list[str]:
    refs = start()
    done, pending = await asyncio.wait([asyncio.ensure_future(ref) for ref in refs])
    assert not pending
    return sorted(task.result() for task in done)


@workflow
async def by_task_group() -> list[str]:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(await_child(ref)) for ref in start()]
    return [task.result() for task in tasks]


@workflow
async def by_loop() -> list[str]:
    return [await ref for ref in start()]


ALL = [by_await_children, by_gather, by_wait, by_task_group, by_loop]


@pytest.mark.parametrize("flow", ALL)
def test_a_fresh_fan_out_is_one_turn_and_keeps_the_order_of_refs(flow: object) -> None:
    """CH02: a fan-out of many keeps the order of refs, whatever ends first."""
    run = Run(flow)
    assert [command.key for command in run.commands] == ["p0", "p1", "p2"]
    for number in (2, 0, 1):
        run.restart().child_completed(f"p{number}", f"r{number}")
    assert run.result == ["r0", "r1", "r2"]


@pytest.mark.parametrize("flow", ALL)
def test_a_recorded_fan_out_starts_nothing_and_gives_the_recorded_results(flow: object) -> None:
    run = Run.replayed(flow, None, *started(), *completed(1, 2, 0))
    assert run.commands == ()
    assert run.result == ["r0", "r1", "r2"]


@pytest.mark.parametrize("flow", ALL)
def test_a_pending_fan_out_waits_for_the_missing_ones(flow: object) -> None:
    run = Run.replayed(flow, None, *started(), *completed(0, 2))
    assert (run.commands, run.machine.waiting_for()) == ((), "child p1 (part)")
    run.child_completed("p1", "r1")
    assert run.result == ["r0", "r1", "r2"]


# await_children.


def test_the_first_failure_in_journal_order_is_raised_at_once_and_the_others_go_on() -> None:
    """CH33: ``await_children`` raises the first that fails, not the first in the list."""

    @workflow
    async def flow() -> list[str]:
        refs = start()
        try:
            return await await_children(refs)
        except ChildFailed as error:
            return [error.child_run_id, await refs[0]]

    run = Run(flow)
    run.child_failed("p2", ValueError("no"))
    assert run.commands == ()
    run.child_failed("p1", ValueError("nor I"))
    run.restart().child_completed("p0", "r0")
    assert run.result == ["run-1/p2", "r0"]


def test_a_run_says_that_it_waits_only_for_what_it_still_awaits() -> None:
    @workflow
    async def flow() -> str:
        refs = start(2)
        try:
            async with asyncio.timeout(5):
                await await_children(refs)
        except TimeoutError:
            pass
        return await refs[0]

    run = Run(flow)
    assert run.machine.waiting_for() == "child p0 (part); child p1 (part); timer timer-1"
    run.fired()
    assert run.machine.waiting_for() == "child p0 (part)"


def test_return_exceptions_waits_for_all_and_puts_errors_in_the_list() -> None:
    """CH33: ``await_children(return_exceptions=True)`` of a completed, a failed and a cancelled child."""

    @workflow
    async def flow() -> list[str]:
        return [str(end) for end in await await_children(start(), return_exceptions=True)]

    run = Run(flow)
    run.child_failed("p1", Failure("Lost", "at sea"))
    run.child_cancelled("p0", "no stock")
    run.restart().child_completed("p2", "r2")
    assert run.result == [
        "child 'run-1/p0' (part) was cancelled: no stock",
        "child 'run-1/p1' (part) failed: Lost: at sea",
        "r2",
    ]


def test_a_result_of_none_is_a_value_among_errors() -> None:
    @workflow
    async def nothing(number: int) -> None: ...

    @workflow
    async def flow() -> list[str]:
        refs = [start_child(nothing, number, id=f"p{number}") for number in range(4)]
        ends = await await_children(refs, return_exceptions=True)
        assert ends[0] is None
        return [type(end).__name__ for end in ends]

    run = Run(flow)
    run.child_cancelled("p3", "")
    run.child_completed("p0", None)
    run.child_failed("p1", ValueError())
    run.child_completed("p2", None)
    assert run.result == ["NoneType", "ChildFailed", "NoneType", "ChildCancelled"]


def test_awaiting_no_children_gives_an_empty_list_at_once() -> None:
    @workflow
    async def flow() -> list[str]:
        return [*await await_children([]), *[ref.id async for ref in as_completed([])]]

    assert Run(flow).result == []


def test_the_same_child_may_stand_twice_in_the_list() -> None:
    @workflow
    async def flow() -> list[str]:
        (ref,) = start(1)
        return await await_children([ref, ref])

    run = Run(flow)
    run.child_completed("p0", "r0")
    assert run.result == ["r0", "r0"]


def test_children_that_failed_before_are_raised_without_waiting() -> None:
    @workflow
    async def flow() -> str:
        refs = start(2)
        await asyncio.sleep(1)
        try:
            await await_children(refs)
        except ChildFailed as error:
            return error.child_run_id
        return ""

    run = Run(flow)
    run.child_failed("p1", ValueError("no"))
    run.fired()
    assert run.result == "run-1/p1"


def test_cancelling_await_children_leaves_the_children_alone() -> None:
    @workflow
    async def flow() -> list[str]:
        refs = start(2)
        try:
            async with asyncio.timeout(5):
                return await await_children(refs)
        except TimeoutError:
            return await await_children(refs)

    run = Run(flow)
    run.child_completed("p0", "r0")
    run.fired()
    assert run.commands == ()
    run.restart().child_completed("p1", "r1")
    assert run.result == ["r0", "r1"]


# as_completed.


@workflow
async def in_order() -> list[str]:
    refs = start()
    await refs[1]
    return [f"{ref.id} {await ref.outcome()}" async for ref in as_completed(refs)]


ORDER = [
    "run-1/p1 Completed(value='r1')",
    "run-1/p2 Completed(value='r2')",
    "run-1/p0 Cancelled(reason='no')",
]


def test_fresh_as_completed_yields_ended_refs_in_journal_order() -> None:
    """CH33: ``as_completed`` yields in journal order, those ended already first."""
    run = Run(in_order)
    run.child_completed("p1", "r1")
    run.restart().child_completed("p2", "r2")
    run.child_cancelled("p0", "no")
    assert run.result == ORDER


def test_recorded_as_completed_yields_in_the_recorded_order() -> None:
    entries = [*started(), *completed(1, 2), recorded("child_cancelled", "p0", reason="no")]
    assert Run.replayed(in_order, None, *entries).result == ORDER


def test_pending_as_completed_waits_for_the_next() -> None:
    run = Run.replayed(in_order, None, *started(), *completed(1, 2))
    assert (run.commands, run.machine.waiting_for()) == ((), "child p0 (part)")


def test_as_completed_that_is_interrupted_loses_no_child() -> None:
    @workflow
    async def flow() -> list[str]:
        ends = as_completed(start(2))
        got = []
        for _ in range(3):
            try:
                async with asyncio.timeout(5):
                    got.append((await anext(ends)).id)
            except TimeoutError:
                got.append("late")
        return got

    run = Run(flow)
    run.child_completed("p1", "r1")
    run.fired()
    run.restart().child_completed("p0", "r0")
    assert run.result == ["run-1/p1", "late", "run-1/p0"]


def test_two_tasks_share_one_as_completed() -> None:
    @workflow
    async def flow() -> list[str]:
        ends = as_completed(start(3))

        async def take() -> list[str]:
            return [ref.id async for ref in ends]

        taken = await asyncio.gather(take(), take())
        return sorted(id for ids in taken for id in ids)

    run = Run(flow)
    for number in (2, 1, 0):
        run.child_completed(f"p{number}", f"r{number}")
    assert run.result == ["run-1/p0", "run-1/p1", "run-1/p2"]


# asyncio's own.


@pytest.mark.parametrize("end", ["child_completed", "child_failed", "child_cancelled"])
def test_wait_takes_refs_as_they_are_and_returns_at_the_first_that_ends(end: str) -> None:
    @workflow
    async def flow() -> list[list[str]]:
        refs: list[Any] = start()
        done, pending = await asyncio.wait(refs, return_when=asyncio.FIRST_COMPLETED)
        assert all(ref.done() for ref in done)
        return [[ref.id for ref in found] for found in (done, sorted(pending, key=lambda ref: ref.id))]

    run = Run(flow)
    getattr(run, end)("p1", ValueError("no") if end == "child_failed" else "told")
    assert run.result == [["run-1/p1"], ["run-1/p0", "run-1/p2"]]


def test_wait_over_refs_ends_at_the_first_that_does_not_complete_if_asked_to() -> None:
    @workflow
    async def flow() -> list[str]:
        refs: list[Any] = start()
        done, _ = await asyncio.wait(refs, return_when=asyncio.FIRST_EXCEPTION, timeout=60)
        return sorted(ref.id for ref in done)

    run = Run(flow)
    run.child_completed("p2", "r2")
    run.restart().child_cancelled("p0", "no")
    assert run.result == ["run-1/p0", "run-1/p2"]


def test_wait_takes_the_first_that_completes() -> None:
    @workflow
    async def flow() -> list[str]:
        tasks = [asyncio.ensure_future(ref) for ref in start()]
        done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in pending:
            task.cancel()
        await asyncio.wait(pending)
        return [task.result() for task in done]

    run = Run(flow)
    run.child_completed("p1", "r1")
    assert run.result == ["r1"]
    assert not [command for command in run.commands if isinstance(command, CancelChild)]


def test_wait_takes_refs_as_they_are() -> None:
    @workflow
    async def flow() -> list[str]:
        done, pending = await asyncio.wait(start(), timeout=5)
        return sorted(ref.id for ref in done) + sorted(ref.id for ref in pending)

    run = Run(flow)
    run.child_completed("p2", "r2")
    run.restart().fired()
    assert run.result == ["run-1/p2", "run-1/p0", "run-1/p1"]


def test_a_failing_child_in_a_task_group_cancels_its_siblings() -> None:
    @workflow
    async def flow() -> list[str]:
        try:
            async with asyncio.TaskGroup() as group:
                for number in range(3):
                    group.create_task(child(part, number, id=f"p{number}"))
        except* ChildFailed as errors:
            failed = [error.child_run_id for error in errors.exceptions]
        return failed

    run = Run(flow)
    run.child_failed("p1", ValueError("no"))
    assert [(type(command).__name__, getattr(command, "key", "")) for command in run.commands] == [
        ("CancelChild", "p0"),
        ("CancelChild", "p2"),
        ("CompleteRun", ""),
    ]
    assert run.result == ["run-1/p1"]


def one_by_one(refs: list[ChildRef[str]]) -> list[Any]:
    return list(asyncio.as_completed(refs))


def test_asyncio_as_completed_is_refused_in_favour_of_ours() -> None:
    @workflow
    async def flow() -> list[str]:
        return [await end for end in one_by_one(start(2))]

    run = Run(flow, allow_fault=True)
    assert "continuum.as_completed" in str(run.fault or run.failure)


def test_gather_over_two_step_chains_swaps_no_results() -> None:
    """CH38: gather over two-step chains of children replays with no swapped results."""

    @workflow
    async def flow() -> list[str]:
        async def chain(number: int) -> str:
            return await child(part, number) + await child(part, number + 10)

        return await asyncio.gather(*(chain(number) for number in range(3)))

    run = Run(flow)
    for task in ("t3", "t1", "t2"):
        run.child_completed(f"{task}.part-1", f"{task}a")
    for task in ("t2", "t3", "t1"):
        run.restart().child_completed(f"{task}.part-2", f"{task}b")
    assert run.result == ["t1at1b", "t2at2b", "t3at3b"]


def test_a_done_callback_is_called_once_and_can_be_dropped() -> None:
    @workflow
    async def flow() -> list[str]:
        kept, dropped = start(2)
        called: list[str] = []

        def unwanted(_: object) -> None:
            called.append("dropped")

        kept.add_done_callback(lambda ref: called.append(ref.id))
        dropped.add_done_callback(unwanted)
        counts = [dropped.remove_done_callback(unwanted), dropped.remove_done_callback(unwanted)]
        await await_children([kept, dropped])
        kept.add_done_callback(lambda ref: called.append("afterwards"))
        await asyncio.sleep(0)
        return [*called, *map(str, counts)]

    run = Run(flow)
    run.child_completed("p1", "r1")
    run.child_completed("p0", "r0")
    assert run.result == ["run-1/p0", "afterwards", "1", "0"]


@workflow
async def by_await_children_twice_over() -> list[str]:
    refs = start()
    return await await_children([refs[0], refs[0]]) + await await_children(refs)


@pytest.mark.parametrize(
    ("flow", "noted"),
    [
        (by_await_children, ["p2", "p0"]),
        (by_await_children_twice_over, ["p2"]),  # p0 is waited for twice
        (by_gather, []),
        (by_loop, ["p2"]),
    ],
)
def test_an_end_that_wakes_nobody_is_taken_in_as_by_a_turn(flow: Workflow[None, Any], noted: list[str]) -> None:
    ends = [e.ChildCompleted(at, f"p{number}", b'"r%d"' % number) for at, number in enumerate((2, 0, 1), 2)]
    machine, other = Machine(flow, RunContext("r")), Machine(flow, RunContext("r"))
    assert machine.apply(e.RunStarted(1, b"null")) == other.apply(e.RunStarted(1, b"null"))
    found: list[str] = []
    for end in ends:
        turn = machine.apply(end)
        if is_only_noted(other, end):
            assert turn == Turn(())
            found.append(end.key)
        else:
            assert other.apply(end) == turn
    assert found == noted
    assert isinstance(other.closing, CompleteRun)
    machine.discard()
    other.discard()
