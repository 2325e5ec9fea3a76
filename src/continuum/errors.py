"""Every error that Continuum raises on purpose, in one tree, named by who would catch it.

    ContinuumError
    ├── NotDeterministic(RuntimeError)  the author: workflow code used a clock, a thread, a socket …
    ├── WorkflowMisuse(RuntimeError)    the author: a Continuum function called where it cannot work
    ├── DefinitionError(TypeError)      the author: a definition that cannot become a workflow or activity
    ├── InvalidId(ValueError)           the caller: an id that cannot be used
    ├── InvalidSetting(ValueError)      the caller: a url, a schema's name or another setting that cannot be used
    ├── DatabaseUnreachable(ConnectionError)  the operator: Postgres does not answer, or refuses us
    ├── DatabaseBusy(TimeoutError)      the caller: somebody's open transaction holds what this needs; ask again
    ├── DatabaseRefused(ValueError)     the caller: Postgres will not store this value, now or ever
    ├── SchemaMismatch(RuntimeError)    the operator: the tables are not those that this release works with
    ├── RunNotFound(LookupError)        the caller: no run has this id
    ├── RunNotActive(RuntimeError)      the caller: the run has ended
    ├── RunAlreadyExists(ValueError)    the caller: the id names a run of another workflow, or with another input
    ├── RunCancelled                    the caller: the run that was waited for was cancelled
    ├── UnknownWorkflow(LookupError)    the caller: a name that no worker has announced
    ├── UnknownMessage(LookupError)     the caller: a signal or an update that the workflow does not declare
    ├── MessageIdTaken(ValueError)      the caller: the id of a message is that of another one
    ├── EncodeError(TypeError)          the caller: a value that does not fit its annotation or JSON
    ├── DecodeError(ValueError)         the caller: JSON that does not fit the annotation that reads it
    ├── NonDeterminismError             the author: the code no longer takes the decisions that were recorded
    ├── DuplicateChildId                the author: one key for two different children
    ├── ChildDepthExceeded              the author: a tree deeper than ``max_child_depth``
    ├── MapFailed                       the author: a map's children failed beyond what it tolerates
    └── RemoteError                     an exception that happened elsewhere, as it was recorded
        ├── ActivityFailed
        │   └── ActivityTimedOut(TimeoutError)
        ├── SideEffectFailed
        ├── ChildFailed
        │   └── ChildTimedOut(TimeoutError)
        ├── ChildCancelled
        ├── UpdateRefused               the caller: an update that the workflow did not accept
        ├── UpdateFailed                the caller: an update that was begun, or not even, and did not succeed
        └── RunFailed                   the caller: the run that was waited for failed

The rule: what a caller may want to know stands in attributes; nobody has to parse a message. Trouble of the
engine itself (a lost lease, a divergence, the database) is never raised as an ``Exception`` into workflow code.
"""

from __future__ import annotations

from typing import Any

from continuum.failures import Failure

__all__ = [
    "ActivityFailed",
    "ActivityTimedOut",
    "ChildCancelled",
    "ChildDepthExceeded",
    "ChildFailed",
    "ChildTimedOut",
    "ContinuumError",
    "DatabaseBusy",
    "DatabaseRefused",
    "DatabaseUnreachable",
    "DecodeError",
    "DefinitionError",
    "DuplicateChildId",
    "EncodeError",
    "Failure",
    "InvalidId",
    "InvalidSetting",
    "MapFailed",
    "MessageIdTaken",
    "NonDeterminismError",
    "NotDeterministic",
    "RemoteError",
    "RunAlreadyExists",
    "RunCancelled",
    "RunFailed",
    "RunNotActive",
    "RunNotFound",
    "SchemaMismatch",
    "SideEffectFailed",
    "UnknownMessage",
    "UnknownWorkflow",
    "UpdateFailed",
    "UpdateRefused",
    "WorkflowMisuse",
]


class ContinuumError(Exception):
    """The root of all errors that Continuum raises."""


class NotDeterministic(ContinuumError, RuntimeError):
    """Workflow code reached for something a replay cannot repeat.

    Raised at decoration where the source shows it, else at the call. ``what`` names the call, ``instead`` the
    way out.
    """

    def __init__(self, what: str, instead: str, where: str = "") -> None:
        super().__init__(f"{where + ': ' if where else ''}a workflow must not use {what}; {instead}")
        self.what = what
        self.instead = instead
        self.where = where


class WorkflowMisuse(ContinuumError, RuntimeError):
    """A Continuum function was called where it cannot work: outside a workflow, or in another thread."""


class DefinitionError(ContinuumError, TypeError):
    """A function cannot become a workflow or an activity as it stands."""


class InvalidId(ContinuumError, ValueError):
    """An id, a name or a reason is blank, too long or holds a character that it cannot have."""


class InvalidSetting(ContinuumError, ValueError):
    """A url, a schema's name or another setting that cannot be used."""


class DatabaseUnreachable(ContinuumError, ConnectionError):
    """Postgres does not answer, or refuses us. The text names the url, without its password."""


class DatabaseBusy(ContinuumError, TimeoutError):
    """Somebody's open transaction holds what this needs. Nothing was changed; it may be asked again."""


class DatabaseRefused(ContinuumError, ValueError):
    """Postgres answers, and refuses what it was given: it would do so each time. Nothing was changed."""


class SchemaMismatch(ContinuumError, RuntimeError):
    """The tables in the database are not those that this release works with."""


class RunNotFound(ContinuumError, LookupError):
    """No run has this id."""

    def __init__(self, run_id: str) -> None:
        super().__init__(f"there is no run {run_id!r}")
        self.run_id = run_id


class RunNotActive(ContinuumError, RuntimeError):
    """The run has ended; ``state`` says how: completed, failed or cancelled."""

    def __init__(self, run_id: str, state: str) -> None:
        super().__init__(f"run {run_id!r} is {state}; nothing was changed")
        self.run_id = run_id
        self.state = state


class RunAlreadyExists(ContinuumError, ValueError):
    """The id names a run of another workflow, or with another input. That run was left as it is.

    ``workflow`` is the workflow of the run that has the id.
    """

    def __init__(self, run_id: str, workflow: str, difference: str) -> None:
        super().__init__(f"run {run_id!r} exists already, {difference}; choose another id")
        self.run_id = run_id
        self.workflow = workflow


class RunCancelled(ContinuumError):
    """A run was cancelled. ``parent_cancelled`` says that it fell with a run above it."""

    def __init__(self, run_id: str, reason: str, *, parent_cancelled: bool = False) -> None:
        because = f"parent_cancelled: {reason}" if parent_cancelled else reason
        text = f"run {run_id!r} was cancelled"
        super().__init__(f"{text}: {because}" if because else text)
        self.run_id = run_id
        self.reason = reason
        self.parent_cancelled = parent_cancelled


class UnknownWorkflow(ContinuumError, LookupError):
    """No worker has ever announced a workflow of this name; ``name`` is what was asked for."""

    def __init__(self, name: str, hint: str) -> None:
        super().__init__(f"no worker has announced a workflow {name!r}; {hint}")
        self.name = name


class UnknownMessage(ContinuumError, LookupError):
    """The workflow declares no signal, or no update, of this name; ``name`` is what was to be sent."""

    def __init__(self, workflow: str, name: str, problem: str) -> None:
        super().__init__(problem)
        self.workflow = workflow
        self.name = name


class MessageIdTaken(ContinuumError, ValueError):
    """Another message was sent to the run under this id: of another kind, or another name. Nothing was changed.

    ``id`` is the id, ``taken_by`` what has it, such as ``signal paid``; ``message`` is what was to be sent.
    """

    def __init__(self, run_id: str, id: str, taken_by: str, message: str) -> None:  # noqa: A002 - the word of the interface
        super().__init__(
            f"id {id!r} of run {run_id!r} is that of {_quoted(taken_by)}: choose another id for {_quoted(message)}"
        )
        self.run_id = run_id
        self.id = id
        self.taken_by = taken_by
        self.message = message


def _quoted(message: str) -> str:
    kind, _, name = message.partition(" ")
    return f"{kind} {name!r}"


class EncodeError(ContinuumError, TypeError):
    """A value does not fit its annotation, or JSON cannot hold it. ``field`` is the path inside the value."""

    def __init__(self, what: str, problem: str, field: str = "") -> None:
        super().__init__(f"{what}{' at ' + field if field else ''}: {problem}")
        self.what = what
        self.field = field
        self.problem = problem


class DecodeError(ContinuumError, ValueError):
    """Recorded JSON does not fit the annotation that reads it. ``field`` is the path inside the value."""

    def __init__(self, what: str, problem: str, field: str = "") -> None:
        super().__init__(f"{what}{' at ' + field if field else ''}: {problem}")
        self.what = what
        self.field = field
        self.problem = problem


class NonDeterminismError(ContinuumError):
    """The code no longer takes the decisions its journal records. Never raised into workflow code.

    ``recorded`` and ``decided`` are the two sides; ``key``, ``task_path`` and ``source`` say where.
    """

    def __init__(
        self, *, recorded: str, decided: str, key: str = "", task_path: str = "", source: str = ""
    ) -> None:
        where = f"task path {task_path or 'main'}" + (f", {source}" if source else "")
        super().__init__(f"recorded: {recorded}; decided: {decided} ({where})")
        self.recorded = recorded
        self.decided = decided
        self.key = key
        self.task_path = task_path
        self.source = source


class DuplicateChildId(ContinuumError, ValueError):
    """A key already names a child of this run that has another workflow or another input."""


class ChildDepthExceeded(ContinuumError, RuntimeError):
    """A child would lie deeper than ``max_child_depth`` below its root."""


class RemoteError(ContinuumError):
    """An exception that happened elsewhere (in an activity, in another run), as it was recorded.

    ``type``, ``message`` and ``traceback`` are those of the original; ``failure`` has all of it. Its recorded
    cause is ``__cause__``, so a printed traceback shows the whole chain.
    """

    def __init__(self, failure: Failure, text: str | None = None) -> None:
        super().__init__(text if text is not None else str(failure))
        self.failure = failure

    @property
    def type(self) -> str:
        """Name of the original exception's class, without its module."""
        return self.failure.type

    @property
    def message(self) -> str:
        """The original exception's text."""
        return self.failure.message

    @property
    def traceback(self) -> str:
        """The original traceback as text."""
        return self.failure.traceback

    @property
    def root_cause(self) -> Failure:
        """The last failure of the chain: what went wrong first."""
        *_, last = self.failure.chain()
        return last


class ActivityFailed(RemoteError):
    """An activity failed for good: its retries are used up, or the error is not retryable."""

    def __init__(self, activity: str, failure: Failure) -> None:
        super().__init__(failure, f"activity {activity!r} failed: {failure}")
        self.activity = activity


class ActivityTimedOut(ActivityFailed, TimeoutError):
    """An activity's last attempt ran out of time."""


class SideEffectFailed(RemoteError):
    """The function given to ``side_effect`` raised."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure, f"side effect failed: {failure}")


class ChildFailed(RemoteError):
    """A child run failed."""

    def __init__(self, child_run_id: str, workflow: str, failure: Failure) -> None:
        end = failure.origin()  # told once, and not once a level
        where = "" if end is failure else " because of one below it"
        super().__init__(failure, f"child {child_run_id!r} ({workflow}) failed{where}: {end}")
        self.child_run_id = child_run_id
        self.workflow = workflow


class ChildTimedOut(ChildFailed, TimeoutError):
    """A child's ``timeout=`` passed before it ended; the child is cancelled."""


class ChildCancelled(RemoteError):
    """A child run was cancelled."""

    def __init__(self, child_run_id: str, workflow: str, reason: str) -> None:
        text = f"child {child_run_id!r} ({workflow}) was cancelled: {reason}"
        super().__init__(Failure("Cancelled", reason), text)
        self.child_run_id = child_run_id
        self.workflow = workflow
        self.reason = reason


class MapFailed(ContinuumError):
    """More children of ``map_children`` failed or were cancelled than are tolerated, or too few can complete.

    ``result`` is its ``MapResult`` as it was then; ``__cause__`` is how the first of them failed or was cancelled.
    """

    def __init__(self, result: Any, text: str) -> None:
        super().__init__(text)
        self.result = result


class UpdateRefused(RemoteError):
    """The workflow did not accept an update: its validator raised, or the input does not fit. Nothing was done."""

    def __init__(self, run_id: str, update: str, failure: Failure) -> None:
        super().__init__(failure, f"run {run_id!r} refused update {update!r}: {failure}")
        self.run_id = run_id
        self.update = update


class UpdateFailed(RemoteError):
    """The handler of an update raised, or the run ended or continued as new before it had answered."""

    def __init__(self, run_id: str, update: str, failure: Failure) -> None:
        super().__init__(failure, f"update {update!r} of run {run_id!r} failed: {failure}")
        self.run_id = run_id
        self.update = update


class RunFailed(RemoteError):
    """A run failed. ``type``, ``message`` and ``traceback`` are those of the exception that ended it."""

    def __init__(self, run_id: str, failure: Failure) -> None:
        reason, whole = str(failure.reason()), str(failure)
        first = "" if reason in whole else f": {reason}"  # a group's own text says nothing of its members
        super().__init__(failure, f"run {run_id!r} failed: {whole}{first}")
        self.run_id = run_id
