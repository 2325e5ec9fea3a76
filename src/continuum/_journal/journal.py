"""The journal on Postgres: the engine's protocol, put together from its parts.

The rule: this file decides nothing. Every write goes through one statement of ``sql``; runs are written by the
flusher alone, all else by statements that only insert, only lease, or only cancel.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager, nullcontext
from functools import partial
from typing import Any

from continuum._core.effects import Message
from continuum._core.failure import encode_failure
from continuum._core.jsontext import dump
from continuum._journal.arrays import Ints, Texts, elements, integer, name
from continuum._journal.canceller import Canceller
from continuum._journal.commit import (
    SWEEP_EVERY_S,
    Announcement,
    Beat,
    Claimed,
    ClaimedTask,
    Claims,
    Commit,
    End,
    Lease,
    Outcome,
    TakenOver,
)
from continuum._journal.connections import JsonText, check_url, connect
from continuum._journal.deliveries import sending
from continuum._journal.description import RunRow
from continuum._journal.ends import Answers, Ends
from continuum._journal.flusher import Flusher
from continuum._journal.hints import OF_WORKERS, Hints
from continuum._journal.hooks import INERT, Hooks
from continuum._journal.lane import Lane, Lanes, OutcomeUnknown
from continuum._journal.large import LargeWriter
from continuum._journal.listener import Listener
from continuum._journal.migrate import migrate, verify
from continuum._journal.outside import Outside
from continuum._journal.protocol import Hint
from continuum._journal.reader import Reader
from continuum._journal.rows import announcement_row, claimed_row, claims, encoded, rendered
from continuum._journal.serving import serving
from continuum._journal.starts import Starts
from continuum._journal.statements import check_schema, statement
from continuum._journal.tasks import Tasks
from continuum._journal.upkeep import Upkeep
from continuum._journal.views import Views
from continuum.errors import DatabaseUnreachable, Failure

logger = logging.getLogger("continuum.journal")
BEAT_S = 3.0  # for a heartbeat's connection and its answer: the lease must not run out meanwhile
MOST_DEATHS = 3  # of workers that had named the run: then it is parked
TAKE_OVER_AT_ONCE = 1_000
_POISON = Failure(
    "PoisonRun", f"{MOST_DEATHS} workers died while they tried this run alone; resume it after a fix"
)


def _nobody(kind: str, names: Collection[str]) -> None:
    """Take a hint that nobody asked for."""


class PostgresJournal:
    """See ``protocol.Journal``. Use it inside ``open()``, or run ``run()`` as a service."""

    def __init__(
        self,
        url: str,
        *,
        schema: str = "continuum",
        listen_url: str | None = None,
        prepared: bool | None = None,
        connections: int = 4,
        hooks: Hooks = INERT,
    ) -> None:
        self.url = check_url(url)
        self._listen_url = listen_url
        self.schema = check_schema(schema)
        self.worker_id: str | None = None
        self.on_hint: Hint = _nobody
        self._hooks = hooks
        self._lanes = Lanes(url, name="journal", prepared=prepared, size=connections)
        self._hint_lane = Lane(url, name="hints", prepared=prepared)
        self._control = Lane(url, name="heartbeat", prepared=prepared, answer_s=BEAT_S, connect_s=BEAT_S)
        self._beating = asyncio.Lock()
        self._suspect: str | None = None
        self._cancel_lane = Lane(url, name="cancel", prepared=prepared, answer_s=600)
        self._flush_lane = Lane(url, name="flush", prepared=prepared)
        self._large_lane = Lane(url, name="large", prepared=prepared, answer_s=600)
        self._hints = Hints(self._hint_lane, schema, hooks, self._told)
        self._large = LargeWriter(self._large_lane, self._hints, schema=schema, hooks=hooks)
        self._canceller = Canceller(self._cancel_lane, self._lanes, self._hints, schema=schema, hooks=hooks)
        self._flusher = Flusher(self._flush_lane, self._hints, self._large, schema=schema, hooks=hooks)
        self._listener = Listener(check_url(listen_url or url), self._hint_lane, schema, self._heard)
        self._reader = Reader(self._lanes, schema)
        hearing = lambda: self._listener.hears, partial(self._listener.need, "ended", "answered")
        self._ends, self._answers = Ends(self._reader.ends, *hearing), Answers(self._reader.answers, *hearing)
        self._upkeep = Upkeep(url, self._lanes, self._hints, schema=schema, prepared=prepared)
        self._tasks = Tasks(self._lanes, self._hints, schema)
        self._patient = asyncio.Semaphore(max(1, connections // 2))  # who waits for an id leaves others a way
        self._beat_epoch = -1
        self.views = Views(self._lanes, schema)
        self.outside = Outside(self._lanes, schema, partial(self._listener.need, "mail"))
        self.start = Starts(self._lanes, self._hints, self._ends, schema, patient=self._patient).start
        self.submit = self._flusher.submit
        self.hand_in = self._flusher.hand_in
        self.room = self._flusher.room
        self.load = self._reader.load
        self.mail = self._reader.mail
        self.wait = self._ends.wait
        self.wait_answer = self._answers.answer
        self.arm = self._hints.arm
        self.cancel = self._canceller.cancel
        self.cancel_overdue = self._canceller.overdue
        self.sweep = self._upkeep.sweep
        self.prune = self._upkeep.prune
        self.prune_generations = self._upkeep.prune_generations

    @property
    def hears(self) -> bool:
        """Whether notifications come through. If not, poll more often."""
        return self._listener.hears

    # --- life

    @asynccontextmanager
    async def open(self, *, migrating: bool = True) -> AsyncGenerator[PostgresJournal, None]:
        """Check the schema, or bring it up to date, and run the journal's services meanwhile."""
        await self.prepare(migrating=migrating)
        async with serving(self.run):
            yield self

    @asynccontextmanager
    async def another(self, hooks: Hooks | None = None) -> AsyncGenerator[PostgresJournal, None]:
        """Open a journal in the same place; the schema is checked and not migrated."""
        opened = PostgresJournal(
            self.url, schema=self.schema, listen_url=self._listen_url, hooks=INERT if hooks is None else hooks
        )
        async with opened.open(migrating=False) as journal:
            yield journal

    async def prepare(self, *, migrating: bool = True) -> None:
        """Bring the schema up to date, or only verify it. Raises ``SchemaMismatch``, ``DatabaseUnreachable``."""
        if migrating:
            await migrate(self.url, schema=self.schema)
            return
        connection = await connect(self.url, name="verify", prepared=False)
        try:
            await verify(connection, self.schema)
        finally:
            await connection.close()

    async def run(self) -> None:
        """Run the journal's services until cancelled; then close every connection."""
        try:
            async with asyncio.TaskGroup() as services:
                for service in (self._flusher, self._large, self._hints, self._listener):
                    services.create_task(service.run())
                for waiting in (self._ends, self._answers):
                    services.create_task(waiting.run())
        finally:
            self._flusher.close()
            self._ends.close()
            self._answers.close()
            await self._hints.last()
            lanes = (self._flush_lane, self._large_lane, self._cancel_lane, self._hint_lane, self._control)
            await asyncio.gather(*(lane.close() for lane in (*lanes, self._lanes)))

    # --- runs

    async def claim(self, definitions: Sequence[tuple[str, int]], limit: int) -> Claims:
        """Lease due runs to this worker."""
        await self._hooks.reach("claim.begin")
        rows = await self._write(
            "claim",
            worker=self.worker_id,
            workflows=elements(Texts, encoded(name, [found for found, _ in definitions])),
            versions=elements(Ints, [integer(version) for _, version in definitions]),
            limit=limit,
        )
        await self._hooks.reach("claim.committed")
        return claims(rows)

    async def describe(self, run_id: str) -> RunRow | None:
        """Return a run as people see it, or None."""
        return await self.views.describe(run_id)

    async def commit(self, *commits: Commit) -> tuple[Outcome, ...]:
        """Wait for room, write, and return the outcomes."""
        await self.room()
        # A caller that is cancelled cancels nothing: until it is settled, the run's commit is under way.
        return await asyncio.shield(self.submit(*commits))

    async def send(self, messages: Sequence[Message]) -> dict[str, str | None]:
        """Put messages into inboxes; return who got nothing, with its state, or None if there is no such run."""
        may_wait = any(message.delivery_id is not None for message in messages)
        async with self._patient if may_wait else nullcontext():
            sent, told = await self._hints.along(
                {"wake": {message.run_id for message in messages}},
                lambda telling: self._lanes.take(sending(self.schema, messages, telling)),
            )
        self._hints.mail((), sent.reached, told=told)
        if sent.taken is not None:
            raise sent.taken
        return sent.missed

    async def request_cancel(self, run_id: str, reason: str, grace_s: float) -> str | None:
        """Ask a run to stop by a deadline; return its state as it was, None if there is no such run."""
        async with self._patient:
            return await self._canceller.request(run_id, reason, grace_s)

    async def resume(self, run_id: str) -> bool:
        """Make a parked run claimable again."""
        rows = await self._write("resume", run_id=run_id)
        self._hints.say("ready", [f"{row[1]}:{row[2]}" for row in rows])
        return bool(rows)

    async def residents_with_mail(self) -> list[str]:
        """Return the runs held by this worker that have mail."""
        rows = await self._lanes.read(statement("residents_with_mail", self.schema), {"worker": self.worker_id})
        return [row[0] for row in rows]

    # --- leases

    async def release(self, leases: Sequence[Lease]) -> set[str]:
        """Give up leases that are still held."""
        rows = await self._write("release", **self._held(leases))
        self._hints.say("ready", {f"{row[1]}:{row[2]}" for row in rows})
        return {row[0] for row in rows}

    async def reclaim(self, leases: Sequence[Lease]) -> list[Claimed]:
        """Take own leases anew under higher tokens."""
        return [claimed_row(row) for row in await self._write("reclaim", **self._held(leases))]

    async def leases(self) -> list[Lease]:
        """Return all leases of this worker."""
        rows = await self._lanes.read(statement("leases", self.schema), {"worker": self.worker_id})
        return [Lease(*row) for row in rows]

    async def register(self, worker_id: str, lease_s: float, info: Mapping[str, object]) -> None:
        """Announce this process as a worker."""
        self._listener.need(*OF_WORKERS)
        told = rendered(lambda said: dump(dict(said)), [info])[1:-1]
        await self._write("register", worker=worker_id, lease_s=lease_s, info=JsonText(told))
        self.worker_id = worker_id
        self._flusher.serve(worker_id)

    async def beat(self) -> Beat:
        """Prolong all leases of this worker."""
        async with self._beating:
            await self._control.now()  # a new connection is a new epoch, and the beat says so
            epoch = self._control.epoch
            anew = epoch != self._beat_epoch
            values = {"worker": self.worker_id, "suspect": self._suspect, "reconnected": anew}
            rows = await self._controlled("beat", None, **values, sweep_every_s=SWEEP_EVERY_S)
            self._beat_epoch = epoch
            return Beat(*rows[0])

    async def suspect(self, run_id: str | None) -> Beat:
        """Name the suspected run that is about to be tried alone, and beat."""
        self._suspect = run_id
        return await self.beat()

    async def clear_suspicion(self, run_ids: Collection[str]) -> set[str]:
        """Forgive suspects that came through."""
        rows = await self._write("clear_suspicion", worker=self.worker_id, run_ids=list(run_ids))
        return {row[0] for row in rows}

    async def deregister(self) -> None:
        """Take this worker's announcement back."""
        await self._write("deregister", worker=self.worker_id)
        self.worker_id = None
        self._flusher.serve("")

    async def take_over(self) -> TakenOver:
        """Release the runs of dead workers, and of silent ones, which it declares dead."""
        done, silent = await self._release_of_dead()
        if silent and (dead := await self._declare_dead()):
            self._hints.say("fenced", dead)
            more, _ = await self._release_of_dead()
            return TakenOver(done.released + more.released, done.parked + more.parked, tuple(dead), more.held)
        return done

    async def _declare_dead(self) -> list[str]:
        async with self._beating:  # on the connection of the heartbeat: a new one has to beat before it judges
            await self._control.now()
            epoch = self._control.epoch
            if self._beat_epoch not in (-1, epoch):
                return []
            return [row[0] for row in await self._controlled("declare_dead", epoch, worker=self.worker_id)]

    async def _release_of_dead(self) -> tuple[TakenOver, bool]:
        """Return what was released, and whether another worker is silent."""
        released, parked = 0, list[str]()
        values = {"limit": TAKE_OVER_AT_ONCE, "charges": MOST_DEATHS, "error": JsonText(encode_failure(_POISON))}
        while True:
            ((count, some, ready, held, silent),) = await self._write("take_over", worker=self.worker_id, **values)
            self._hints.say("ready", ready)
            released += count
            parked += some
            if count < TAKE_OVER_AT_ONCE:
                return TakenOver(released, tuple(parked), (), held), silent

    # --- definitions, ends

    async def announce(self, definitions: Sequence[Announcement]) -> None:
        """Write down which definitions this worker has."""
        await self._write("announce", worker=self.worker_id, definitions=rendered(announcement_row, definitions))

    async def definitions(self) -> dict[Announcement, int]:
        """Return every definition ever announced, and how many live workers have it."""
        rows = await self._lanes.read(statement("definitions", self.schema), {})
        return {Announcement(*row[:4]): row[4] for row in rows}

    async def ends(self, run_ids: Collection[str]) -> dict[str, End]:
        """Return how those of the runs ended that have."""
        return {run_id: end for run_id, end in (await self._reader.ends(run_ids)).items() if end is not None}

    # --- tasks

    async def claim_tasks(self, queue: str, limit: int, lease_s: float) -> list[ClaimedTask]:
        """Begin attempts of due tasks of a queue."""
        return await self._tasks.claim(self.worker_id or "", queue, limit, lease_s)

    async def renew_tasks(self, beats: Sequence[tuple[ClaimedTask, bytes | None]], lease_s: float) -> set[int]:
        """Prolong attempts, with what they report."""
        return await self._tasks.renew(self.worker_id or "", beats, lease_s)

    async def report_tasks(self, outcomes: Sequence[tuple[ClaimedTask, Message]]) -> set[int]:
        """End attempts with their outcomes."""
        return await self._tasks.report(self.worker_id or "", outcomes)

    async def retry_tasks(self, retries: Sequence[tuple[ClaimedTask, float]]) -> set[int]:
        """Put failed attempts back."""
        return await self._tasks.retry(self.worker_id or "", retries)

    async def requeue_tasks(self, limit: int = 100) -> int:
        """End attempts whose lease has passed."""
        return await self._tasks.requeue(self.worker_id or "", limit)

    # --- parts

    def _held(self, leases: Sequence[Lease]) -> dict[str, Any]:
        return {
            "worker": self.worker_id,
            "run_ids": [lease.run_id for lease in leases],
            "tokens": [lease.token for lease in leases],
        }

    async def _controlled(self, file: str, epoch: int | None, /, **values: Any) -> list[tuple[Any, ...]]:
        try:
            return await self._control.rows_now(statement(file, self.schema), values, epoch=epoch)
        except OutcomeUnknown as error:
            raise DatabaseUnreachable(f"a heartbeat got no answer: {error}") from error

    async def _write(self, file: str, /, **values: Any) -> list[tuple[Any, ...]]:
        return await self._lanes.write(statement(file, self.schema), values)

    def _heard(self, kind: str, names: Collection[str]) -> None:
        if kind in ("ended", "gap"):
            self._ends.look(names)
        if kind in ("ended", "answered", "gap"):
            self._answers.look(names)
        if kind == "mail":
            self._hints.arm(names)
            kind = "wake"
        self._told(kind, names)

    def _told(self, kind: str, names: Collection[str]) -> None:
        try:
            self.on_hint(kind, names)
        except Exception:  # whose fault it is goes on without this hint, and hears the next
            logger.exception("who was told %r of %d names failed", kind, len(names))
