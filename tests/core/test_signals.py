"""Signals: waited for, early, in order, typed; none is lost to a waiter that went away."""

import asyncio
from dataclasses import dataclass
from typing import Any

import pytest
from tests.core.harness import START_US, Run, recorded

from continuum import DecodeError, WorkflowMisuse, activity, wait_signal, workflow
from continuum._core.commands import CancelTimer, CompleteRun, StartTimer


@dataclass
class Approval:
    by: str
    cents: int = 0


@activity
async def fetch(url: str) -> str:
    return url


@workflow
async def approved() -> str:
    return repr(await wait_signal("approve", Approval)).rpartition(".")[2]


def test_a_fresh_wait_asks_for_nothing_and_says_what_it_waits_for() -> None:
    run = Run(approved)
    assert run.commands == ()
    assert run.machine.waiting_for() == "signal approve"
    run.signal("approve", {"by": "ann"})
    assert run.result == "Approval(by='ann', cents=0)"


def test_a_recorded_signal_is_read_from_the_journal() -> None:
    run = Run.replayed(approved, None, recorded("signal_received", "approve", payload={"by": "ann"}))
    assert run.result == "Approval(by='ann', cents=0)"


def test_a_recorded_wait_that_is_pending_goes_on_waiting() -> None:
    run = Run.replayed(approved, None, recorded("signal_received", "other", payload={"by": "ann"}))
    assert (run.commands, run.machine.waiting_for()) == ((), "signal approve")
    run.signal("approve", {"by": "bob"}, delivery_id="d-1")
    assert run.result == "Approval(by='bob', cents=0)"


def test_an_early_signal_waits_for_its_reader() -> None:
    """ST01: an early signal waits."""

    @workflow
    async def flow() -> str:
        await fetch("here")
        return await wait_signal("go", str)

    run = Run(flow)
    run.signal("go", "early")
    run.restart().completed("fetch-1", "page")
    assert run.result == "early"


def test_signals_of_one_name_are_read_first_in_first_out() -> None:
    """ST02: first in, first out for each name. ST03: other names do not block."""

    @workflow
    async def flow() -> list[object]:
        numbers = [await wait_signal("n"), await wait_signal("n")]
        return [*numbers, await wait_signal("other"), await wait_signal("n")]

    run = Run(flow)
    run.signal("other", "first of all")
    for number in (1, 2, 3):
        run.restart().signal("n", number)
    assert run.result == [1, 2, "first of all", 3]


def test_waiters_of_one_name_are_served_in_the_order_they_came() -> None:
    @workflow
    async def flow() -> list[int]:
        return await asyncio.gather(*(wait_signal("n", int) for _ in range(3)))

    run = Run(flow)
    for number in (1, 2, 3):
        run.restart().signal("n", number)
    assert run.result == [1, 2, 3]


# Types.


def test_the_type_declared_by_the_workflow_is_the_default() -> None:
    @workflow(signals={"approve": Approval})
    async def flow() -> list[str]:
        return [type(await wait_signal("approve", kind)).__name__ for kind in (None, Any)]

    run = Run(flow)
    run.signal("approve", {"by": "ann"})
    run.signal("approve", {"by": "ann"})
    assert run.result == ["Approval", "dict"]


def test_to_wait_for_what_the_workflow_does_not_declare_is_refused_with_the_nearest_name() -> None:
    @workflow(signals={"approve": Approval})
    async def flow() -> str:
        try:
            await wait_signal("aprove", Approval)
        except WorkflowMisuse as error:
            return str(error)
        return ""

    assert Run(flow).result == (
        "workflow 'flow' declares no signal 'aprove'; did you mean 'approve'?; declare it: @workflow(signals={…})"
    )


def test_a_payload_that_does_not_fit_is_raised_with_its_field_and_is_read() -> None:
    @workflow
    async def flow() -> list[str]:
        try:
            await wait_signal("approve", Approval)
        except DecodeError as error:
            return [error.what, error.field, str(await wait_signal("approve"))]
        return []

    run = Run(flow)
    run.signal("approve", {"by": "ann", "cents": "many"})
    run.restart().signal("approve", 2)
    assert run.result == ["signal 'approve'", "cents", "2"]


# Against a timeout.


@workflow
async def hurried() -> str:
    try:
        return await wait_signal("go", str, timeout=60)
    except TimeoutError:
        return "late"


def test_a_fresh_wait_with_a_timeout_starts_a_timer_and_takes_it_back() -> None:
    """ST04: signal against timeout: the signal wins."""
    run = Run(hurried)
    assert run.command == StartTimer("timer-1", START_US + 60_000_000)
    assert run.machine.waiting_for() == "signal go; timer timer-1"
    run.signal("go", "yes")
    assert run.commands == (CancelTimer("timer-1"), CompleteRun(b'"yes"'))


def test_a_recorded_timeout_of_a_wait_is_raised_again_whatever_comes_later() -> None:
    """ST04: signal against timeout: the timer wins, and a replay agrees."""
    run = Run.replayed(hurried, None, recorded("timer_fired", "timer-1", at=60))
    assert run.result == "late"


def test_a_pending_wait_with_a_timeout_asks_for_its_timer_again() -> None:
    run = Run.replayed(hurried, None, recorded("signal_received", "other", payload=1, at=9))
    assert run.command == StartTimer("timer-1", START_US + 60_000_000)


def test_a_signal_that_is_there_starts_no_timer_that_lasts() -> None:
    @workflow
    async def flow() -> str:
        await fetch("here")
        return await wait_signal("go", str, timeout=60)

    run = Run(flow)
    run.signal("go", "early")
    run.completed("fetch-1", "page")
    assert run.result == "early"
    assert run.open == ()


@pytest.mark.parametrize("end", ["cancelled", "timed out"])
def test_a_waiter_that_goes_away_leaves_the_signal_to_the_next(end: str) -> None:
    @workflow
    async def flow() -> list[str]:
        first = asyncio.create_task(wait_signal("go", str, timeout=5 if end == "timed out" else None))
        second = asyncio.create_task(wait_signal("go", str))
        await asyncio.sleep(5)
        if end == "cancelled":
            first.cancel()
        await asyncio.wait([first])
        return [type(first.exception()).__name__ if not first.cancelled() else "cancelled", await second]

    run = Run(flow)
    while run.open:
        run.fired()
    run.restart().signal("go", "mine")
    assert run.result == ["TimeoutError" if end == "timed out" else "cancelled", "mine"]


def test_a_waiter_woken_and_cancelled_in_one_turn_loses_no_signal() -> None:
    @workflow
    async def flow() -> list[str]:
        first = asyncio.create_task(wait_signal("go", str))
        second = asyncio.create_task(wait_signal("go", str))
        await wait_signal("stop")
        first.cancel()
        await asyncio.wait([first])
        return [str(first.cancelled()), await second]

    @workflow
    async def both_at_once() -> list[str]:
        first = asyncio.create_task(wait_signal("go", str))
        second = asyncio.create_task(wait_signal("go", str))
        canceller = asyncio.create_task(wait_signal("stop"))
        canceller.add_done_callback(lambda _: first.cancel())
        await asyncio.wait([first])
        return [str(first.cancelled()), await second]

    for kind in (flow, both_at_once):
        run = Run(kind)
        run.signal("stop")
        run.restart().signal("go", "mine")
        assert run.result == ["True", "mine"]


def test_a_signal_whose_reader_is_cancelled_in_the_same_turn_goes_to_the_next() -> None:
    @workflow
    async def flow() -> list[str]:
        first = asyncio.create_task(wait_signal("go", str))
        second = asyncio.create_task(wait_signal("go", str))
        watcher = asyncio.create_task(watch(first))
        await watcher
        return [str(first.cancelled()), await second]

    async def watch(first: asyncio.Task[str]) -> None:
        while not signals_arrived():
            await asyncio.sleep(1)
        first.cancel()
        await asyncio.wait([first])

    def signals_arrived() -> bool:
        loop = asyncio.get_running_loop()
        return loop.time() >= START_US / 1_000_000 + 2

    run = Run(flow)
    run.fired()
    run.fired()
    run.restart().signal("go", "mine")
    assert run.result == ["True", "mine"]


def test_waiting_by_hand_with_wait_for_reads_each_signal_once() -> None:
    @workflow
    async def flow() -> list[str]:
        got = []
        while len(got) < 3:
            try:
                got.append(await asyncio.wait_for(wait_signal("go", str), 10))
            except TimeoutError:
                got.append("late")
        return got

    run = Run(flow)
    run.signal("go", "a")
    run.restart().fired()
    run.signal("go", "b")
    assert run.result == ["a", "late", "b"]


@pytest.mark.parametrize("name", ["", None, 3])
def test_a_signal_without_a_name_is_refused(name: object) -> None:
    @workflow
    async def flow() -> None:
        await wait_signal(name)  # type: ignore[call-overload]

    failure = Run(flow).failure
    assert failure.type == "TypeError"
    assert repr(name) in failure.message
