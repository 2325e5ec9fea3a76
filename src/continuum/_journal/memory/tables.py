"""The rows of a journal in memory, and what is found in them quickly.

The rule: the same columns as in Postgres. Who holds a run and when it is due change only through the methods
here, so that what is due and what is held are found without a walk over all runs.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from continuum._core.entries import Entry
from continuum._core.jsontext import dump
from continuum._journal.commit import Announcement, Claimed, Mail

LIVE = frozenset(("pending", "running", "suspended", "parked"))
CLAIMABLE = frozenset(("pending", "running", "suspended"))
HOUR_US = 3_600_000_000


@dataclass(slots=True, eq=False)
class RunRow:
    """A run. Its journal is by generation and number."""

    run_id: str
    workflow: str
    version: int
    input: bytes
    depth: int
    created_us: int
    namespace: str = "default"
    attributes: dict[str, Any] | None = None
    trace: str | None = None
    priority: int = 0
    retry: bytes | None = None
    on_parent_close: str | None = None
    state: str = "pending"
    generation: int = 1
    owner: str | None = None
    token: int = 0
    wakeup_us: int | None = None
    started_us: int | None = None
    completed_us: int | None = None
    waiting_for: str | None = None
    result: bytes | None = None
    error: bytes | None = None
    published: bytes | None = None
    suspected: bool = False
    deaths: int = 0
    journal: dict[int, dict[int, Entry]] = field(default_factory=dict[int, dict[int, Entry]])

    @property
    def live(self) -> bool:
        """Whether it has not ended."""
        return self.state in LIVE

    @property
    def definition(self) -> str:
        """The definition as hints name it."""
        return f"{self.workflow}:{self.version}"

    def claimed(self) -> Claimed:
        """Return the run as its holder sees it."""
        return Claimed(
            self.run_id,
            self.token,
            self.generation,
            self.workflow,
            self.version,
            self.depth,
            self.started_us or 0,
            self.input,
            self.suspected,
            self.deaths,
            self.retry,
            self.namespace,
            None if self.attributes is None else dump(self.attributes),
            self.trace,
        )


@dataclass(slots=True, eq=False)
class WorkerRow:
    """A worker's announcement and its last sign of life."""

    worker_id: str
    lease_us: int
    connected_us: int
    beat_us: int
    dead_us: int | None = None
    suspect: str | None = None

    def silent(self, now_us: int) -> bool:
        """Tell whether its lease time has passed without a beat."""
        return self.beat_us < now_us - self.lease_us


@dataclass(slots=True, eq=False)
class TaskRow:
    """An activity on a queue."""

    task_id: int
    run_id: str
    generation: int
    key: str
    queue: str
    name: str
    input: bytes
    max_attempts: int
    priority: int
    options: bytes | None
    run_us: int
    attempt: int = 0
    owner: str | None = None
    lease_until_us: int = 0
    details: bytes | None = None


class Tables:
    """All rows. ``now_us`` is the journal's clock; ``locked`` are runs that somebody else's transaction holds."""

    def __init__(self, now_us: Callable[[], int]) -> None:
        self.now_us = now_us
        self.locked: set[str] = set()
        self.runs: dict[str, RunRow] = {}
        self.below: dict[str, dict[str, RunRow]] = {}  # children by parent
        self.held: dict[str, dict[str, RunRow]] = {}  # runs by the worker that holds them
        self.inbox: dict[str, dict[int, Mail]] = {}
        self.workers: dict[str, WorkerRow] = {}
        self.tasks: dict[int, TaskRow] = {}
        self.deliveries: dict[tuple[str, str], bytes | None] = {}  # by run and id: the answer, if it has one
        self.delivered: dict[tuple[str, str], str] = {}  # by run and id: the kind and name of what was sent
        self.cancellations: dict[str, tuple[int, str]] = {}  # by run: when it is overdue, and the reason
        self.timeouts: set[str] = set()  # of those: runs that nobody has asked to stop
        self.announced: dict[tuple[str, str, int, str], Announcement] = {}
        self.swept_us: int | None = None
        self.sweep_cursor = ""
        self.messages = 0  # given out as ids
        self._due: dict[tuple[str, int], list[tuple[int, str]]] = {}

    # --- runs

    def add(self, run: RunRow) -> None:
        """Take in a run."""
        self.runs[run.run_id] = run
        parent = run.run_id.rpartition("/")[0]
        if parent:
            self.below.setdefault(parent, {})[run.run_id] = run

    def descendants(self, run_id: str) -> Iterator[list[RunRow]]:
        """Yield the runs below one, level by level, each in the order of ids; live ones or not."""
        level = [run_id]
        while level:
            found = [run for parent in level for run in self.below.get(parent, {}).values()]
            if not found:
                return
            yield sorted(found, key=_run_id)
            level = [run.run_id for run in found]

    def give(self, run: RunRow, owner: str | None) -> None:
        """Let ``owner`` hold the run; nobody: None."""
        if run.owner is not None:
            self.held[run.owner].pop(run.run_id, None)
        run.owner = owner
        if owner is not None:
            self.held.setdefault(owner, {})[run.run_id] = run

    def arm(self, run: RunRow, wakeup_us: int | None) -> None:
        """Say when the run is due; None: when somebody says so."""
        run.wakeup_us = wakeup_us
        if wakeup_us is not None:
            heapq.heappush(self._due.setdefault((run.workflow, run.version), []), (wakeup_us, run.run_id))

    def arm_now(self, run: RunRow) -> None:
        """Make the run due at once; priority lets it have been so for hours."""
        self.arm(run, self.now_us() - run.priority * HOUR_US)

    def due(self, definition: tuple[str, int], limit: int) -> list[RunRow]:
        """Return runs of a definition that are due and free, the longest due first."""
        heap: list[tuple[int, str]] = self._due.get(definition, [])
        found: dict[str, RunRow] = {}
        again: list[tuple[int, str]] = []
        now = self.now_us()
        while heap and len(found) < limit and heap[0][0] <= now:
            place = heapq.heappop(heap)
            run = self.runs.get(place[1])
            if run is None or run.wakeup_us != place[0] or not self.is_free(run):
                continue  # what was written there is not true any more
            again.append(place)
            if run.run_id not in self.locked:
                found[run.run_id] = run
        for place in again:
            heapq.heappush(heap, place)
        return list(found.values())

    def next_due_us(self, definition: tuple[str, int]) -> int | None:
        """Return when the next run of a definition is due that is not due yet."""
        now = self.now_us()
        runs = ((at_us, self.runs.get(run_id)) for at_us, run_id in self._due.get(definition, []) if at_us > now)
        times = (at_us for at_us, run in runs if run is not None and run.wakeup_us == at_us and self.is_free(run))
        return min(times, default=None)

    def is_free(self, run: RunRow) -> bool:
        """Tell whether a worker could claim the run if it were due."""
        return run.owner is None and run.state in CLAIMABLE

    def wakes(self, run: RunRow) -> bool:
        """Tell whether mail makes a free run due that is not; one with a time to begin begins no sooner."""
        if run.run_id not in self.inbox or not self.is_free(run):
            return False
        if run.wakeup_us is not None and run.wakeup_us <= self.now_us():
            return False
        asked = any(mail.type == "cancel_requested" for mail in self.inbox[run.run_id].values())
        return run.state != "pending" or asked

    # --- messages

    def put(self, run_id: str, kind: str, key: str, payload: bytes, generation: int | None = None) -> None:
        """Put a message into an inbox."""
        self.messages += 1
        mail = Mail(self.messages, kind, key, payload, generation)
        self.inbox.setdefault(run_id, {})[mail.id] = mail

    def take(self, run_id: str, number: int) -> None:
        """Take a message out of an inbox."""
        box = self.inbox[run_id]
        del box[number]
        if not box:
            del self.inbox[run_id]

    # --- workers

    def alive(self, worker_id: str | None) -> WorkerRow | None:
        """Return a worker that was not declared dead."""
        worker = self.workers.get(worker_id or "")
        return worker if worker is not None and worker.dead_us is None else None


def _run_id(run: RunRow) -> str:
    return run.run_id
