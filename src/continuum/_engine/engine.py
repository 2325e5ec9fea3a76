"""The engine of one worker: its parts put together, its services in one task group, its end.

The rule: services do not know each other's state; what one tells another is a call made here. When it stops, it
claims nothing more, hands over what only waits at once, and gives what runs a while.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import secrets
import socket
from collections.abc import Awaitable, Callable, Collection, Iterator
from contextlib import suppress
from functools import partial
from typing import Any, cast

from continuum._core import events as e
from continuum._engine.activities import Activities, Report
from continuum._engine.aftermath import Aftermath
from continuum._engine.cache import Cache
from continuum._engine.clock import Clock
from continuum._engine.dispatcher import Dispatcher
from continuum._engine.handover import hand_over
from continuum._engine.hooks import INERT, EngineHooks
from continuum._engine.inquiries import Inquiries
from continuum._engine.leases import Heartbeat, Leases, cancel_overdue, sweep, take_over
from continuum._engine.loading import Loader
from continuum._engine.mailroom import MailPoll, Mailroom
from continuum._engine.outages import Retrying
from continuum._engine.resident import Resident
from continuum._engine.residents import Residents
from continuum._engine.schemas import schemas_of
from continuum._engine.settings import WorkerSettings
from continuum._engine.suspects import Suspects
from continuum._engine.taking import Taker
from continuum._engine.telling import Telling
from continuum._engine.timers import Timers
from continuum._engine.turns import Turns
from continuum._engine.watchdog import Watchdog
from continuum._journal.commit import Announcement
from continuum._journal.protocol import Journal
from continuum.definitions import Definitions
from continuum.policies import ActivityOptions

logger = logging.getLogger("continuum.engine")
LEASES_S = 10.0
# Between looks for what heartbeats tell of, should they be far apart: whether a sweep is due, and a run overdue.
SWEEP_S, OVERDUE_S = 60.0, 600.0
SOON_S = 1.0
SHARE = 50  # a chore that is done soon again is followed by a pause of so many times what it took
CLAIM_S = 5.0  # for a claim that is under way when the worker stops


class Engine:
    """Brings runs forward until it is told to stop. Make it inside the event loop it is to work on."""

    def __init__(
        self,
        journal: Journal,
        definitions: Definitions,
        settings: WorkerSettings,
        *,
        hooks: EngineHooks = INERT,
        chance: random.Random | None = None,
        name_worker: Callable[[], str] | None = None,
    ) -> None:
        loop = asyncio.get_running_loop()
        self.journal, self._definitions, self._settings = journal, definitions, settings
        self._chance = chance or random.Random()
        self._name_worker = name_worker or worker_name
        self._points = hooks.points
        self.worker_id = ""
        self.ready = False
        self.registered = asyncio.Event()
        self._draining = False
        self._stop, self._look_at_leases, self._look_at_mail = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.residents = Residents(settings.cache)
        self.clock = Clock(loop.time)
        self.watchdog = Watchdog(blocked_after_s=settings.seconds("blocked_after"))
        self.timers = Timers(self.clock, self._fired)
        self.clock.moved = self.timers.look_anew
        taker = Taker(definitions, self.timers, self._claimable, settings.max_child_depth)
        self.turns = Turns(journal, self.residents, taker, self.clock, self.watchdog, hooks)
        self.activities = self._make_activities()
        self.mailroom = Mailroom(journal, self.residents, self.turns, self.clock)
        self.inquiries = Inquiries(journal, self.turns, self.clock, definitions)
        self.loader = Loader(journal, self.residents, self.turns, self.mailroom, definitions, hooks)
        self.suspects = Suspects(journal, self.loader, self.activities, self._chance)
        self.telling = Telling(hooks, journal)
        self.loader.reread = self.telling.reread
        self.aftermath = Aftermath(
            turns=self.turns,
            residents=self.residents,
            activities=self.activities,
            mailroom=self.mailroom,
            inquiries=self.inquiries,
            hooks=hooks,
            telling=self.telling,
            reload=self.loader.reload,
            now=loop.time,
        )
        self.turns.aftermath = self.aftermath.after
        self.aftermath.got_on = self.suspects.got_on
        self.turns.failed = self.loader.failed = self.aftermath.failed
        self.residents.left, self.residents.orphaned = self._left, self.turns.submit
        self.dispatcher = self._make_dispatcher()
        self.heartbeat = Heartbeat(journal, self.clock, settings.seconds("heartbeat"), self._chance, self._reborn)
        self.leases = Leases(journal, self.residents, self.loader, self.suspects)
        self.dispatcher.workers = lambda: self.heartbeat.workers
        self.aftermath.falls_due = lambda at_us: self.dispatcher.falls_due(self.clock.loop_time(at_us))
        self.cache = self._make_cache()
        self.dispatcher.hungry, self.dispatcher.in_doubt = self.cache.make_room, self._doubt_leases

    def _make_activities(self) -> Activities:
        settings = self._settings
        return Activities(
            limit=settings.max_activities,
            threads=settings.threads,
            defaults=ActivityOptions(retry=settings.retry, start_to_close=settings.start_to_close),
            now_us=self.clock.now_us,
            report=self._reported if self._points is not None else cast("Report", self.turns.arrive),
            chance=self._chance,
        )

    def _make_dispatcher(self) -> Dispatcher:
        return Dispatcher(
            self.journal,
            self.residents,
            self.loader,
            self.suspects,
            self._definitions,
            batch=self._settings.claim_batch,
            poll_s=self._settings.seconds("poll"),
            chance=self._chance,
        )

    def _make_cache(self) -> Cache:
        return Cache(
            self.residents,
            self.turns,
            self.activities,
            self.clock,
            after_s=self._settings.seconds("passivate_after"),
            reserve=self._settings.claim_batch,
        )

    @property
    def alive(self) -> bool:
        """Whether a heartbeat got through within the lease time."""
        return asyncio.get_running_loop().time() - self.heartbeat.beat_at < self._settings.seconds("lease")

    def drain(self) -> None:
        """Stop: claim nothing more, hand over, and let ``run`` return. May be asked again."""
        self._stop.set()

    async def run(self) -> None:
        """Register, serve until ``drain`` or until cancelled, and give the leases back."""
        journal = self.journal
        journal.on_hint = self._hint
        async with asyncio.TaskGroup() as services:
            tasks = [services.create_task(service.run()) for service in self._services()]
            retrying = Retrying("registering this worker")
            while not (self.worker_id or self._stop.is_set()):
                async with retrying:
                    await self._register()
            tasks += [services.create_task(chore) for chore in self._chores()]
            claiming = services.create_task(self.dispatcher.run())
            self.ready = True
            self.registered.set()
            try:
                await self._stop.wait()
                self.ready = False
                self._draining = self.aftermath.draining = True
                self.dispatcher.stop()
                patience_s = self._settings.seconds("drain")
                await asyncio.wait([claiming], timeout=min(CLAIM_S, patience_s))
                await hand_over(self, patience_s)
            finally:
                self.ready = False
                for task in (*tasks, claiming):
                    task.cancel()
        self.timers.close()

    def _services(self) -> tuple[Any, ...]:
        return (
            self.watchdog,
            self.turns,
            self.activities,
            self.mailroom,
            self.inquiries,
            self.loader,
            self.suspects,
            self.telling,
        )

    def _chores(self) -> Iterator[Any]:
        settings, journal = self._settings, self.journal
        poll_s, lease_s = settings.seconds("poll"), settings.seconds("lease")
        mail = MailPoll(journal, self.residents, self.mailroom)
        yield self.heartbeat.run()
        yield self._every(poll_s, "looking for mail", mail.once, self._look_at_mail)
        silence = self.heartbeat.silence
        yield self._every(lease_s, "looking for dead workers", self._take_over, silence)
        yield self._every(max(LEASES_S, lease_s), "comparing leases", self.leases.once, self._look_at_leases)
        unswept, overdue = self.heartbeat.unswept, self.heartbeat.overdue
        yield self._every(SWEEP_S, "sweeping", partial(sweep, journal), unswept)
        yield self._every(OVERDUE_S, "cancelling what is overdue", partial(cancel_overdue, journal), overdue)
        yield self.cache.run()

    async def _every(
        self,
        pause_s: float,
        what: str,
        chore: Callable[[], Awaitable[object]],
        sooner: asyncio.Event | None = None,
    ) -> None:
        """Do a chore now and then until cancelled, whenever ``sooner`` is set, and soon again if it says True."""
        retrying, time = Retrying(what), self.clock.loop_now
        sooner = sooner or asyncio.Event()
        while True:
            sooner.clear()
            pause, began = pause_s, time()
            async with retrying:
                if await chore() is True:  # one that reads much must not become all that is done
                    pause = min(max(SOON_S, SHARE * (time() - began)), pause_s)
            with suppress(TimeoutError):
                async with asyncio.timeout(pause * self._chance.uniform(0.8, 1.2)):
                    await sooner.wait()

    # --- what one part tells another

    async def _take_over(self) -> None:
        if await take_over(self.journal) and not len(self.residents):
            self._doubt_leases()

    def _doubt_leases(self) -> None:
        self.leases.doubt()
        self._look_at_leases.set()

    def _claimable(self, count: int) -> int:
        """Return how many of ``count`` new children this worker takes at birth: its share, and what fits."""
        if self._draining:
            return 0
        workers = self.heartbeat.workers
        taken = min(-(-count // workers), self.residents.room // workers)
        self.residents.promised += taken
        return taken

    def _left(self, run: Resident) -> None:
        self.activities.drop(run)
        self.dispatcher.room_made()

    def _fired(self, run: Resident, key: str) -> None:
        self.turns.arrive(run, e.TimerFired(self.clock.now_us(), key))

    def _reported(self, owner: object, event: e.ActivityStarted | e.ActivityCompleted | e.ActivityFailed) -> None:
        assert isinstance(owner, Resident)
        if self._points is not None and type(event) is not e.ActivityStarted:
            try:
                self._points.at("activity.ended", owner.run_id)
            except Exception as error:  # noqa: BLE001 - whoever hangs things in may make the engine fail here
                self.aftermath.failed(owner, error)
                return
        self.turns.arrive(owner, event)

    def _hint(self, kind: str, names: Collection[str]) -> None:
        if kind == "wake":
            self.mailroom.told(names)
        elif kind == "ready":
            self.dispatcher.told(names)
        elif kind == "fenced":
            if self.worker_id in names:
                self.heartbeat.soon()
                self._doubt_leases()
        elif kind == "gap":
            self.dispatcher.told(())
            self._look_at_mail.set()

    async def _register(self) -> None:
        worker_id = self._name_worker()
        settings = self._settings
        info = {"host": socket.gethostname(), "pid": os.getpid()}
        await self.journal.register(worker_id, settings.seconds("lease"), info)
        self.worker_id = worker_id
        retrying = Retrying("announcing definitions")
        while True:
            async with retrying:
                await self.journal.announce(announcements(self._definitions))
                await self.heartbeat.first()
                return

    async def _reborn(self) -> None:
        """Begin again under a new id: every lease is lost."""
        self.residents.drop_all()
        self.suspects.clear()
        await self._register()
        self.dispatcher.told(())


def announcements(definitions: Definitions) -> list[Announcement]:
    """Return what a worker says it has."""
    flows = [
        Announcement("workflow", name, version, schemas_of(flow))
        for (name, version), flow in definitions.workflows.items()
    ]
    return flows + [
        Announcement("activity", name, 0, schemas_of(found)) for name, found in definitions.activities.items()
    ]


def worker_name() -> str:
    """Return an id for this worker that nobody had before."""
    return f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
