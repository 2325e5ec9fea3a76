"""Activities of resident runs, run in this process: retries, cancellation, and what is reported.

The rule: what is asked for gets one outcome, or none if it was cancelled, its run was dropped or the service
ended. ``report`` is called from a plain callback of the host loop, never in a task nor within a call of these
methods: a turn may be taken in it.

When ``run`` is cancelled it cancels everything, waits at most ``GRACE_S`` and ends. What remains is named in the
log: tasks that swallowed ``CancelledError``, and threads, which nothing can stop. These are daemons, so they end
with the process; nobody hears what they do until then.

``heartbeat_timeout`` and ``priority`` are for queues; here they are ignored.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from continuum._core.commands import RunActivity
from continuum._core.events import ActivityCompleted, ActivityFailed, ActivityStarted
from continuum._core.retry import is_retryable, next_delay
from continuum._engine.attempts import Attempt, failure_of, timed_out
from continuum._engine.slots import Slots
from continuum.activity import Activity
from continuum.errors import Failure
from continuum.policies import ActivityOptions, Duration, Retry, duration

logger = logging.getLogger("continuum.engine")

SCAN_S = 0.25

Report: TypeAlias = Callable[[object, ActivityCompleted | ActivityFailed | ActivityStarted], None]


class Activities:
    """Runs activities for resident runs: at most ``limit`` on the loop and ``threads`` in threads.

    To be called in the host loop. ``defaults`` are the worker's ``retry``, ``start_to_close`` and
    ``schedule_to_close``; ``chance`` spreads the waits between attempts. An owner is told by its identity; the log
    names it by its ``run_id`` if it has one.
    """

    def __init__(
        self,
        *,
        limit: int,
        threads: int,
        defaults: ActivityOptions,
        now_us: Callable[[], int],
        report: Report,
        chance: random.Random,
    ) -> None:
        self._retry = defaults.retry if defaults.retry is not None else Retry()
        self._start_to_close = _seconds(defaults.start_to_close, None)
        self._schedule_to_close = _seconds(defaults.schedule_to_close, None)
        self._now_us = now_us
        self._report = report
        self._chance = chance
        self._slots = Slots(limit, threads, begun=self._begun, ended=self._ended, left=self._notice_idle)
        self._asked: dict[object, dict[str, Attempt]] = {}  # what somebody waits for, by owner and key
        self._live = 0  # of those
        self._idle: list[asyncio.Future[None]] = []
        self._closed = False

    @property
    def count(self) -> int:
        """How many were asked for and have not ended, cancelled ones that clean up included."""
        return self._live + len(self._slots.leavers)

    def busy(self, owner: object) -> bool:
        """Say whether ``owner`` waits for an activity."""
        return owner in self._asked

    def start(self, owner: object, request: RunActivity, activity: Activity[Any, Any], attempt: int = 1) -> None:
        """Run an activity when there is a slot and ``run`` is under way; ``attempt`` is the number of the first.

        Raises ``RuntimeError`` if the owner waits for one of this key already.
        """
        if self._closed:
            logger.debug("activity %s is not begun: the worker ends", request.key)
            return
        asked = self._asked.get(owner)
        if asked is None:
            asked = self._asked[owner] = {}
        elif request.key in asked:
            raise RuntimeError(f"activity {request.key!r} of this run is under way already")
        slots, options = self._slots, request.options
        lane = slots.lanes.get(activity.parameters) or slots.lane(activity)
        made = asked[request.key] = Attempt(owner, request, activity, attempt, lane)
        self._live += 1
        if options.queue is not None:
            made.timer = slots.call_soon(self._refuse_queue, made)
            return
        bound, until = self._start_to_close, self._schedule_to_close
        if options.start_to_close is not None or options.schedule_to_close is not None:
            bound = _seconds(options.start_to_close, bound)
            until = _seconds(options.schedule_to_close, until)
        if bound is not None:
            made.bound = bound
        if until is not None:
            made.deadline = slots.time() + until
        if lane.free > 0:
            slots.begin(made)
        else:
            slots.admit(made)

    def cancel(self, owner: object, key: str) -> None:
        """Stop an activity that nobody waits for any more, and report nothing of it."""
        attempt = self._asked.get(owner, {}).get(key)
        if attempt is not None:
            self._slots.abandon(attempt)
            self._forget(attempt)

    def drop(self, owner: object) -> None:
        """Stop all activities of a run that left this worker, and report nothing of them."""
        for attempt in list(self._asked.get(owner, {}).values()):
            self._slots.abandon(attempt)
            self._forget(attempt)

    async def wait_idle(self) -> None:
        """Wait until ``count`` is 0."""
        while self.count:
            idle: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._idle.append(idle)
            await idle

    async def run(self) -> None:
        """Run activities until cancelled. Can be called once."""
        slots = self._slots
        slots.open()
        try:
            while True:
                await slots.some.wait()
                await asyncio.sleep(SCAN_S)
                slots.call_soon(slots.scan)
        finally:
            self._closed = True
            for owner in list(self._asked):
                self.drop(owner)
            try:
                await slots.close()
            finally:
                self._notice_idle()

    # What the slots tell.

    def _begun(self, attempt: Attempt) -> None:
        self._report(attempt.owner, ActivityStarted(self._now_us(), attempt.request.key, attempt.number))

    def _ended(self, attempts: Sequence[Attempt]) -> None:
        """Report results; after a failure try again, or report that."""
        now_us = self._now_us()
        for attempt in attempts:
            if self._asked.get(attempt.owner, {}).get(attempt.request.key) is not attempt:
                continue  # nobody waits for it since one before it was told of
            try:
                if (result := attempt.result) is None or attempt.expired:
                    self._failed(attempt)
                    continue
                request = attempt.request
                self._forget(attempt)
                done = ActivityCompleted(now_us, request.key, request.name, request.input, result)
                self._report(attempt.owner, done)
            except Exception:  # whose fault it is goes on without
                logger.exception("what follows the end of %s failed", attempt)

    def _failed(self, attempt: Attempt) -> None:
        failure, bases, final = failure_of(attempt)
        given = attempt.request.options.retry
        retry = given if given is not None else self._retry
        delay = None
        if not final and is_retryable(retry, failure, bases):
            delay = next_delay(retry, attempt.number, self._chance.random())
        if delay is None:
            self._fail(attempt, failure)
            return
        due = self._slots.time() + delay.total_seconds()
        if attempt.deadline is not None and due >= attempt.deadline:
            words = f"schedule_to_close leaves no time for attempt {attempt.number + 1}"
            self._fail(attempt, timed_out(words, failure))
            return
        logger.info("%s failed, the next is due in %.1f s: %s", attempt, delay.total_seconds(), failure)
        again = self._asked[attempt.owner][attempt.request.key] = attempt.next(failure)
        again.timer = self._slots.call_at(due, self._due, again)

    def _due(self, attempt: Attempt) -> None:
        attempt.timer = None
        self._slots.admit(attempt)

    def _refuse_queue(self, attempt: Attempt) -> None:
        words = f"queues are not there yet; leave queue={attempt.request.options.queue!r} out"
        self._fail(attempt, Failure("QueueNotAvailable", words))

    def _fail(self, attempt: Attempt, failure: Failure) -> None:
        logger.info("%s failed for good: %s", attempt, failure)
        request = attempt.request
        failed = ActivityFailed(self._now_us(), request.key, request.name, request.input, failure)
        self._forget(attempt)
        self._report(attempt.owner, failed)

    def _forget(self, attempt: Attempt) -> None:
        asked = self._asked[attempt.owner]
        del asked[attempt.request.key]
        if not asked:
            del self._asked[attempt.owner]
        self._live -= 1
        if self._idle:
            self._notice_idle()

    def _notice_idle(self) -> None:
        """Wake who waits for the end of everything; they look again."""
        if self._idle and not self.count:
            for idle in self._idle:
                if not idle.done():
                    idle.set_result(None)
            self._idle.clear()


def _seconds(given: Duration | None, default: float | None) -> float | None:
    return default if given is None else duration("bound", given).total_seconds()
