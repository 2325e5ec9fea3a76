"""What a turn has to bring about, as one value: the rows to commit, and what may start after that commit.

The rule: every command is one line here and nothing else in the engine looks at commands. What is in ``entries``,
``children``, ``messages`` and ``cancels`` commits together or not at all; ``requests`` are acted on after it. A
message is an entry of the run it goes to, without a time: whoever journals it stamps it. How a run's end reaches
its parent is no part of this, for there are two ways: ``to_parent`` is the message, ``for_parent`` the event.
"""

from __future__ import annotations

from typing import Literal, TypeAlias, assert_never, cast, get_args

from continuum._core import commands as c
from continuum._core import events as e
from continuum._core.entries import Entry, entry_of_decision, entry_of_event
from continuum._core.keys import child_run_id
from continuum._core.machine import RunContext, Turn
from continuum._core.values import value
from continuum.policies import ChildOptions

# What the end of a run does to the runs below it: nothing; it cancels its live children that are to close with it,
# and all below those; it cancels every live run below it.
Descendants: TypeAlias = Literal["leave", "close", "cancel"]
End: TypeAlias = c.CompleteRun | c.FailRun | c.CancelRun


@value
class NewRun:
    """A child run to be inserted. ``key`` is its parent's name for it; a root has depth 0."""

    run_id: str
    parent_run_id: str
    key: str
    depth: int
    workflow: str
    version: int
    input: bytes
    options: ChildOptions


@value
class Message:
    """An entry for another run's inbox. Of those with one ``delivery_id`` the run gets the first alone."""

    run_id: str
    type: str
    key: str
    payload: bytes
    delivery_id: str | None = None


@value
class Cancellation:
    """A run to be cancelled with everything below it; ``timed_out`` if because its timeout passed."""

    run_id: str
    reason: str
    timed_out: bool = False


@value
class Deadline:
    """A child's timeout that its parent keeps no longer: at ``due_us`` any worker cancels the run."""

    run_id: str
    due_us: int


@value
class Answer:
    """What whoever sent a message under ``delivery_id`` to this run is to hear, as JSON text."""

    delivery_id: str
    payload: bytes


@value
class Effects:
    """One turn, ready to be committed.

    ``entries`` go to this generation's journal in order. ``closing`` ends the generation; then ``requests`` is
    empty, and if there is a next one, ``next_entries`` are the first of its journal. ``published`` is what people
    are to see of the run, None: what they saw before. ``descendants`` says what its end does to the runs below,
    ``deadlines`` when those of its children are to end that may live on.
    """

    entries: tuple[Entry, ...]
    children: tuple[NewRun, ...] = ()
    messages: tuple[Message, ...] = ()
    cancels: tuple[Cancellation, ...] = ()
    requests: tuple[c.Request, ...] = ()
    closing: c.Closing | None = None
    next_entries: tuple[Entry, ...] = ()
    answers: tuple[Answer, ...] = ()
    published: bytes | None = None
    descendants: Descendants = "leave"
    deadlines: tuple[Deadline, ...] = ()


def effects(context: RunContext, event: e.Event, turn: Turn) -> Effects:
    """Return what ``turn``, the answer to ``event``, has to bring about."""
    if type(event) is e.ActivityCompleted and len(turn.commands) == 1 and type(turn.commands[0]) is c.RunActivity:
        return Effects((entry_of_event(event),), requests=(turn.commands[0],))  # most turns
    closing, entries = turn.closing, [] if type(event) is e.RunStarted else [entry_of_event(event)]
    if not turn.commands and closing is None:  # most ends of children
        return Effects(tuple(entries))
    if type(closing) is c.CompleteRun and len(turn.commands) == 1:  # most ends of runs
        return Effects(
            tuple(entries),
            closing=closing,
            descendants="close" if closing.closes_children else "leave",
            deadlines=_deadlines(context, closing) if closing.child_deadlines else (),
        )
    children: list[NewRun] = []
    messages: list[Message] = []
    cancels: list[Cancellation] = []
    requests: list[c.Request] = []
    answers: list[Answer] = []
    published: bytes | None = None
    for command in turn.commands:
        if isinstance(command, c.StartChild):  # first, for there may be ten thousand
            entries.append(entry_of_decision(command, event.at_us))
            children.append(_new_run(context, command))
            continue
        if type(command) in _REQUESTS:
            requests.append(cast("c.Request", command))
        elif type(command) in _DECISIONS:
            entries.append(entry_of_decision(cast("c.Decision", command), event.at_us))
        match command:
            case c.SendSignal(key, run_id, name, payload):
                # The id makes it one signal however often it is delivered, across generations of the receiver.
                delivery = f"{context.run_id}/{context.generation}/{key}"
                signal = entry_of_event(e.SignalReceived(event.at_us, name, payload, delivery))
                messages.append(Message(run_id, signal.type, signal.key, signal.payload))
            case c.CancelChild(_, run_id, reason, timed_out):
                cancels.append(Cancellation(run_id, reason, timed_out))
            case c.AnswerUpdate(update_id):
                answers.append(Answer(update_id, entries[-1].payload))
            case c.PublishState(value):
                published = value
            case _:
                pass
    if closing is not None:
        requests.clear()
    return Effects(
        tuple(entries),
        tuple(children),
        tuple(messages),
        tuple(cancels),
        tuple(requests),
        closing,
        () if closing is None else next_generation(closing, event.at_us),
        tuple(answers),
        published,
        "leave" if closing is None else _descendants(closing),
        () if closing is None else _deadlines(context, closing),
    )


_REQUESTS, _DECISIONS = frozenset(get_args(c.Request)), frozenset(get_args(c.Decision))


def _new_run(context: RunContext, start: c.StartChild) -> NewRun:
    return NewRun(
        start.run_id,
        context.run_id,
        start.key,
        context.depth + 1,
        start.workflow,
        start.version,
        start.input,
        start.options,
    )


def to_parent(run_id: str, closing: End) -> Message:
    """Return how the end of a child reaches its parent's inbox."""
    parent, _, key = run_id.rpartition("/")
    entry = entry_of_event(for_parent(key, closing, 0))
    return Message(parent, entry.type, key, entry.payload)


def for_parent(key: str, closing: End, at_us: int) -> e.ChildOutcome:
    """Return the end of a child as its parent hears it."""
    match closing:
        case c.CompleteRun(result):
            return e.ChildCompleted(at_us, key, result)
        case c.FailRun(failure):
            return e.ChildFailed(at_us, key, failure)
        case c.CancelRun(reason):
            return e.ChildCancelled(at_us, key, reason)
        case _:
            assert_never(closing)


def _descendants(closing: c.Closing) -> Descendants:
    match closing:
        case c.CancelRun():
            return "cancel"
        case c.CompleteRun(closes_children=True) | c.FailRun(closes_children=True):
            return "close"
        case _:
            return "leave"


def _deadlines(context: RunContext, closing: c.Closing) -> tuple[Deadline, ...]:
    match closing:
        case c.CompleteRun(child_deadlines=kept) | c.FailRun(child_deadlines=kept) if kept:
            return tuple(Deadline(child_run_id(context.run_id, key), due_us) for key, due_us in kept)
        case _:
            return ()


def next_generation(closing: c.Closing | None, at_us: int) -> tuple[Entry, ...]:
    """Return the first entries of the next generation: its start, and the messages that were not taken."""
    attempt, failure = 1, None
    if isinstance(closing, c.RetryRun):
        at_us, attempt, failure = closing.due_us, closing.attempt, closing.failure
    elif not isinstance(closing, c.ContinueRun):
        return ()
    started = e.RunStarted(
        at_us,
        closing.input,
        len(closing.unread),
        closing.child_deadlines,
        attempt,
        failure,
        closing.closes_children,
    )
    return (entry_of_event(started), *(entry_of_event(signal) for signal in closing.unread))
