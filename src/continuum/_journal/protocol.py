"""What the engine knows of storage: one typed interface, and nothing of SQL.

The rule: whoever implements it passes the same conformance suite. All methods that write are durable on return,
but for hints and heartbeats, whose loss costs time only. Whoever gives values that no database stores gets
``DatabaseRefused``. Every method raises ``DatabaseUnreachable`` when there
is no database to be had, but ``commit``, which waits for it.
"""

from __future__ import annotations

from asyncio import Future
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Protocol

from continuum._core.effects import Message
from continuum._journal.commit import (
    Announcement,
    Beat,
    Cancelled,
    Claimed,
    ClaimedTask,
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

# Told of what happened elsewhere: "wake" run ids with mail, "ended" run ids (or "id/": all below), "ready"
# definitions ("name:version") with due runs, "fenced" worker ids that lost leases, "tasks" queues, and "gap":
# whatever may have been missed.
Hint = Callable[[str, Collection[str]], None]


class Journal(Protocol):
    """Where runs are kept. ``worker_id`` is None for a client, which claims nothing."""

    worker_id: str | None
    on_hint: Hint

    async def start(self, runs: Sequence[NewRoot]) -> set[str]:
        """Insert root runs. Return the ids inserted now; an id that is missing was taken and is as it was."""
        ...

    async def claim(self, definitions: Sequence[tuple[str, int]], limit: int) -> list[Claimed]:
        """Lease at most ``limit`` due runs of the given (name, version) to this worker, if it is alive."""
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

    async def room(self) -> None:
        """Wait until there is room for more commits. Whoever takes turns asks first, so that memory is bounded."""
        ...

    async def commit(self, *commits: Commit) -> tuple[Outcome, ...]:
        """Wait for room, submit, and return the outcomes."""
        ...

    async def send(self, messages: Sequence[Message]) -> dict[str, str | None]:
        """Put messages into inboxes. Return the state of each receiver that got nothing; None: no such run."""
        ...

    async def cancel(self, run_id: str, reason: str) -> Cancelled:
        """End a run and every live run below it. Raises ``RunNotFound``; of an ended run it changes nothing."""
        ...

    async def resume(self, run_id: str) -> bool:
        """Make a parked run claimable again. False: it is not parked."""
        ...

    async def release(self, leases: Sequence[Lease]) -> set[str]:
        """Give up leases that are still held; the runs are due at once. Return the run ids released."""
        ...

    async def reclaim(self, leases: Sequence[Lease]) -> list[Claimed]:
        """Take own leases anew under higher tokens, after a commit whose outcome is unknown."""
        ...

    async def leases(self) -> list[Lease]:
        """Return all leases of this worker."""
        ...

    async def mail(self, run_ids: Collection[str]) -> dict[str, tuple[Mail, ...]]:
        """Read the inboxes of some runs. It stays there until a commit consumes it by id."""
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

    async def beat(self, suspect_run_id: str | None = None) -> Beat:
        """Prolong all leases of this worker, and name the suspect it is about to try."""
        ...

    async def deregister(self) -> None:
        """Take this worker's announcement back."""
        ...

    async def take_over(self) -> TakenOver:
        """Declare silent workers dead and release their runs; parks a run at its third death."""
        ...

    async def sweep(self, *, every_s: float = 30, budget: int = 1000) -> Swept | None:
        """Do one part of the slow sweep, unless another worker did within ``every_s``: then None."""
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
