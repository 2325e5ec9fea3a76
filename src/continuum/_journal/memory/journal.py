"""The engine's protocol on a journal in memory: what a process has of it, and what it tells others.

The rule: it keeps the shape of the journal on Postgres. One batch is on its way while the next gathers; what is
told and armed after a commit is an operation of its own, which a process that dies in between leaves undone.
Every operation goes over a ``Wire``, which may delay it, fail before it or after it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from continuum._core.effects import Message
from continuum._journal.backoff import Backoff
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
from continuum._journal.description import RunRow
from continuum._journal.ends import Answers, Ends
from continuum._journal.hooks import INERT, Hooks
from continuum._journal.memory import pruning, queues
from continuum._journal.memory.hints import MemoryHints
from continuum._journal.memory.store import Memory
from continuum._journal.memory.views import MemoryViews
from continuum._journal.memory.writer import Writer
from continuum._journal.protocol import Hint
from continuum._journal.serving import serving
from continuum._journal.storable import is_storable
from continuum._journal.upkeep import check_keep
from continuum.errors import DatabaseBusy, DatabaseRefused, InvalidSetting, RunNotFound

if TYPE_CHECKING:
    from continuum._journal.outside import Outside

logger = logging.getLogger("continuum.journal")
T = TypeVar("T")
PATIENCE_S = 10.0  # for runs that somebody's lock holds


class Wire(Protocol):
    """The way to the journal and back. ``epoch`` counts the connections made."""

    @property
    def epoch(self) -> int: ...

    async def __call__(self, what: str, operation: Callable[..., T], *values: Any) -> T:
        """Call ``operation``.

        Raises ``DatabaseUnreachable`` when its answer is lost, ``NotSent`` if it was certainly not called.
        """
        ...


class Straight:
    """A wire that never breaks."""

    epoch = 1

    async def __call__(self, what: str, operation: Callable[..., T], *values: Any) -> T:
        """Call ``operation`` when others have had their turn."""
        await asyncio.sleep(0)
        return operation(*values)


STRAIGHT = Straight()


def _nobody(kind: str, names: Collection[str]) -> None:
    """Take a hint that nobody asked for."""


class MemoryJournal:
    """See ``protocol.Journal``. Use it inside ``open()``, or run ``run()`` as a service."""

    hears = True

    def __init__(self, memory: Memory, *, wire: Wire = STRAIGHT, hooks: Hooks = INERT) -> None:
        self.memory = memory
        self.worker_id: str | None = None
        self.on_hint: Hint = _nobody
        self.views = MemoryViews(memory)
        self._wire = wire
        self._hooks = hooks
        self._suspect: str | None = None
        self._beat_epoch = 0  # the connection of the last heartbeat that got through
        self._ends = Ends(self._ends_of, lambda: True)
        self._answers = Answers(self._answers_of, lambda: True)
        self.wait_answer = self._answers.answer
        self._hints = MemoryHints(wire, memory, self._told)
        self._writer = Writer(wire, memory, self._hints, hooks)
        self.submit = self._writer.submit
        self.hand_in = self._writer.hand_in
        self.room = self._writer.room
        self.arm = self._hints.arm

    # --- life

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[MemoryJournal, None]:
        """Run the journal's services for the block."""
        async with serving(self.run):
            yield self

    @asynccontextmanager
    async def another(self, hooks: Hooks | None = None) -> AsyncGenerator[MemoryJournal, None]:
        """Open another journal on the same memory."""
        made = MemoryJournal(self.memory, wire=self._wire, hooks=INERT if hooks is None else hooks)
        async with made.open() as journal:
            yield journal

    async def prepare(self, *, migrating: bool = True) -> None:
        """Return: there is nothing to prepare."""

    async def run(self) -> None:
        """Serve until cancelled."""
        loop = asyncio.get_running_loop()

        def heard(kind: str, names: Collection[str]) -> None:
            loop.call_soon(self._heard, kind, names)

        self.memory.listeners.append(heard)
        loop.call_soon(self._heard, "gap", ())
        try:
            async with asyncio.TaskGroup() as services:
                for service in (*self._writer.lanes, self._hints, self._ends, self._answers):
                    services.create_task(service.run())
        finally:
            self._writer.close()
            self._ends.close()
            self._answers.close()
            self.memory.listeners.remove(heard)
            await self._hints.last()

    # --- runs

    async def outside(self) -> Outside:
        """Refuse: nobody's transaction can have a part of this."""
        raise InvalidSetting("a journal in memory knows no transactions: leave connection= out")

    async def start(self, runs: Sequence[NewRoot]) -> set[str]:
        """Insert root runs; return the ids inserted now."""
        for run in runs:
            _refuse(run.run_id, run.workflow, run.namespace, run.trace or "")
        started = await self._wire("start", self.memory.start, runs)
        self._hints.say("ready", (f"{run.workflow}:{run.version}" for run in runs if run.run_id in started))
        return started

    async def claim(self, definitions: Sequence[tuple[str, int]], limit: int) -> Claims:
        """Lease due runs to this worker."""
        await self._hooks.reach("claim.begin")
        claimed = await self._wire("claim", self.memory.claim, self.worker_id, list(definitions), limit)
        await self._hooks.reach("claim.committed")
        return claimed

    async def load(self, claimed: Sequence[Claimed]) -> list[Loaded]:
        """Read what is needed to replay runs, in the order given."""
        return await self._wire("load", self.memory.load, claimed)

    async def commit(self, *commits: Commit) -> tuple[Outcome, ...]:
        """Wait for room, write, and return the outcomes."""
        await self.room()
        return await asyncio.shield(self.submit(*commits))

    async def describe(self, run_id: str) -> RunRow | None:
        """Return a run as people see it, or None."""
        found = await self.views.describe_all([run_id])
        return found[0] if found else None

    async def send(self, messages: Sequence[Message]) -> dict[str, str | None]:
        """Put messages into inboxes; return who got nothing, with its state, or None if there is no such run."""
        for message in messages:
            _refuse(message.type, message.key, message.payload.decode(), message.delivery_id or "")
        sent = await self._wire("send", self.memory.send, messages)
        self._hints.mail((), sent.reached)
        if sent.taken is not None:
            raise sent.taken
        return sent.missed

    async def cancel(self, run_id: str, reason: str) -> Cancelled:
        """End a run and everything below it. Raises ``RunNotFound``."""
        _refuse(reason)
        await self._hooks.reach("cancel.begin")
        done = await self._unless_locked(f"runs below {run_id!r}", "cancel", self.memory.cancel, run_id, reason)
        await self._hooks.reach("cancel.committed")
        if done.state is None:
            raise RunNotFound(run_id)
        self._hints.cascade(done)
        return Cancelled(done.state, done.runs)

    async def request_cancel(self, run_id: str, reason: str, grace_s: float) -> str | None:
        """Ask a run to stop by a deadline; return its state as it was, None if there is no such run."""
        _refuse(reason)
        state = await self._wire("request_cancel", self.memory.request_cancel, run_id, reason, grace_s)
        if state is not None:
            self._hints.mail((), [run_id])
        return state

    async def cancel_overdue(self) -> int:
        """Cancel runs whose deadline has passed; return how many runs that ended."""
        done = await self._wire("cancel_overdue", self.memory.overdue)
        self._hints.cascade(done)
        return done.runs

    async def prune(self, older_than_s: float, limit: int = 100) -> int:
        """Delete whole trees that have ended; return how many."""
        return await self._wire("prune", pruning.prune, self.memory, older_than_s, limit)

    async def prune_generations(self, run_id: str, keep: int) -> int:
        """Delete the journals of all generations of a run but the newest; return how many entries they had."""
        check_keep(keep)
        found = await self._wire("prune_generations", pruning.prune_generations, self.memory, run_id, keep)
        if found is None:
            raise RunNotFound(run_id)
        return found

    async def resume(self, run_id: str) -> bool:
        """Make a parked run claimable again."""
        run = await self._wire("resume", self.memory.resume, run_id)
        self._hints.say("ready", () if run is None else [run.definition])
        return run is not None

    async def ends(self, run_ids: Collection[str]) -> dict[str, End]:
        """Return how those of the runs ended that have."""
        return {run_id: end for run_id, end in (await self._ends_of(run_ids)).items() if end is not None}

    async def wait(self, run_id: str) -> End:
        """Wait until a run ends. Raises ``RunNotFound``."""
        return await self._ends.wait(run_id)

    # --- mail

    async def mail(self, run_ids: Collection[str]) -> dict[str, tuple[Mail, ...]]:
        """Read the inboxes of some runs."""
        return await self._wire("mail", self.memory.mail, list(run_ids))

    async def residents_with_mail(self) -> list[str]:
        """Return the runs held by this worker that have mail."""
        return await self._wire("residents_with_mail", self.memory.residents_with_mail, self.worker_id)

    # --- leases

    async def release(self, leases: Sequence[Lease]) -> set[str]:
        """Give up leases that are still held."""
        released = await self._wire("release", self.memory.release, self.worker_id, leases)
        self._hints.say("ready", released.values())
        return set(released)

    async def reclaim(self, leases: Sequence[Lease]) -> list[Claimed]:
        """Take own leases anew under higher tokens."""
        return await self._wire("reclaim", self.memory.reclaim, self.worker_id, leases)

    async def leases(self) -> list[Lease]:
        """Return all leases of this worker."""
        return await self._wire("leases", self.memory.leases, self.worker_id)

    async def register(self, worker_id: str, lease_s: float, info: Mapping[str, object]) -> None:
        """Announce this process as a worker."""
        await self._wire("register", self.memory.register, worker_id, lease_s)
        self.worker_id = worker_id
        self._writer.serve(worker_id)

    async def beat(self) -> Beat:
        """Prolong all leases of this worker."""
        epoch = self._wire.epoch
        anew = epoch != self._beat_epoch
        beat = await self._wire("beat", self.memory.beat, self.worker_id, self._suspect, anew)
        self._beat_epoch = epoch
        return beat

    async def suspect(self, run_id: str | None) -> Beat:
        """Name the suspected run that is about to be tried alone, and beat."""
        self._suspect = run_id
        return await self.beat()

    async def clear_suspicion(self, run_ids: Collection[str]) -> set[str]:
        """Forgive suspects that came through."""
        return await self._wire("clear_suspicion", self.memory.clear_suspicion, self.worker_id, list(run_ids))

    async def deregister(self) -> None:
        """Take this worker's announcement back."""
        await self._wire("deregister", self.memory.deregister, self.worker_id)
        self.worker_id = None
        self._writer.serve(None)

    async def take_over(self) -> TakenOver:
        """Declare silent workers dead and release their runs."""
        judges = self._beat_epoch in (0, self._wire.epoch)  # a new connection has to beat before it does
        done, ready = await self._wire("take_over", self.memory.take_over, self.worker_id, judges)
        self._hints.say("fenced", done.workers)
        self._hints.say("ready", ready)
        return done

    async def sweep(self, *, every_s: float = SWEEP_EVERY_S, budget: int = 1000) -> Swept | None:
        """Do one part of the slow sweep, unless it was done lately."""
        done = await self._wire("sweep", self.memory.sweep, every_s, budget)
        if done is None:
            return None
        self._hints.say("ready", done[1])
        return done[0]

    # --- definitions

    async def announce(self, definitions: Sequence[Announcement]) -> None:
        """Write down which definitions this worker has."""
        await self._wire("announce", self.memory.announce, self.worker_id, definitions)

    async def definitions(self) -> dict[Announcement, int]:
        """Return every definition ever announced, and how many live workers have it."""
        return await self._wire("definitions", self.memory.definitions)

    # --- tasks

    async def claim_tasks(self, queue: str, limit: int, lease_s: float) -> list[ClaimedTask]:
        """Begin attempts of due tasks of a queue."""
        return await self._wire("claim_tasks", queues.claim, self.memory, self._me(), queue, limit, lease_s)

    async def renew_tasks(self, beats: Sequence[tuple[ClaimedTask, bytes | None]], lease_s: float) -> set[int]:
        """Prolong attempts, with what they report."""
        return await self._wire("renew_tasks", queues.renew, self.memory, self._me(), beats, lease_s)

    async def report_tasks(self, outcomes: Sequence[tuple[ClaimedTask, Message]]) -> set[int]:
        """End attempts with their outcomes."""
        found = await self._wire("report_tasks", queues.report, self.memory, self._me(), outcomes)
        self._hints.mail((), found.values())
        return set(found)

    async def retry_tasks(self, retries: Sequence[tuple[ClaimedTask, float]]) -> set[int]:
        """Put failed attempts back."""
        found = await self._wire("retry_tasks", queues.retry, self.memory, self._me(), retries)
        self._hints.say("tasks", found.values())
        return set(found)

    async def requeue_tasks(self, limit: int = 100) -> int:
        """End attempts whose lease has passed."""
        count, due, run_ids = await self._wire("requeue_tasks", queues.requeue, self.memory, self._me(), limit)
        self._hints.say("tasks", due)
        self._hints.mail((), run_ids)
        return count

    # --- parts

    def _me(self) -> str:
        return self.worker_id or ""

    async def _unless_locked(self, whom: str, what: str, operation: Callable[..., T | None], *values: Any) -> T:
        """Call ``operation`` until no lock holds it up. Raises ``DatabaseBusy`` after a while."""
        backoff, time = Backoff(), asyncio.get_running_loop().time
        until = time() + PATIENCE_S
        while (done := await self._wire(what, operation, *values)) is None:
            if time() > until:
                raise DatabaseBusy(f"others hold {whom}")
            await backoff.pause()
        return done

    async def _ends_of(self, run_ids: Collection[str]) -> dict[str, End | None]:
        return await self._wire("ends", self.memory.ends, list(run_ids))

    async def _answers_of(self, keys: Collection[str]) -> dict[str, bytes | End | None]:
        return await self._wire("answers", self.memory.answers, list(keys))

    def _heard(self, kind: str, names: Collection[str]) -> None:
        if kind in ("ended", "gap"):
            self._ends.look(names)
        if kind in ("ended", "answered", "gap"):
            self._answers.look(names)
        self._told(kind, names)

    def _told(self, kind: str, names: Collection[str]) -> None:
        try:
            self.on_hint(kind, names)
        except Exception:  # whose fault it is goes on without this hint, and hears the next
            logger.exception("who was told %r of %d names failed", kind, len(names))


def _refuse(*texts: str) -> None:
    for text in texts:
        if not is_storable(text):
            raise DatabaseRefused(f"text that cannot be stored: {text!r}")
