"""What the engine tells of after a commit.

The rule: names and fields are those of ``hooks.EVENTS``; a child is told of by its parent's engine, which alone
writes how it ended.
"""

from __future__ import annotations

from continuum._core.failure import decode_failure
from continuum._engine.hooks import EngineHooks
from continuum._engine.resident import Resident
from continuum._journal.commit import (
    Cancel,
    Commit,
    Committed,
    Complete,
    Continue,
    Fail,
    Park,
    Passivate,
)

_CHILD = {
    "child_completed": "continuum.child.completed",
    "child_failed": "continuum.child.failed",
    "child_cancelled": "continuum.child.cancelled",
}


def tell_committed(hooks: EngineHooks, run: Resident, commit: Commit, outcome: Committed) -> None:
    """Tell of a durable commit."""
    for child in commit.children:
        if child.run_id not in outcome.existed:
            hooks.tell(
                "continuum.child.started",
                parent_run_id=run.run_id,
                child_run_id=child.run_id,
                workflow=child.workflow,
            )
    for entry in commit.entries:
        name = _CHILD.get(entry.type)
        if name is not None:
            workflow = run.machine.children.workflow_of(entry.key) if run.machine is not None else ""
            child_run_id = f"{run.run_id}/{entry.key}"
            hooks.tell(name, parent_run_id=run.run_id, child_run_id=child_run_id, workflow=workflow)
    _tell_status(hooks, run, commit)


def _tell_status(hooks: EngineHooks, run: Resident, commit: Commit) -> None:
    about = {"run_id": run.run_id, "workflow": run.claimed.workflow}
    match commit.status:
        case Complete():
            hooks.tell("continuum.run.completed", **about)
        case Fail(error):
            hooks.tell("continuum.run.failed", **about, error=str(decode_failure(error)))
        case Cancel(error):
            hooks.tell("continuum.run.cancelled", **about, reason=decode_failure(error).message)
        case Continue():
            hooks.tell("continuum.run.continued", **about, generation=commit.generation + 1)
        case Park(error):
            hooks.tell("continuum.run.parked", **about, error=str(decode_failure(error)))
        case Passivate():
            hooks.tell("continuum.run.suspended", **about)
        case _:
            pass
