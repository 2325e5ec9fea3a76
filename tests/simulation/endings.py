"""What must hold of ends: of runs that are tried again, that close their children, that were asked to stop.

The rule: as the checker's, of which this is a part; it looks at one run, or at one commit and the rows it left.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

from continuum._core import commands as c
from continuum._core.entries import event_of_entry
from continuum._core.events import RunStarted
from continuum._core.failure import decode_failure
from continuum._core.jsontext import load
from continuum._core.retry import decode_retry
from continuum._journal.commit import Cancel, Commit, Committed, Complete, Continue, Fail
from continuum._journal.memory.tables import RunRow, Tables

Runs: TypeAlias = Mapping[str, RunRow]


class Broken(AssertionError):
    """A promise that was not kept."""


def check_descendants(runs: Runs, commit: Commit) -> None:
    """Nobody escapes who was to fall with a run in the commit of its end."""
    below = [run for run in runs.values() if run.live and run.run_id.startswith(f"{commit.run_id}/")]
    for run in below:
        if isinstance(commit.status, Cancel):
            raise Broken(f"run {run.run_id!r} lives on, and {commit.run_id!r} let its cancellation through")
        if not isinstance(commit.status, Complete | Fail):
            return
        if run.on_parent_close == "cancel" and run.run_id.rpartition("/")[0] == commit.run_id:
            raise Broken(f"run {run.run_id!r} lives on, and was to be closed with {commit.run_id!r}")


class Bounds:
    """Which children have a timeout: it is for their whole lives, and not for their parents'."""

    def __init__(self) -> None:
        self._bounded: set[str] = set()

    def check(self, tables: Tables, commit: Commit, outcome: Committed) -> None:
        """Whoever lives on when its parent ends has a deadline from then on."""
        born = {child.run_id for child in commit.children if child.options.timeout is not None}
        self._bounded |= born - set(outcome.existed)
        if not isinstance(commit.status, Complete | Fail):
            return
        for run_id in tables.below.get(commit.run_id, {}):
            if run_id in self._bounded and tables.runs[run_id].live and run_id not in tables.cancellations:
                raise Broken(f"run {run_id!r} lives on, and its timeout ended with {commit.run_id!r}")


def check_continued(run: RunRow, commit: Commit) -> None:
    """Who was asked to stop is no other generation's."""
    rows = run.journal.get(commit.generation, {}).values()
    if isinstance(commit.status, Continue) and any(entry.type == "cancel_requested" for entry in rows):
        raise Broken(f"run {run.run_id!r} was asked to stop, and goes on as its next generation")


def check_closed(runs: Runs, run: RunRow) -> None:
    """What closed was to close, and with a parent that has ended by itself."""
    if run.state != "cancelled" or decode_failure(run.error or b"{}").type != "parent_closed":
        return
    parent = runs[run.run_id.rpartition("/")[0]]
    if run.on_parent_close != "cancel" or parent.state not in ("completed", "failed"):
        raise Broken(f"run {run.run_id!r} was closed ({run.on_parent_close}) with a parent that is {parent.state}")


def check_attempts(run: RunRow) -> None:
    """A child that fails for good has made all of its attempts, unless it was asked to stop, and nobody more."""
    attempt = _started(run, run.generation).attempt if run.generation > 1 else 1
    most = decode_retry(run.retry).max_attempts if run.retry is not None else 1
    rows = run.journal.get(run.generation, {}).values()
    asked = any(entry.type == "cancel_requested" for entry in rows)
    if attempt > most or (run.state == "failed" and attempt < most and not asked):
        raise Broken(f"run {run.run_id!r} is {run.state} at attempt {attempt} of {most}")


def check_followed(run: RunRow, generation: int, closing: c.Closing | None) -> None:
    """A generation begins as the one before has decided, and not before its time."""
    begun = _started(run, generation + 1)
    match closing:
        case c.ContinueRun():
            same = begun.attempt == 1 and load(begun.input) == load(closing.input)
        case c.RetryRun():
            same = begun.attempt == closing.attempt and load(begun.input) == load(closing.input)
            same = same and begun.at_us == closing.due_us
        case _:
            same = False
    if not same:
        raise Broken(f"generation {generation} of run {run.run_id!r} ended with {closing}, not with {begun}")


def _started(run: RunRow, generation: int) -> RunStarted:
    begun = event_of_entry(run.journal[generation][0])
    assert isinstance(begun, RunStarted)
    return begun
