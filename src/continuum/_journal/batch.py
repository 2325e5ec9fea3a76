"""Commits side by side: what goes into the flush statement, and what its answer means.

The rule: nothing here waits or talks to Postgres.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import psycopg

from continuum._journal.arrays import Bigints, Elements, Ints, Jsons, Texts, elements
from continuum._journal.commit import (
    Cancel,
    Commit,
    Committed,
    Complete,
    Continue,
    Fail,
    Fenced,
    Outcome,
    Passivate,
    Rejected,
    Stale,
    Undone,
)
from continuum._journal.connections import JsonText, is_of_a_copy, one_line
from continuum._journal.endings import reaches_below
from continuum._journal.hints import Hints
from continuum._journal.render import Rendered

logger = logging.getLogger("continuum.journal")
LARGE_ROWS = 2_000  # a group beyond this goes by itself, on the large lane
LARGE_BYTES = 4_000_000


class Group:
    """Commits that stand or fall together. ``told`` is what their outcomes are told to, with ``about``.

    ``leave`` is called once with the group and its outcomes. ``plain``: see ``Rendered``. ``large``: it must not
    travel with others.
    """

    __slots__ = ("about", "cascades", "large", "leave", "members", "plain", "rows", "size", "told")

    def __init__(
        self,
        members: Sequence[Rendered],
        told: Callable[[Any, tuple[Outcome, ...]], None],
        about: Any,
        leave: Callable[[Group, tuple[Outcome, ...]], None],
    ) -> None:
        self.members = members
        self.told = told
        self.about = about
        self.leave = leave
        first = members[0]
        self.rows, self.size, self.plain, self.cascades = first.count, first.size, first.plain, False
        if not first.plain:
            self.rows = sum([member.count for member in members])
            self.size = sum([member.size for member in members])
            self.cascades = any(map(reaches_below, [member.commit for member in members]))
        self.large = self.cascades or self.rows > LARGE_ROWS or self.size > LARGE_BYTES

    def run_ids(self) -> list[str]:
        """Return the runs that commit here."""
        return [member.commit.run_id for member in self.members]

    def refuse(self, error: Exception) -> None:
        """Tell that Postgres refuses the group. Whose fault it is of several shows when each is tried alone."""
        logger.error("a commit of run %r is refused: %s", self.run_ids()[0], one_line(error))
        alone = len(self.members) == 1
        self.settle(refusal(error) if alone else Undone() for _ in self.members)

    def settle(self, outcomes: Iterable[Outcome]) -> None:
        """Tell the outcomes, once."""
        self.leave(self, tuple(outcomes))


def refusal(error: Exception) -> Outcome:
    """Return what becomes of a commit that Postgres refuses: its entries may be there, and its copy is behind."""
    return Stale() if isinstance(error, psycopg.Error) and is_of_a_copy(error) else Rejected(one_line(error))


@dataclass(slots=True)
class Written:
    """What the statement answered about a batch."""

    at_us: int
    fenced: set[str]
    undone: set[str] = field(default_factory=set[str])
    stale: set[str] = field(default_factory=set[str])
    existed: set[str] = field(default_factory=set[str])
    undelivered: set[str] = field(default_factory=set[str])
    near: set[str] = field(default_factory=set[str])
    far: set[str] = field(default_factory=set[str])
    plain: tuple[Committed] = field(init=False)

    def __post_init__(self) -> None:
        self.plain = (Committed(self.at_us),)

    def is_clean(self) -> bool:
        """Tell whether all was written, and nothing was in the way."""
        return not (self.fenced or self.undone or self.stale or self.existed or self.undelivered)

    def outcomes(self, group: Group) -> tuple[Outcome, ...]:
        """Return what became of the commits of a group."""
        if not self.is_clean():
            return tuple([self.outcome(member.commit) for member in group.members])
        return self.plain if len(group.members) == 1 else self.plain * len(group.members)

    def outcome(self, commit: Commit) -> Outcome:
        """Return what became of one commit of the batch."""
        if commit.run_id in self.fenced:
            return Fenced()
        if commit.run_id in self.stale:
            return Stale()
        if commit.run_id in self.undone:
            return Undone()
        if not self.existed and not self.undelivered:
            return self.plain[0]
        existed = tuple(child.run_id for child in commit.children if child.run_id in self.existed)
        lost = tuple(message.run_id for message in commit.messages if message.run_id in self.undelivered)
        return Committed(self.at_us, existed, lost)


def flush_parts(members: Sequence[Rendered], *, mates: bool) -> frozenset[str]:
    """Return which parts of the flush statement are needed; ``mates``: some of the commits fall together."""
    parts = set[str]().union(*(member.rows for member in members))
    if any(member.details for member in members):
        parts.add("standing")
    if mates:
        parts.add("mates")
    return frozenset(parts)


def flush_values(
    worker: str, members: Collection[Rendered], rows: Mapping[str, list[Any]], lock_timeout: str
) -> dict[str, Any]:
    """Return the flush statement's parameters: the leases of ``members``, and ``rows`` for each table."""
    runs, tokens = zip(*[member.lease for member in members], strict=True)
    values: dict[str, Any] = {
        "worker": worker,
        "lock_timeout": lock_timeout,
        "runs": elements(Texts, runs),
        "tokens": elements(Bigints, tokens),
        "standing": array([member.details for member in members if member.details]),
    }
    for table, found in rows.items():
        if table != "entries":
            values[table] = array(found)
        else:
            for (name, kind), column in zip(_COLUMNS, zip(*found, strict=True), strict=True):
                values[name] = elements(kind, column)
    return values


# What the flush statement calls the columns of a row of the journal, in the order of such a row.
_COLUMNS: tuple[tuple[str, type[Elements]], ...] = (
    ("entry_runs", Texts),
    ("generations", Ints),
    ("seqs", Ints),
    ("times", Bigints),
    ("types", Texts),
    ("keys", Texts),
    ("entry_payloads", Jsons),
)


def array(rows: Iterable[bytes]) -> JsonText:
    """Return ``rows`` as one JSON array."""
    return JsonText(b"[%b]" % b",".join(rows))


def written(parts: frozenset[str], row: Sequence[Any]) -> Written:
    """Return the flush statement's answer by name."""
    result = Written(row[0], set(row[1]))
    at = 2
    if "mates" in parts:
        result.undone = set(row[at])
        at += 1
    if "consumed" in parts:
        result.stale = set(row[at])
        at += 1
    if "children" in parts:
        result.existed = set(row[at])
        at += 1
    if "messages" in parts:
        result.undelivered, result.near, result.far = set(row[at]), set(row[at + 1]), set(row[at + 2])
    return result


def tell(hints: Hints, groups: Iterable[Group], result: Written, *, told: bool = False) -> None:
    """Note what others should know of commits that are durable now; what they say may be ``told`` already."""
    if result.near or result.far:
        hints.mail(result.near, result.far)
    void = result.fenced | result.undone | result.stale
    passivated, said = sayings(groups, void)
    if passivated:
        hints.arm(passivated)
    if not told:
        for kind, names in said.items():
            hints.say(kind, names)


def sayings(groups: Iterable[Group], void: Collection[str] = ()) -> tuple[list[str], dict[str, Collection[str]]]:
    """Return which runs give up their lease, and what commits say, by kind; those of ``void`` runs say nothing."""
    passivated: list[str] = []
    ended: list[str] = []
    answered: list[str] = []
    ready: set[str] = set()
    queues: set[str] = set()
    for group in groups:
        if group.plain:
            continue
        for member in group.members:
            commit = member.commit
            told = member.standing or commit.children or commit.tasks or commit.answers
            if not told or commit.run_id in void:
                continue
            match commit.status:
                case Passivate() | Continue(wakeup_us=int()):
                    passivated.append(commit.run_id)
                case Complete() | Fail() | Cancel() if "/" not in commit.run_id:
                    ended.append(commit.run_id)
                case _:
                    pass
            if commit.answers:
                answered.append(commit.run_id)
            for child in commit.children[commit.claimed :]:
                ready.add(f"{child.workflow}:{child.version}")
            if commit.tasks:
                queues.update([task.queue for task in commit.tasks])
    said: dict[str, Collection[str]] = {"ended": ended, "answered": answered, "ready": ready, "tasks": queues}
    return passivated, {kind: names for kind, names in said.items() if names}


def doubt(hints: Hints, groups: Iterable[Group]) -> None:
    """Note what others should know if commits of unknown outcome are durable; if not, it does no harm."""
    for group in groups:
        for member in group.members:
            commit = member.commit
            hints.arm((commit.run_id, *(message.run_id for message in commit.messages)))
            hints.say("ready", {f"{child.workflow}:{child.version}" for child in commit.children})
            hints.say("ended", [commit.run_id] if isinstance(commit.status, Complete | Fail | Cancel) else ())
            hints.say("answered", [commit.run_id] if commit.answers else ())
            hints.say("tasks", {task.queue for task in commit.tasks})
