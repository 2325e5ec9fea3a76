"""What the commits of a group bring about below them: runs they cancel, and what their own ends do to descendants.

The rule: it comes after the commits' own rows stand, in their transaction, as one cascade for all of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from continuum._core.failure import decode_failure
from continuum._journal.cascade import Cascade, Root, Step, Steps, cancelled_with, cascading, closed, stopped
from continuum._journal.commit import Cancel, Commit
from continuum._journal.statements import statement


def reaches_below(commit: Commit) -> bool:
    """Tell whether a commit ends other runs."""
    return bool(commit.cancels) or commit.descendants != "leave"


def bringing_about(schema: str, commits: Iterable[Commit]) -> Steps[Cascade]:
    """Cancel what commits cancel, and what falls or closes with the runs that they end."""
    roots, below, closing = wanted_below(commits)
    for ended in closing:
        values = {"run_id": ended, "depth": ended.count("/") + 1}
        for (run_id,) in (yield Step(statement("list_closing", schema), values)):
            roots.setdefault(run_id, closed(run_id))
    return (yield from cascading(schema, roots.values(), below))


def wanted_below(commits: Iterable[Commit]) -> tuple[dict[str, Root], dict[str, str], list[str]]:
    """Return runs to be cancelled, those below which all falls and why, and those whose children may close."""
    roots: dict[str, Root] = {}
    below: dict[str, str] = {}
    closing: list[str] = []
    for commit in commits:
        for wanted in commit.cancels:
            roots.setdefault(wanted.run_id, stopped(wanted.run_id, wanted.reason, timed_out=wanted.timed_out))
        if commit.descendants == "cancel":
            below[commit.run_id] = why_below(commit)
        elif commit.descendants == "close":
            closing.append(commit.run_id)
    return roots, below, closing


def why_below(commit: Commit) -> str:
    """Say why everything below a run falls with its end."""
    if not isinstance(commit.status, Cancel):
        return f"run {commit.run_id!r} ended"
    return cancelled_with(commit.run_id, decode_failure(commit.status.error).message)


def is_in_order(commits: Sequence[Commit]) -> bool:
    """Tell whether a cascade that follows the commits' own rows locks in the order in which everybody locks."""
    first: list[tuple[int, str]] = []
    for commit in commits:
        first += [_place(wanted.run_id) for wanted in commit.cancels]
        first += [_place(f"{commit.run_id}/")] if commit.descendants != "leave" else []
    return not first or max(_place(commit.run_id) for commit in commits) < min(first)


def trees(commits: Iterable[Commit]) -> list[str]:
    """Return runs in or below which all lies that the commits may cancel."""
    found: list[str] = []
    for commit in commits:
        found += [wanted.run_id for wanted in commit.cancels]
        found += [commit.run_id] if commit.descendants != "leave" else []
    return found


def _place(run_id: str) -> tuple[int, str]:
    return run_id.count("/"), run_id
