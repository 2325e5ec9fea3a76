"""A child's key that an earlier generation has used: whose outcome is meant."""

from __future__ import annotations

import asyncio

from tests.core.harness import Run, recorded
from tests.core.test_child import Order, ship

from continuum import (
    ChildOptions,
    ChildRef,
    ChildTimedOut,
    DuplicateChildId,
    child,
    continue_as_new,
    start_child,
    wait_signal,
    workflow,
)
from continuum._core.commands import CancelChild, StartChild


@workflow
async def ships_again() -> str:
    await wait_signal("go")
    try:
        return await child(ship, Order("b"), id="x")
    except DuplicateChildId:
        return "duplicate"


ENDED = recorded("child_completed", "x", result="a at sea")
GO = recorded("signal_received", "go", payload=None)
STARTED = recorded("child_started", "x", workflow="ship", version=3, input={"id": "b", "cents": 0})
START = StartChild("x", "run-1/x", "ship", 3, b'{"id":"b","cents":0}', ChildOptions())


def test_an_outcome_from_before_a_start_does_not_answer_it() -> None:
    """CH25: another child's end, known before the key is used again, is not this one's result."""
    run = Run(ships_again, generation=2)
    run.child_completed("x", "a at sea")
    run.signal("go")
    assert run.commands == (START,)
    assert run.closing is None
    assert run.machine.children.unanswered() == [START]
    run.child_start_failed("x", "child 'run-1/x' is another one")
    assert run.result == "duplicate"


def test_the_same_child_started_again_is_answered_again() -> None:
    """CH25: same key, workflow and input: the same child and its outcome."""
    run = Run(ships_again, generation=2)
    run.child_completed("x", "b at sea")
    run.signal("go")
    run.child_completed("x", "b at sea")
    assert run.result == "b at sea"


def test_a_recorded_refusal_of_a_key_whose_outcome_was_known_is_raised_again() -> None:
    refused = recorded("child_start_failed", "x", message="another one")
    late = recorded("child_completed", "x", result="b at sea")
    assert Run.replayed(ships_again, None, ENDED, GO, STARTED, refused, generation=2).result == "duplicate"
    assert Run.replayed(ships_again, None, ENDED, GO, STARTED, late, generation=2).result == "b at sea"


def test_a_start_recorded_but_pending_waits_for_its_own_answer() -> None:
    run = Run.replayed(ships_again, None, ENDED, GO, STARTED, generation=2)
    assert run.closing is None
    assert run.machine.waiting_for() == "child x (ship)"
    assert not run.machine.children.has_ended("x")
    assert run.machine.children.unanswered() == [START]


def test_who_was_told_how_a_child_ended_keeps_that_when_its_key_is_used_again() -> None:
    @workflow
    async def flow(ref: ChildRef[str]) -> list[str]:
        async def again() -> str:
            told = await ref
            try:
                return await child(ship, Order("b"), id="x")
            except DuplicateChildId:
                return f"{told}, then a duplicate"

        async def first() -> str:
            return await ref

        return await asyncio.gather(again(), first())

    run = Run(flow, ChildRef("run-1/x", "ship"), generation=2)
    run.child_completed("x", "a at sea")
    assert run.commands == (START,), "started in the turn in which the other task is told, too"
    run.child_start_failed("x", "another one")
    assert run.result == ["a at sea, then a duplicate", "a at sea"]


def test_a_timeout_bounds_a_child_whose_earlier_outcome_is_known() -> None:
    @workflow
    async def flow() -> str:
        await wait_signal("go")
        try:
            return await start_child(ship, Order("b"), id="x", timeout=5)
        except ChildTimedOut:
            return "late"

    run = Run(flow, generation=2)
    run.child_completed("x", "a at sea")
    run.signal("go")
    run.fired()
    assert run.result == "late"


def test_a_child_is_cancelled_once_in_a_turn_also_if_it_is_started_again_there() -> None:
    @workflow
    async def flow(ref: ChildRef[str] | None) -> str:
        if ref is None:
            continue_as_new(start_child(ship, Order("b"), id="x", timeout=5))
        try:
            return await ref
        except ChildTimedOut:
            start_child(ship, Order("b"), id="x").cancel()
            return "late"

    run = Run(flow).next_generation()
    run.fired()
    assert run.result == "late"
    assert [command.key for command in run.commands if isinstance(command, CancelChild)] == ["x"]
