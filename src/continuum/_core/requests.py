"""What a run has asked for and not yet heard of: activities and timers.

The rule: an answer must name a request that the code has made; one that nobody waits for any more is taken in
and ignored; one that was never asked for is a divergence.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator
from typing import Any, Protocol, TypeAlias, cast

from continuum._core import commands as c
from continuum._core import events as e
from continuum._core.ahead import Ahead
from continuum._core.codec import Codec
from continuum._core.decisions import Decisions
from continuum._core.entries import Entry, entry_of_event, event_of_entry, result_prefix
from continuum._core.failure import activity_error
from continuum._core.faults import never
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


# An activity that is asked for: a tuple, because making one is part of every step. The future is None when nobody
# waits any more.
_Asked: TypeAlias = tuple[ActivityProgram, bytes, ActivityOptions, str, asyncio.Future[Any] | None]


class Activities:
    """The activities that were ``asked`` for and have not ended, by key."""

    __slots__ = ("_ahead", "_decisions", "_loop", "asked")

    def __init__(self, loop: WorkflowLoop, decisions: Decisions, ahead: Ahead) -> None:
        self._ahead = ahead
        self._loop = loop
        self._decisions = decisions
        self.asked: dict[str, _Asked] = {}

    async def run(
        self, key: str, path: str, program: ActivityProgram, given: bytes, options: ActivityOptions
    ) -> Any:
        """Ask for an activity and wait for its outcome; cancelling the wait cancels the activity."""
        decisions, loop = self._decisions, self._loop
        if loop.stopped:
            await never()
        loop.unstarted -= 1
        if decisions.recorded is None:
            decisions.commands.append(c.RunActivity(key, program.name, given, options))
        elif (result := self._ahead.result_of(key, program.name, given)) is not None:
            return self._decode(program, key, result)
        future = loop.create_future()
        self.asked[key] = program, given, options, path, future
        try:
            return await future
        except asyncio.CancelledError:
            if key in self.asked and not loop.stopped:
                self.asked[key] = program, given, options, path, None
                decisions.request(c.CancelActivity(key))
            raise

    def ended(self, event: e.ActivityCompleted | e.ActivityFailed) -> None:
        """Hand an outcome to who waits for it."""
        asked = self.asked.pop(event.key, None)
        if asked is None:
            words = (
                f"no activity of that key is asked for; the workflow waits for {self._loop.machine.waiting_for()}"
            )
            self._decisions.diverge(entry_of_event(event), words, "", event.key)
        program, given, _, path, future = asked
        if event.name != program.name or (
            event.input != given and not program.arguments.means_the_same(event.input, given)
        ):
            words = f"activity {program.name} {event.key} {given.decode('utf-8', 'replace')[:300]}"
            self._decisions.diverge(entry_of_event(event), words, path, event.key)
        if future is None or future.done():
            return
        if type(event) is e.ActivityCompleted:
            try:
                future.set_result(program.result.decode(event.result))
            except DecodeError as error:
                self._decisions.undecodable(error, event.key)
        else:
            future.set_exception(activity_error(program.name, cast("e.ActivityFailed", event).failure))

    def repeat(self, entry: Entry) -> None:
        """Hand out a recorded result.

        Most entries of a replay repeat to the letter what is asked for; of those nothing is parsed but the result.
        """
        key, payload = entry.key, entry.payload
        asked = self.asked.get(key)
        if asked is not None:
            program, given, _, _, future = asked
            prefix = result_prefix(program.name, given)
            if payload.startswith(prefix):
                del self.asked[key]
                if future is not None and not future.done():
                    future.set_result(self._decode(program, key, payload[len(prefix) : -1]))
                return
        self.ended(cast("e.ActivityCompleted", event_of_entry(entry)))

    def outstanding(self) -> Iterator[c.RunActivity]:
        """Yield what is still waited for, in the order it was asked for."""
        return (
            c.RunActivity(key, program.name, given, options)
            for key, (program, given, options, _, future) in self.asked.items()
            if future is not None
        )

    def _decode(self, program: ActivityProgram, key: str, result: bytes) -> Any:
        try:
            return program.result.decode(result)
        except DecodeError as error:
            self._decisions.undecodable(error, key)


class Timers:
    """The timers that are set and have not fired."""

    __slots__ = ("_decisions", "_loop", "_pending")

    def __init__(self, loop: WorkflowLoop, decisions: Decisions) -> None:
        self._loop = loop
        self._decisions = decisions
        self._pending: dict[str, TimerHandle] = {}

    def arm(self, handle: TimerHandle) -> None:
        """Set a timer under its own key, else under the next one of the task that asks."""
        if not handle.key:
            running = asyncio.current_task(self._loop)
            scope = self._loop.root if running is None else self._loop.scope()
            handle.key = scope.key("timer")
        self._pending[handle.key] = handle
        # Journal time may be ahead of the event: the clock was set back. The timer waits no longer for that.
        handle.due_us = due_us(handle.when()) - self._decisions.behind_us
        self._decisions.request(c.StartTimer(handle.key, handle.due_us))

    def disarm(self, handle: TimerHandle) -> None:
        """Forget a timer that is not needed any more; one that has fired is forgotten already."""
        if self._pending.get(handle.key) is handle and not self._loop.stopped:
            del self._pending[handle.key]
            self._decisions.request(c.CancelTimer(handle.key))

    def forget(self) -> None:
        """Drop all timers of a run that is let go."""
        self._pending.clear()

    def fired(self, event: e.TimerFired) -> None:
        """Make a timer's callback ready."""
        handle = self._pending.pop(event.key, None)
        if handle is None:
            words = f"no timer of that key is set; the workflow waits for {self._loop.machine.waiting_for()}"
            self._decisions.diverge(entry_of_event(event), words, "", event.key)
        # Who is woken by a timer never sees a time before it.
        self._loop.now_us = max(self._loop.now_us, due_us(handle.when()))
        self._loop.fire(handle)

    def outstanding(self) -> Iterator[c.StartTimer]:
        """Yield the timers that are set, in the order they were."""
        return (c.StartTimer(key, handle.due_us) for key, handle in self._pending.items())


def due_us(when: float) -> int:
    """Return a loop time as whole microseconds since 1970, rounded up, at most the end of the year 9999."""
    return LAST_US if when * 1_000_000 >= LAST_US else math.ceil(when * 1_000_000)
