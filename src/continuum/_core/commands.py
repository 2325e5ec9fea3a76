"""What a run decides, as orders: the only things a machine asks for.

Decisions have an effect that a second time would double (a child, a message, a drawn value), so each is an
entry of the journal and is compared on replay. Requests (an activity, a timer) leave no entry: their answer
does, and a request without an answer is made again by the next worker. A closing ends the generation.
"""

from __future__ import annotations

from typing import TypeAlias

from continuum._core.events import SignalReceived, UpdateRequested
from continuum._core.values import value
from continuum.errors import Failure
from continuum.policies import ActivityOptions, ChildOptions


@value
class RunActivity:
    """Request: run an activity; answered by ``ActivityCompleted`` or ``ActivityFailed``."""

    key: str
    name: str
    input: bytes
    options: ActivityOptions


@value
class CancelActivity:
    """Request: nobody waits for this activity any more; what it still reports is ignored."""

    key: str


@value
class StartTimer:
    """Request: ``TimerFired`` at ``due_us``, in microseconds since 1970."""

    key: str
    due_us: int


@value
class CancelTimer:
    """Request: the timer is not needed any more and must not fire."""

    key: str


@value
class AwaitChild:
    """Request: tell how a child of an earlier generation ended, or that it will when it does."""

    key: str
    run_id: str


@value
class StartChild:
    """Decision: a child run begins; answered by how it ends, once."""

    key: str
    run_id: str
    workflow: str
    version: int
    input: bytes
    options: ChildOptions


@value
class RefuseChild:
    """Decision: a child is not started because it would lie ``depth`` below the root, beyond ``limit``."""

    key: str
    workflow: str
    depth: int
    limit: int


@value
class CancelChild:
    """Decision: cancel a child and everything below it; ``timed_out`` if because its timeout passed."""

    key: str
    run_id: str
    reason: str
    timed_out: bool = False


@value
class DecideMap:
    """Decision: ``map_children`` is over, and ``why``; the first children that decided it are named by key."""

    key: str
    why: str
    started: int
    completed: int
    failed: int
    cancelled: int
    decided_by: tuple[str, ...] = ()


@value
class SendSignal:
    """Decision: a signal to another run."""

    key: str
    run_id: str
    name: str
    payload: bytes


@value
class RecordSideEffect:
    """Decision: what a side effect gave: ``value``, or ``failure`` if it raised."""

    key: str
    value: bytes | None
    failure: Failure | None = None


@value
class ApplyPatch:
    """Decision: this run takes the new path of ``patch``."""

    patch: str


@value
class AnswerUpdate:
    """Decision: an update's answer, ``result`` or else ``failure``; ``refused``: nothing of it was done."""

    update_id: str
    result: bytes | None
    failure: Failure | None = None
    refused: bool = False


@value
class PublishState:
    """What people see of the run from now on: the last of a turn. It is no entry, and is not compared."""

    value: bytes


@value
class CompleteRun:
    """Closing: the workflow returned. ``closes_children``: a child may live that is to be cancelled with that.

    ``child_deadlines`` are the timeouts of children that may live on.
    """

    result: bytes
    closes_children: bool = False
    child_deadlines: tuple[tuple[str, int], ...] = ()


@value
class FailRun:
    """Closing: the workflow raised, and is not tried again."""

    failure: Failure
    closes_children: bool = False
    child_deadlines: tuple[tuple[str, int], ...] = ()


@value
class CancelRun:
    """Closing: the workflow let a requested cancellation through. All below it falls with it."""

    reason: str


@value
class ContinueRun:
    """Closing: the next generation begins with ``input``, what was not read and the children's deadlines."""

    input: bytes
    unread: tuple[SignalReceived | UpdateRequested, ...] = ()
    child_deadlines: tuple[tuple[str, int], ...] = ()
    closes_children: bool = False


@value
class RetryRun:
    """Closing: the workflow raised, and begins again at ``due_us`` as its next generation, with its own input.

    ``attempt`` is that generation's, ``failure`` how this one ended. It waits for ``delay_us`` until then.
    """

    input: bytes
    failure: Failure
    attempt: int
    due_us: int
    delay_us: int
    unread: tuple[SignalReceived | UpdateRequested, ...] = ()
    child_deadlines: tuple[tuple[str, int], ...] = ()
    closes_children: bool = False


Request: TypeAlias = RunActivity | CancelActivity | StartTimer | CancelTimer | AwaitChild
Decision: TypeAlias = (
    StartChild | RefuseChild | CancelChild | SendSignal | RecordSideEffect | ApplyPatch | AnswerUpdate | DecideMap
)
Closing: TypeAlias = CompleteRun | FailRun | CancelRun | ContinueRun | RetryRun
Command: TypeAlias = Request | Decision | Closing | PublishState
