"""Cancelling a run and everything below it, inside a transaction that its caller opens and ends.

The rule: level by level, one statement each, from the top. When a level's statement begins, every run above is
locked or ended, so whatever those have started is visible to it: nothing escapes. The steps are a generator, so
that they run on any connection: ours, or a caller's, async or not.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

from continuum._core import commands as c
from continuum._core.effects import to_parent
from continuum._core.failure import encode_failure
from continuum._core.machine import RunContext
from continuum._journal.connections import JsonText
from continuum._journal.hints import Hints
from continuum._journal.statements import Statement, statement
from continuum._journal.storable import is_storable
from continuum.errors import DatabaseRefused, Failure

T = TypeVar("T")
Rows = list[tuple[Any, ...]]


class Step(NamedTuple):
    """A statement to run now, and the point that is reached when it has run."""

    statement: Statement
    values: dict[str, Any]
    point: str = ""


Steps = Generator[Step, Rows, T]


@dataclass(slots=True)
class Cascade:
    """What a cascade did: the state its root was in (None: no such run), how many runs, whose leases it took."""

    run_id: str
    parent: str = ""
    state: str | None = None
    runs: int = 0
    owners: set[str] = field(default_factory=set[str])

    def ended(self) -> list[str]:
        """Return what to tell those who wait for ends."""
        return [] if not self.runs else [self.run_id] if self.runs == 1 else [self.run_id, f"{self.run_id}/"]

    def tell(self, hints: Hints) -> None:
        """Note what others should know of it, now that it is durable."""
        if not self.runs:
            return
        hints.say("ended", self.ended())
        hints.say("fenced", self.owners)
        if self.parent:
            hints.mail((), [self.parent])


def cancelling(schema: str, run_id: str, reason: str) -> Steps[Cascade]:
    """Cancel ``run_id`` and all live runs below it. Nothing is changed if it has ended or does not exist.

    Raises ``DatabaseRefused`` for a reason that cannot be stored.
    """
    done = Cascade(run_id, run_id.rpartition("/")[0])
    if not is_storable(run_id):
        return done
    if not is_storable(reason):  # with NUL in it, a parent could never journal what it is told
        raise DatabaseRefused(f"the reason for cancelling run {run_id!r} cannot be stored: {reason!r}")
    found = yield Step(statement("cancel_root", schema), _root(run_id, reason), "cancel.root")
    if not found:
        return done
    depth, done.state, owner, changed = found[0]
    if not changed:
        return done
    done.runs = 1
    done.owners.update([owner] if owner else ())
    because = f"run {run_id!r} was cancelled: {reason}" if reason else f"run {run_id!r} was cancelled"
    below = {
        "run_id": run_id,
        "first": f"{run_id}/",
        "last": f"{run_id}0",
        "depth": depth,
        "error": JsonText(encode_failure(Failure("parent_cancelled", because))),
    }
    while True:
        next_level = yield Step(statement("cancel_deeper", schema), below)
        if next_level[0][0] is None:
            break
        below = {**below, "depth": next_level[0][0]}
        level = yield Step(statement("cancel_level", schema), below, "cancel.level")
        done.runs += level[0][0]
        done.owners.update(level[0][1] or ())
    yield Step(statement("cancel_rest", schema), below)
    return done


def locking(schema: str, own: Sequence[str], trees: Sequence[str]) -> Steps[None]:
    """Lock the runs ``own`` and all live runs of ``trees``, in the order in which everybody locks."""
    depth: int | None = -1
    while depth is not None:
        values = {"own": list(own), "trees": list(trees), "depth": depth}
        level = yield Step(statement("cancel_lock", schema), values)
        depth = level[0][0]


def _root(run_id: str, reason: str) -> dict[str, Any]:
    parent, _, key = run_id.rpartition("/")
    told = to_parent(RunContext(run_id, 1, run_id.count("/")), c.CancelRun(reason))
    return {
        "run_id": run_id,
        "error": JsonText(encode_failure(Failure("cancelled", reason))),
        "parent": parent,
        "key": key,
        "message": JsonText(b"null" if told is None else told.payload),
    }
