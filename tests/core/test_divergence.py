"""Code that no longer takes the decisions of its journal: found, told with both sides, never hidden."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

import pytest
from tests.core.harness import Run, recorded

from continuum import NonDeterminismError, activity, child, side_effect, start_child, wait_signal, workflow
from continuum._core.entries import Entry
from continuum._core.faults import Divergence


@activity
async def charge(order_id: str, cents: int = 100) -> str:
    return order_id


@activity
async def pack(order_id: str) -> str:
    return order_id


@dataclass
class Order:
    id: str


@workflow
async def ship(order: Order) -> str:
    return order.id


@workflow
async def bill(order: Order) -> str:
    return order.id


def charged(order_id: str = "o1", cents: int = 100, key: str = "charge-1", name: str = "charge") -> Entry:
    given = {"order_id": order_id, "cents": cents}
    return recorded("activity_completed", key, name=name, input=given, result="paid")


def started(key: str = "ship-1", workflow: str = "ship", order: str = "o1") -> Entry:
    return recorded("child_started", key, workflow=workflow, version=1, input={"id": order})


Body = Callable[[], Coroutine[Any, Any, Any]]


def diverged(body: Body, *journal: Entry) -> Divergence:
    """Replay the journal with that code; it must end in a divergence that is an error as well."""

    @workflow(name="flow")
    async def flow() -> None:
        await body()

    run = Run.replayed(flow, None, *journal, allow_fault=True)
    divergence = run.divergence
    assert (run.commands, run.closing) == ((), None)
    error = divergence.error()
    assert isinstance(error, NonDeterminismError)
    for side in (divergence.recorded, divergence.decided):
        assert side in str(error)
        assert side in str(divergence)
    return divergence


# Activities.


def test_a_changed_argument_of_an_activity_diverges() -> None:
    """RP02: an argument mismatch carries both sides."""
    found = diverged(lambda: charge("o2"), charged("o1"))
    assert '"order_id":"o1"' in found.recorded
    assert '"order_id":"o2"' in found.decided
    assert found.key == "charge-1"


def test_another_activity_under_the_same_key_diverges() -> None:
    """RP02: a name mismatch."""
    found = diverged(lambda: charge("o1"), charged(name="bill"))
    assert "bill" in found.recorded
    assert "charge" in found.decided


def test_a_renamed_activity_diverges() -> None:
    """RP02: a key mismatch names what the workflow waits for."""
    found = diverged(lambda: pack("o1"), charged())
    assert found.recorded.startswith("activity_completed charge-1")
    assert "pack-1" in found.decided


def test_an_activity_in_place_of_a_child_diverges() -> None:
    """RP02: a type mismatch."""
    found = diverged(lambda: charge("o1"), started())
    assert found.recorded.startswith("child_started ship-1")
    assert "charge-1" in found.decided


def test_a_step_added_in_front_diverges() -> None:
    async def body() -> None:
        await pack("o1")
        await charge("o1")

    found = diverged(body, charged())
    assert "pack-1" in found.decided


def test_a_step_that_was_removed_diverges() -> None:
    """RP03: history that nobody asks for any more."""

    async def body() -> None:
        await asyncio.sleep(60)

    found = diverged(body, charged())
    assert "charge-1" in found.recorded
    assert "timer-1" in found.decided


def test_steps_that_changed_places_diverge() -> None:
    async def body() -> None:
        await pack("o1")
        await charge("o1")

    packed = recorded("activity_completed", "pack-1", name="pack", input={"order_id": "o1"}, result="x")
    assert "pack-1" in diverged(body, charged(), packed).decided


def test_a_completed_run_with_entries_left_diverges() -> None:
    """RP03: leftover history behind the end."""

    async def body() -> None:
        await charge("o1")

    packed = recorded("activity_completed", "pack-1", name="pack", input={"order_id": "o1"}, result="x")
    found = diverged(body, charged(), packed)
    assert found.recorded.startswith("activity_completed pack-1")
    assert "CompleteRun" in found.decided


def test_a_signal_behind_the_end_diverges_too() -> None:
    async def body() -> None:
        await charge("o1")

    found = diverged(body, charged(), recorded("signal_received", "go", payload=1))
    assert found.recorded.startswith("signal_received go")


# Children.


def test_a_changed_child_workflow_diverges() -> None:
    """CH13: another workflow at the same key diverges loudly."""

    async def body() -> None:
        await child(bill, Order("o1"), id="x")

    found = diverged(body, started("x"))
    assert '"workflow":"ship"' in found.recorded
    assert '"workflow":"bill"' in found.decided


def test_a_changed_input_of_a_child_diverges() -> None:
    """CH14: changed input diverges."""

    async def body() -> None:
        await child(ship, Order("o2"))

    found = diverged(body, started())
    assert '"id":"o1"' in found.recorded
    assert '"id":"o2"' in found.decided


def test_a_changed_id_of_a_child_diverges() -> None:
    """CH15: a changed ``id=`` diverges."""

    async def body() -> None:
        await child(ship, Order("o1"), id="new")

    found = diverged(body, started("old"))
    assert "child_started old" in found.recorded
    assert "child_started new" in found.decided
    assert found.key == "new"


def test_a_child_that_is_not_started_any_more_diverges() -> None:
    """RP03: leftover decisions."""

    async def body() -> None:
        await wait_signal("go")

    found = diverged(body, started())
    assert found.recorded.startswith("child_started ship-1")
    assert "signal go" in found.decided


def test_a_child_that_is_started_now_and_was_not_diverges() -> None:
    async def body() -> None:
        await charge("o1")
        await child(ship, Order("o1"))
        await wait_signal("go")

    found = diverged(body, charged(), recorded("signal_received", "go", payload=1))
    assert found.recorded == "nothing at this point"
    assert "child_started ship-1" in found.decided


def test_a_side_effect_that_is_new_diverges() -> None:
    async def body() -> None:
        side_effect(lambda: 1)
        await charge("o1")

    found = diverged(body, charged())
    assert "side_effect-1" in found.decided


def test_a_signal_that_is_sent_with_another_payload_diverges() -> None:
    async def body() -> None:
        ref = start_child(ship, Order("o1"))
        ref.signal("go", {"a": 2})
        await ref

    sent = recorded("signal_sent", "signal_go-1", run_id="run-1/ship-1", name="go", payload={"a": 1})
    found = diverged(body, started(), sent)
    assert '{"a":1}' in found.recorded
    assert '{"a":2}' in found.decided


def test_a_child_cancelled_for_another_reason_diverges() -> None:
    async def body() -> None:
        ref = start_child(ship, Order("o1"))
        ref.cancel("new reason")
        await ref

    found = diverged(body, started(), recorded("child_cancel_requested", "ship-1", reason="old reason"))
    assert "old reason" in found.recorded


# Answers that nobody asked for.


@pytest.mark.parametrize(
    "entry",
    [
        recorded("timer_fired", "timer-9"),
        recorded("child_completed", "nobody", result=1),
        recorded("child_failed", "nobody", error={"type": "E", "message": ""}),
        recorded("child_cancelled", "nobody", reason=""),
        charged(key="charge-9"),
    ],
    ids=lambda entry: entry.type,
)
def test_an_answer_to_nothing_diverges_and_names_it(entry: Entry) -> None:
    async def body() -> None:
        await charge("o1")

    found = diverged(body, entry)
    assert entry.key in found.recorded
    assert found.key == entry.key


def test_a_second_answer_to_one_request_diverges() -> None:
    async def body() -> None:
        await charge("o1")
        await pack("o1")

    assert diverged(body, charged(), charged()).key == "charge-1"


# Where.


def test_a_divergence_names_the_line_and_the_task_path() -> None:
    async def inner() -> None:
        await asyncio.sleep(0)
        start_child(ship, Order("o2"))  # this line

    async def body() -> None:
        await asyncio.gather(asyncio.sleep(0), inner())

    found = diverged(body, started("t2.ship-1"))
    assert found.task_path == "t2."
    assert found.source.startswith("test_divergence.py:")
    assert found.source.endswith(".inner")
    line = int(found.source.partition(":")[2].split()[0])
    with open(__file__, encoding="utf-8") as file:
        assert "# this line" in file.readlines()[line - 1]


def test_an_answer_to_nothing_names_the_line_that_waits() -> None:
    async def body() -> None:
        await charge("o1")

    found = diverged(body, recorded("timer_fired", "timer-9"))
    assert found.source.startswith("test_divergence.py:")
    assert found.source.endswith((".body", ".flow"))


# What is no divergence.


@dataclass
class Wider:
    id: str
    express: bool = False


@workflow(name="ship")
async def ship_wider(order: Wider) -> str:
    return order.id


@activity(name="charge")
async def charge_wider(order_id: str, cents: int = 100, currency: str = "EUR") -> str:
    return order_id


def test_a_defaulted_field_that_was_added_to_a_childs_input_parks_nobody() -> None:
    """CH14: a newly defaulted field does not diverge."""

    @workflow
    async def flow() -> str:
        return await child(ship_wider, Wider("o1"))

    run = Run.replayed(flow, None, started())
    run.child_completed("ship-1", "ok")
    assert run.result == "ok"


def test_a_defaulted_parameter_that_was_added_to_an_activity_parks_nobody() -> None:
    """CH14: the same for an activity's arguments."""

    @workflow
    async def flow() -> str:
        return await charge_wider("o1")

    assert Run.replayed(flow, None, charged()).result == "paid"


def test_an_added_parameter_that_is_given_another_value_diverges() -> None:
    found = diverged(lambda: charge_wider("o1", currency="USD"), charged())
    assert "USD" in found.decided


def test_a_raised_version_of_a_child_is_no_divergence() -> None:
    @workflow(name="ship", version=7)
    async def newer(order: Order) -> str:
        return order.id

    @workflow
    async def flow() -> str:
        return await child(newer, Order("o1"))

    run = Run.replayed(flow, None, started())
    assert run.machine.waiting_for() == "child ship-1 (ship)"


def test_decisions_of_one_turn_may_change_places() -> None:
    @workflow
    async def flow() -> None:
        second, first = start_child(ship, Order("b"), id="b"), start_child(ship, Order("a"), id="a")
        await asyncio.gather(first, second)

    run = Run.replayed(flow, None, started("a", order="a"), started("b", order="b"))
    assert run.fault is None


def test_a_payload_whose_keys_stand_in_another_order_is_the_same() -> None:
    @workflow
    async def flow() -> str:
        return await charge("o1")

    given = b'{"cents": 100, "order_id": "o1"}'
    entry = Entry(
        "activity_completed", "charge-1", 0, b'{"result": "paid", "input": %b, "name": "charge"}' % given
    )
    assert Run.replayed(flow, None, entry).result == "paid"
