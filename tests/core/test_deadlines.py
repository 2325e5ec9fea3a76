"""The timeouts of children that outlive their parent: what the end of a run says of them."""

import asyncio

import pytest
from tests.core.harness import START_US, Run, recorded

from continuum import ChildRef, Failure, Retry, activity, continue_as_new, start_child, workflow
from continuum._core import events as e
from continuum._core.commands import CompleteRun, FailRun, RetryRun
from continuum._core.effects import Deadline, effects
from continuum._core.machine import Machine, RunContext

AFTER_A_MINUTE_US = START_US + 60_000_000


@activity
async def charge(order_id: str) -> str:
    return order_id


@workflow
async def ship(order_id: str) -> str:
    return order_id


@workflow
async def parent(policy: str) -> None:
    start_child(ship, "o1", id="ship", on_parent_close=policy, timeout=60)  # type: ignore[arg-type]  # one of two words
    start_child(ship, "o2", id="slow")
    if await charge("o1") == "lost":
        raise ValueError("no")


STARTED = (
    recorded("child_started", "ship", workflow="ship", version=1, input="o1"),
    recorded("child_started", "slow", workflow="ship", version=1, input="o2"),
)
CHARGED = recorded("activity_completed", "charge-1", name="charge", input={"order_id": "o1"}, result="ok", at=9)


def left(run: Run) -> tuple[tuple[str, int], ...]:
    assert isinstance(run.closing, CompleteRun | FailRun), run.turn
    return run.closing.child_deadlines


@pytest.mark.parametrize("result", ["ok", "lost"])
def test_a_fresh_end_leaves_the_timeouts_of_children_that_live_on(result: str) -> None:
    """CH34: a timeout is for the child's whole life; one without a timeout has none."""
    run = Run(parent, "abandon")
    run.completed("charge-1", result)
    assert isinstance(run.closing, FailRun if result == "lost" else CompleteRun)
    assert left(run) == (("ship", AFTER_A_MINUTE_US),)


def test_a_recorded_end_leaves_the_same() -> None:
    assert left(Run.replayed(parent, "abandon", *STARTED, CHARGED)) == (("ship", AFTER_A_MINUTE_US),)


def test_a_pending_run_has_left_nothing_yet_and_its_end_does() -> None:
    run = Run.replayed(parent, "abandon", *STARTED)
    assert run.closing is None
    run.completed("charge-1", "ok")
    assert left(run) == (("ship", AFTER_A_MINUTE_US),)


@pytest.mark.parametrize("ending", ["completed", "failed", "cancelled", "timed out"])
def test_of_a_child_that_has_ended_nothing_is_left(ending: str) -> None:
    run = Run(parent, "abandon")
    match ending:
        case "completed":
            run.child_completed("ship", "sent")
        case "failed":
            run.child_failed("ship", Failure("Lost", "at sea"))
        case "cancelled":
            run.child_cancelled("ship")
        case _:
            run.fired()
    run.completed("charge-1", "ok")
    assert left(run) == ()


def test_of_a_child_that_closes_with_its_parent_nothing_is_left() -> None:
    run = Run(parent, "cancel")
    run.completed("charge-1", "ok")
    assert left(run) == ()


def test_of_a_child_that_its_parent_has_cancelled_nothing_is_left() -> None:
    @workflow
    async def flow() -> None:
        ref = start_child(ship, "o1", timeout=60)
        await asyncio.sleep(0)
        ref.cancel()

    assert left(Run(flow)) == ()


def test_the_last_generation_leaves_what_the_earlier_ones_have_handed_on() -> None:
    @workflow
    async def chain(n: int) -> None:
        start_child(ship, "o1", id=f"ship-{n}", timeout=60 if n == 0 else 30)
        await asyncio.sleep(1)
        if n < 1:
            continue_as_new(n + 1)

    run = Run(chain, 0)
    run.fired()
    last = run.next_generation()
    last.fired()
    assert left(last) == (("ship-0", AFTER_A_MINUTE_US), ("ship-1", START_US + 32_000_000))


def test_a_ref_from_an_earlier_generation_whose_child_has_ended_leaves_nothing() -> None:
    @workflow
    async def later(ref: ChildRef[str]) -> None:
        await ref

    given = b'{"id":"run-1/ship","workflow":"ship"}'
    run = Run(later, given, generation=2, child_deadlines=(("ship", AFTER_A_MINUTE_US),))
    run.child_completed("ship", "sent")
    assert left(run) == ()


def test_a_run_that_is_tried_again_keeps_its_childrens_timeouts_itself() -> None:
    run = Run(parent, "abandon", retry=Retry(max_attempts=2))
    run.completed("charge-1", "lost")
    assert isinstance(run.closing, RetryRun)
    again = run.next_generation()
    again.completed("charge-1", "lost")
    assert isinstance(again.closing, FailRun)
    assert left(again) == (("ship", AFTER_A_MINUTE_US),)


@pytest.mark.parametrize("cancelled", [False, True])
def test_effects_name_the_runs_and_a_cancelled_one_leaves_none_below(cancelled: bool) -> None:
    context = RunContext("batch")
    machine = Machine(parent, context)
    machine.apply(e.RunStarted(START_US, b'"abandon"'))
    event: e.Event = e.ActivityCompleted(START_US + 5, "charge-1", "charge", b'{"order_id":"o1"}', b'"ok"')
    if cancelled:
        event = e.CancelRequested(START_US + 5, "enough")
    found = effects(context, event, machine.apply(event)).deadlines
    assert found == (() if cancelled else (Deadline("batch/ship", AFTER_A_MINUTE_US),))
    machine.discard()
