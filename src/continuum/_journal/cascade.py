"""Cancelling runs and everything below them, inside a transaction that its caller opens and ends.

The rule: level by level over all trees at once, one statement each, from the top and in the order of ids. When a
level's statement begins, every run above is locked or ended, so whatever those have started is visible to it:
nothing escapes, and runs are locked in the order in which everybody locks. A run that lies below another one which
falls, falls with it, whatever was said of it. The steps are a generator, so that they run on any connection: ours,
or a caller's, async or not.
"""

from __future__ import annotations

from collections.abc import Collection, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

from continuum._core import commands as c
from continuum._core.effects import to_parent
from continuum._core.failure import encode_failure
from continuum._core.jsontext import dump
from continuum._journal.connections import JsonText
from continuum._journal.hints import Hints
from continuum._journal.statements import Statement, statement
from continuum._journal.storable import is_storable
from continuum.errors import DatabaseRefused, Failure

T = TypeVar("T")
Rows = list[tuple[Any, ...]]
_LIVE = frozenset(("pending", "running", "suspended", "parked"))


class Step(NamedTuple):
    """A statement to run now, and the point that is reached when it has run."""

    statement: Statement
    values: dict[str, Any]
    point: str = ""


Steps = Generator[Step, Rows, T]


@dataclass(frozen=True, slots=True)
class Root:
    """A run that a cascade begins with: its error, what its parent is told, and why those below it fall."""

    run_id: str
    error: bytes
    message: bytes | None
    because: str


@dataclass(slots=True)
class Cascade:
    """What a cascade did: how many runs it ended, whose leases it took.

    ``states`` are those that its roots were in, as far as they exist; ``trees`` are the ids below which all fell.
    """

    runs: int = 0
    fallen: list[str] = field(default_factory=list[str])
    states: dict[str, str] = field(default_factory=dict[str, str])
    owners: set[str] = field(default_factory=set[str])
    trees: tuple[str, ...] = ()

    @property
    def state(self) -> str | None:
        """The state that the only root was in; None: there is no such run."""
        return next(iter(self.states.values()), None)

    def ended(self) -> list[str]:
        """Return what to tell those who wait for ends."""
        below = self.trees if self.runs > len(self.fallen) else ()
        return [*self.fallen, *(f"{run_id}/" for run_id in below)]

    def parents(self) -> list[str]:
        """Return the runs that may have mail of it."""
        return [parent for parent in dict.fromkeys(map(parent_of, self.fallen)) if parent]

    def tell(self, hints: Hints) -> None:
        """Note what others should know of it, now that it is durable."""
        hints.say("ended", self.ended())
        hints.say("fenced", self.owners)
        hints.mail((), self.parents())


def parent_of(run_id: str) -> str:
    """Return the id of a run's parent; of a root it is empty."""
    return run_id.rpartition("/")[0]


def stopped(run_id: str, reason: str, *, timed_out: bool = False) -> Root:
    """Return a run that somebody cancels, or its timeout. Raises ``DatabaseRefused`` for what cannot be stored."""
    if not is_storable(reason):  # with NUL in it, a parent could never journal what it is told
        raise DatabaseRefused(f"the reason for cancelling run {run_id!r} cannot be stored: {reason!r}")
    payload = to_parent(run_id, c.CancelRun(reason)).payload if "/" in run_id else None
    if timed_out:
        payload = dump({"reason": reason, "timed_out": True})
    error = encode_failure(Failure("cancelled", reason, timed_out=timed_out))
    return Root(run_id, error, payload, cancelled_with(run_id, reason))


def closed(run_id: str) -> Root:
    """Return a child that closes with its parent, which has ended and is told nothing."""
    why = f"run {parent_of(run_id)!r} ended, and this child closes with it"
    return Root(run_id, encode_failure(Failure("parent_closed", why)), None, cancelled_with(run_id, why))


def cancelled_with(run_id: str, reason: str) -> str:
    """Say why what lies below a cancelled run falls."""
    return f"run {run_id!r} was cancelled: {reason}" if reason else f"run {run_id!r} was cancelled"


def cancelling(schema: str, run_id: str, reason: str) -> Steps[Cascade]:
    """Cancel ``run_id`` and all live runs below it. Nothing is changed if it has ended or does not exist.

    Raises ``DatabaseRefused`` for a reason that cannot be stored.
    """
    if not is_storable(run_id):
        return Cascade()
    return (yield from cascading(schema, [stopped(run_id, reason)]))


def cascading(schema: str, roots: Iterable[Root], below: Mapping[str, str] | None = None) -> Steps[Cascade]:
    """Cancel ``roots`` with all live runs below them, and all live runs below those of ``below``, by id and why.

    Roots that have ended are left as they are, and so is what lies below them.
    """
    done = Cascade()
    waiting = _by_depth(roots)
    trees = dict(below or {})
    depth = -1
    while True:
        levels = sorted(waiting)[:1]
        if trees:
            deeper = yield Step(statement("cancel_deeper", schema), {"trees": _topmost(trees), "depth": depth})
            levels += [deeper[0][0]] if deeper[0][0] is not None else []
        if not levels:
            break
        depth = min(levels)
        begun = {root.run_id: root for root in waiting.pop(depth, ()) if not _is_below(root.run_id, trees)}
        values = _level(depth, begun.values(), trees)
        point = "cancel.root" if begun else "cancel.level"
        ((runs, owners, found, states),) = yield Step(statement("cancel_level", schema), values, point)
        done.runs += runs
        done.owners.update(owners or ())
        for run_id, state in zip(found or (), states or (), strict=True):
            done.states[run_id] = state
            if state in _LIVE:
                done.fallen.append(run_id)
                trees[run_id] = begun[run_id].because
    done.trees = tuple(_topmost(trees))
    if done.trees:
        yield Step(statement("cancel_rest", schema), {"trees": list(done.trees)})
    return done


def locking(schema: str, own: Sequence[str], trees: Sequence[str]) -> Steps[None]:
    """Lock the runs ``own`` and all live runs of ``trees``, in the order in which everybody locks."""
    depth: int | None = -1
    while depth is not None:
        values = {"own": list(own), "trees": list(trees), "depth": depth}
        level = yield Step(statement("cancel_lock", schema), values)
        depth = level[0][0]


def _by_depth(roots: Iterable[Root]) -> dict[int, list[Root]]:
    found: dict[int, list[Root]] = {}
    for root in roots:
        if is_storable(root.run_id):  # no row has another id
            found.setdefault(root.run_id.count("/"), []).append(root)
    return found


def _is_below(run_id: str, trees: Collection[str]) -> bool:
    return any(above in trees for above in _above(run_id))


def _above(run_id: str) -> Iterator[str]:
    while run_id := parent_of(run_id):
        yield run_id


def _topmost(trees: Collection[str]) -> list[str]:
    """Return those of ``trees`` that lie in none of the others: one range of ids for each run."""
    return [run_id for run_id in trees if not _is_below(run_id, trees)]


def _level(depth: int, begun: Iterable[Root], trees: Mapping[str, str]) -> dict[str, Any]:
    """Return the values of the statement that cancels a level: ids, and what is said of them as text by id."""
    topmost = _topmost(trees)
    errors = {run_id: encode_failure(Failure("parent_cancelled", trees[run_id])) for run_id in topmost}
    told: dict[str, bytes] = {}
    roots: list[str] = []
    for root in begun:
        roots.append(root.run_id)
        errors[root.run_id] = root.error
        if root.message is not None:
            told[root.run_id] = root.message
    return {"depth": depth, "roots": roots, "trees": topmost, "errors": _texts(errors), "told": _texts(told)}


def _texts(values: Mapping[str, bytes]) -> JsonText:
    return JsonText(dump({run_id: value.decode() for run_id, value in values.items()}))
