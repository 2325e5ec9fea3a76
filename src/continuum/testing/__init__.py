"""Testing workflows: an environment where a year passes in milliseconds, and replays of recorded runs.

    async with WorkflowEnvironment([flows]) as env:
        ...

The rule: it is the real core, engine and client; only the journal is in memory, and time is the test's. The
fixtures ``continuum_env``, ``continuum_env_sync`` and ``continuum_pg`` come with the package; ``docs/testing.md``
says how to use it all. Names are looked up when they are used, since pytest imports this at every start.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from continuum.testing.crashing import CrashReport, crash_explorer
    from continuum.testing.databases import Databases
    from continuum.testing.environment import WorkflowEnvironment
    from continuum.testing.errors import CrashDiverged, RunParked, RunStuck
    from continuum.testing.histories import assert_history
    from continuum.testing.replacing import Call
    from continuum.testing.replaying import History, assert_replays, load_history, read_history, save_history
    from continuum.testing.sync import SyncWorkflowEnvironment

__all__ = [
    "Call",
    "CrashDiverged",
    "CrashReport",
    "Databases",
    "History",
    "RunParked",
    "RunStuck",
    "SyncWorkflowEnvironment",
    "WorkflowEnvironment",
    "assert_history",
    "assert_replays",
    "crash_explorer",
    "load_history",
    "read_history",
    "save_history",
]

_PLACES = {
    "Call": "replacing",
    "CrashDiverged": "errors",
    "CrashReport": "crashing",
    "Databases": "databases",
    "History": "replaying",
    "RunParked": "errors",
    "RunStuck": "errors",
    "SyncWorkflowEnvironment": "sync",
    "WorkflowEnvironment": "environment",
    "assert_history": "histories",
    "assert_replays": "replaying",
    "crash_explorer": "crashing",
    "load_history": "replaying",
    "read_history": "replaying",
    "save_history": "replaying",
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)
