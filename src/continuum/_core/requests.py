"""What a run has asked for and not yet heard of: activities and timers.

The rule: an answer must name a request that the code has made; one that nobody waits for any more is taken in
and ignored; one that was never asked for is a divergence.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator
from typing import Any, Protocol

from continuum._core import commands as c
from continuum._core import events as e
from continuum._core.codec import Codec
from continuum._core.decisions import Decisions
from continuum._core.entries import entry_of_event
from continuum._core.failure import activity_error
from continuum._core.faults import Undecodable, Unwind
from continuum._core.loop import TimerHandle, WorkflowLoop
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


class _Asked:
    __slots__ = ("command", "future", "path", "program")

    def __init__(
        self, command: c.RunActivity, program: ActivityProgram, future: asyncio.Future[Any], path: str
    ) -> None:
        self.command = command
        self.program = program
        self.future: asyncio.Future[Any] | None = future  # None: nobody waits any more
        self.path = path


class Activities:
    """The activities that were asked for and have not ended."""

    __slots__ = ("_asked", "_decisions", "_loop")

    def __init__(self, loop: WorkflowLoop, decisions: Decisions) -> None:
        self._loop = loop
        self._decisions = decisions
        self._asked: dict[str, _Asked] = {}

    async def run(self, key: str, path: str, program: ActivityProgram, given: bytes, options: ActivityOptions) -> Any:
        """Ask for an activity and wait for its outcome; cancelling the wait cancels the activity."""
        if self._decisions.fault is not None:
            raise Unwind
        command = c.RunActivity(key, program.name, given, options)
        future = self._loop.create_future()
        self._asked[key] = _Asked(command, program, future, path)
        self._decisions.request(command)
        try:
            return await future
        except asyncio.CancelledError:
            asked = self._asked.get(key)
            if asked is not None and not self._loop.stopped:
                asked.future = None
                self._decisions.request(c.CancelActivity(key))
            raise

    def asked_for(self, key: str) -> c.RunActivity | None:
        """Return the open request of that key."""
        asked = self._asked.get(key)
        return None if asked is None else asked.command

    def ended(self, event: e.ActivityCompleted | e.ActivityFailed, run: Waiting) -> None:
        """Hand an outcome to who waits for it."""
        asked = self._asked.pop(event.key, None)
        if asked is None:
            words = f"no activity of that key is asked for; the workflow waits for {run.waiting_for()}"
            self._decisions.diverge(entry_of_event(event), words, "", event.key)
        command = asked.command
        if event.input is not command.input and not (
            event.name == command.name and asked.program.arguments.means_the_same(event.input, command.input)
        ):
            words = f"activity {command.name} {command.key} {command.input.decode('utf-8', 'replace')[:300]}"
            self._decisions.diverge(entry_of_event(event), words, asked.path, event.key)
        if asked.future is None or asked.future.done():
            return
        if isinstance(event, e.ActivityFailed):
            asked.future.set_exception(activity_error(command.name, event.failure))
            return
        try:
            value = asked.program.result.decode(event.result)
        except DecodeError as error:
            self._decisions.fault = Undecodable(str(error), event.key)
            raise Unwind from None
        asked.future.set_result(value)

    def outstanding(self) -> Iterator[c.RunActivity]:
        """Yield what is still waited for, in the order it was asked for."""
        return (asked.command for asked in self._asked.values() if asked.future is not None)


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
