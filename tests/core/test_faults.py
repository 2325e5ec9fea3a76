"""A fault is out of the workflow's reach: nothing catches it, nothing acts after it, nothing hides it."""

import asyncio
import sys
import threading
from collections.abc import Callable, Coroutine
from types import FrameType
from typing import Any, cast

import pytest
from tests.core.harness import Run, recorded

from continuum import (
    activity,
    child,
    continue_as_new,
    patched,
    side_effect,
    start_child,
    wait_condition,
    wait_signal,
    workflow,
)
from continuum._core.faults import Divergence, Overrun, Undecodable, source_line


@activity
async def charge(order_id: str) -> str:
    return order_id


@workflow
async def ship(order_id: str) -> str:
    return order_id


SEEN: list[object] = []
STARTED = recorded("child_started", "old", workflow="ship", version=1, input="o1")


@pytest.fixture(autouse=True)
def _nothing_seen() -> None:
    SEEN.clear()


def parked(body: Callable[[], Coroutine[Any, Any, Any]]) -> Run:
    """Replay code that starts the child ``new`` against a journal that has the child ``old``."""

    @workflow
    async def flow() -> str:
        return str(await body())

    run = Run.replayed(flow, None, STARTED, allow_fault=True)
    assert (run.commands, run.closing) == ((), None)
    assert (run.divergence.recorded[:17], run.divergence.key) == ("child_started old", "new")
    return run


async def diverge() -> str:
    return await start_child(ship, "o1", id="new")


def test_except_exception_does_not_see_it() -> None:
    """RP05: a saga's ``except Exception`` cannot swallow an engine error."""

    async def body() -> str:
        try:
            return await diverge()
        except Exception as error:
            SEEN.append(error)
            return "swallowed"

    parked(body)
    assert SEEN == []


def test_an_exception_in_its_way_does_not_hide_it() -> None:
    """RP05: nor does raising something else instead."""

    async def body() -> str:
        try:
            return await diverge()
        finally:
            raise ValueError("something else")

    parked(body)


@pytest.mark.parametrize(
    "act",
    [
        lambda: charge("again"),
        lambda: child(ship, "o2"),
        lambda: start_child(ship, "o2"),
        lambda: asyncio.sleep(5),
        lambda: asyncio.sleep(0),
        lambda: wait_signal("go"),
        lambda: wait_condition(lambda: True),
        lambda: asyncio.gather(charge("a"), asyncio.sleep(1)),
    ],
    ids=["activity", "child", "start_child", "sleep", "sleep 0", "signal", "condition", "gather"],
)
def test_except_base_exception_sees_it_and_can_do_nothing(act: Callable[[], Any]) -> None:
    """RP05: ``except BaseException`` cannot act after a divergence, nor bring the run to an end."""

    async def body() -> str:
        try:
            return await diverge()
        except BaseException:
            return str(await act())

    parked(body)


@pytest.mark.parametrize(
    "act",
    [lambda: side_effect(lambda: SEEN.append("called")), lambda: patched("p"), lambda: continue_as_new()],
    ids=["side_effect", "patched", "continue_as_new"],
)
def test_what_is_called_without_await_after_it_has_no_effect(act: Callable[[], Any]) -> None:
    """RP05: nor by what acts at the call."""

    async def body() -> str:
        try:
            return await diverge()
        except BaseException:
            return str(act())

    parked(body)
    assert SEEN == []


def test_a_finally_that_acts_reaches_nothing() -> None:
    """RP05: nor by ``finally``."""

    async def body() -> str:
        try:
            return await diverge()
        finally:
            await charge("refund")

    parked(body)


def test_other_tasks_of_the_run_go_no_further() -> None:
    async def other() -> None:
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        SEEN.append("went on")

    async def body() -> str:
        task = asyncio.create_task(other())
        await asyncio.sleep(0)
        return await diverge() + str(await task)

    parked(body)
    assert SEEN == []


def test_a_group_does_not_turn_it_into_an_exception_group() -> None:
    async def body() -> str:
        try:
            async with asyncio.TaskGroup() as group:
                task = group.create_task(diverge())
            return task.result()
        except BaseExceptionGroup as error:
            SEEN.append(error)
            return "swallowed"

    parked(body)
    assert SEEN == []


def test_gather_with_return_exceptions_does_not_collect_it() -> None:
    async def body() -> str:
        return str(await asyncio.gather(diverge(), return_exceptions=True))

    parked(body)


def test_a_faulty_machine_takes_no_further_event() -> None:
    run = parked(diverge)
    with pytest.raises(RuntimeError, match="'run-1'"):
        run.signal("go")
    with pytest.raises(RuntimeError, match="'run-1'"):
        run.machine.replay(run.started, [])


def test_a_run_goes_on_once_the_code_is_right_again() -> None:
    """RP02: a parked run is resumable after a fix."""

    @workflow(name="flow")
    async def wrong() -> str:
        return await child(ship, "o1", id="new")

    @workflow(name="flow")
    async def fixed() -> str:
        return await child(ship, "o1", id="old")

    Run.replayed(wrong, None, STARTED, allow_fault=True)
    run = Run.replayed(fixed, None, STARTED)
    run.child_completed("old", "at sea")
    assert run.result == "at sea"


# Faults of the recorded values.


def test_a_recorded_result_that_does_not_fit_any_more_is_a_fault_with_its_field() -> None:
    @workflow
    async def flow() -> str:
        try:
            return await charge("o1")
        except Exception:
            return "swallowed"

    entry = recorded("activity_completed", "charge-1", name="charge", input={"order_id": "o1"}, result=5)
    fault = Run.replayed(flow, None, entry, allow_fault=True).fault
    assert isinstance(fault, Undecodable)
    assert fault.key == "charge-1"
    assert "result of activity 'charge'" in str(fault)


def test_a_childs_result_that_does_not_fit_is_a_fault() -> None:
    @workflow
    async def flow() -> str:
        try:
            return await child(ship, "o1")
        except Exception:
            return "swallowed"

    run = Run(flow, allow_fault=True)
    run.child_completed("ship-1", {"not": "text"})
    assert isinstance(run.fault, Undecodable)
    assert run.fault.key == "ship-1"
    assert run.closing is None


def test_a_recorded_side_effect_that_does_not_fit_is_a_fault() -> None:
    @workflow
    async def flow() -> int:
        try:
            return side_effect(lambda: 1, type=int)
        except Exception:
            return 0

    run = Run.replayed(
        flow, None, recorded("side_effect_recorded", "side_effect-1", value="one"), allow_fault=True
    )
    assert isinstance(run.fault, Undecodable)


def test_an_input_that_does_not_fit_is_a_fault() -> None:
    @workflow
    async def flow(number: int) -> int:
        return number

    for text in (b'"one"', b"{", b"", b"\xff"):
        run = Run(flow, text, allow_fault=True)
        assert isinstance(run.fault, Undecodable)
        assert "input of workflow 'flow'" in str(run.fault)
        assert run.commands == ()


def test_a_live_turn_that_ends_in_a_fault_decides_nothing() -> None:
    """What it decided before must not be committed: a replay would take it for a decision of another turn."""

    @workflow
    async def flow() -> None:
        ref = start_child(ship, "o1")

        async def act() -> None:
            await asyncio.wait([ref])
            start_child(ship, "o2", id="second")
            await charge("o1")

        await asyncio.gather(act(), ref)

    run = Run(flow, allow_fault=True)
    run.child_completed("ship-1", {"not": "text"})
    assert isinstance(run.fault, Undecodable)
    assert run.commands == ()


def test_what_a_turn_decided_before_its_fault_is_not_decided(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("continuum._core.machine.MAX_CALLBACKS_PER_TURN", 100)

    @workflow
    async def flow() -> None:
        start_child(ship, "o1")
        while True:
            await asyncio.sleep(0)

    run = Run(flow, allow_fault=True)
    assert isinstance(run.fault, Overrun)
    assert run.commands == ()


# Endless turns.


def test_a_loop_that_never_waits_is_a_fault_that_names_its_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("continuum._core.machine.MAX_CALLBACKS_PER_TURN", 100)

    @workflow
    async def flow() -> None:
        while True:
            await asyncio.sleep(0)

    fault = Run(flow, allow_fault=True).fault
    assert isinstance(fault, Overrun)
    assert fault.limit == 100
    assert "100 callbacks" in str(fault)
    assert fault.source.startswith("test_faults.py:")


def test_conditions_that_wake_each_other_for_ever_are_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("continuum._core.machine.MAX_CALLBACKS_PER_TURN", 100)
    turns: list[int] = []

    @workflow
    async def flow() -> None:
        async def ping(number: int) -> None:
            while len(turns) < 10_000:
                await wait_condition(lambda: len(turns) % 2 == number)
                turns.append(number)
                await wait_condition(lambda: len(turns) % 2 != number)

        await asyncio.gather(ping(0), ping(1))

    assert isinstance(Run(flow, allow_fault=True).fault, Overrun)


def test_a_divergence_prints_both_sides_below_each_other() -> None:
    text = str(Divergence("child_started a {}", "child_started b {}", "b", "t1.", "flow.py:3 in flow"))
    assert text.splitlines() == [
        "recorded: child_started a {}",
        "decided:  child_started b {}",
        "task:     t1.",
        "source:   flow.py:3 in flow",
    ]


def test_a_workflow_that_blocks_is_found_with_its_line_from_another_thread() -> None:
    """RP08: what a watchdog asks for while a turn does not end."""
    spinning: list[FrameType] = []

    @workflow
    async def flow() -> str:
        spinning.append(sys._getframe())
        while len(spinning) < 2:
            pass
        return "freed"

    results: list[object] = []
    thread = threading.Thread(target=lambda: results.append(Run(flow).result))
    thread.start()
    while not spinning:
        pass
    frame = sys._current_frames()[cast("int", thread.ident)]
    line = source_line(frame)
    spinning.append(frame)
    thread.join()
    assert results == ["freed"]
    assert line.startswith("test_faults.py:")
    assert "flow" in line
