"""Journal entries: what is written is read back; what is malformed is a fault, never an exception."""

import dataclasses
import json
from typing import Any, get_args

import pytest
from tests.core.harness import Run, recorded

from continuum import Failure, activity, child, side_effect, start_child, wait_signal, workflow
from continuum._core import commands as c
from continuum._core import events as e
from continuum._core.entries import DECISIONS, Entry, entry_of_decision, entry_of_event, event_of_entry
from continuum._core.failure import CHILD_TIMED_OUT
from continuum._core.faults import Fault, Undecodable
from continuum._journal.cascade import stopped
from continuum.policies import ChildOptions

AT = 1_767_225_600_000_001
LOST = Failure("Lost", "at sea", "line 3", Failure("OSError", "no"), (Failure("A", "b"),))

EVENTS: list[e.Event] = [
    e.RunStarted(AT, b'{"id":"o1"}', 2, (("slow", AT),), 3, Failure("Busy", "not now"), True),
    e.ActivityStarted(AT, "charge-1", 3),
    e.ActivityCompleted(AT, "charge-1", "charge", b'{"order_id":"o1"}', b'"paid"'),
    e.ActivityFailed(AT, "charge-1", "charge", b"{}", LOST),
    e.TimerFired(AT, "t1.timer-1"),
    e.ChildCompleted(AT, "ship-1", b"null"),
    e.ChildFailed(AT, "ship-1", Failure("TimeoutError", "", timed_out=True)),
    e.ChildCancelled(AT, "ship-1", 'said "no"'),
    e.ChildStartFailed(AT, "ship-1", "another one"),
    e.SignalReceived(AT, "go", b'{"a":[1,2]}'),
    e.SignalReceived(AT, "go", b"1", 'd-"1"'),
    e.UpdateRequested(AT, "set_address", b'{"a":[1,2]}', 'u-"1"'),
    e.CancelRequested(AT, "out of stock"),
]
DECIDED: list[c.Decision] = [
    c.StartChild("ship-1", "r/ship-1", 'a "name"', 2, b'{"id":"o1"}', ChildOptions()),
    c.RefuseChild("ship-1", "ship", 11, 10),
    c.CancelChild("ship-1", "r/ship-1", "timeout"),
    c.DecideMap("map_ship-1", "enough", 5, 2, 1, 0, ("ship-1", "ship-4")),
    c.SendSignal("signal_go-1", "r/ship-1", "go", b"[1]"),
    c.RecordSideEffect("side_effect-1", b'"eu"'),
    c.RecordSideEffect("side_effect-2", None, LOST),
    c.ApplyPatch("check-first"),
    c.AnswerUpdate("u-1", b'{"ok":true}'),
    c.AnswerUpdate("u-2", None, LOST),
    c.AnswerUpdate("u-3", None, LOST, refused=True),
]


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_an_event_is_read_back_as_it_was_written(event: e.Event) -> None:
    assert event_of_entry(entry_of_event(event)) == event


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_an_event_is_read_back_from_json_that_was_written_anew(event: e.Event) -> None:
    """A dump and a restore may change blanks and the order of keys."""
    entry = entry_of_event(event)
    spaced = json.dumps(dict(sorted(json.loads(entry.payload).items(), reverse=True)), indent=1).encode()
    again = event_of_entry(dataclasses.replace(entry, payload=spaced))
    assert entry_of_event(again) == entry


def test_all_events_and_decisions_are_tried_here() -> None:
    assert {type(event) for event in EVENTS} == set(get_args(e.Event))
    assert {type(decision) for decision in DECIDED} == set(get_args(c.Decision))


@pytest.mark.parametrize("decision", DECIDED, ids=lambda decision: type(decision).__name__)
def test_a_decision_is_one_json_object_of_a_known_type(decision: c.Decision) -> None:
    entry = entry_of_decision(decision, AT)
    assert entry.type in DECISIONS
    assert isinstance(json.loads(entry.payload), dict)


def test_a_child_whose_timeout_cancelled_it_is_heard_of_as_the_timeout_told() -> None:
    """A later generation may be the one that hears of it, and it knows no more than the message says."""
    told = stopped("r/ship-1", "timeout", timed_out=True).message
    assert told is not None
    event = event_of_entry(Entry("child_cancelled", "ship-1", AT, told))
    assert event == e.ChildFailed(AT, "ship-1", CHILD_TIMED_OUT)
    assert entry_of_event(event).type == "child_failed"


def test_types_of_entries_are_the_events_in_snake_case() -> None:
    for event in EVENTS:
        name = "".join("_" + letter.lower() if letter.isupper() else letter for letter in type(event).__name__)
        assert entry_of_event(event).type == name.strip("_")


# What is malformed.


@activity
async def charge(order_id: str) -> str:
    return order_id


@workflow
async def ship(order_id: str) -> str:
    return order_id


@workflow
async def all_kinds() -> str:
    """Ask for one of each, so that every kind of entry has something it could answer."""
    ref = start_child(ship, "o1")
    chosen = side_effect(lambda: 1)
    ref.signal("go", 1)
    ref.cancel("no")
    await charge("o1")
    await wait_signal("go", int)
    return f"{await child(ship, 'o2')} {await ref} {chosen}"


FIRST = [
    recorded("child_started", "ship-1", workflow="ship", version=1, input="o1"),
    recorded("side_effect_recorded", "side_effect-1", value=1),
    recorded("signal_sent", "signal_go-1", run_id="run-1/ship-1", name="go", payload=1),
    recorded("child_cancel_requested", "ship-1", reason="no"),
]
GARBAGE = [b"", b"{", b"[]", b"null", b"1", b'"text"', b"{}", b"\xff\xfe", b'{"result":', b'{"payload":']
ANSWERS = [
    ("activity_completed", "charge-1"),
    ("activity_failed", "charge-1"),
    ("activity_started", "charge-1"),
    ("timer_fired", "timer-1"),
    ("child_completed", "ship-1"),
    ("child_failed", "ship-1"),
    ("child_cancelled", "ship-1"),
    ("child_start_failed", "ship-1"),
    ("signal_received", "go"),
    ("update_requested", "set"),
    ("cancel_requested", ""),
    ("run_started", ""),
]


def replay(*journal: Entry) -> Run:
    return Run.replayed(all_kinds, None, *journal, allow_fault=True)


@pytest.mark.parametrize("payload", GARBAGE)
@pytest.mark.parametrize(("type_", "key"), ANSWERS)
def test_a_malformed_event_never_raises_out_of_a_replay(type_: str, key: str, payload: bytes) -> None:
    run = replay(*FIRST, Entry(type_, key, AT, payload))
    assert run.fault is None or isinstance(run.fault, Fault)


@pytest.mark.parametrize("payload", GARBAGE)
@pytest.mark.parametrize("index", range(len(FIRST)))
def test_a_malformed_decision_is_a_fault(index: int, payload: bytes) -> None:
    journal = list(FIRST)
    journal[index] = dataclasses.replace(journal[index], payload=payload)
    assert isinstance(replay(*journal).fault, Fault)


@pytest.mark.parametrize(
    ("type_", "key", "payload"),
    [
        ("activity_completed", "charge-1", {"name": "charge", "input": {"order_id": "o1"}}),
        ("activity_completed", "charge-1", {"result": "paid"}),
        ("activity_failed", "charge-1", {"name": "charge", "input": {"order_id": "o1"}}),
        ("child_completed", "ship-1", {}),
        ("child_failed", "ship-1", {}),
        ("signal_received", "go", {}),
        ("signal_received", "go", {"delivery_id": "d-1"}),
        ("update_requested", "set", {"id": "u-1"}),
        ("update_requested", "set", {"input": 1}),
    ],
)
def test_a_missing_field_is_a_fault_that_names_it(type_: str, key: str, payload: dict[str, Any]) -> None:
    fault = replay(*FIRST, recorded(type_, key, **payload)).fault
    assert isinstance(fault, Undecodable)
    assert f"{type_} {key}" in str(fault)
    assert any(repr(name) in str(fault) for name in ("name", "result", "error", "payload", "id", "input"))


@pytest.mark.parametrize(
    "entry",
    [
        recorded("activity_started", "charge-1", attempt="many"),
        recorded("activity_started", "charge-1", attempt=None),
        recorded("child_failed", "ship-1", error={"type": "E", "message": "m", "parts": 7}),
        recorded("child_failed", "ship-1", error={"type": "E", "message": "m", "cause": 7}),
        recorded("activity_failed", "charge-1", name=1, input=2, error=3),
        recorded("run_started", input=1, carried="x"),
        recorded("run_started", input=1, child_deadlines=[1]),
        recorded("signal_received", "go", payload="text for an int"),
        recorded("side_effect_recorded", "side_effect-9", error=7),
        recorded("child_refused", "ship-2", depth="deep", limit=None),
    ],
    ids=lambda entry: entry.payload.decode(),
)
def test_fields_of_a_wrong_type_never_raise_out_of_a_replay(entry: Entry) -> None:
    run = replay(*FIRST, entry)
    assert run.fault is None or isinstance(run.fault, Fault)


def test_a_refusal_whose_depth_is_no_number_is_a_fault() -> None:
    @workflow
    async def flow() -> str:
        return await child(ship, "o1")

    entry = recorded("child_refused", "ship-1", depth="deep", limit=None)
    assert isinstance(Run.replayed(flow, None, entry, allow_fault=True).fault, Fault)


@pytest.mark.parametrize("type_", ["", "activity_exploded", "CHILD_COMPLETED", "child_\u0131"])
def test_an_unknown_type_of_entry_is_a_fault_that_names_it(type_: str) -> None:
    fault = replay(*FIRST, recorded(type_, "charge-1")).fault
    assert isinstance(fault, Undecodable)
    assert repr(type_) in str(fault)


def test_a_start_in_the_middle_of_a_journal_is_a_fault() -> None:
    """A second start would run the workflow's code twice in one machine."""
    assert isinstance(replay(*FIRST, recorded("run_started", input=None)).fault, Fault)


def test_the_same_decision_recorded_twice_is_a_fault() -> None:
    assert isinstance(replay(*FIRST, FIRST[0]).fault, Fault)
