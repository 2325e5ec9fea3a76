"""What goes into the journal and comes out of it: values without a driver, a connection or a table.

The rule: a ``Commit`` is one run's turn, whole; it is written entirely or not at all, and only while the run's
lease is the one it names. Values are JSON text as ``bytes``, times are microseconds since 1970 UTC.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from continuum._core.effects import Answer, Cancellation, Deadline, Descendants, Message, NewRun
from continuum._core.entries import Entry
from continuum._core.values import value

# --- how a run stands after its commit


@dataclass(frozen=True, slots=True)
class Keep:
    """The run stays with its worker."""


@dataclass(frozen=True, slots=True)
class Passivate:
    """The run only waits: it gives up its lease until it has mail, or until ``wakeup_us``."""

    wakeup_us: int | None = None
    waiting_for: str = ""


@value
class Complete:
    """The run ends with ``result``."""

    result: bytes


@dataclass(frozen=True, slots=True)
class Fail:
    """The run ends with ``error``, an encoded ``Failure``."""

    error: bytes


@dataclass(frozen=True, slots=True)
class Cancel:
    """The run ends because it let a requested cancellation through."""

    error: bytes


@dataclass(frozen=True, slots=True)
class Continue:
    """The generation ends and the next begins with ``entries``, of which the first is its start.

    With ``wakeup_us`` it begins no sooner, whatever mail there is, but for a request to stop: the run gives up its
    lease and is due then, ``waiting_for`` says what for.
    """

    version: int
    entries: tuple[Entry, ...]
    wakeup_us: int | None = None
    waiting_for: str = ""


@dataclass(frozen=True, slots=True)
class Park:
    """The run is set aside with ``error`` until somebody resumes it."""

    error: bytes


Status: TypeAlias = Keep | Passivate | Complete | Fail | Cancel | Continue | Park
KEEP = Keep()

# --- what is written


@dataclass(frozen=True, slots=True)
class NewTask:
    """An activity for a named queue, answered by a message: ``activity_completed`` or ``activity_failed``."""

    key: str
    queue: str
    name: str
    input: bytes
    max_attempts: int = 1
    priority: int = 0
    options: bytes | None = None


class Commit(NamedTuple):
    """One turn of one run. A tuple, because one is made for every turn and a frozen dataclass takes 2 µs to make.

    ``entries`` are numbered from ``seq`` in ``generation``. ``consumed`` are the inbox ids of the messages they
    record. Of ``children``, the first ``claimed`` are leased to this worker at birth, with token 1.
    ``discarded`` are keys of tasks that nobody waits for any more. ``published`` replaces what people see of the
    run, if it is not None. ``answers`` go to those who sent messages under these ids; the first answer stays.
    ``descendants``, of a commit that ends its run, says what becomes of the runs below, in the same transaction;
    ``deadlines`` are the timeouts of children that live on.
    """

    run_id: str
    token: int
    generation: int
    seq: int
    entries: tuple[Entry, ...] = ()
    consumed: tuple[int, ...] = ()
    children: tuple[NewRun, ...] = ()
    claimed: int = 0
    messages: tuple[Message, ...] = ()
    cancels: tuple[Cancellation, ...] = ()
    tasks: tuple[NewTask, ...] = ()
    discarded: tuple[str, ...] = ()
    status: Status = KEEP
    published: bytes | None = None
    answers: tuple[Answer, ...] = ()
    descendants: Descendants = "leave"
    deadlines: tuple[Deadline, ...] = ()


# --- what became of it


@dataclass(frozen=True, slots=True)
class Committed:
    """Durable. ``at_us`` is the database's time of it.

    ``existed`` are children whose run id was taken: nothing of them was written. ``undelivered`` are receivers
    that do not exist or have ended.
    """

    at_us: int
    existed: tuple[str, ...] = ()
    undelivered: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Fenced:
    """Nothing was written: the lease is another's. Drop this copy of the run."""


@dataclass(frozen=True, slots=True)
class Stale:
    """Nothing was written: what it consumes or appends is journaled already. Drop this copy, load the run anew."""


@dataclass(frozen=True, slots=True)
class Undone:
    """Nothing was written because another commit of the same group was not."""


@dataclass(frozen=True, slots=True)
class Unknown:
    """The connection broke before the answer came. Drop this copy, ``reclaim`` the run, read its journal."""


@dataclass(frozen=True, slots=True)
class Rejected:
    """Nothing was written: Postgres refuses this commit, and does so each time. ``error`` is its reason."""

    error: str


Outcome: TypeAlias = Committed | Fenced | Stale | Undone | Unknown | Rejected

# --- starting, leases, mail


@dataclass(frozen=True, slots=True)
class NewRoot:
    """A root run to be started; due at once, or at ``wakeup_us``."""

    run_id: str
    workflow: str
    version: int
    input: bytes
    namespace: str = "default"
    attributes: bytes | None = None
    trace: str | None = None
    priority: int = 0
    wakeup_us: int | None = None


@dataclass(frozen=True, slots=True)
class Lease:
    """A run and the fencing token under which this worker holds it."""

    run_id: str
    token: int


class Claimed(NamedTuple):
    """A run that this worker now holds, as its row stood.

    ``suspected``: it was with a worker that died, so its turns are to be taken alone, with its id in the
    heartbeat. ``retry`` is its policy as its parent gave it, ``attributes`` a JSON object or None, ``trace`` a W3C
    traceparent.
    """

    run_id: str
    token: int
    generation: int
    workflow: str
    version: int
    depth: int
    started_us: int
    input: bytes
    suspected: bool
    deaths: int
    retry: bytes | None
    namespace: str = "default"
    attributes: bytes | None = None
    trace: str | None = None


class Claims(list[Claimed]):
    """What one claim gave: runs, those of one definition in the order they were due.

    ``due_in_s``: in how many seconds the next run of these definitions is due, as far as is known.
    """

    def __init__(self, runs: Iterable[Claimed] = (), due_in_s: float | None = None) -> None:
        super().__init__(runs)
        self.due_in_s = due_in_s


class Mail(NamedTuple):
    """A message as it lies in an inbox.

    ``generation``, if there is one, is the only one that it is for: another consumes it without an entry.
    """

    id: int
    type: str
    key: str
    payload: bytes
    generation: int | None = None


@dataclass(frozen=True, slots=True)
class Loaded:
    """What is needed to replay a run: the entries of its generation, and its mail.

    ``problem`` says what is wrong with the rows, for a journal that somebody edited; such a run is to be parked.
    """

    run_id: str
    entries: tuple[Entry, ...]
    mail: tuple[Mail, ...]
    problem: str | None = None


SWEEP_EVERY_S = 30.0


@dataclass(frozen=True, slots=True)
class Beat:
    """A heartbeat's answer. ``alive`` false: this worker was declared dead and must register under a new id.

    ``workers`` are alive; ``deaths`` is how many were declared dead within ten minutes; ``silent``: somebody has
    given no sign of life for a lease time, and it is time to take over; ``overdue``: the grace of a run that was
    asked to stop has passed; ``unswept``: nobody has finished a sweep within ``SWEEP_EVERY_S``.
    """

    alive: bool
    now_us: int
    workers: int
    deaths: int = 0
    silent: bool = False
    overdue: bool = False
    unswept: bool = False


@dataclass(frozen=True, slots=True)
class TakenOver:
    """Runs released from dead workers: how many, and which of them were parked because they kill workers.

    ``workers`` were declared dead now; ``held``: this worker has leases itself.
    """

    released: int
    parked: tuple[str, ...]
    workers: tuple[str, ...]
    held: bool = False


@dataclass(frozen=True, slots=True)
class Swept:
    """What a part of the sweep did: runs armed, messages of ended runs dropped, and whether it came to the end."""

    armed: int
    dropped: int
    finished: bool


@dataclass(frozen=True, slots=True)
class Cancelled:
    """A cascade's outcome: the state the run was in, and how many runs it cancelled. 0: the run was not live."""

    state: str
    runs: int


@dataclass(frozen=True, slots=True)
class End:
    """How a run ended."""

    state: str
    result: bytes | None
    error: bytes | None


@dataclass(frozen=True, slots=True)
class ClaimedTask:
    """An attempt of a queued activity. ``attempt`` is its fencing token."""

    task_id: int
    run_id: str
    generation: int
    key: str
    queue: str
    name: str
    attempt: int
    max_attempts: int
    input: bytes
    options: bytes | None
    details: bytes | None


@dataclass(frozen=True, slots=True)
class Announcement:
    """A definition that a worker has. Activities have version 0."""

    kind: str
    name: str
    version: int = 0
    schemas: bytes | None = None
