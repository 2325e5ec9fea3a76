"""The tasks, futures and handles of a run.

The rule: tasks and futures hash by ``crc32(run id) + number``, so that the sets asyncio keeps iterate in one order
in every process. (The bare number would make asyncio's global weak set of tasks quadratic over many runs.)
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import Context, copy_context
from typing import TYPE_CHECKING, Any, Protocol

from continuum._core import pinned
from continuum._core.keys import Scope

if TYPE_CHECKING:
    from continuum._core.loop import WorkflowLoop


class WorkflowTask(pinned.Task[Any]):
    """A task that hashes by its number and knows its place in the run."""

    __slots__ = ("context", "identity", "scope")

    def __init__(self, coro: Any, *, loop: WorkflowLoop, name: str, context: Context | None, scope: Scope) -> None:
        self.identity = loop.number = loop.number + 1  # asked for by asyncio's weak set of all tasks
        self.scope = scope
        self.context = context if context is not None else copy_context()
        super().__init__(coro, loop=loop, name=name, context=self.context)

    def settle(self) -> None:
        """End cancelled if the task cancelled itself before it returned, as it does by itself from 3.13 on."""
        if getattr(self, "_owed", False):
            owing: Any = self
            owing._deliver()

    def __hash__(self) -> int:
        return self.identity


class WorkflowFuture(asyncio.Future[Any]):
    """A future that hashes by its number, which the loop sets: an ``__init__`` would be run by every await."""

    __slots__ = ("identity",)

    identity: int

    def __hash__(self) -> int:
        return self.identity


class Handle:
    """A callback that waits for its place in the turn."""

    __slots__ = ("_args", "_callback", "_cancelled", "_context")

    def __init__(self, callback: Callable[..., object], args: tuple[Any, ...], context: Context) -> None:
        self._callback = callback
        self._args = args
        self._context = context
        self._cancelled = False

    def cancel(self) -> None:
        self._cancelled = True

    def cancelled(self) -> bool:
        return self._cancelled


class TimerHandle(Handle):
    """A callback that waits for its time, by the clock ``due_us``; ``key`` names the timer while it is pending."""

    __slots__ = ("_timers", "_when", "due_us", "key")

    def __init__(
        self,
        when: float,
        callback: Callable[..., object],
        args: tuple[Any, ...],
        context: Context,
        timers: Timers,
        key: str = "",
    ) -> None:
        super().__init__(callback, args, context)
        self._when = when
        self._timers = timers
        self.due_us = 0
        self.key = key

    def when(self) -> float:
        return self._when

    def cancel(self) -> None:
        if not self._cancelled:
            self._cancelled = True
            self._timers.disarm(self)


class Timers(Protocol):
    """Who keeps a run's timers."""

    def arm(self, handle: TimerHandle) -> None: ...

    def disarm(self, handle: TimerHandle) -> None: ...

    def forget(self) -> None: ...
