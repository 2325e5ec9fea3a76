"""An event loop that is stepped from outside, a callback at a time, by a clock that somebody else moves.

The rule: nothing here depends on real time, on addresses in memory or on threads. One loop is one process; whoever
does not step it any more has stopped that process, and whoever never does again has killed it.
"""

from __future__ import annotations

import asyncio
import heapq
from asyncio import events
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any


class SimTask(asyncio.Task[Any]):
    """A task whose place in a set depends on nothing but how many were made before."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any], *, loop: SimLoop, **options: Any) -> None:
        self._number = loop.number()  # first of all: it is hashed while it is made
        super().__init__(coroutine, loop=loop, **options)

    def __hash__(self) -> int:
        return self._number


class SimFuture(asyncio.Future[Any]):
    """A future, likewise."""

    def __init__(self, *, loop: SimLoop) -> None:
        self._number = loop.number()
        super().__init__(loop=loop)

    def __hash__(self) -> int:
        return self._number


class SimLoop(asyncio.BaseEventLoop):
    """``now`` is the world's clock; the process's own is ``ahead_s`` ahead, as hosts' monotonic clocks are."""

    _ready: deque[asyncio.Handle]  # what asyncio's own loop keeps, for nothing else steps it
    _scheduled: list[asyncio.TimerHandle]

    def __init__(self, now: Callable[[], float], ahead_s: float) -> None:
        super().__init__()
        self._now, self._ahead_s = now, ahead_s
        self._numbers = 0
        self.failures: list[BaseException] = []  # of callbacks
        self.set_task_factory(_task)  # type: ignore[arg-type]  # it is given this very loop
        self.set_exception_handler(self._note)

    def number(self) -> int:
        """Return the number of the next thing that is to be hashed."""
        self._numbers += 1
        return self._numbers

    def time(self) -> float:
        return self._now() + self._ahead_s

    def create_future(self) -> asyncio.Future[Any]:
        return SimFuture(loop=self)

    def next_at(self) -> float | None:
        """Return when there is something to do, by the world's clock; None: never by itself."""
        if self._ready:
            return self._now()
        while self._scheduled and self._scheduled[0]._cancelled:
            heapq.heappop(self._scheduled)
        return self._scheduled[0].when() - self._ahead_s if self._scheduled else None

    def step(self) -> bool:
        """Run one callback that is ready; say whether there was one."""
        while self._scheduled and (self._scheduled[0]._cancelled or self._is_due(self._scheduled[0])):
            due = heapq.heappop(self._scheduled)
            if not due._cancelled:
                self._ready.append(due)
        while self._ready:
            handle = self._ready.popleft()
            if handle._cancelled:
                continue
            events._set_running_loop(self)
            try:
                handle._run()
            finally:
                events._set_running_loop(None)
            return True
        return False

    def _is_due(self, handle: asyncio.TimerHandle) -> bool:
        return handle.when() - self._ahead_s <= self._now()  # the very term of next_at: sums of floats differ

    def _note(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if "handle" in context:  # what nobody awaited is told when it is collected, at no certain time
            self.failures.append(context["exception"])

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Let it lie until its time: the heap is small."""


def _task(loop: SimLoop, coroutine: Coroutine[Any, Any, Any], **options: Any) -> SimTask:
    return SimTask(coroutine, loop=loop, **options)
