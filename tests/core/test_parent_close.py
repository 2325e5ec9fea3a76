"""A parent that ends first: whether children may live that are to be cancelled with that."""

import asyncio
from collections.abc import Callable

import pytest
from tests.core.harness import Run, recorded

from continuum import ChildRef, Failure, Retry, activity, child, continue_as_new, start_child, workflow
from continuum._core import events as e
from continuum._core.commands import CompleteRun, ContinueRun, FailRun, RetryRun
from continuum._core.effects import effects
from continuum._core.machine import Machine, RunContext

AT = 1_700_000_000_000_000


@activity
async def charge(order_id: str) -> str:
    return order_id


@workflow
async def ship(order_id: str) -> str:
    return order_id


@workflow
async def parent(policy: str) -> None:
    start_child(ship, "o1", id="ship", on_parent_close=policy)  # type: ignore[arg-type]  # one of two words
    await charge("o1")
    if policy == "neither":
        raise ValueError("no")


def closes(run: Run) -> bool:
    assert isinstance(run.closing, CompleteRun | FailRun), run.turn
    return run.closing.closes_children


CHARGED = recorded("activity_completed", "charge-1", name="charge", input={"order_id": "o1"}, result="ok", at=9)
STARTED = recorded("child_started", "ship", workflow="ship", version=1, input="o1")


@pytest.mark.parametrize(("policy", "expected"), [("cancel", True), ("abandon", False)])
def test_a_fresh_end_says_whether_a_child_closes_with_it(policy: str, expected: bool) -> None:
    """CH26"""
    run = Run(parent, policy)
    run.completed("charge-1", "ok")
    assert closes(run) is expected


def test_a_recorded_end_says_the_same() -> None:
    assert closes(Run.replayed(parent, "cancel", STARTED, CHARGED))
    assert not closes(Run.replayed(parent, "abandon", STARTED, CHARGED))


def test_a_pending_run_has_closed_nothing_yet_and_its_end_does() -> None:
    run = Run.replayed(parent, "cancel", STARTED)
    assert run.closing is None
    run.completed("charge-1", "ok")
    assert closes(run)


@pytest.mark.parametrize(
    "ends",
    [
        lambda run: run.child_completed("ship", "sent"),
        lambda run: run.child_failed("ship", Failure("Lost", "at sea")),
        lambda run: run.child_cancelled("ship"),
    ],
    ids=["completed", "failed", "cancelled"],
)
def test_a_child_that_has_ended_has_nothing_to_be_closed(ends: Callable[[Run], object]) -> None:
    run = Run(parent, "cancel")
    ends(run)
    run.completed("charge-1", "ok")
    assert not closes(run)


def test_a_failing_parent_closes_its_children_too() -> None:
    @workflow
    async def fails() -> None:
        start_child(ship, "o1", on_parent_close="cancel")
        raise ValueError("no")

    assert closes(Run(fails))
    assert isinstance(Run(fails).closing, FailRun)


def test_going_on_as_another_generation_is_no_close_and_the_last_one_closes() -> None:
    """CH26: a child of any generation."""

    @workflow
    async def chain(n: int) -> None:
        if n == 0:
            start_child(ship, "o1", id="ship", on_parent_close="cancel")
        if n < 2:
            continue_as_new(n + 1)

    run = Run(chain, 0)
    assert run.closing == ContinueRun(b"1", closes_children=True)
    assert closes(run.next_generation().next_generation())


def test_a_chain_whose_children_have_ended_closes_nothing() -> None:
    @workflow
    async def chain(n: int) -> None:
        if n:
            await child(ship, "o1", id=f"ship-{n}", on_parent_close="cancel")
            continue_as_new(n - 1)

    run = Run(chain, 1)
    run.child_completed("ship-1", "sent")
    assert run.closing == ContinueRun(b"0")
    assert not closes(run.next_generation())


def test_a_retry_is_no_close_and_hands_on_that_one_may_live() -> None:
    """CH26, CH34"""
    run = Run(parent, "cancel", retry=Retry(max_attempts=2))
    run.failed("charge-1", Failure("Busy", ""))
    assert isinstance(run.closing, RetryRun)
    assert run.closing.closes_children


def test_a_ref_from_an_earlier_generation_may_still_be_closed() -> None:
    @workflow
    async def later(ref: ChildRef[str]) -> None:
        await charge("o1")

    run = Run(later, b'{"id":"run-1/ship","workflow":"ship"}', generation=2, closes_children=True)
    run.completed("charge-1", "ok")
    assert closes(run)


@pytest.mark.parametrize(
    ("policy", "cancelled", "expected"),
    [
        ("cancel", False, "close"),
        ("abandon", False, "leave"),
        ("abandon", True, "cancel"),
        ("cancel", True, "cancel"),
    ],
)
def test_effects_say_what_becomes_of_the_runs_below(policy: str, cancelled: bool, expected: str) -> None:
    context = RunContext("batch")
    machine = Machine(parent, context)
    machine.apply(e.RunStarted(AT, f'"{policy}"'.encode()))
    event: e.Event = e.ActivityCompleted(AT + 5, "charge-1", "charge", b'{"order_id":"o1"}', b'"ok"')
    if cancelled:
        event = e.CancelRequested(AT + 5, "enough")
    assert effects(context, event, machine.apply(event)).descendants == expected
    machine.discard()


def test_a_cancelled_child_counts_until_its_end_is_known() -> None:
    @workflow
    async def flow() -> None:
        ref = start_child(ship, "o1", on_parent_close="cancel")
        await asyncio.sleep(0)
        ref.cancel()

    assert closes(Run(flow))
