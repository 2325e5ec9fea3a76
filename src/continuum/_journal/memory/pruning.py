"""Deleting what nobody needs any more: whole trees, and old generations."""

from __future__ import annotations

from continuum._journal.memory.tables import RunRow, Tables
from continuum._journal.upkeep import LONGEST_AGE_S


def prune(tables: Tables, older_than_s: float, limit: int) -> int:
    """Delete whole trees whose roots have ended long enough ago and in which nothing is live; return how many."""
    before_us = tables.now_us() - int(min(max(older_than_s, 0.0), LONGEST_AGE_S) * 1_000_000)
    roots = [run for run in tables.runs.values() if run.depth == 0 and run.run_id not in tables.locked]
    roots = [run for run in roots if run.completed_us is not None and run.completed_us <= before_us]
    trees: list[list[RunRow]] = []
    for root in sorted(roots, key=_completed_us):
        tree = [root, *(run for level in tables.descendants(root.run_id) for run in level)]
        if len(trees) < limit and not any(run.live for run in tree):
            trees.append(tree)
    _delete(tables, {run.run_id for tree in trees for run in tree})
    return len(trees)


def _delete(tables: Tables, gone: set[str]) -> None:
    for run_id in gone:
        del tables.runs[run_id]
        tables.below.pop(run_id, None)
        tables.inbox.pop(run_id, None)
        tables.cancellations.pop(run_id, None)
    for task_id in [task.task_id for task in tables.tasks.values() if task.run_id in gone]:
        del tables.tasks[task_id]
    for named in [named for named in tables.delivered if named[0] in gone]:
        del tables.delivered[named]
        tables.deliveries.pop(named, None)


def prune_generations(tables: Tables, run_id: str, keep: int) -> int | None:
    """Delete the entries of generations before the newest ``keep``; return how many. None: no such run."""
    run = tables.runs.get(run_id)
    if run is None:
        return None
    old = [number for number in run.journal if number <= run.generation - keep]
    return sum(len(run.journal.pop(number)) for number in old)


def _completed_us(run: RunRow) -> tuple[int, str]:
    return run.completed_us or 0, run.run_id
