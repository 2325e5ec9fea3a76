"""What the engine tells of after a commit.

The rule: names and fields are those of ``hooks.EVENTS``; a child is told of by its parent's engine, which alone
writes how it ended. Nothing is told twice, and nothing that is not durable; what this process has no time left to
tell is never told.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Any

from continuum._core.entries import Entry, event_of_entry
from continuum._core.events import ChildCancelled, ChildCompleted, ChildFailed, RunStarted
from continuum._core.failure import decode_failure
from continuum._engine.hooks import EngineHooks
from continuum._engine.outages import Retrying
from continuum._engine.resident import Resident, TurnTaken
from continuum._journal.commit import (
    Cancel,
    Claimed,
    Commit,
    Committed,
    Complete,
    Continue,
    Fail,
    Park,
    Passivate,
)
from continuum._journal.protocol import Journal

_CHILD = {
    ChildCompleted: "continuum.child.completed",
    ChildFailed: "continuum.child.failed",
    ChildCancelled: "continuum.child.cancelled",
}
MOST_AT_ONCE = 100  # rows are read with their inputs
Told = tuple[str, dict[str, Any]]


class Telling:
    """Tells listeners. What a child's workflow is called, its row says where only an earlier generation knows."""

    def __init__(self, hooks: EngineHooks, journal: Journal) -> None:
        self._hooks = hooks
        self._journal = journal
        self._nameless: deque[Told] = deque()
        self._doubted: dict[str, tuple[Commit, list[Told]]] = {}
        self._some = asyncio.Event()

    async def run(self) -> None:
        """Find names until cancelled; then tell the rest without."""
        retrying = Retrying("asking for the workflows of children")
        try:
            while True:
                await self._some.wait()
                self._some.clear()
                while self._nameless:
                    async with retrying:
                        await self._name()
        finally:
            while self._nameless:
                name, fields = self._nameless.popleft()
                self._hooks.tell(name, **fields)

    async def _name(self) -> None:
        some = [self._nameless[at] for at in range(min(len(self._nameless), MOST_AT_ONCE))]
        rows = await self._journal.views.describe_all([fields["child_run_id"] for _, fields in some])
        found = {row.run_id: row.workflow for row in rows}
        for name, fields in some:
            self._nameless.popleft()
            self._hooks.tell(name, **{**fields, "workflow": found.get(fields["child_run_id"], "")})

    def committed(self, taken: TurnTaken, outcome: Committed) -> None:
        """Tell of a durable commit."""
        assert taken.commit is not None
        self._tell(_of_children(taken, outcome.existed))
        tell_status(self._hooks, taken.run, taken.commit)

    def doubt(self, taken: TurnTaken) -> None:
        """Keep what is to be told of a commit of which it is not known whether it is durable."""
        run, commit = taken.run, taken.commit
        if self._hooks.listeners and commit is not None and commit.entries:
            # Where not all children are known it is not known either whether one that is started was before.
            knows_all = run.machine is not None and run.machine.children.knows_all
            existed = () if knows_all else [child.run_id for child in commit.children]
            self._doubted[run.run_id] = commit, _of_children(taken, existed)

    def reread(self, claimed: Claimed, entries: Sequence[Entry]) -> None:
        """Tell of what was in doubt if it stands in the run's journal: whoever else wrote it has another time."""
        doubted = self._doubted.pop(claimed.run_id, None)
        if doubted is None or doubted[0].generation != claimed.generation:
            return
        commit, events = doubted
        first = commit.seq - (1 if commit.generation == 1 else 0)
        written = entries[first : first + len(commit.entries)]
        if [(entry.type, entry.key, entry.at_us) for entry in written] == [
            (entry.type, entry.key, entry.at_us) for entry in commit.entries
        ]:
            self._tell(events)

    def _tell(self, events: list[Told]) -> None:
        for name, fields in events:
            if fields["workflow"]:
                self._hooks.tell(name, **fields)
            else:
                self._nameless.append((name, fields))
                self._some.set()


def _of_children(taken: TurnTaken, existed: Sequence[str]) -> list[Told]:
    """Return what a commit says of children. A workflow that only an earlier generation knows has the name ''."""
    run, children = taken.run, taken.commit.children if taken.commit is not None else ()
    told: list[Told] = [
        (
            "continuum.child.started",
            {"parent_run_id": run.run_id, "child_run_id": child.run_id, "workflow": child.workflow},
        )
        for child in children
        if child.run_id not in existed
    ]
    for kind, key in taken.heard:
        workflow = run.machine.children.workflow_of(key) if run.machine is not None else ""
        child_run_id = f"{run.run_id}/{key}"
        fields = {"parent_run_id": run.run_id, "child_run_id": child_run_id, "workflow": workflow}
        told.append((_CHILD[kind], fields))
    return told


def tell_status(hooks: EngineHooks, run: Resident, commit: Commit) -> None:
    """Tell how a run stands after a durable commit."""
    about = {"run_id": run.run_id, "workflow": run.claimed.workflow}
    match commit.status:
        case Complete():
            hooks.tell("continuum.run.completed", **about)
        case Fail(error):
            hooks.tell("continuum.run.failed", **about, error=str(decode_failure(error)))
        case Cancel(error):
            hooks.tell("continuum.run.cancelled", **about, reason=decode_failure(error).message)
        case Continue(waiting_for=str(why), entries=(begun, *_)) if why:
            told = event_of_entry(begun)
            assert isinstance(told, RunStarted)
            hooks.tell("continuum.run.retried", **about, attempt=told.attempt, error=str(told.failure))
        case Continue():
            hooks.tell("continuum.run.continued", **about, generation=commit.generation + 1)
        case Park(error):
            hooks.tell("continuum.run.parked", **about, error=str(decode_failure(error)))
        case Passivate():
            hooks.tell("continuum.run.suspended", **about)
        case _:
            pass
