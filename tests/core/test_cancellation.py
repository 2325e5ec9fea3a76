"""Cooperative cancellation: CancelledError is delivered, clean-up runs, the run ends as its code decides."""

import asyncio

import pytest
from tests.core.harness import Run, recorded

from continuum import (
    ChildCancelled,
    ChildRef,
    activity,
    as_completed,
    await_child,
    child,
    continue_as_new,
    start_child,
    wait_signal,
    workflow,
)
from continuum._core.commands import CancelActivity, CancelChild, CancelRun, CompleteRun, FailRun, RunActivity


@activity
async def fetch(url: str) -> str:
    return url


@activity
async def refund(order_id: str) -> str:
    return order_id


@workflow
async def part(number: int) -> str:
    return str(number)


@workflow
async def careful() -> str:
    try:
        return await fetch("here")
    except asyncio.CancelledError:
        await refund("o1")
        raise


def test_a_fresh_cancel_is_delivered_and_the_clean_up_may_wait() -> None:
    """CA10: CancelledError is delivered, and the clean-up awaits an activity."""
    run = Run(careful)
    run.cancel("out of stock")
    assert run.commands[0] == CancelActivity("fetch-1")
    assert run.commands[1].key == "refund-1"
    run.restart().completed("refund-1", "ok")
    assert run.command == CancelRun("out of stock")


CANCEL = recorded("cancel_requested", reason="out of stock")
REFUNDED = recorded("activity_completed", "refund-1", name="refund", input={"order_id": "o1"}, result="ok", at=9)


def test_a_recorded_cancel_ends_the_run_as_it_did() -> None:
    run = Run.replayed(careful, None, CANCEL, REFUNDED)
    assert (run.commands, run.closing) == ((), CancelRun("out of stock"))


def test_a_recorded_cancel_whose_clean_up_is_pending_asks_for_it_again() -> None:
    run = Run.replayed(careful, None, CANCEL)
    assert [command.key for command in run.commands] == ["refund-1"]


def test_a_workflow_that_does_nothing_about_it_is_cancelled() -> None:
    @workflow
    async def flow() -> None:
        await asyncio.sleep(60)

    run = Run(flow)
    run.cancel("stop")
    assert [type(command).__name__ for command in run.commands] == ["CancelTimer", "CancelRun"]
    assert run.closing == CancelRun("stop")


def test_a_workflow_that_returns_completes() -> None:
    @workflow
    async def flow() -> str:
        try:
            await wait_signal("never")
        except asyncio.CancelledError:
            return "wrapped up"
        return ""

    run = Run(flow)
    run.cancel()
    assert run.command == CompleteRun(b'"wrapped up"')


def test_a_workflow_that_raises_something_else_fails() -> None:
    @workflow
    async def flow() -> None:
        try:
            await wait_signal("never")
        except asyncio.CancelledError:
            raise ValueError("cannot stop now")

    run = Run(flow)
    run.cancel()
    assert run.failure.type == "ValueError"


def test_a_second_cancel_interrupts_the_clean_up() -> None:
    run = Run(careful)
    run.cancel("first")
    run.cancel("second")
    assert run.commands[0] == CancelActivity("refund-1")
    assert isinstance(run.closing, CancelRun)


def test_a_task_that_its_workflow_cancels_is_no_cancelled_run() -> None:
    """CA08: ``cancelled`` is not confused with an error of the workflow's own."""

    @workflow
    async def flow() -> None:
        task = asyncio.create_task(fetch("here"))
        await asyncio.sleep(0)
        task.cancel()
        await task

    run = Run(flow)
    assert isinstance(run.closing, FailRun)
    assert run.failure.type == "CancelledError"


def test_a_swallowed_cancel_lets_the_workflow_go_on() -> None:
    @workflow
    async def flow() -> list[str]:
        told = []
        for _ in range(2):
            try:
                told.append(await fetch("here"))
            except asyncio.CancelledError:
                told.append("not now")
        return told

    run = Run(flow)
    run.cancel()
    run.restart().completed("fetch-2", "page")
    assert run.result == ["not now", "page"]


def test_cancel_reaches_every_task_of_a_group() -> None:
    @workflow
    async def flow() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(fetch("a"))
            group.create_task(fetch("b"))
            group.create_task(child(part, 1))

    run = Run(flow)
    run.cancel("stop")
    assert run.commands[:3] == (
        CancelActivity("fetch-1"),
        CancelActivity("fetch-2"),
        CancelChild("part-1", "run-1/part-1", "its parent stopped waiting"),
    )
    assert run.closing == CancelRun("stop")


def test_a_shield_keeps_its_inner_task() -> None:
    @workflow
    async def flow() -> str:
        inner = asyncio.ensure_future(fetch("here"))
        try:
            await asyncio.shield(inner)
        except asyncio.CancelledError:
            return await inner
        return ""

    run = Run(flow)
    run.cancel()
    assert run.commands == ()
    run.restart().completed("fetch-1", "page")
    assert run.result == "page"


# Children.


def test_cancelling_await_child_cancels_the_child() -> None:
    @workflow
    async def flow() -> str:
        try:
            return await child(part, 1, id="p")
        except asyncio.CancelledError:
            return "stopped"

    run = Run(flow)
    run.cancel()
    assert run.commands[0] == CancelChild("p", "run-1/p", "its parent stopped waiting")
    assert run.result == "stopped"


@pytest.mark.parametrize("how", ["await ref", "await_child", "gather", "outcome"])
def test_cancelling_the_await_of_a_ref_leaves_the_child_alone(how: str) -> None:
    @workflow
    async def flow() -> str:
        ref = start_child(part, 1, id="p")
        ways = {"await ref": ref, "await_child": await_child(ref), "gather": ref, "outcome": ref.outcome()}
        for name in set(ways) - {how}:
            if asyncio.iscoroutine(ways[name]):
                ways[name].close()
        try:
            async with asyncio.timeout(5):
                await (asyncio.gather(ref) if how == "gather" else ways[how])
        except TimeoutError:
            return await ref
        return ""

    run = Run(flow)
    run.fired()
    assert run.commands == ()
    run.restart().child_completed("p", "one")
    assert run.result == "one"


def test_a_child_cancelled_by_its_await_ends_when_it_says_so() -> None:
    @workflow
    async def flow() -> str:
        try:
            async with asyncio.timeout(5):
                await child(part, 1, id="p")
        except TimeoutError:
            pass
        try:
            return await start_child(part, 1, id="p")
        except ChildCancelled as error:
            return error.reason

    run = Run(flow)
    run.fired()
    run.restart().child_cancelled("p", "its parent stopped waiting")
    assert run.result == "its parent stopped waiting"


def test_a_child_that_completes_though_it_was_cancelled_is_ignored() -> None:
    @workflow
    async def flow() -> str:
        try:
            async with asyncio.timeout(5):
                return await child(part, 1, id="p")
        except TimeoutError:
            return "late " + await fetch("here")

    run = Run(flow)
    run.fired()
    run.child_completed("p", "just made it")
    assert run.commands == ()
    run.restart().completed("fetch-1", "page")
    assert run.result == "late page"


def test_who_is_woken_and_cancelled_at_once_leaves_the_ended_child_to_the_next() -> None:
    """One ``as_completed`` for two tasks: the child that ended is not lost with the one that was cancelled."""

    @workflow
    async def flow() -> list[str]:
        ref = start_child(part, 1, id="p")
        tasks: list[asyncio.Task[ChildRef[str]]] = []
        ref.add_done_callback(lambda _: tasks[0].cancel())
        ends = as_completed([ref, start_child(part, 2, id="never")])

        async def take() -> ChildRef[str]:
            return await anext(ends)

        tasks += [asyncio.create_task(take()), asyncio.create_task(take())]
        await asyncio.wait(tasks[:1])
        return [str(tasks[0].cancelled()), (await tasks[1]).id]

    run = Run(flow)
    run.child_completed("p", "one")
    assert run.result == ["True", "run-1/p"]


def test_a_run_that_moves_between_workers_is_cancelled_the_same() -> None:
    run = Run(careful)
    run.restart().cancel("stop")
    run.restart().completed("refund-1", "ok")
    assert run.closing == CancelRun("stop")
    assert [entry.type for entry in run.journal] == ["cancel_requested", "activity_completed"]


def test_a_cancelled_activity_is_not_outstanding() -> None:
    run = Run(careful)
    run.cancel()
    assert [type(request) for request in run.open] == [RunActivity]
    assert run.open[0].key == "refund-1"


def test_continuing_after_a_requested_cancel_lets_it_through() -> None:
    """CA10, CN07: another generation would escape the request."""

    @workflow
    async def chain(n: int) -> None:
        try:
            await fetch("here")
        except asyncio.CancelledError:
            continue_as_new(n + 1)

    run = Run(chain, 1)
    run.cancel("enough")
    assert run.closing == CancelRun("enough")
    replayed = Run.replayed(chain, 1, recorded("cancel_requested", reason="enough"))
    assert replayed.closing == CancelRun("enough")
