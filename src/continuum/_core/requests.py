"""What a run has asked for and not yet heard of: activities and timers.

The rule: an answer must name a request that the code has made; one that nobody waits for any more is taken in
and ignored; one that was never asked for is a divergence.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

from continuum._core import commands as c
from continuum._core import events as e
from continuum._core.codec import Codec
from continuum._core.decisions import Decisions
from continuum._core.entries import RESULT, Entry, activity_prefix, entry_of_event
from continuum._core.failure import activity_error
from continuum._core.faults import Undecodable, Unwind
from continuum._core.loop import WorkflowLoop
from continuum._core.tasks import TimerHandle
from continuum.errors import DecodeError
from continuum.policies import ActivityOptions

LAST_US = 253_402_300_799_000_000  # the end of the year 9999, the last that timestamps and datetime know


class ActivityProgram(Protocol):
    """What the core needs of an activity's definition."""

    @property
    def name(self) -> str: ...
    @property
    def arguments(self) -> Codec[Any]: ...
    @property
    def result(self) -> Codec[Any]: ...


class Waiting(Protocol):
    """Who can say what a run waits for."""

    def waiting_for(self) -> str: ...


class _Asked(NamedTuple):
    key: str
    program: ActivityProgram
    input: bytes
    options: ActivityOptions
    path: str
    future: asyncio.Future[Any] | None  # None: nobody waits any more


class Activities:
    """The activities that were asked for and have not ended."""

    __slots__ = ("_asked", "_decisions", "_loop")

    def __init__(self, loop: WorkflowLoop, decisions: Decisions) -> None:
        self._loop = loop
        self._decisions = decisions
        self._asked: dict[str, _Asked] = {}

    async def run(
        self, key: str, path: str, program: ActivityProgram, given: bytes, options: ActivityOptions
    ) -> Any:
        """Ask for an activity and wait for its outcome; cancelling the wait cancels the activity."""
        decisions = self._decisions
        if decisions.fault is not None:
            raise Unwind
        future = self._loop.create_future()
        self._asked[key] = _Asked(key, program, given, options, path, future)
        if decisions.recorded is None:
            decisions.request(c.RunActivity(key, program.name, given, options))
        try:
            return await future
        except asyncio.CancelledError:
            asked = self._asked.get(key)
            if asked is not None and not self._loop.stopped:
                self._asked[key] = asked._replace(future=None)
                decisions.request(c.CancelActivity(key))
            raise

    def ended(self, event: e.ActivityCompleted | e.ActivityFailed, run: Waiting) -> None:
        """Hand an outcome to who waits for it."""
        asked = self._asked.pop(event.key, None)
        if asked is None:
            words = f"no activity of that key is asked for; the workflow waits for {run.waiting_for()}"
            self._decisions.diverge(entry_of_event(event), words, "", event.key)
        name = asked.program.name
        if event.name != name or not asked.program.arguments.means_the_same(event.input, asked.input):
            words = f"activity {name} {asked.key} {asked.input.decode('utf-8', 'replace')[:300]}"
            self._decisions.diverge(entry_of_event(event), words, asked.path, event.key)
        if isinstance(event, e.ActivityCompleted):
            self._resolve(asked, event.result)
        elif asked.future is not None and not asked.future.done():
            asked.future.set_exception(activity_error(name, event.failure))

    def repeat(self, entry: Entry) -> bool:
        """Hand out a recorded result if its entry repeats to the letter what is asked for; say whether it does.

        Most entries of a replay do. Then nothing is parsed but the result.
        """
        asked = self._asked.get(entry.key)
        if asked is None:
            return False
        prefix = activity_prefix(asked.program.name, asked.input) + RESULT
        if not entry.payload.startswith(prefix):
            return False
        del self._asked[entry.key]
        self._resolve(asked, entry.payload[len(prefix) : -1])
        return True

    def outstanding(self) -> Iterator[c.RunActivity]:
        """Yield what is still waited for, in the order it was asked for."""
        return (
            c.RunActivity(asked.key, asked.program.name, asked.input, asked.options)
            for asked in self._asked.values()
            if asked.future is not None
        )

    def _resolve(self, asked: _Asked, result: bytes) -> None:
        if asked.future is None or asked.future.done():
            return
        try:
            value = asked.program.result.decode(result)
        except DecodeError as error:
            self._decisions.fault = Undecodable(str(error), asked.key)
            raise Unwind from None
        asked.future.set_result(value)


class Timers:
    """The timers that are set and have not fired."""

    __slots__ = ("_decisions", "_loop", "_pending")

    def __init__(self, decisions: Decisions) -> None:
        self._decisions = decisions
        self._pending: dict[str, TimerHandle] = {}
        self._loop: WorkflowLoop

    def serve(self, loop: WorkflowLoop) -> None:
        """Take the timers of ``loop``."""
        self._loop = loop

    def arm(self, handle: TimerHandle) -> None:
        """Set a timer under the next key of the task that asks."""
        running = asyncio.current_task(self._loop)
        scope = self._loop.root if running is None else self._loop.scope()
        handle.key = scope.key("timer")
        self._pending[handle.key] = handle
        self._decisions.request(c.StartTimer(handle.key, due_us(handle.when())))

    def disarm(self, handle: TimerHandle) -> None:
        """Forget a timer that is not needed any more; one that has fired is forgotten already."""
        if self._pending.get(handle.key) is handle and not self._loop.stopped:
            del self._pending[handle.key]
            self._decisions.request(c.CancelTimer(handle.key))

    def fired(self, event: e.TimerFired, run: Waiting) -> None:
        """Make a timer's callback ready."""
        handle = self._pending.pop(event.key, None)
        if handle is None:
            words = f"no timer of that key is set; the workflow waits for {run.waiting_for()}"
            self._decisions.diverge(entry_of_event(event), words, "", event.key)
        self._loop.fire(handle)

    def outstanding(self) -> Iterator[c.StartTimer]:
        """Yield the timers that are set, in the order they were."""
        return (c.StartTimer(key, due_us(handle.when())) for key, handle in self._pending.items())


def due_us(when: float) -> int:
    """Return a loop time as whole microseconds since 1970, rounded up, at most the end of the year 9999."""
    return LAST_US if when * 1_000_000 >= LAST_US else math.ceil(when * 1_000_000)
