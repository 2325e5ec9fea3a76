"""Cancelling a run and everything below it, level by level."""

from __future__ import annotations

from dataclasses import dataclass, field

from continuum._core import commands as c
from continuum._core.effects import to_parent
from continuum._core.failure import encode_failure
from continuum._core.machine import RunContext
from continuum._journal.memory.tables import RunRow, Tables
from continuum.errors import Failure


@dataclass(slots=True)
class Cascade:
    """What a cascade did: the state its root was in (None: no such run), how many runs, whose leases it took."""

    run_id: str
    state: str | None = None
    runs: int = 0
    owners: dict[str, None] = field(default_factory=dict[str, None])
    told: str = ""  # the parent that was told

    def ended(self) -> list[str]:
        """Return what to tell those who wait for ends."""
        return [self.run_id, f"{self.run_id}/"] if self.runs else []


def cancel(tables: Tables, run_id: str, reason: str) -> Cascade:
    """Cancel a run and all live runs below it; nothing is changed if it has ended or does not exist."""
    done = Cascade(run_id)
    run = tables.runs.get(run_id)
    if run is None:
        return done
    done.state = run.state
    if not run.live:
        return done
    _end(tables, run, Failure("cancelled", reason), done)
    parent = tables.runs.get(run_id.rpartition("/")[0])
    told = to_parent(RunContext(run_id, 1, run.depth), c.CancelRun(reason))
    if parent is not None and parent.live and told is not None:
        tables.put(parent.run_id, told.type, told.key, told.payload)
        done.told = parent.run_id
    because = f"run {run_id!r} was cancelled: {reason}" if reason else f"run {run_id!r} was cancelled"
    for level in tables.descendants(run_id):
        for below in level:
            if below.live:
                _end(tables, below, Failure("parent_cancelled", because), done)
            tables.inbox.pop(below.run_id, None)
    tables.inbox.pop(run_id, None)
    for task_id, task in list(tables.tasks.items()):
        if task.run_id == run_id or task.run_id.startswith(f"{run_id}/"):
            del tables.tasks[task_id]
    return done


def _end(tables: Tables, run: RunRow, failure: Failure, done: Cascade) -> None:
    if run.owner is not None:
        done.owners[run.owner] = None
    tables.give(run, None)
    run.state, run.error, run.completed_us = "cancelled", encode_failure(failure), tables.now_us()
    run.token += 1
    run.wakeup_us = run.waiting_for = None
    done.runs += 1
