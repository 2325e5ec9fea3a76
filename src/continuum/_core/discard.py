"""What a run keeps alive, and how it is let go.

The rule: a run that is let go closes its own coroutines, newest first, while its loop is dead: nothing that is
scheduled on it happens, what is awaited never comes. Left to the garbage collector, the ``finally`` blocks would
act in another run's turn, or on the host's loop.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator
from contextvars import Context
from typing import Any

from continuum._core.tasks import WorkflowTask

STUBBORN: list[Any] = []
"""Coroutines that swallow whatever comes and await again. Freed, they would do so once more, in anybody's turn."""


class Kept:
    """The tasks and async generators of a run: asyncio itself keeps only weak references to them."""

    __slots__ = ("_generators", "_generators_limit", "_limit", "_tasks")

    def __init__(self) -> None:
        self._tasks: list[WorkflowTask] = []
        self._generators: list[AsyncGenerator[Any, Any]] = []
        self._limit = self._generators_limit = 8  # how many to hold before those that ended are dropped

    def task(self, task: WorkflowTask) -> None:
        """Keep a task until it has ended."""
        if len(self._tasks) >= self._limit:
            self._tasks = self.pending()
            self._limit = max(8, 2 * len(self._tasks))
        self._tasks.append(task)

    def generator(self, generator: AsyncGenerator[Any, Any]) -> None:
        """Keep an async generator until the run is let go: collected, its clean-up would run at no fixed time."""
        if len(self._generators) >= self._generators_limit:
            self._generators = [kept for kept in self._generators if getattr(kept, "ag_frame", None) is not None]
            self._generators_limit = max(8, 2 * len(self._generators))
        self._generators.append(generator)

    def pending(self) -> list[WorkflowTask]:
        """Return the tasks that have not ended, oldest first."""
        return [task for task in self._tasks if not task.done()]

    def close(self, loop: asyncio.AbstractEventLoop) -> None:
        """Close every coroutine and generator, newest first, under their own loop, which is dead by now."""
        if not self._generators and not self.pending():  # as after most ends
            self._tasks.clear()
            return
        host, hooks = asyncio._get_running_loop(), sys.get_asyncgen_hooks()
        asyncio._set_running_loop(loop)
        sys.set_asyncgen_hooks(self.generator, leave_generator)  # clean-up may open generators of its own
        try:
            for generator in reversed(self._generators):
                # Before 3.13 closing who iterates does not reach what the generator itself awaits.
                if asyncio.iscoroutine(awaited := getattr(generator, "ag_await", None)):
                    _close(awaited)
            for task in reversed(self._tasks):
                if not task.done():
                    _close_as_current(loop, task)
                    _settle(task)
            while self._generators:
                Context().run(_close_generator, self._generators.pop())
        finally:
            sys.set_asyncgen_hooks(*hooks)
            asyncio._set_running_loop(host)
            self._tasks.clear()
            self._generators.clear()


def leave_generator(generator: AsyncGenerator[Any, Any]) -> None:
    """Do nothing for a generator that is collected: it was kept, so it has been closed."""


def _close_as_current(loop: asyncio.AbstractEventLoop, task: WorkflowTask) -> None:
    """Close a task's coroutine in its context, as if it ran: ``timeout`` and ``TaskGroup`` ask which task does."""
    functions: Any = asyncio.tasks
    if sys.version_info >= (3, 12):
        before = functions._swap_current_task(loop, task)
        try:
            task.context.run(_close, task.get_coro())
        finally:
            functions._swap_current_task(loop, before)
    else:
        functions._enter_task(loop, task)
        try:
            task.context.run(_close, task.get_coro())
        finally:
            functions._leave_task(loop, task)


def _close(coro: Any) -> None:
    """Close a coroutine for good, innermost await first.

    From the outside in, an inner one that goes on awaiting in its clean-up would be left to the garbage
    collector, which closes it again in somebody else's turn. One that does so is closed again, a few times.
    """
    chain = [coro]
    while asyncio.iscoroutine(awaited := getattr(chain[-1], "cr_await", None)):
        chain.append(awaited)
    for link in reversed(chain):
        for _ in range(16):
            try:
                link.close()
                break
            except RuntimeError:  # it ignored GeneratorExit
                continue
            except BaseException:  # noqa: BLE001 - clean-up of a run that no longer exists may raise anything
                break
        else:
            STUBBORN.append(link)


def _settle(task: WorkflowTask) -> None:
    """End a task whose coroutine is closed, and what it waited for.

    Else they, and the group it may be in, hold each other by their callbacks until the garbage collector comes;
    and asyncio logs a task that was never done.
    """
    as_future: Any = asyncio.Future
    as_future.cancel(task)  # the task's own cancel would ask the coroutine
    try:
        if (waiter := task._fut_waiter) is not None:
            waiter.cancel()
    except BaseException:  # noqa: BLE001 - the author's future may be of a class of the author's
        return


def _close_generator(generator: AsyncGenerator[Any, Any]) -> None:
    """Throw ``GeneratorExit`` into an async generator; one that awaits in its clean-up is left there."""
    try:
        generator.aclose().send(None)
    except BaseException:  # noqa: BLE001 - StopIteration when it is closed, else whatever its clean-up raises
        return
