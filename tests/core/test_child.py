"""One child: started, awaited, told, cancelled; its key and what that key means."""

import asyncio
from dataclasses import dataclass

import pytest
from tests.core.harness import Run, recorded

from continuum import (
    Cancelled,
    ChildCancelled,
    ChildFailed,
    ChildOptions,
    ChildRef,
    Completed,
    DuplicateChildId,
    Failed,
    Failure,
    Retry,
    await_child,
    child,
    start_child,
    workflow,
)
from continuum._core.commands import CancelChild, CompleteRun, SendSignal, StartChild


@dataclass
class Order:
    id: str
    cents: int = 0


@workflow(version=3)
async def ship(order: Order) -> str:
    return order.id


@workflow
async def audit() -> None: ...


@workflow
async def shipped(order: Order) -> str:
    return await child(ship, order)


STARTED = recorded("child_started", "ship-1", workflow="ship", version=3, input={"id": "o1", "cents": 0})
COMPLETED = recorded("child_completed", "ship-1", result="at sea")


def test_a_fresh_child_is_started_and_awaited() -> None:
    run = Run(shipped, Order("o1"))
    given = b'{"id":"o1","cents":0}'
    assert run.command == StartChild("ship-1", "run-1/ship-1", "ship", 3, given, ChildOptions())
    assert run.machine.waiting_for() == "child ship-1 (ship)"
    run.child_completed("ship-1", "at sea")
    assert run.result == "at sea"


def test_a_recorded_child_is_not_started_again() -> None:
    """CH12: a replay yields the same id and result."""
    run = Run.replayed(shipped, Order("o1"), STARTED, COMPLETED)
    assert run.commands == ()
    assert run.result == "at sea"


def test_a_recorded_but_pending_child_is_awaited_without_being_started_again() -> None:
    run = Run.replayed(shipped, Order("o1"), STARTED)
    assert run.commands == ()
    assert run.machine.waiting_for() == "child ship-1 (ship)"
    run.child_completed("ship-1", "at sea")
    assert run.result == "at sea"


# start_child, await_child and await ref.


@workflow
async def both_ways(order: Order) -> list[str]:
    first, second = start_child(ship, order), start_child(ship, order, id="second")
    return [first.id, second.id, await await_child(second), await first]


def test_started_children_are_one_turn_and_their_ids_known_at_once() -> None:
    run = Run(both_ways, Order("o1"))
    assert [command.run_id for command in run.commands] == ["run-1/ship-1", "run-1/second"]
    run.restart().child_completed("ship-1", "A")
    run.child_completed("second", "B")
    assert run.result == ["run-1/ship-1", "run-1/second", "B", "A"]


def test_started_children_that_are_recorded_give_their_recorded_results() -> None:
    second = recorded("child_started", "second", workflow="ship", version=3, input={"id": "o1", "cents": 0})
    ended = recorded("child_completed", "second", result="B")
    run = Run.replayed(both_ways, Order("o1"), STARTED, second, COMPLETED, ended)
    assert run.commands == ()
    assert run.result == ["run-1/ship-1", "run-1/second", "B", "at sea"]


def test_started_children_that_are_pending_are_awaited_again() -> None:
    second = recorded("child_started", "second", workflow="ship", version=3, input={"id": "o1", "cents": 0})
    run = Run.replayed(both_ways, Order("o1"), STARTED, second, COMPLETED)
    assert (run.commands, run.machine.waiting_for()) == ((), "child second (ship)")


def test_a_child_that_nobody_awaits_is_started_all_the_same() -> None:
    @workflow
    async def flow() -> None:
        start_child(audit)

    run = Run(flow)
    assert run.commands[0] == StartChild("audit-1", "run-1/audit-1", "audit", 1, b"null", ChildOptions())
    assert isinstance(run.closing, CompleteRun)


def test_a_ref_awaited_twice_gives_the_same_answer() -> None:
    """CH24: awaiting a ref twice gives the same answer, a result or an error."""

    @workflow
    async def flow() -> list[str]:
        good, bad = start_child(ship, Order("a"), id="good"), start_child(ship, Order("b"), id="bad")
        told = [await good, await good]
        for _ in range(2):
            with pytest.raises(ChildFailed) as caught:
                await bad
            told.append(str(caught.value))
        return told

    run = Run(flow)
    run.child_completed("good", "A")
    run.child_failed("bad", ValueError("no"))
    failed = "child 'run-1/bad' (ship) failed: ValueError: no"
    assert run.result == ["A", "A", failed, failed]


def test_a_child_that_ended_before_it_is_awaited_does_not_suspend_the_run() -> None:
    @workflow
    async def flow() -> str:
        ref = start_child(ship, Order("a"))
        await asyncio.sleep(5)
        return await ref

    run = Run(flow)
    run.child_completed("ship-1", "early")
    run.fired()
    assert run.result == "early"


def test_the_result_is_handed_out_as_its_annotation_says() -> None:
    @workflow
    async def make() -> Order:
        return Order("made")

    @workflow
    async def flow() -> str:
        return repr(await child(make))

    run = Run(flow)
    run.child_completed("make-1", {"id": "made"})
    assert run.result.endswith("Order(id='made', cents=0)")


# Keys.


def test_keys_count_unnamed_children_by_workflow_and_task_path() -> None:
    """CH16: the id is parent/key; unnamed ordinals go by name and task path."""

    @workflow
    async def flow() -> None:
        start_child(ship, Order("a"))
        start_child(audit)
        start_child(ship, Order("b"), id="named")
        start_child(ship, Order("c"))
        async with asyncio.TaskGroup() as group:
            group.create_task(child(ship, Order("d")))
            group.create_task(inner())

    async def inner() -> None:
        await child(ship, Order("e"))

    keys = [command.key for command in Run(flow).commands]
    assert keys == ["ship-1", "audit-1", "named", "ship-2", "ship-3", "t2.ship-1"]


def test_a_later_generation_marks_its_derived_keys_and_leaves_given_ones() -> None:
    """CH16: in the third generation an unnamed child is ``g3.ship-1``."""

    @workflow
    async def flow() -> None:
        start_child(ship, Order("a"))
        start_child(ship, Order("b"), id="named")
        await asyncio.gather(inner())

    async def inner() -> None:
        start_child(ship, Order("c"))

    keys = [c.key for c in Run(flow, generation=3).commands if isinstance(c, StartChild)]
    assert keys == ["g3.ship-1", "named", "g3.t1.ship-1"]


def test_the_same_key_with_the_same_input_is_the_same_child() -> None:
    """CH25: same key, workflow and input: the same child, started once."""

    @workflow
    async def flow() -> list[str]:
        first = start_child(ship, Order("a"), id="x")
        again = start_child(ship, Order("a", 0), id="x")
        assert first == again
        assert len({first, again}) == 1
        return [await again, await child(ship, Order("a"), id="x")]

    run = Run(flow)
    assert [command.key for command in run.commands] == ["x"]
    run.child_completed("x", "one")
    assert run.result == ["one", "one"]


@pytest.mark.parametrize(
    ("how", "words"), [("input", "as ship with another input"), ("workflow", "as ship and not as audit")]
)
def test_the_same_key_for_another_child_is_refused_at_the_call(how: str, words: str) -> None:
    """CH25: same key with another workflow or input raises DuplicateChildId."""

    @workflow
    async def flow() -> str:
        start_child(ship, Order("a"), id="x")
        try:
            _ = start_child(ship, Order("b"), id="x") if how == "input" else start_child(audit, id="x")
        except DuplicateChildId as error:
            return str(error)
        return "started"

    said = Run(flow).result
    assert "run-1/x" in said
    assert words in said


def test_a_key_taken_in_an_earlier_generation_is_raised_at_the_await() -> None:
    """CH25: across generations the refusal is journaled and raised at the first await."""

    @workflow
    async def flow() -> str:
        ref = start_child(ship, Order("b"), id="x")
        try:
            return await ref
        except DuplicateChildId as error:
            return str(error)

    run = Run(flow, generation=2)
    run.child_start_failed("x", "child 'run-1/x' is another one")
    assert run.result == "child 'run-1/x' is another one"


def test_a_derived_key_shared_by_a_given_one_is_refused() -> None:
    @workflow
    async def flow() -> None:
        start_child(ship, Order("a"), id="ship-1")
        start_child(ship, Order("b"))

    assert Run(flow).failure.type == "DuplicateChildId"


# Outcomes.


@workflow
async def ending() -> str:
    match await start_child(ship, Order("a")).outcome():
        case Completed(value):
            return f"completed {value}"
        case Failed(error):
            return f"failed {error.type} {error.message}"
        case Cancelled(reason):
            return f"cancelled {reason}"


def test_outcome_returns_how_the_child_ended_instead_of_raising() -> None:
    """CH33: ``outcome()`` of a completed, a failed and a cancelled child."""
    completed, failed, cancelled = Run(ending), Run(ending), Run(ending)
    completed.child_completed("ship-1", "A")
    failed.restart().child_failed("ship-1", Failure("Lost", "at sea"))
    cancelled.restart().child_cancelled("ship-1", "parent_cancelled")
    told = [completed.result, failed.result, cancelled.result]
    assert told == ["completed A", "failed Lost at sea", "cancelled parent_cancelled"]


def test_a_cancelled_child_raises_child_cancelled_with_its_reason() -> None:
    """CH04: a child cancelled on its own raises ``ChildCancelled`` in the parent."""

    @workflow
    async def flow() -> list[str]:
        try:
            await child(ship, Order("a"))
        except ChildCancelled as error:
            return [error.child_run_id, error.workflow, error.reason]
        return []

    run = Run(flow)
    run.child_cancelled("ship-1", "out of stock")
    assert run.result == ["run-1/ship-1", "ship", "out of stock"]


# Signals and cancelling.


@workflow
async def telling() -> str:
    ref = start_child(ship, Order("a"), id="x")
    ref.signal("hurry", {"by": "noon"})
    ref.signal("hurry")
    await asyncio.sleep(1)
    ref.cancel("too late")
    ref.cancel("once more")
    return str(await ref.outcome())


def test_a_fresh_signal_and_cancel_of_a_child_are_decisions() -> None:
    run = Run(telling)
    assert run.commands[1:3] == (
        SendSignal("signal_hurry-1", "run-1/x", "hurry", b'{"by":"noon"}'),
        SendSignal("signal_hurry-2", "run-1/x", "hurry", b"null"),
    )
    run.fired()
    assert run.command == CancelChild("x", "run-1/x", "too late")
    run.child_cancelled("x", "too late")
    assert run.result == "Cancelled(reason='too late')"


TOLD = [
    recorded("child_started", "x", workflow="ship", version=3, input={"id": "a", "cents": 0}, at=0),
    recorded("signal_sent", "signal_hurry-1", run_id="run-1/x", name="hurry", payload={"by": "noon"}, at=0),
    recorded("signal_sent", "signal_hurry-2", run_id="run-1/x", name="hurry", payload=None, at=0),
    recorded("timer_fired", "timer-1", at=1),
    recorded("child_cancel_requested", "x", reason="too late", at=1),
]


def test_a_recorded_signal_and_cancel_are_not_sent_again() -> None:
    run = Run.replayed(telling, None, *TOLD, recorded("child_cancelled", "x", reason="too late"))
    assert (run.commands, run.result) == ((), "Cancelled(reason='too late')")


def test_a_recorded_cancel_whose_child_has_not_ended_is_waited_for() -> None:
    run = Run.replayed(telling, None, *TOLD)
    assert (run.commands, run.machine.waiting_for()) == ((), "child x (ship)")


def test_cancelling_a_child_that_has_ended_does_nothing() -> None:
    @workflow
    async def flow() -> str:
        ref = start_child(ship, Order("a"))
        value = await ref
        ref.cancel()
        return value

    run = Run(flow)
    run.child_completed("ship-1", "A")
    assert run.command == CompleteRun(b'"A"')


# Options, and refs as values.


def test_options_of_a_child_travel_with_its_start() -> None:
    @workflow
    async def flow() -> None:
        start_child(audit, on_parent_close="cancel", retry=Retry(max_attempts=2), priority=5, attributes={"a": 1})

    options = Run(flow).commands[0].options
    assert options == ChildOptions("cancel", retry=Retry(max_attempts=2), priority=5, attributes={"a": 1})


def test_a_ref_is_a_value_that_goes_through_json() -> None:
    @workflow
    async def flow(ref: ChildRef[Order] | None) -> ChildRef[Order]:
        return ref or ChildRef("run-1/x", "ship")

    assert Run(flow, None).result == {"id": "run-1/x", "workflow": "ship"}
    assert Run(flow, ChildRef("run-9/y", "audit")).result == {"id": "run-9/y", "workflow": "audit"}


def test_a_ref_says_whether_its_child_has_ended() -> None:
    @workflow
    async def flow() -> list[object]:
        ref = start_child(ship, Order("a"))
        with pytest.raises(asyncio.InvalidStateError, match="run-1/ship-1"):
            ref.result()
        before = ref.done()
        await ref
        return [before, ref.done(), ref.cancelled(), ref.result(), ref.exception(), repr(ref)]

    run = Run(flow)
    run.child_completed("ship-1", "A")
    assert run.result == [False, True, False, "A", None, "<child run-1/ship-1 (ship)>"]
