"""A journal's rows: how events and decisions are written, and read back.

An entry's ``type`` is the event's class in snake_case, or what a decision brought about. Payloads are JSON
objects for people and SQL to read. The rule: an entry written by any past release is read by this one. Values
inside a payload are cut out as they stand where the text is as we wrote it, else parsed and written again.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, cast

from continuum._core import commands as c
from continuum._core import events as e
from continuum._core.failure import CHILD_TIMED_OUT, decode_failure, encode_failure
from continuum._core.jsontext import dump, load
from continuum._core.values import value
from continuum.errors import DecodeError, Failure


@value
class Entry:
    """One row of a journal, in the order of its generation."""

    type: str
    key: str
    at_us: int
    payload: bytes


DECISIONS = frozenset(
    {
        "child_started",
        "child_refused",
        "child_cancel_requested",
        "map_decided",
        "signal_sent",
        "side_effect_recorded",
        "patch_applied",
        "update_answered",
    }
)
_SIGNAL = b'{"payload":'
_CHILD_RESULT = b'{"result":'


def entry_of_event(event: e.Event) -> Entry:
    """Return the entry that records ``event``."""
    match event:
        case e.ActivityCompleted(at, key, name, given, result):
            payload = b'{"name":%b,"input":%b,"result":%b}' % (quoted(name), given, result)
            return Entry("activity_completed", key, at, payload)
        case e.ActivityFailed(at, key, name, given, failure):
            payload = b'{"name":%b,"input":%b,"error":%b}' % (quoted(name), given, encode_failure(failure))
            return Entry("activity_failed", key, at, payload)
        case e.ActivityStarted(at, key, attempt):
            return Entry("activity_started", key, at, b'{"attempt":%d}' % attempt)
        case e.TimerFired(at, key):
            return Entry("timer_fired", key, at, b"{}")
        case e.ChildCompleted():
            return entry_of_child(event)
        case e.ChildFailed(at, key, failure):
            return Entry("child_failed", key, at, b'{"error":%b}' % encode_failure(failure))
        case e.ChildCancelled(at, key, reason):
            return Entry("child_cancelled", key, at, dump({"reason": reason}))
        case e.ChildStartFailed(at, key, message):
            return Entry("child_start_failed", key, at, dump({"message": message}))
        case e.SignalReceived(at, name, payload, None):
            return Entry("signal_received", name, at, b"%b%b}" % (_SIGNAL, payload))
        case e.SignalReceived(at, name, payload, delivery_id):
            text = b'{"delivery_id":%b,"payload":%b}' % (dump(delivery_id), payload)
            return Entry("signal_received", name, at, text)
        case e.UpdateRequested(at, name, payload, update_id):
            return Entry("update_requested", name, at, b'{"id":%b,"input":%b}' % (dump(update_id), payload))
        case e.CancelRequested(at, reason):
            return Entry("cancel_requested", "", at, dump({"reason": reason}))
        case e.RunStarted(at):
            return Entry("run_started", "", at, _start(event))


def entry_of_child(event: e.ChildCompleted) -> Entry:
    """Return the entry that records that a child has completed."""
    return Entry("child_completed", event.key, event.at_us, b"%b%b}" % (_CHILD_RESULT, event.result))


def _start(event: e.RunStarted) -> bytes:
    text = b'{"input":%b,"carried":%d,"child_deadlines":%b' % (
        event.input,
        event.carried,
        dump(dict(event.child_deadlines)),
    )
    if event.closes_children:
        text += b',"closes_children":true'
    if event.attempt > 1:
        text += b',"attempt":%d' % event.attempt
    if event.failure is not None:
        text += b',"error":%b' % encode_failure(event.failure)
    return text + b"}"


def entry_of_decision(decision: c.Decision, at_us: int) -> Entry:
    """Return the entry that records ``decision``, taken in the turn of an event at ``at_us``."""
    match decision:
        case c.StartChild(key, _, workflow, version, given, _):
            text = b'{"workflow":%b,"version":%d,"input":%b}' % (quoted(workflow), version, given)
            return Entry("child_started", key, at_us, text)
        case c.RefuseChild(key, workflow, depth, limit):
            text = dump({"workflow": workflow, "depth": depth, "limit": limit})
            return Entry("child_refused", key, at_us, text)
        case c.CancelChild(key, _, reason, _):
            return Entry("child_cancel_requested", key, at_us, dump({"reason": reason}))
        case c.DecideMap(key, why, started, completed, failed, cancelled, decided_by):
            told = {"why": why, "started": started, "completed": completed, "failed": failed}
            text = dump({**told, "cancelled": cancelled, "decided_by": list(decided_by)})
            return Entry("map_decided", key, at_us, text)
        case c.SendSignal(key, run_id, name, payload):
            text = b'{"run_id":%b,"name":%b,"payload":%b}' % (dump(run_id), dump(name), payload)
            return Entry("signal_sent", key, at_us, text)
        case c.RecordSideEffect(key, value, None):
            return Entry("side_effect_recorded", key, at_us, b'{"value":%b}' % (value or b"null"))
        case c.RecordSideEffect(key, _, failure):
            return Entry(
                "side_effect_recorded", key, at_us, b'{"error":%b}' % encode_failure(cast("Any", failure))
            )
        case c.ApplyPatch(patch):
            return Entry("patch_applied", patch, at_us, b"{}")
        case c.AnswerUpdate(update_id, result, failure, refused):
            return Entry("update_answered", update_id, at_us, answer_of_update(result, failure, refused=refused))


def answer_of_update(result: bytes | None, failure: Failure | None, *, refused: bool) -> bytes:
    """Return the answer to an update as the journal has it and as who asked reads it."""
    if failure is None:
        return b'{"result":%b}' % (result or b"null")
    return b'{"%b":%b}' % (b"refused" if refused else b"error", encode_failure(failure))


@lru_cache(maxsize=4096)
def quoted(name: str) -> bytes:
    """Return a definition's name as JSON text."""
    return dump(name)


def result_prefix(name: str, given: bytes) -> bytes:
    """Return how the payload of an activity's result begins: what was decided, then the answer up to the end."""
    return b'{"name":%b,"input":%b,"result":' % (quoted(name), given)


def event_of_entry(entry: Entry) -> e.Event:
    """Return the event that ``entry`` records. Raises ``DecodeError`` if it records none."""
    reader = _READERS.get(entry.type)
    if reader is None:
        raise DecodeError(f"journal entry {entry.type!r}", "no event of this release has that name")
    try:
        return reader(entry)
    except DecodeError:
        raise
    except (TypeError, ValueError, AttributeError, ArithmeticError, RecursionError) as error:
        raise DecodeError(_label(entry), f"its payload is not as any release wrote it ({error})") from None


def fields_of(entry: Entry) -> dict[str, Any]:
    """Return the payload of ``entry`` parsed. Raises ``DecodeError`` if it is no JSON object."""
    try:
        plain = load(entry.payload)
    except ValueError as error:
        raise DecodeError(_label(entry), f"not JSON: {error}") from None
    if not isinstance(plain, dict):
        raise DecodeError(_label(entry), "not a JSON object")
    return cast("dict[str, Any]", plain)


def value_in(entry: Entry, name: str) -> bytes:
    """Return the member ``name`` of the payload as JSON text."""
    fields = fields_of(entry)
    if name not in fields:
        raise DecodeError(_label(entry), f"its payload has no {name!r}")
    return dump(fields[name])


def _label(entry: Entry) -> str:
    return f"journal entry {entry.type} {entry.key}".rstrip()


def _activity_completed(entry: Entry) -> e.Event:
    fields = _require(entry, "name", "input", "result")
    given, result = dump(fields["input"]), dump(fields["result"])
    return e.ActivityCompleted(entry.at_us, entry.key, str(fields["name"]), given, result)


def _activity_failed(entry: Entry) -> e.Event:
    fields = _require(entry, "name", "input", "error")
    failure = decode_failure(dump(fields["error"]))
    return e.ActivityFailed(entry.at_us, entry.key, str(fields["name"]), dump(fields["input"]), failure)


def _activity_started(entry: Entry) -> e.Event:
    return e.ActivityStarted(entry.at_us, entry.key, int(fields_of(entry).get("attempt", 1)))


def _timer_fired(entry: Entry) -> e.Event:
    return e.TimerFired(entry.at_us, entry.key)


def _child_completed(entry: Entry) -> e.Event:
    payload = entry.payload
    result = payload[len(_CHILD_RESULT) : -1] if payload.startswith(_CHILD_RESULT) else value_in(entry, "result")
    return e.ChildCompleted(entry.at_us, entry.key, result)


def _child_failed(entry: Entry) -> e.Event:
    return e.ChildFailed(entry.at_us, entry.key, decode_failure(value_in(entry, "error")))


def _child_cancelled(entry: Entry) -> e.Event:
    fields = fields_of(entry)
    if fields.get("timed_out"):  # of a message; it is journaled as what it means
        return e.ChildFailed(entry.at_us, entry.key, CHILD_TIMED_OUT)
    return e.ChildCancelled(entry.at_us, entry.key, str(fields.get("reason", "")))


def _child_start_failed(entry: Entry) -> e.Event:
    return e.ChildStartFailed(entry.at_us, entry.key, str(fields_of(entry).get("message", "")))


def _signal_received(entry: Entry) -> e.Event:
    if entry.payload.startswith(_SIGNAL):
        return e.SignalReceived(entry.at_us, entry.key, entry.payload[len(_SIGNAL) : -1])
    fields = _require(entry, "payload")
    return e.SignalReceived(entry.at_us, entry.key, dump(fields["payload"]), fields.get("delivery_id"))


def _update_requested(entry: Entry) -> e.Event:
    fields = _require(entry, "id", "input")
    return e.UpdateRequested(entry.at_us, entry.key, dump(fields["input"]), str(fields["id"]))


def _cancel_requested(entry: Entry) -> e.Event:
    return e.CancelRequested(entry.at_us, str(fields_of(entry).get("reason", "")))


def _run_started(entry: Entry) -> e.Event:
    fields = _require(entry, "input")
    deadlines = tuple((str(key), int(at)) for key, at in fields.get("child_deadlines", {}).items())
    error = fields.get("error")
    return e.RunStarted(
        entry.at_us,
        dump(fields["input"]),
        int(fields.get("carried", 0)),
        deadlines,
        int(fields.get("attempt", 1)),
        None if error is None else decode_failure(dump(error)),
        bool(fields.get("closes_children", False)),
    )


def _require(entry: Entry, *names: str) -> dict[str, Any]:
    fields = fields_of(entry)
    for name in names:
        if name not in fields:
            raise DecodeError(_label(entry), f"its payload has no {name!r}")
    return fields


_READERS: dict[str, Callable[[Entry], e.Event]] = {
    "activity_completed": _activity_completed,
    "activity_failed": _activity_failed,
    "activity_started": _activity_started,
    "timer_fired": _timer_fired,
    "child_completed": _child_completed,
    "child_failed": _child_failed,
    "child_cancelled": _child_cancelled,
    "child_start_failed": _child_start_failed,
    "signal_received": _signal_received,
    "update_requested": _update_requested,
    "cancel_requested": _cancel_requested,
    "run_started": _run_started,
}
TYPES = DECISIONS | _READERS.keys()
