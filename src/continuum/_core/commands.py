"""What a run decides, as orders: the only things a machine asks for.

Decisions have an effect that a second time would double (a child, a message, a drawn value), so each is an
entry of the journal and is compared on replay. Requests (an activity, a timer) leave no entry: their answer
does, and a request without an answer is made again by the next worker. A closing ends the generation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from continuum._core.events import SignalReceived
from continuum.errors import Failure
from continuum.policies import ActivityOptions, ChildOptions


@dataclass(frozen=True, slots=True)
class RunActivity:
    """Request: run an activity; answered by ``ActivityCompleted`` or ``ActivityFailed``."""

    key: str
    name: str
    input: bytes
    options: ActivityOptions


@dataclass(frozen=True, slots=True)
class CancelActivity:
    """Request: nobody waits for this activity any more; what it still reports is ignored."""

    key: str


@dataclass(frozen=True, slots=True)
class StartTimer:
    """Request: ``TimerFired`` at ``due_us``, in microseconds since 1970."""

    key: str
    due_us: int


@dataclass(frozen=True, slots=True)
class CancelTimer:
    """Request: the timer is not needed any more and must not fire."""

    key: str


@dataclass(frozen=True, slots=True)
class AwaitChild:
    """Request: tell how a child of an earlier generation ended, or that it will when it does."""

    key: str
    run_id: str


@dataclass(frozen=True, slots=True)
class StartChild:
    """Decision: a child run begins; answered by how it ends, once."""

    key: str
    run_id: str
    workflow: str
    version: int
    input: bytes
    options: ChildOptions


@dataclass(frozen=True, slots=True)
class RefuseChild:
    """Decision: a child is not started because it would lie ``depth`` below the root, beyond ``limit``."""

    key: str
    workflow: str
    depth: int
    limit: int


@dataclass(frozen=True, slots=True)
class CancelChild:
    """Decision: cancel a child and everything below it."""

    key: str
    run_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class SendSignal:
    """Decision: a signal to another run."""

    key: str
    run_id: str
    name: str
    payload: bytes


@dataclass(frozen=True, slots=True)
class RecordSideEffect:
    """Decision: what a side effect gave: ``value``, or ``failure`` if it raised."""

    key: str
    value: bytes | None
    failure: Failure | None = None


@dataclass(frozen=True, slots=True)
class ApplyPatch:
    """Decision: this run takes the new path of ``patch``."""

    patch: str


@dataclass(frozen=True, slots=True)
class CompleteRun:
    """Closing: the workflow returned."""

    result: bytes


@dataclass(frozen=True, slots=True)
class FailRun:
    """Closing: the workflow raised."""

    failure: Failure


@dataclass(frozen=True, slots=True)
class CancelRun:
    """Closing: the workflow let a requested cancellation through."""

    reason: str


@dataclass(frozen=True, slots=True)
class ContinueRun:
    """Closing: the next generation begins with ``input``, the signals not read and the children's deadlines."""

    input: bytes
    unread: tuple[SignalReceived, ...] = ()
    child_deadlines: tuple[tuple[str, int], ...] = ()


Request: TypeAlias = RunActivity | CancelActivity | StartTimer | CancelTimer | AwaitChild
Decision: TypeAlias = StartChild | RefuseChild | CancelChild | SendSignal | RecordSideEffect | ApplyPatch
Closing: TypeAlias = CompleteRun | FailRun | CancelRun | ContinueRun
Command: TypeAlias = Request | Decision | Closing
