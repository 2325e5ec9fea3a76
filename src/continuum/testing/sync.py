"""The environment for tests without an event loop.

The rule: one implementation. It has a loop of its own in the test's thread, which runs only while a verb waits;
what a test plans for a time runs in a thread, so that it may use the same verbs.
"""

from __future__ import annotations

import asyncio
import functools
import os
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from datetime import datetime, timedelta
from types import ModuleType, TracebackType
from typing import Any, ParamSpec, TypeVar, cast, overload

import continuum
from continuum.activity import Activity
from continuum.client import Client
from continuum.definitions import Definition
from continuum.errors import ContinuumError
from continuum.policies import Duration
from continuum.sync import SyncClient, SyncRunHandle
from continuum.testing.environment import WorkflowEnvironment
from continuum.testing.replacing import Call
from continuum.testing.replaying import History, save_history
from continuum.workflow import Workflow

__all__ = ["SyncWorkflowEnvironment"]

I = TypeVar("I")  # noqa: E741 - input, as R is result
R = TypeVar("R")
T = TypeVar("T")
P = ParamSpec("P")


class SyncWorkflowEnvironment:
    """What ``WorkflowEnvironment`` is, for a plain ``with``; its runs are ``SyncRunHandle``.

    >>> with SyncWorkflowEnvironment([flows]) as env:  # doctest: +SKIP
    ...     assert env.start(approval_flow, request).result() == "denied"
    """

    def __init__(
        self,
        sources: Iterable[ModuleType | Definition],
        *,
        now: datetime | None = None,
        replay_every_step: bool = False,
        seed: int = 0,
        stuck_after: Duration | None = 60,
        max_jumps: int = 100_000,
        **settings: Any,
    ) -> None:
        self._env = WorkflowEnvironment(
            sources,
            now=now,
            replay_every_step=replay_every_step,
            seed=seed,
            stuck_after=stuck_after,
            max_jumps=max_jumps,
            **settings,
        )
        self._runner = asyncio.Runner()
        self._thread = threading.get_ident()

    def __enter__(self) -> SyncWorkflowEnvironment:
        try:
            self.do(self._env.__aenter__())
        except BaseException:
            self._runner.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self.do(self._env.__aexit__(kind, error, traceback))
        finally:
            self._runner.close()

    def do(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the environment's loop, also from another thread, and return what it returns."""
        __tracebackhide__ = True
        if asyncio._get_running_loop() is not None:
            coroutine.close()
            raise RuntimeError(
                "a sync environment waits, and an event loop runs here: use WorkflowEnvironment in async code, "
                "and plan what is to happen with at() or after()"
            )
        loop = self._runner.get_loop()
        if threading.get_ident() != self._thread:
            return asyncio.run_coroutine_threadsafe(coroutine, loop).result()
        try:
            return self._runner.run(coroutine)
        except ContinuumError as error:
            raise error.with_traceback(_of_test(error.__traceback__)) from error.__cause__

    # --- runs

    @property
    def client(self) -> SyncClient:
        """A client of the environment, for what has no shortcut here."""
        made = SyncClient.__new__(SyncClient)
        made._loop = cast("Any", _Loop(self))
        return made

    @overload
    def start(self, flow: Workflow[None, R], input: None = None, *, id: str | None = None) -> SyncRunHandle[R]: ...
    @overload
    def start(self, flow: Workflow[I, R], input: I, *, id: str | None = None) -> SyncRunHandle[R]: ...
    def start(self, flow: Any, input: Any = None, *, id: str | None = None) -> SyncRunHandle[Any]:  # noqa: A002
        """Start a run; see ``WorkflowEnvironment.start``."""
        return SyncRunHandle(self.do(self._env.start(flow, input, id=id)), cast("Any", self))

    @overload
    def get_run(self, run_id: str) -> SyncRunHandle[Any]: ...
    @overload
    def get_run(self, run_id: str, flow: Workflow[Any, R]) -> SyncRunHandle[R]: ...
    def get_run(self, run_id: str, flow: Any = None) -> SyncRunHandle[Any]:
        """Return a handle on a run without looking whether there is one; see ``Client.get_run``."""

        async def get() -> Any:
            return self._env.client.get_run(run_id, flow)

        return SyncRunHandle(self.do(get()), cast("Any", self))

    def until_waiting(self, run: SyncRunHandle[Any]) -> str:
        """Return what a run waits for; see ``WorkflowEnvironment.until_waiting``."""
        return self.do(self._env.until_waiting(run._run))

    def restart(self, sources: Iterable[ModuleType | Definition] | None = None) -> None:
        """Let the worker crash and another one begin; see ``WorkflowEnvironment.restart``."""
        self.do(self._env.restart(sources))

    def save_history(self, run: SyncRunHandle[Any], path: Any) -> History:
        """Write a run's history to a file; see ``save_history``."""
        return self.do(save_history(run._run, path))

    # --- what stands in

    @overload
    def replace(self, definition: Activity[P, R], by: Callable[P, R | Awaitable[R]]) -> None: ...
    @overload
    def replace(self, definition: Workflow[None, R], by: Callable[[], R | Awaitable[R]]) -> None: ...
    @overload
    def replace(self, definition: Workflow[I, R], by: Callable[[I], R | Awaitable[R]]) -> None: ...
    def replace(self, definition: Any, by: Callable[..., Any]) -> None:
        """Let ``by`` be called instead; see ``WorkflowEnvironment.replace``."""
        self._env.replace(definition, by)

    @overload
    def calls(self, definition: Activity[..., R]) -> list[Call[R]]: ...
    @overload
    def calls(self, definition: Workflow[Any, R]) -> list[Call[R]]: ...
    def calls(self, definition: Any) -> list[Call[Any]]:
        """Return the calls of an activity or a replaced workflow; see ``WorkflowEnvironment.calls``."""
        return self._env.calls(definition)

    # --- time

    @property
    def started(self) -> datetime:
        """When the environment began, in its own time."""
        return self._env.started

    @property
    def now(self) -> datetime:
        """The environment's time."""
        return self._env.now

    def at(self, when: timedelta | datetime, action: Callable[[], object]) -> None:
        """Plan ``action`` for a time, in a thread of its own; see ``WorkflowEnvironment.at``."""
        self._env.at(when, _in_thread(action))

    def after(self, delay: Duration, action: Callable[[], object]) -> None:
        """Plan ``action`` for so long after now; see ``at``."""
        self._env.after(delay, _in_thread(action))

    def sleep(self, delay: Duration) -> None:
        """Let time pass; see ``WorkflowEnvironment.sleep``."""
        self.do(self._env.sleep(delay))


class _Loop:
    """What a ``SyncClient`` runs on: the environment, which closes it."""

    def __init__(self, env: SyncWorkflowEnvironment) -> None:
        self._env = env
        self.do = env.do

    @property
    def client(self) -> Client:
        async def get() -> Client:
            return self._env._env.client

        return self.do(get())

    def close(self) -> None:
        """Do nothing: the block of the environment ends it."""


def _in_thread(action: Callable[[], object]) -> Callable[[], object]:
    return functools.wraps(action)(lambda: asyncio.to_thread(action))


def _of_test(traceback: TracebackType | None) -> TracebackType | None:
    """Leave out what a traceback begins with and is not the test's: asyncio's frames, which pytest would show."""
    while traceback is not None and traceback.tb_frame.f_code.co_filename.startswith(_NOT_OF_TESTS):
        traceback = traceback.tb_next
    return traceback


_NOT_OF_TESTS = (os.path.dirname(asyncio.__file__) + os.sep, os.path.dirname(continuum.__file__) + os.sep)
