"""Cancelling runs and everything below them, level by level; see ``_journal/cascade.py``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from continuum._core.failure import encode_failure
from continuum._journal.cascade import Root, closed, parent_of
from continuum._journal.commit import Commit
from continuum._journal.endings import wanted_below
from continuum._journal.memory.tables import RunRow, Tables
from continuum.errors import Failure


@dataclass(slots=True)
class Cascade:
    """What a cascade did: the state its first root was in (None: no such run), how many runs, whose leases."""

    state: str | None = None
    runs: int = 0
    ended: list[str] = field(default_factory=list[str])  # what to tell those who wait for ends
    owners: dict[str, None] = field(default_factory=dict[str, None])
    told: list[str] = field(default_factory=list[str])  # parents that have mail of it
    trees: list[str] = field(default_factory=list[str])  # runs that ended with all below them

    def take(self, other: Cascade) -> None:
        """Count another one, too."""
        self.runs += other.runs
        self.ended += other.ended
        self.owners |= other.owners
        self.told += other.told
        self.trees += other.trees


def bring_about(tables: Tables, commits: Sequence[Commit]) -> Cascade:
    """Cancel what commits cancel, and what falls or closes with the runs that they end."""
    roots, below, closing = wanted_below(commits)
    for ended in closing:
        for kid in sorted(tables.below.get(ended, {})):
            if tables.runs[kid].live and tables.runs[kid].on_parent_close == "cancel":
                roots.setdefault(kid, closed(kid))
    return cascade(tables, roots.values(), below)


def cascade(tables: Tables, roots: Iterable[Root], below: Mapping[str, str]) -> Cascade:
    """Cancel ``roots`` with all live runs below them, and all live runs below those of ``below``: by id, why."""
    done = Cascade()
    trees = dict(below)
    for root in sorted(roots, key=_place):  # one that lies below another falls with it
        run = tables.runs.get(root.run_id)
        done.state = done.state or (None if run is None else run.state)
        if run is None or not run.live or any(root.run_id.startswith(f"{above}/") for above in trees):
            continue
        _end(tables, run, root.error, done)
        done.ended.append(run.run_id)
        parent = tables.runs.get(parent_of(run.run_id))
        if parent is not None and parent.live and root.message is not None:
            key = run.run_id.rpartition("/")[2]
            tables.put(parent.run_id, "child_cancelled", key, root.message)
            done.told.append(parent.run_id)
        trees[root.run_id] = root.because
    done.trees = sorted(trees, key=_depth)
    for run_id in done.trees:
        _clear(tables, run_id, encode_failure(Failure("parent_cancelled", trees[run_id])), done)
    return done


def _clear(tables: Tables, run_id: str, error: bytes, done: Cascade) -> None:
    """End every live run below one, and drop what the whole tree has waiting."""
    before = done.runs
    for level in tables.descendants(run_id):
        for run in level:
            if run.live:
                _end(tables, run, error, done)
            tables.inbox.pop(run.run_id, None)
            tables.cancellations.pop(run.run_id, None)
    if done.runs > before:
        done.ended.append(f"{run_id}/")
    tables.inbox.pop(run_id, None)
    tables.cancellations.pop(run_id, None)
    for task_id, task in list(tables.tasks.items()):
        if task.run_id == run_id or task.run_id.startswith(f"{run_id}/"):
            del tables.tasks[task_id]


def _end(tables: Tables, run: RunRow, error: bytes, done: Cascade) -> None:
    if run.owner is not None:
        done.owners[run.owner] = None
    tables.give(run, None)
    run.state, run.error, run.completed_us = "cancelled", error, tables.now_us()
    run.token += 1
    run.wakeup_us = run.waiting_for = None
    done.runs += 1


def _place(root: Root) -> tuple[int, str]:
    return root.run_id.count("/"), root.run_id


def _depth(run_id: str) -> int:
    return run_id.count("/")
