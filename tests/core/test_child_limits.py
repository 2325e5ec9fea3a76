"""What bounds a child: its timeout, and the depth of the tree."""

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest
from tests.core.harness import START_US, Run, recorded

from continuum import ChildDepthExceeded, ChildFailed, ChildTimedOut, child, start_child, workflow
from continuum._core.commands import CancelChild, CancelTimer, CompleteRun, RefuseChild, StartChild, StartTimer
from continuum._core.machine import Machine


@workflow
async def part(number: int) -> str:
    return str(number)


@workflow
async def bounded() -> str:
    try:
        return await child(part, 1, id="p", timeout=timedelta(minutes=1))
    except ChildTimedOut as error:
        return f"{error.child_run_id} {error.workflow} {error.failure.timed_out}"


STARTED = recorded("child_started", "p", workflow="part", version=1, input=1, at=0)


def test_a_fresh_child_with_a_timeout_has_a_timer_with_its_parent() -> None:
    """CH34: a child's timeout is kept by its parent."""
    run = Run(bounded)
    start, timer = run.commands
    assert isinstance(start, StartChild)
    assert start.options.timeout == timedelta(minutes=1)
    assert timer == StartTimer("p.timeout", START_US + 60_000_000)
    run.fired()
    assert run.commands[0] == CancelChild("p", "run-1/p", "timeout", timed_out=True)
    assert run.result == "run-1/p part True"


def test_a_child_out_of_time_is_a_failed_child_and_a_timeout() -> None:
    assert issubclass(ChildTimedOut, ChildFailed)
    assert issubclass(ChildTimedOut, TimeoutError)


def test_a_recorded_timeout_of_a_child_is_raised_again() -> None:
    fired = recorded("timer_fired", "p.timeout", at=60)
    cancel = recorded("child_cancel_requested", "p", reason="timeout", at=60)
    run = Run.replayed(bounded, None, STARTED, fired, cancel)
    assert (run.commands, run.result) == ((), "run-1/p part True")


def test_a_pending_child_with_a_timeout_asks_for_its_timer_again() -> None:
    run = Run.replayed(bounded, None, STARTED)
    assert run.command == StartTimer("p.timeout", START_US + 60_000_000)


def test_a_child_that_ends_in_time_takes_the_timer_back() -> None:
    run = Run(bounded)
    run.child_completed("p", "one")
    assert run.commands == (CancelTimer("p.timeout"), CompleteRun(b'"one"'))


def test_what_a_timed_out_child_still_reports_is_ignored() -> None:
    @workflow
    async def flow() -> list[str]:
        ref = start_child(part, 1, id="p", timeout=5)
        told = [str(await ref.outcome()).partition("(")[0]]
        await asyncio.sleep(60)
        return [*told, str(await ref.outcome()).partition("(")[0]]

    run = Run(flow)
    run.fired()
    run.restart().child_cancelled("p", "timeout")
    run.fired()
    assert run.result == ["Failed", "Failed"]


@pytest.mark.parametrize("timeout", [-1, float("nan"), timedelta(seconds=-1)])
def test_a_timeout_that_is_no_duration_is_refused(timeout: float) -> None:
    @workflow
    async def flow() -> None:
        start_child(part, 1, timeout=timeout)

    failure = Run(flow).failure
    assert failure.type == "ValueError"
    assert "timeout" in failure.message


# Depth.


@workflow
async def deep() -> str:
    try:
        return await child(part, 1)
    except ChildDepthExceeded as error:
        return str(error)


REFUSED = recorded("child_refused", "part-1", workflow="part", depth=11, limit=10)


def test_a_fresh_child_at_the_limit_is_started() -> None:
    assert isinstance(Run(deep, depth=9).command, StartChild)


def test_a_fresh_child_beyond_the_limit_is_refused_in_the_journal() -> None:
    """CH08: a start beyond ``max_child_depth`` raises in the parent."""
    run = Run(deep, depth=10)
    assert run.commands[0] == RefuseChild("part-1", "part", 11, 10)
    assert "part-1" in run.result
    assert "11" in run.result


def test_a_recorded_refusal_is_raised_again_though_the_limit_is_another_now() -> None:
    run = Run.replayed(deep, None, REFUSED, depth=10, max_child_depth=50)
    assert run.commands == ()
    assert "max_child_depth is 10" in run.result


def test_a_recorded_start_stands_though_the_limit_is_lower_now() -> None:
    started = recorded("child_started", "part-1", workflow="part", version=1, input=1)
    run = Run.replayed(deep, None, started, depth=5, max_child_depth=3)
    assert run.machine.waiting_for() == "child part-1 (part)"


def test_after_a_refusal_the_limit_of_the_worker_at_hand_counts() -> None:
    @workflow
    async def flow() -> list[str]:
        told = []
        for number in range(2):
            try:
                start_child(part, number, id=f"p{number}")
                told.append("started")
            except ChildDepthExceeded:
                told.append("refused")
            await asyncio.sleep(1)
        return told

    run = Run(flow, depth=10)
    run.machine.discard()
    run.context = replace(run.context, max_child_depth=11)
    run.machine = Machine(flow, run.context)
    run.machine.replay(run.started, list(run.journal))
    run.fired()
    assert isinstance(run.commands[0], StartChild)
    run.fired()
    assert run.result == ["refused", "started"]
