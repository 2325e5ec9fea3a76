"""Where code runs: a workflow asks for its run and its parent, an activity for what it was called for.

The rule: what ``run_info()`` says of a run is the same on every replay. All but ``generation``, ``version`` and
``attempt`` was settled when the run was started, and no generation changes it.
"""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from continuum._core.codec import ANY
from continuum._core.commands import RunActivity, SendSignal
from continuum._core.jsontext import canonical, load
from continuum._core.keys import check_text
from continuum._tracing import attach
from continuum.children import MAX_NAME_BYTES
from continuum.errors import WorkflowMisuse
from continuum.workflow import current

__all__ = ["ActivityInfo", "ParentRef", "RunInfo", "activity_info", "parent", "run_info"]

# The run that asked, its generation and traceparent; what it asked for; the number of the attempt.
Called = tuple[tuple[str, int, str | None], RunActivity, int]
CALLED: ContextVar[Called] = ContextVar("continuum_activity")


@dataclass(frozen=True, slots=True)
class RunInfo:
    """The run that asks.

    ``attributes`` are plain JSON, its own and those inherited, in the order of their names; a change of them
    reaches nobody. ``version`` is that of the generation, ``attempt`` counts from 1, for a child with ``retry=``.
    ``depth`` counts the runs above it; a root's ``parent_run_id`` is None.
    """

    id: str
    workflow: str
    version: int
    generation: int
    attempt: int
    depth: int
    parent_run_id: str | None
    namespace: str
    attributes: dict[str, Any] = field(hash=False)
    traceparent: str | None


@dataclass(frozen=True, slots=True)
class ParentRef:
    """The run that started this one. ``parent()`` gives it."""

    id: str

    def signal(self, name: str, payload: Any = None) -> None:
        """Send the parent a signal, in the commit of this turn; if the parent has ended, nothing happens.

        ``payload`` is plain JSON for this run: the parent says what type it reads. There is no order between the
        signals of a child and its end: the parent may hear of the end first. Raises ``EncodeError`` and, for
        what cannot be a name, ``InvalidId``.
        """
        loop = current("ParentRef.signal")
        scope = loop.scope()
        above = _parent_id(loop.machine.context.run_id)
        if self.id != above:
            raise WorkflowMisuse(f"run {self.id!r} is not this run's parent; that is {above!r}")
        check_text("signal's name", name, MAX_NAME_BYTES)
        decision = SendSignal(scope.key(f"signal_{name}"), self.id, name, ANY.encode(payload))
        loop.machine.decisions.decide(decision, scope.path, ANY)


@dataclass(frozen=True, slots=True)
class ActivityInfo:
    """The attempt that asks.

    ``run_id``, ``generation`` and ``key`` together name the activity: the same for all of its attempts, and no
    other one's. ``attempt`` counts from 1; one that a worker's death broke off is repeated under its number.
    """

    run_id: str
    generation: int
    key: str
    name: str
    attempt: int
    traceparent: str | None


def run_info() -> RunInfo:
    """Return what there is to know of this run; the same on every replay. Leaves no entry.

    >>> tenant = run_info().attributes["tenant"]  # doctest: +SKIP
    """
    machine = current("run_info").machine
    context, program = machine.context, machine.program
    return RunInfo(
        context.run_id,
        program.name,
        program.version,
        context.generation,
        machine.attempt,
        context.depth,
        _parent_id(context.run_id),
        context.namespace,
        {} if context.attributes is None else canonical(load(context.attributes)),
        context.trace,
    )


def parent() -> ParentRef | None:
    """Return the run that started this one, None for a root.

    >>> if above := parent():  # doctest: +SKIP
    ...     above.signal("progress", {"done": 3})
    """
    above = _parent_id(current("parent").machine.context.run_id)
    return None if above is None else ParentRef(above)


def activity_info() -> ActivityInfo:
    """Return what the running activity was called for. Raises ``WorkflowMisuse`` elsewhere.

    >>> called = activity_info()                                                   # doctest: +SKIP
    >>> idempotency_key = f"{called.run_id}/{called.generation}/{called.key}"      # doctest: +SKIP
    """
    called = CALLED.get(None)
    if called is None:
        raise WorkflowMisuse("activity_info() works only in an activity that a workflow asked for")
    (run_id, generation, trace), request, attempt = called
    return ActivityInfo(run_id, generation, request.key, request.name, attempt, trace)


def enter_activity(called: Called) -> None:
    """Let the running context be that of an attempt: what it is called for, and part of the run's trace.

    To be called in a context of the attempt's own: nothing is undone.
    """
    CALLED.set(called)
    if (trace := called[0][2]) is not None:
        attach(trace)


def _parent_id(run_id: str) -> str | None:
    return run_id.rpartition("/")[0] or None
