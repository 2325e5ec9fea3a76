"""What a turn has to bring about: each command in its place, nothing twice, nothing left out."""

import asyncio

import pytest

from continuum import Failure, Workflow, activity, continue_as_new, start_child, wait_signal, workflow
from continuum._core import commands as c
from continuum._core import events as e
from continuum._core.effects import Cancellation, Effects, NewRun, effects, for_parent, to_parent
from continuum._core.entries import Entry, event_of_entry
from continuum._core.machine import Machine, RunContext
from continuum.policies import ChildOptions

AT = 1_700_000_000_000_000


@activity
async def charge(order_id: str) -> str:
    return order_id


@workflow
async def ship(order_id: str) -> str:
    return order_id


@workflow
async def parent(order_id: str) -> None:
    ref = start_child(ship, order_id, id="ship", on_parent_close="cancel")
    ref.signal("hurry", {"by": 3})
    ref.cancel("too late")
    await charge(order_id)


@workflow
async def failing(order_id: str) -> None:
    start_child(ship, order_id)
    asyncio.get_running_loop().create_task(charge(order_id))
    await asyncio.sleep(0)
    raise ValueError("no")


@workflow
async def again(round: int) -> None:
    await charge("o1")
    continue_as_new(round + 1)


def started(flow: Workflow[str, None], context: RunContext) -> Effects:
    machine = Machine(flow, context)
    event = e.RunStarted(AT, b'"o1"')
    found = effects(context, event, machine.apply(event))
    machine.discard()
    return found


def test_a_turn_is_entries_children_messages_and_cancellations_in_one_value() -> None:
    found = started(parent, RunContext("batch", depth=2))
    assert [(entry.type, entry.key, entry.at_us) for entry in found.entries] == [
        ("child_started", "ship", AT),
        ("signal_sent", "signal_hurry-1", AT),
        ("child_cancel_requested", "ship", AT),
    ]
    options = ChildOptions(on_parent_close="cancel")
    assert found.children == (NewRun("batch/ship", "batch", "ship", 3, "ship", 1, b'"o1"', options),)
    assert found.cancels == (Cancellation("batch/ship", "too late"),)
    assert [command.key for command in found.requests if isinstance(command, c.RunActivity)] == ["charge-1"]
    assert (found.closing, found.next_entries) == (None, ())


def test_the_start_of_a_run_is_row_state_and_no_entry() -> None:
    assert all(entry.type != "run_started" for entry in started(parent, RunContext("batch")).entries)


def test_a_signal_to_a_child_is_one_signal_however_often_it_is_delivered() -> None:
    (message,) = started(parent, RunContext("batch", generation=3)).messages
    assert message.run_id == "batch/ship"
    signal = event_of_entry(Entry(message.type, message.key, 5, message.payload))
    assert signal == e.SignalReceived(5, "hurry", b'{"by":3}', "batch/3/signal_hurry-1")


def test_a_turn_that_ends_the_run_asks_for_nothing_more_but_keeps_what_it_decided() -> None:
    found = started(failing, RunContext("batch/part", depth=1))
    assert isinstance(found.closing, c.FailRun)
    assert found.requests == ()
    assert [child.run_id for child in found.children] == ["batch/part/ship-1"]
    message = to_parent("batch/part", found.closing)
    assert (message.run_id, message.type, message.key) == ("batch", "child_failed", "part")


@pytest.mark.parametrize(
    ("closing", "event"),
    [
        (c.CompleteRun(b'{"a":1}'), e.ChildCompleted(7, "part", b'{"a":1}')),
        (c.FailRun(Failure("ValueError", "no")), e.ChildFailed(7, "part", Failure("ValueError", "no"))),
        (c.CancelRun("enough"), e.ChildCancelled(7, "part", "enough")),
    ],
)
def test_how_a_child_ends_is_what_its_parent_reads(closing: c.CompleteRun, event: e.Event) -> None:
    message = to_parent("a/b/part", closing)
    assert message.run_id == "a/b"
    assert event_of_entry(Entry(message.type, message.key, 7, message.payload)) == event
    assert for_parent("part", closing, 7) == event


def test_a_run_that_continues_tells_nobody_and_hands_on_what_it_has_not_read() -> None:
    """CN05: the next generation's first entry is its start, its unread signals are behind it in their order."""
    context = RunContext("batch/part", depth=1)
    machine = Machine(again, context)
    machine.apply(e.RunStarted(AT, b"1"))
    for number in (1, 2):
        machine.apply(e.SignalReceived(AT + number, "go", b"%d" % number))
    event = e.ActivityCompleted(AT + 5, "charge-1", "charge", b'{"order_id":"o1"}', b'"ok"')
    found = effects(context, event, machine.apply(event))
    machine.discard()
    assert [entry.type for entry in found.entries] == ["activity_completed"]
    assert found.messages == ()
    begun, *unread = [event_of_entry(entry) for entry in found.next_entries]
    assert begun == e.RunStarted(AT + 5, b"2", carried=2)
    assert unread == [e.SignalReceived(AT + 1, "go", b"1"), e.SignalReceived(AT + 2, "go", b"2")]


def test_what_one_generation_hands_on_the_next_reads() -> None:
    @workflow
    async def reader(round: int) -> int:
        if round == 1:
            await charge("o1")
            continue_as_new(2)
        first: int = await wait_signal("go", int)
        return first

    context = RunContext("batch")
    machine = Machine(reader, context)
    machine.apply(e.RunStarted(AT, b"1"))
    machine.apply(e.SignalReceived(AT + 1, "go", b"41"))
    event = e.ActivityCompleted(AT + 5, "charge-1", "charge", b'{"order_id":"o1"}', b'"ok"')
    found = effects(context, event, machine.apply(event))
    machine.discard()
    begun = event_of_entry(found.next_entries[0])
    assert isinstance(begun, e.RunStarted)
    following = Machine(reader, RunContext("batch", generation=2))
    turn = following.replay(begun, found.next_entries[1:])
    following.discard()
    assert turn.closing == c.CompleteRun(b"41")
