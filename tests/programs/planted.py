"""Bugs to plant, one at a time, to see that the generated programs catch them."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable

from continuum._core import loop as loops
from continuum._core import pinned, tasks
from continuum._core.keys import Scope


def set_order() -> None:
    """Tasks hash by address: sets of tasks iterate in another order in another process."""
    tasks.WorkflowTask.__hash__ = object.__hash__  # type: ignore[method-assign,assignment]


def unhashed_future() -> None:
    """One kind of future, what ``shield`` returns, hashes by address."""
    tasks.WorkflowFuture.__hash__ = object.__hash__  # type: ignore[method-assign,assignment]


def ordinal_by_line() -> None:
    """Keys made of the calling line instead of an ordinal: two calls on one line are one key."""

    def key(self: Scope, name: str) -> str:
        frame = sys._getframe(1)
        while "flows.py" not in frame.f_code.co_filename and frame.f_back is not None:
            frame = frame.f_back
        return f"{self.path}{name}-L{frame.f_lineno}"

    Scope.key = key  # type: ignore[method-assign]


def host_time() -> None:
    """The workflow's clock is the host's."""

    def host(self: loops.WorkflowLoop) -> float:
        with loops.WATCH.suspended():
            return time.time()

    loops.WorkflowLoop.time = host  # type: ignore[method-assign]


def global_count() -> None:
    """Keys counted for the process instead of the task."""
    counts: dict[str, int] = {}

    def key(self: Scope, name: str) -> str:
        counts[name] = counts.get(name, 0) + 1
        return f"{self.path}{name}-{counts[name]}"

    Scope.key = key  # type: ignore[method-assign]


def lost_time() -> None:
    """Timers are due by when they were armed last, not by the event's time."""
    original = loops.WorkflowLoop.call_later
    late = iter(range(10**9))
    loops.WorkflowLoop.call_later = (  # type: ignore[method-assign]
        lambda self, delay, *args, **kwargs: original(self, delay + next(late) / 1e3, *args, **kwargs)
    )


def unpinned() -> None:
    """asyncio as each Python has it: shows between Pythons, not within one."""
    pinned.enter = pinned.leave = lambda: None
    assert asyncio is not None


PLANTED: dict[str, Callable[[], None]] = {
    plant.__name__: plant
    for plant in (set_order, unhashed_future, ordinal_by_line, host_time, global_count, lost_time, unpinned)
}
