"""Continuum: durable execution for Python, with nothing but Postgres.

What authors write with is importable from here. The names below are the public interface; modules whose name
begins with an underscore are not.
"""

from continuum.activity import Activity, activity
from continuum.children import (
    Cancelled,
    ChildRef,
    Completed,
    Failed,
    Outcome,
    as_completed,
    await_child,
    await_children,
    child,
    start_child,
)
from continuum.definitions import Definitions
from continuum.errors import (
    ActivityFailed,
    ActivityTimedOut,
    ChildCancelled,
    ChildDepthExceeded,
    ChildFailed,
    ChildTimedOut,
    ContinuumError,
    DecodeError,
    DefinitionError,
    DuplicateChildId,
    EncodeError,
    Failure,
    InvalidId,
    NonDeterminismError,
    NotDeterministic,
    RemoteError,
    SideEffectFailed,
    WorkflowMisuse,
)
from continuum.policies import ActivityOptions, ChildOptions, Retry
from continuum.primitives import (
    continue_as_new,
    log,
    now,
    patched,
    random,
    side_effect,
    uuid4,
    wait_condition,
)
from continuum.signals import wait_signal
from continuum.workflow import Workflow, deterministic, workflow

__all__ = [
    "Activity",
    "ActivityFailed",
    "ActivityOptions",
    "ActivityTimedOut",
    "Cancelled",
    "ChildCancelled",
    "ChildDepthExceeded",
    "ChildFailed",
    "ChildOptions",
    "ChildRef",
    "ChildTimedOut",
    "Completed",
    "ContinuumError",
    "DecodeError",
    "DefinitionError",
    "Definitions",
    "DuplicateChildId",
    "EncodeError",
    "Failed",
    "Failure",
    "InvalidId",
    "NonDeterminismError",
    "NotDeterministic",
    "Outcome",
    "RemoteError",
    "Retry",
    "SideEffectFailed",
    "Workflow",
    "WorkflowMisuse",
    "activity",
    "as_completed",
    "await_child",
    "await_children",
    "child",
    "continue_as_new",
    "deterministic",
    "log",
    "now",
    "patched",
    "random",
    "side_effect",
    "start_child",
    "uuid4",
    "wait_condition",
    "wait_signal",
    "workflow",
]
