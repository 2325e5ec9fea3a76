"""What a run keeps alive, and how it is let go.

The rule: a run that is let go closes its own coroutines, newest first, under a loop that refuses everything. Left
to the garbage collector, its ``finally`` blocks would act in another run's turn, or on the host's loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any, NoReturn

from continuum._core.faults import Unwind
from continuum._core.tasks import WorkflowTask


class Kept:
    """The tasks and async generators of a run: asyncio itself keeps only weak references to them."""

    __slots__ = ("_generators", "_limit", "_tasks")

    def __init__(self) -> None:
        self._tasks: list[WorkflowTask] = []
        self._generators: list[AsyncGenerator[Any, Any]] = []
        self._limit = 8  # how many tasks to hold before those that ended are dropped

    def task(self, task: WorkflowTask) -> None:
        """Keep a task until it has ended."""
        if len(self._tasks) >= self._limit:
            self._tasks = self.pending()
            self._limit = max(8, 2 * len(self._tasks))
        self._tasks.append(task)

    def generator(self, generator: AsyncGenerator[Any, Any]) -> None:
        """Keep an async generator until the run is let go: collected, its clean-up would run at no fixed time."""
        if len(self._generators) >= 64:
            self._generators = [kept for kept in self._generators if getattr(kept, "ag_frame", None) is not None]
        self._generators.append(generator)

    def pending(self) -> list[WorkflowTask]:
        """Return the tasks that have not ended, oldest first."""
        return [task for task in self._tasks if not task.done()]

    def close(self) -> None:
        """Close every coroutine and generator, newest first."""
        host = asyncio._get_running_loop()
        asyncio._set_running_loop(DEAD_LOOP)
        try:
            for task in reversed(self._tasks):
                if not task.done():
                    _close(task.get_coro())
                    _settle(task)
            for generator in reversed(self._generators):
                _close_generator(generator)
        finally:
            asyncio._set_running_loop(host)
        self._tasks.clear()
        self._generators.clear()


def leave_generator(generator: AsyncGenerator[Any, Any]) -> None:
    """Do nothing for a generator that is collected: it was kept, so it has been closed."""


class DeadLoop(asyncio.AbstractEventLoop):
    """The running loop while a run is let go: whatever is asked of it unwinds."""

    def __getattribute__(self, name: str) -> Any:
        if name == "create_task":
            return refuse_task  # takes the coroutine along, else Python warns that it was never awaited
        raise Unwind


def refuse_task(coro: Any, **options: Any) -> NoReturn:
    if asyncio.iscoroutine(coro):
        coro.close()
    raise Unwind


DEAD_LOOP = DeadLoop()  # type: ignore[abstract]  # it has no method at all


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


def _settle(task: WorkflowTask) -> None:
    """End a task whose coroutine is closed, and what it waited for.

    Else they, and the group it may be in, hold each other by their callbacks until the garbage collector comes;
    and asyncio logs a task that was never done.
    """
    as_future: Any = asyncio.Future
    as_future.cancel(task)  # the task's own cancel would ask the coroutine
    if (waiter := task._fut_waiter) is not None:
        waiter.cancel()


def _close_generator(generator: AsyncGenerator[Any, Any]) -> None:
    """Throw ``GeneratorExit`` into an async generator; one that awaits in its clean-up is left there."""
    try:
        generator.aclose().send(None)
    except BaseException:  # noqa: BLE001 - StopIteration when it is closed, else whatever its clean-up raises
        return
