"""Where attempts run: slots on the loop and in threads, time bounds, and the end of each attempt.

The rule: an attempt that is admitted ends by one call of ``ended``, from a plain callback of the host loop, unless
it was abandoned before. It keeps its slot until its function has returned, or ``leavers`` takes it away.

An attempt is a host task of its own; a function that is not ``async`` runs in a thread. The tasks are in no
``TaskGroup``, since that cannot be left while an activity goes on in spite of its cancellation.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context, copy_context
from functools import partial
from typing import Any

from continuum._engine.attempts import (
    Attempt,
    Lane,
    await_on_loop,
    call_in_thread,
    call_on_loop,
    close_unawaited,
    is_async,
)
from continuum._engine.leavers import GRACE_S, Leavers
from continuum._engine.threads import Threads
from continuum.activity import Activity

logger = logging.getLogger("continuum.engine")

STARTED_S = 1.0  # an attempt that takes longer is told of as begun


class Slots:
    """Runs attempts, at most ``limit`` on the loop and ``threads`` in threads; others wait in the order they came.

    ``begun`` is called for an attempt that runs for long or is not the first; ``ended`` with some that have
    ``result``, ``error`` or ``expired`` set; ``left`` when an abandoned one does not count any more. All may admit
    others.
    """

    def __init__(
        self,
        limit: int,
        threads: int,
        *,
        begun: Callable[[Attempt], None],
        ended: Callable[[Sequence[Attempt]], None],
        left: Callable[[], None],
    ) -> None:
        if limit < 1 or threads < 1:
            raise ValueError(f"activities need slots of each kind: got limit={limit}, threads={threads}")
        self._begun = begun
        self._tell_ends = ended
        self._left = left
        self.both = Lane(limit, threaded=False), Lane(threads, threaded=True)
        self.lanes: dict[object, Lane] = {}  # by a definition's parameters, which its copies share
        self._threads = Threads(threads, "continuum-activity")
        self._young: dict[Attempt, None] = {}  # that have begun not long ago, the oldest first
        self.some = asyncio.Event()  # there is something to scan, or was when it was last scanned
        self.leavers = Leavers(self._stop, self._free)
        self._returns: list[Attempt] = []  # attempts whose tasks have ended and nobody was told yet
        self._notes = self._note_return  # one bound method for all
        self._context = copy_context()  # of all callbacks here: they must not inherit that of who starts
        self._loop: asyncio.AbstractEventLoop | None = None
        self._time: Callable[[], float]  # the loop's

    def lane(self, activity: Activity[Any, Any]) -> Lane:
        """Return where attempts at an activity run."""
        found = self.lanes.get(activity.parameters)
        if found is None:
            found = self.lanes[activity.parameters] = self.both[0 if is_async(activity) else 1]
        return found

    def open(self) -> None:
        """Begin what waits, and from now on what is admitted, on the running loop."""
        if self._loop is not None:
            raise RuntimeError("these activities are run already")
        self._loop = asyncio.get_running_loop()
        self._time = self._loop.time
        for lane in self.both:
            lane.free = lane.size
            self._fill(lane)

    async def close(self) -> None:
        """Wait for what was abandoned, ``GRACE_S`` at most. All must have been."""
        self._threads.close()
        await self.leavers.close()

    def admit(self, attempt: Attempt) -> None:
        """Run an attempt as soon as there is a slot."""
        lane = attempt.lane
        if lane.free > 0:
            self.begin(attempt)
            return
        lane.waiting[attempt] = None
        if attempt.deadline is not None:
            attempt.timer = self.call_at(attempt.deadline, self._out_of_time, attempt)

    def abandon(self, attempt: Attempt) -> None:
        """Let nobody hear of an attempt any more, admitted or not; stop it if it runs."""
        attempt.abandoned = True
        attempt.disarm()
        if attempt.holds:
            self._young.pop(attempt, None)
            self.leavers.add(attempt, self.time())
            self.some.set()
        else:
            attempt.lane.waiting.pop(attempt, None)

    def scan(self) -> None:
        """Tell of what has been running for long, and warn of what does not end."""
        now = self.time()
        while self._young:
            attempt = next(iter(self._young))
            if now - attempt.began <= STARTED_S:
                break
            del self._young[attempt]
            if attempt.task is not None and attempt.task.done():  # somebody cancelled all tasks that there are
                self._never_entered(attempt, attempt.task)
            elif attempt.number == 1:
                self._begun(attempt)
        if self.leavers:
            self.leavers.scan(now)
            self._left()
        if not (self._young or self.leavers):
            self.some.clear()

    # The loop; before ``open`` it is the caller's.

    def time(self) -> float:
        """Return the loop's time."""
        return (self._loop or asyncio.get_running_loop()).time()

    def call_soon(self, callback: Callable[..., None], *given: Any) -> asyncio.Handle:
        """Call back in the worker's context."""
        loop = self._loop or asyncio.get_running_loop()
        return loop.call_soon(callback, *given, context=self._context)

    def call_at(self, when: float, callback: Callable[..., None], *given: Any) -> asyncio.TimerHandle:
        """Call back at a time of the loop, in the worker's context."""
        loop = self._loop or asyncio.get_running_loop()
        return loop.call_at(when, callback, *given, context=self._context)

    # The way of an attempt: begun, its time up, ended.

    def begin(self, attempt: Attempt) -> None:
        """Run an attempt in a slot that is free."""
        lane = attempt.lane
        lane.free -= 1
        attempt.holds = True
        attempt.began = self._time()
        if not self._young and not self.some.is_set():
            self.some.set()
        self._young[attempt] = None
        if attempt.number > 1:
            self.call_soon(self._tell_begun, attempt)
        if lane.threaded:
            self._begin_in_thread(attempt)
        else:
            # Made directly, since a host's task factory may run its first step at once.
            attempt.task = asyncio.Task(
                call_on_loop(attempt, self._notes),
                loop=self._loop,
                name=attempt.request.key,
                context=Context(),
            )
        if attempt.bound is not None or attempt.deadline is not None:
            self._set_bound(attempt)

    def _begin_in_thread(self, attempt: Attempt) -> None:
        loop, context = self._loop, Context()
        assert loop is not None  # before open() there is no slot

        def call() -> None:
            awaitable = context.run(call_in_thread, attempt)
            try:
                loop.call_soon_threadsafe(self._returned, attempt, awaitable, context, context=self._context)
            except RuntimeError:  # the loop is closed
                close_unawaited(awaitable)
                logger.info("%s returned after the worker's end", attempt)

        try:
            self._threads.submit(call)
        except RuntimeError as error:  # the system has no thread for it
            attempt.error = error
            self.call_soon(self._ended, attempt)

    def _returned(self, attempt: Attempt, awaitable: Awaitable[Any] | None, context: Context) -> None:
        if awaitable is not None and not attempt.abandoned:
            coroutine = await_on_loop(attempt, awaitable, self._notes)
            attempt.task = asyncio.Task(coroutine, loop=self._loop, name=attempt.request.key, context=context)
            return
        close_unawaited(awaitable)
        self._ended(attempt)

    def _note_return(self, attempt: Attempt) -> None:
        """Note that an attempt's task is about to end; all that do so by then are dealt with in one callback."""
        if not self._returns:
            self.call_soon(self._all_returned)
        self._returns.append(attempt)

    def _all_returned(self) -> None:
        returned, self._returns = self._returns, []
        for attempt in returned:
            attempt.task = None
        self._end(returned)

    def _stop(self, attempt: Attempt) -> None:
        """Cancel what runs on the loop, once: a second ``CancelledError`` would break its clean-up."""
        if attempt.task is not None and not attempt.stopped:
            attempt.stopped = True
            if not attempt.entered:  # then its coroutine is never entered, and says nothing
                attempt.task.add_done_callback(partial(self._never_entered, attempt), context=self._context)
            attempt.task.cancel()

    def _never_entered(self, attempt: Attempt, _: asyncio.Task[None]) -> None:
        if not attempt.entered and attempt.task is not None:
            attempt.task = None
            attempt.error = asyncio.CancelledError()
            self._ended(attempt)

    def _ended(self, attempt: Attempt) -> None:
        self._end((attempt,))

    def _end(self, attempts: Sequence[Attempt]) -> None:
        """Give back the slots of attempts whose functions have returned, and tell of those that count."""
        heard: list[Attempt] = []
        for attempt in attempts:
            if attempt.timer is not None:
                attempt.disarm()
            self._young.pop(attempt, None)
            lane = attempt.lane
            if attempt.holds:
                attempt.holds = False
                lane.free += 1
            if lane.waiting:
                self._fill(lane)
            if attempt.abandoned:
                attempt.error = None  # its traceback holds frames that hold the attempt
                self.leavers.ended(attempt)
                self._left()
            else:
                heard.append(attempt)
        self._tell_ends(heard)

    def _tell_begun(self, attempt: Attempt) -> None:
        if attempt.holds and not attempt.abandoned:
            self._begun(attempt)

    def _set_bound(self, attempt: Attempt) -> None:
        """Set the timer for whichever bound comes first."""
        end = attempt.deadline
        if attempt.bound is not None and (end is None or attempt.began + attempt.bound < end):
            attempt.timer = self.call_at(attempt.began + attempt.bound, self._expire, attempt)
        elif end is not None:
            attempt.overdue = True
            attempt.timer = self.call_at(end, self._expire, attempt)

    def _expire(self, attempt: Attempt) -> None:
        """End an attempt whose time is up: a task may clean up, a thread is left to itself."""
        if attempt.task is not None and attempt.task.done():
            return  # in time: its callback comes next
        attempt.timer = None
        self._young.pop(attempt, None)
        if attempt.overdue:
            attempt.expired = f"schedule_to_close passed during attempt {attempt.number}"
        else:
            attempt.expired = f"attempt {attempt.number} took longer than start_to_close={attempt.bound:g} s"
        if attempt.task is None:
            self._give_up(attempt)
        else:
            self._stop(attempt)
            attempt.timer = self.call_at(self.time() + GRACE_S, self._give_up, attempt)

    def _give_up(self, attempt: Attempt) -> None:
        """Tell the end of an attempt that does not end in time."""
        self.abandon(attempt)
        self._tell_ends((attempt,))

    def _out_of_time(self, attempt: Attempt) -> None:
        del attempt.lane.waiting[attempt]
        attempt.overdue = True
        attempt.expired = f"schedule_to_close passed while attempt {attempt.number} waited for its turn"
        self._tell_ends((attempt,))

    def _free(self, attempt: Attempt) -> None:
        if attempt.holds:
            attempt.holds = False
            attempt.lane.free += 1
            if attempt.lane.waiting:
                self._fill(attempt.lane)

    def _fill(self, lane: Lane) -> None:
        while lane.free > 0 and lane.waiting:
            attempt, _ = lane.waiting.popitem(last=False)
            attempt.disarm()
            self.begin(attempt)
