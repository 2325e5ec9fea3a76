"""What the engine knows of storage: one typed interface, and nothing of SQL.

The rule: whoever implements it passes the same conformance suite. All methods that write are durable on return,
but for hints and heartbeats, whose loss costs time only. Whoever gives values that no database stores gets
``DatabaseRefused``. Every method raises ``DatabaseUnreachable`` when there
is no database to be had, but ``commit``, which waits for it.
"""

from __future__ import annotations

from asyncio import Future
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Protocol, TypeVar

from continuum._core.effects import Message
from continuum._journal.commit import (
    SWEEP_EVERY_S,
    Announcement,
    Beat,
    Cancelled,
    Claimed,
    ClaimedTask,
    Claims,
    Commit,
    End,
    Lease,
    Loaded,
    Mail,
    NewRoot,
    Outcome,
    Swept,
    TakenOver,
)
from continuum._journal.description import EventRow, RunRow
from continuum._journal.hooks import Hooks

if TYPE_CHECKING:
    from continuum._journal.outside import Outside

# Told of what happened elsewhere: "wake" run ids with mail, "ended" run ids (or "id/": all below), "answered" runs
# that answered, "ready" definitions ("name:version") with due runs, "fenced" worker ids that lost leases, "tasks"
# queues, and "gap": whatever may have been missed.
T = TypeVar("T")
Hint = Callable[[str, Collection[str]], None]


class Views(Protocol):
    """Reading for people, clients and tools: it locks nothing and goes on from the last row by key."""

    async def describe_all(self, run_ids: Sequence[str]) -> list[RunRow]:
        """Return those of the runs that exist, in the order given."""
        ...

    async def declared(self, run_id: str) -> tuple[str, tuple[str, ...]] | None:
        """Return a run's workflow and the signals that it declares, or None if any may be sent, or nobody knows.

        They are those of all who ever announced its version, and None if one of them announced none.
        """
        ...

    async def history(
        self, run_id: str, generation: int | None = None, *, after: tuple[int, int] = (0, -1), limit: int = 1_000
    ) -> list[EventRow]:
        """Return entries of one generation, or of all, behind the place ``after`` (generation, seq)."""
        ...

    async def roots(
        self,
        *,
        workflow: str | None = None,
        namespace: str | None = None,
        state: str | None = None,
        before: RunRow | None = None,
        limit: int = 100,
    ) -> list[RunRow]:
        """Return root runs, newest first, older than ``before``."""
        ...

    async def below(
        self, run_id: str, *, levels: int | None = None, after: str = "", limit: int = 1_000
    ) -> list[RunRow]:
        """Return runs below one in the order of ids, ``levels`` deep (1: its children), behind id ``after``."""
        ...

    async def outline(
        self, run_id: str, *, levels: int | None = None, after: str = "", limit: int = 1_000
    ) -> list[RunRow]:
        """Return runs as ``below`` does, without inputs, results, attributes and published states."""
        ...


class Journal(Protocol):
    """Where runs are kept. ``worker_id`` is None for a client, which claims nothing."""

    worker_id: str | None
    on_hint: Hint

    @property
    def views(self) -> Views:
        """What people see."""
        ...

    def another(self, hooks: Hooks | None = None) -> AbstractAsyncContextManager[Journal]:
        """Open another journal in the same place, for a worker; its services run for the block."""
        ...

    @property
    def hears(self) -> bool:
        """Whether hints of other processes come through. If not, poll more often."""
        ...

    async def prepare(self, *, migrating: bool = True) -> None:
        """Make sure that the journal can be used. Raises ``SchemaMismatch``."""
        ...

    async def run(self) -> None:
        """Serve until cancelled."""
        ...

    async def start(self, runs: Sequence[NewRoot]) -> set[str]:
        """Insert root runs. Return the ids inserted now; an id that is missing was taken and is as it was.

        Raises ``DatabaseBusy`` if an open transaction is starting one of them.
        """
        ...

    async def outside(self) -> Outside:
        """Return what starts, signals and cancels in callers' transactions.

        Raises ``InvalidSetting`` if this journal is not in a database.
        """
        ...

    async def claim(self, definitions: Sequence[tuple[str, int]], limit: int) -> Claims:
        """Lease at most ``limit`` due runs of the given (name, version) to this worker, if it is alive.

        Of one definition those that are due first, in that order. If there were fewer than ``limit``, it also says
        when the next one is due.
        A call that is cancelled or fails may have leased runs all the same: ``leases`` finds them.
        """
        ...

    async def load(self, claimed: Sequence[Claimed]) -> list[Loaded]:
        """Read what is needed to replay runs this worker holds, in the order given."""
        ...

    def submit(self, *commits: Commit) -> Future[tuple[Outcome, ...]]:
        """Hand in commits that stand or fall together; at most one of a run may be under way.

        The future gives an outcome for each. A journal that closes settles what is open
        with ``Unknown``. Raises ``RuntimeError`` if a commit of one of the runs is under way already.
        """
        ...

    def hand_in(self, commits: Sequence[Commit], told: Callable[[T, tuple[Outcome, ...]], None], about: T) -> None:
        """Hand in commits as ``submit`` does. ``told(about, outcomes)`` is called later, from a plain callback."""
        ...

    async def room(self) -> None:
        """Wait until there is room for more commits. Whoever takes turns asks first, so that memory is bounded."""
        ...

    async def commit(self, *commits: Commit) -> tuple[Outcome, ...]:
        """Wait for room, submit, and return the outcomes."""
        ...

    async def describe(self, run_id: str) -> RunRow | None:
        """Return a run as people see it, or None."""
        ...

    async def send(self, messages: Sequence[Message]) -> dict[str, str | None]:
        """Put messages into inboxes. Return the state of each receiver that got nothing; None: no such run.

        A message with a delivery id that the run has had is left out, and its receiver counts as reached, also one
        that has ended. Raises ``MessageIdTaken`` if the run has had another one under that id, after sending the
        others, and ``DatabaseBusy`` if an open transaction is sending one with the same id.
        """
        ...

    async def cancel(self, run_id: str, reason: str) -> Cancelled:
        """End a run and every live run below it. Of a run that has ended nothing is changed, and ``runs`` is 0.

        Raises ``RunNotFound``, and ``DatabaseBusy`` if others hold one of the runs for long.
        """
        ...

    async def request_cancel(self, run_id: str, reason: str, grace_s: float) -> str | None:
        """Ask a run to stop: a message to it, and a deadline in ``grace_s`` seconds, after which it is overdue.

        Return the state it was in, None if there is no such run; of one that has ended nothing is changed. Asked
        again it gets no second message, and the earlier deadline counts. Raises ``DatabaseBusy`` if an open
        transaction asks the same.
        """
        ...

    async def cancel_overdue(self) -> int:
        """Cancel runs that are overdue, a hundred at a time; return how many runs that ended. Any worker may.

        A run that somebody's lock holds is left out: ask again.
        """
        ...

    async def prune(self, older_than_s: float, limit: int = 100) -> int:
        """Delete at most ``limit`` whole trees whose roots have ended that long ago; return how many.

        A tree in which anything is live stays whole, such as one with an abandoned child that goes on. Roots that
        somebody holds are left out. Raises ``DatabaseBusy`` if somebody holds a run below one.
        """
        ...

    async def prune_generations(self, run_id: str, keep: int) -> int:
        """Delete the entries of all generations of a run but the newest ``keep``; return how many. It may be live.

        Raises ``RunNotFound``, and ``ValueError`` for a ``keep`` below 1.
        """
        ...

    async def resume(self, run_id: str) -> bool:
        """Make a parked run claimable again. False: it is not parked."""
        ...

    async def release(self, leases: Sequence[Lease]) -> set[str]:
        """Give up leases that are still held; the runs are due at once. Return the run ids released.

        A run whose row somebody holds is left out: ask again.
        """
        ...

    async def reclaim(self, leases: Sequence[Lease]) -> list[Claimed]:
        """Take own leases anew under higher tokens, after a commit whose outcome is unknown.

        What is read afterwards of a run that comes back is final: nothing written under an old token follows. A
        run whose row somebody holds is left out, such as one that the unknown write is still at: ask again, as
        long as ``leases`` has it. May be asked again when it raised, too.
        """
        ...

    async def leases(self) -> list[Lease]:
        """Return all leases of this worker, also those of a claim whose answer is on its way.

        So what is not resident is to be released only if it was not resident the last time either.
        """
        ...

    async def mail(self, run_ids: Collection[str]) -> dict[str, tuple[Mail, ...]]:
        """Read the inboxes of some runs. What is read stays there until a commit consumes it by id.

        While a commit of the run is under way, the answer may hold what that commit consumes: read again after
        it. A commit that consumes what is gone is ``Stale``.
        """
        ...

    def arm(self, run_ids: Collection[str]) -> None:
        """Make runs soon due that have mail and no worker; for hints of mail that nobody here can read."""
        ...

    async def residents_with_mail(self) -> list[str]:
        """Return the runs held by this worker that have mail: what a lost hint would hide."""
        ...

    async def register(self, worker_id: str, lease_s: float, info: Mapping[str, object]) -> None:
        """Announce this process as a worker under an id that was never used."""
        ...

    async def beat(self) -> Beat:
        """Prolong all leases of this worker. Gives up within seconds: a lease is at stake."""
        ...

    async def suspect(self, run_id: str | None) -> Beat:
        """Name the one suspected run that is about to be tried, until another or None is named; and beat."""
        ...

    async def clear_suspicion(self, run_ids: Collection[str]) -> set[str]:
        """Forgive suspects that this worker holds and that came through their try, with all their deaths.

        Return those forgiven; one whose row somebody holds is left as it is.
        """
        ...

    async def deregister(self) -> None:
        """Take this worker's announcement back."""
        ...

    async def take_over(self) -> TakenOver:
        """Declare silent workers dead and release the runs of dead ones; parks a run at its third death.

        Between a new connection and the next ``beat`` nobody is declared dead: who was away does not judge.
        """
        ...

    async def sweep(self, *, every_s: float = SWEEP_EVERY_S, budget: int = 1000) -> Swept | None:
        """Do one part of the slow sweep, unless one was finished within ``every_s``: then None.

        Until it is ``finished`` the next part is due at once, here or elsewhere.
        """
        ...

    async def announce(self, definitions: Sequence[Announcement]) -> None:
        """Write down which definitions this worker has."""
        ...

    async def definitions(self) -> dict[Announcement, int]:
        """Return every definition ever announced, and how many live workers have it."""
        ...

    async def ends(self, run_ids: Collection[str]) -> dict[str, End]:
        """Return how those of the runs ended that have."""
        ...

    async def wait(self, run_id: str) -> End:
        """Wait until a run ends. Raises ``RunNotFound``."""
        ...

    async def wait_answer(self, run_id: str, delivery_id: str) -> bytes | End:
        """Wait for the answer to a message that was sent under an id. Raises ``RunNotFound``.

        Of a run that ends without giving one, return how it ended; an answer that was given is there for good.
        """
        ...

    async def claim_tasks(self, queue: str, limit: int, lease_s: float) -> list[ClaimedTask]:
        """Begin attempts of due tasks of a queue."""
        ...

    async def renew_tasks(self, beats: Sequence[tuple[ClaimedTask, bytes | None]], lease_s: float) -> set[int]:
        """Prolong attempts, with what they report. An id that does not come back is no longer this worker's."""
        ...

    async def report_tasks(self, outcomes: Sequence[tuple[ClaimedTask, Message]]) -> set[int]:
        """End attempts: the task goes and its outcome comes into the run's inbox. Return the ids that counted."""
        ...

    async def retry_tasks(self, retries: Sequence[tuple[ClaimedTask, float]]) -> set[int]:
        """Put failed attempts back, due after a delay in seconds. Return the ids that counted."""
        ...

    async def requeue_tasks(self, limit: int = 100) -> int:
        """End attempts whose lease has passed: back into the queue, or failed when none is left."""
        ...
