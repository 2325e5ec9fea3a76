"""The turns of all resident runs, one after the other: the only place where machine and journal meet.

The rule: a turn is taken from a plain callback of the event loop, never inside a task. A run has at most one
commit under way; what happens to it meanwhile waits. When nothing is under way, what has arrived is one commit.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable

from continuum._core import commands as c
from continuum._core import events as e
from continuum._core.effects import for_parent, to_parent
from continuum._core.entries import entry_of_event, event_of_entry
from continuum._core.loop import Sitting
from continuum._engine.clock import Clock
from continuum._engine.hooks import EngineHooks
from continuum._engine.resident import Arrival, Resident, TurnTaken
from continuum._engine.residents import Residents
from continuum._engine.taking import Taker
from continuum._engine.watchdog import Watchdog
from continuum._journal.commit import Commit, Outcome
from continuum._journal.protocol import Journal

logger = logging.getLogger("continuum.engine")
SLICE_S = 0.004  # of the loop's time for turns, before others have theirs
LARGEST_HELD = 64_000  # bytes of an outcome that waits for its parent's commit: four hundred may travel together
MOST_TOGETHER = 200  # rows of an ended child that wait for its parent's commit; with more it commits alone


class Turns:
    """Takes turns and hands in their commits. ``aftermath`` is told what became of each."""

    def __init__(
        self,
        journal: Journal,
        residents: Residents,
        taker: Taker,
        clock: Clock,
        watchdog: Watchdog,
        hooks: EngineHooks,
    ) -> None:
        self.aftermath: Callable[[TurnTaken, Outcome | None], None]
        self.failed: Callable[[Resident, Exception], None]
        self._journal = journal
        self._residents = residents
        self._taker = taker
        self._clock = clock
        self._watchdog = watchdog
        self._points = hooks.points
        self._queue: deque[Resident] = deque()
        self._some = asyncio.Event()
        self._under_way = 0
        self._settles = self._settled  # one bound method for all
        self._now = clock.loop_now
        self._idle: list[asyncio.Future[None]] = []

    # --- what happens to runs

    def arrive(self, run: Resident, event: e.Event | None, mail: int | None = None) -> None:
        """Take in an event of a run."""
        if run.gone:
            return
        arrival = Arrival(event, mail)
        if run.comparing and (withheld := run.withheld_with(event)) is not None:
            withheld.append(arrival)
            return
        run.arrivals.append(arrival)
        if not run.queued:
            self.schedule(run)

    def schedule(self, run: Resident) -> None:
        """Let a run have its turn, unless it waits for something that will schedule it."""
        if not (run.queued or run.committing or run.loading or run.gone):
            run.queued = True
            if not self._queue:  # else somebody is there already, and it is known
                self._some.set()
            self._queue.append(run)

    async def idle(self) -> None:
        """Wait until no commit is under way."""
        while self._under_way:
            future = asyncio.get_running_loop().create_future()
            self._idle.append(future)
            await future

    async def run(self) -> None:
        """Take turns until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await self._some.wait()
            self._some.clear()
            await self._journal.room()
            done = loop.create_future()
            loop.call_soon(self._slice, done)
            await done

    def _slice(self, done: asyncio.Future[None]) -> None:
        """Take turns for a while; a plain callback."""
        queue, now = self._queue, self._now
        at = now()
        until = at + SLICE_S
        try:
            with Sitting():
                while queue and at < until:
                    run = queue.popleft()
                    run.queued = False
                    run.active_at = at
                    if not (run.gone or run.committing or run.loading):
                        self._take(run)
                    at = now()
        finally:
            if queue:
                self._some.set()
            if not done.done():
                done.set_result(None)

    def _take(self, run: Resident) -> None:
        taken = TurnTaken(run)
        try:
            self._take_turn(taken)
            if taken.commit is None:
                self.aftermath(taken, None)
                return
            run.committing = True
            if taken.outcome is not None and self._held_for_parent(taken):
                return
        except Exception as error:
            logger.exception("a turn of run %r failed", run.run_id)
            for ended in taken.ended:
                self.submit(ended)
            self._residents.promised -= taken.births
            self.failed(run, error)
            return
        self.submit(taken)

    def _take_turn(self, taken: TurnTaken) -> None:
        points, watchdog, run_id = self._points, self._watchdog, taken.run.claimed.run_id
        if points is not None:
            points.at("turn.begin", run_id)
        watchdog.turn = (run_id,)
        try:
            self._taker.take(taken)
        except Exception:
            raise
        except BaseException as error:  # it ends the process, and somebody will ask whose it was
            logger.error("a turn of run %r raised %s, which ends this worker", run_id, type(error).__name__)
            raise
        finally:
            watchdog.turn = None
        if points is not None:
            points.at("turn.taken", run_id)

    # --- commits

    def _held_for_parent(self, taken: TurnTaken) -> bool:
        """Hold an ended run's commit back for its parent's next one, if the parent lives here."""
        outcome, commit = taken.outcome, taken.commit
        assert outcome is not None
        assert commit is not None
        parent_run_id, _, key = commit.run_id.rpartition("/")
        parent = self._residents.by_id.get(parent_run_id)
        if parent is None or parent.machine is None or key in parent.comparing:
            return False
        if commit.cancels or commit.descendants != "leave":  # it goes alone, and takes its time
            return False
        taken.rows = taken.weight()
        if taken.rows > MOST_TOGETHER:
            return False
        event: e.Event
        if type(outcome) is c.CompleteRun:
            if len(outcome.result) > LARGEST_HELD:
                return False
            event = e.ChildCompleted(self._clock.now_us(), key, outcome.result)
        else:  # as its entry says it, in live turns as on replay
            entry = entry_of_event(for_parent(key, outcome, self._clock.now_us()))
            if len(entry.payload) > LARGEST_HELD:
                return False
            event = event_of_entry(entry)
        parent.arrivals.append(Arrival(event, None, (taken,)))
        self.schedule(parent)
        return True

    def submit(self, taken: TurnTaken) -> None:
        """Hand in a commit with those that go with it. What its run's parent is to hear goes to the inbox."""
        commit = taken.commit
        assert commit is not None
        if taken.outcome is not None:
            message = to_parent(commit.run_id, taken.outcome)
            commit = taken.commit = commit._replace(messages=(*commit.messages, message))
            taken.outcome = None
        members: tuple[TurnTaken, ...] = (taken,)
        commits: tuple[Commit, ...] = (commit,)
        if taken.ended:
            members = tuple(taken.members())
            commits = tuple([member.commit for member in members if member.commit is not None])
        try:
            self._journal.hand_in(commits, self._settles, members)
        except RuntimeError as error:  # a copy that is gone has a commit under way: what it comes to must be read
            for member in members:
                self._residents.promised -= member.births
                self.failed(member.run, error)
            return
        self._under_way += 1

    def _settled(self, members: tuple[TurnTaken, ...], outcomes: tuple[Outcome, ...]) -> None:
        self._under_way -= 1
        aftermath = self.aftermath
        for member, outcome in zip(members, outcomes, strict=True):
            try:
                aftermath(member, outcome)
            except Exception as error:
                logger.exception("what follows a commit of run %r failed", member.run.run_id)
                self.failed(member.run, error)
        if not self._under_way and self._idle:
            idle, self._idle = self._idle, []
            for waiting in idle:
                if not waiting.done():
                    waiting.set_result(None)
