"""A run in this worker's memory.

The rule: it belongs to one lease. Once ``gone`` it never comes back: whatever still happens to it reaches nobody,
and the run, if it returns, is another ``Resident``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from continuum._core.commands import Request, StartChild
from continuum._core.effects import Effects, End
from continuum._core.entries import Entry
from continuum._core.events import ChildOutcome, Event
from continuum._core.machine import Machine
from continuum._journal.commit import Claimed, Commit, Lease, Status
from continuum.errors import DecodeError, Failure

if TYPE_CHECKING:
    import asyncio


class Arrival(NamedTuple):
    """Something that has happened to a run and is not yet in its journal.

    ``mail`` is the message's id if it lies in the inbox. ``event`` is None for a message to be consumed without an
    entry. ``ended`` are turns of runs that end in one commit with this event: a child's that lives here, too.
    """

    event: Event | None
    mail: int | None = None
    ended: tuple[TurnTaken, ...] = ()


class TurnTaken:
    """Turns of one run that make one commit: taken, and not yet known to be durable.

    ``outcome`` is the end of the run if its parent is to hear it; it is no part of ``commit``. ``ended`` are turns
    of its children that go with it, ``rows`` how many all of them write, known while it waits for its own parent.
    ``requests`` are acted on after the commit. ``heard`` are ends of children, by key, of which listeners are
    to be told. ``started`` are keys of children that may be an earlier generation's, ``unsure`` durable starts of
    which it is not known whether they are.
    """

    # What most turns do not have is the class's: one is made for every turn.
    commit: Commit | None = None
    outcome: End | None = None
    rows: int = 0
    fault: Failure | None = None
    started: frozenset[str] = frozenset()
    unsure: Sequence[StartChild] = ()

    def __init__(self, run: Resident) -> None:
        self.run = run
        self.turns: list[Effects] = []
        self.requests: list[Request] = []
        self.ended: list[TurnTaken] = []
        self.heard: list[tuple[type[ChildOutcome], str]] = []

    def members(self) -> list[TurnTaken]:
        """Return all that go with this one, itself last."""
        found: list[TurnTaken] = []
        for ended in self.ended:
            found += ended.members() if ended.ended else (ended,)
        found.append(self)
        return found

    @property
    def births(self) -> int:
        """How many children this worker takes at birth."""
        return 0 if self.commit is None else self.commit.claimed

    def weight(self) -> int:
        """Return how many rows this one and those that go with it write, roughly."""
        weight = 1
        if self.commit is not None:
            weight += len(self.commit.entries) + len(self.commit.children) + len(self.commit.messages)
        for ended in self.ended:
            weight += ended.rows
        return weight


class Resident:
    """One run: its lease, its machine, what waits for it and what it waits for."""

    __slots__ = (
        "about",
        "active_at",
        "arrivals",
        "attempts",
        "claimed",
        "committing",
        "comparing",
        "consumed",
        "entries",
        "failures",
        "gone",
        "inquiries",
        "is_new",
        "known_mail",
        "loading",
        "machine",
        "more_mail",
        "owed",
        "problem",
        "queued",
        "reading",
        "resting",
        "seq",
        "suspect",
        "timers",
        "unjudged",
    )

    def __init__(self, claimed: Claimed, active_at: float) -> None:
        self.claim(claimed)
        self.machine: Machine | None = None
        self.entries: tuple[Entry, ...] = ()  # what the machine is to be made from
        self.seq = 1  # of the next entry
        self.arrivals: deque[Arrival] = deque()
        self.timers: dict[str, int] = {}  # when each is due, by key
        self.attempts: dict[str, int] = {}  # of activities that had been tried before, by key
        self.owed = False  # activities that were asked for and not begun, because the worker drains
        self.problem: Failure | None = None  # what is wrong with its rows: it is to be parked
        self.inquiries = 0
        # What is heard meanwhile of children that are being compared with an earlier generation's, by key: if it
        # is another child's, the machine must hear that first.
        self.comparing: dict[str, list[Arrival]] = {}
        self.is_new = False  # nobody has held it before: it has no entries
        self.loading = True  # its journal is being read
        self.queued = False  # it waits for its turn
        self.committing = False
        self.gone = False
        self.suspect = False  # it is being tried alone
        self.unjudged = False  # it was, and nothing came of it yet
        self.reading = False  # its inbox is being read
        self.more_mail = False  # somebody said that there is more
        self.known_mail: set[int] = set()
        self.consumed: list[int] = []  # by commits acknowledged while the inbox was being read
        self.active_at = active_at
        self.failures = 0  # of ours, in a row
        self.resting: list[asyncio.Future[None]] = []

    def claim(self, claimed: Claimed) -> None:
        """Be this generation of the run. ``about`` is what its activities may know of it."""
        self.claimed = claimed
        self.about = claimed.run_id, claimed.generation, claimed.trace

    @property
    def run_id(self) -> str:
        """The run's id."""
        return self.claimed.run_id

    @property
    def lease(self) -> Lease:
        """The lease under which it is here."""
        return Lease(self.claimed.run_id, self.claimed.token)

    @property
    def at_rest(self) -> bool:
        """Whether nothing is to be done for it before something happens."""
        return not (self.loading or self.committing or self.queued or self.arrivals)

    def withheld_with(self, event: Event | None) -> list[Arrival] | None:
        """Return what is withheld with an event, if it is: it tells how a child that is being compared ended."""
        return self.comparing.get(event.key) if isinstance(event, ChildOutcome) else None

    def withhold(self) -> list[TurnTaken]:
        """Withhold what has arrived of children that are being compared; return turns that were to go with it."""
        arrivals, turns = list(self.arrivals), list[TurnTaken]()
        self.arrivals.clear()
        for arrival in arrivals:
            withheld = self.withheld_with(arrival.event)
            if withheld is None:
                self.arrivals.append(arrival)
            elif arrival.ended:
                turns += arrival.ended
            else:
                withheld.append(arrival)
        return turns

    def standing(self, status: Status) -> Commit:
        """Return the commit that changes how the run stands, and writes nothing else."""
        claimed = self.claimed
        return Commit(claimed.run_id, claimed.token, claimed.generation, self.seq, status=status)

    def cannot_read(self, what: str, error: Exception) -> None:
        """Note rows that no release has written: they are this run's trouble and nobody else's."""
        reason = str(error) if isinstance(error, DecodeError) else repr(error)
        self.problem = Failure("Undecodable", f"{what}: {reason}")

    def let_go(self) -> None:
        """Let its machine go, if it has one. Not from inside its own turn."""
        machine, self.machine = self.machine, None
        if machine is not None:
            machine.discard()

    def rested(self) -> None:
        """Tell who waits that it came to rest, or is gone."""
        resting, self.resting = self.resting, []
        for future in resting:
            if not future.done():
                future.set_result(None)
