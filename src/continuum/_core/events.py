"""What happens to a run, in the past tense: the only things a machine is told.

``at_us`` is the event's time in microseconds since 1970 UTC, stamped once by the worker that journals it; the
workflow's clock is the time of the event it handles. ``key`` names the operation that the event answers.
Values are JSON text as ``bytes`` (see ``codec``).
"""

from __future__ import annotations

from typing import TypeAlias

from continuum._core.values import value
from continuum.errors import Failure


@value
class RunStarted:
    """A generation of a run begins.

    ``carried`` is how many of the entries behind it are signals that the generation before had not read: they
    are there before the first turn. ``child_deadlines`` are timeouts of children that live on, by key, in
    microseconds since 1970. ``attempt`` counts from 1 how often it was tried with this input, ``failure`` is how
    the attempt before ended, for people. ``closes_children``: a child of an earlier generation may live that is to
    be cancelled when the run ends.
    """

    at_us: int
    input: bytes
    carried: int = 0
    child_deadlines: tuple[tuple[str, int], ...] = ()
    attempt: int = 1
    failure: Failure | None = None
    closes_children: bool = False


@value
class ActivityStarted:
    """An activity has been running for long, or runs again: for people to see; the workflow learns nothing."""

    at_us: int
    key: str
    attempt: int


@value
class ActivityCompleted:
    """An activity returned. ``name`` and ``input`` repeat what was decided, so that one entry tells it all."""

    at_us: int
    key: str
    name: str
    input: bytes
    result: bytes


@value
class ActivityFailed:
    """An activity failed for good."""

    at_us: int
    key: str
    name: str
    input: bytes
    failure: Failure


@value
class TimerFired:
    """A timer's time has come."""

    at_us: int
    key: str


@value
class ChildCompleted:
    """A child run returned."""

    at_us: int
    key: str
    result: bytes


@value
class ChildFailed:
    """A child run failed for good."""

    at_us: int
    key: str
    failure: Failure


@value
class ChildCancelled:
    """A child run was cancelled."""

    at_us: int
    key: str
    reason: str


@value
class ChildStartFailed:
    """A child could not be started: its key names another child of an earlier generation."""

    at_us: int
    key: str
    message: str


@value
class SignalReceived:
    """A signal arrived, wanted yet or not."""

    at_us: int
    name: str
    payload: bytes
    delivery_id: str | None = None


@value
class UpdateRequested:
    """Somebody asks for an update and waits for its answer. ``payload`` is its input."""

    at_us: int
    name: str
    payload: bytes
    update_id: str


@value
class CancelRequested:
    """Somebody asked the run to stop: its main task gets ``CancelledError``."""

    at_us: int
    reason: str


ChildOutcome: TypeAlias = ChildCompleted | ChildFailed | ChildCancelled
Event: TypeAlias = (
    RunStarted
    | ActivityStarted
    | ActivityCompleted
    | ActivityFailed
    | TimerFired
    | ChildCompleted
    | ChildFailed
    | ChildCancelled
    | ChildStartFailed
    | SignalReceived
    | UpdateRequested
    | CancelRequested
)
