"""The client for code without an event loop: Django, Flask, scripts, threads.

The rule: one implementation. A ``SyncClient`` has an event loop in a thread of its own, and every verb runs the
``Client``'s there and waits. Called inside a running event loop it works, and blocks that loop meanwhile.
"""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import contextlib
import logging
import os
import threading
from collections.abc import Coroutine, Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Never, TypeVar, overload

from continuum._caller import within
from continuum._core.loop import running_workflow
from continuum.client import OPTIONS, REFUSED_IN_WORKFLOWS, Client, connect
from continuum.descriptions import AnnouncedDefinition, Event, RunDescription
from continuum.errors import DatabaseUnreachable, WorkflowMisuse
from continuum.policies import Duration, refuse_unknown
from continuum.runs import RunHandle, grace_s_of
from continuum.updates import Update
from continuum.workflow import Workflow

__all__ = ["SyncClient", "SyncRunHandle", "connect_sync"]

I = TypeVar("I")  # noqa: E741 - input, as R is result
R = TypeVar("R")
T = TypeVar("T")
logger = logging.getLogger("continuum")
SLICE_S = 1.0  # of waiting: where a wait for a lock cannot be interrupted, Ctrl-C is heard between two of them


def connect_sync(
    url: str | None = None,
    *,
    schema: str | None = None,
    migrate: bool | None = None,
    home: str | Path | None = None,
    listen_url: str | None = None,
    **unknown: Never,
) -> SyncClient:
    """Connect now and return a client for sync code; options and errors as in ``connect``.

    Use it in a ``with``, or keep it for as long as the process lives: it is closed by ``close()``, else at the
    interpreter's exit. Any number of threads may share it. Connect after a fork, not before. Inside a running
    event loop it works, and blocks that loop: use ``connect`` there.

    >>> with connect_sync() as client:  # doctest: +SKIP
    ...     receipt = client.start(order_flow, order).result(timeout=30)
    """
    refuse_unknown("connect_sync()", unknown, OPTIONS)
    return SyncClient(connect(url, schema=schema, migrate=migrate, home=home, listen_url=listen_url))


class _Loop:
    """An event loop in a thread, with a client open in it."""

    def __init__(self, opening: AbstractAsyncContextManager[Client]) -> None:
        self._opening = opening
        self._pid = os.getpid()
        self._opened: concurrent.futures.Future[Client] = concurrent.futures.Future()
        self._running: concurrent.futures.Future[asyncio.AbstractEventLoop] = concurrent.futures.Future()
        self._main: asyncio.Task[Any] | None = None
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="continuum-client", daemon=True)
        self._thread.start()
        self._loop = self._running.result()
        try:
            self.client = self._wait(self._opened)
        except BaseException:
            self.close()
            raise
        atexit.register(self.close)

    def do(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run ``coroutine`` in the loop and return what it returns; it is cancelled if the wait is interrupted."""
        try:
            self._refuse()
            future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        except BaseException:
            coroutine.close()
            raise
        try:
            return self._wait(future)
        except (concurrent.futures.CancelledError, DatabaseUnreachable) as error:
            if isinstance(error, DatabaseUnreachable) and not self._closed:
                raise
            raise RuntimeError("this client was closed by another thread meanwhile") from None
        except BaseException:
            future.cancel()
            raise

    def close(self) -> None:
        """Close the client and wait for its thread. Does nothing a second time, or in a process forked off."""
        if os.getpid() != self._pid or self._closed:
            return
        self._closed = True
        atexit.unregister(self.close)
        with contextlib.suppress(RuntimeError):  # its loop may be closed by now
            if self._main is not None:
                self._loop.call_soon_threadsafe(self._main.cancel)
        while self._thread.is_alive():
            self._thread.join(SLICE_S)

    def _refuse(self) -> None:
        if running_workflow() is not None:
            raise WorkflowMisuse(REFUSED_IN_WORKFLOWS)
        if os.getpid() != self._pid:
            raise RuntimeError(
                "this client was connected before the process forked: connect_sync() after the fork"
            )
        if self._closed or not self._thread.is_alive():
            raise RuntimeError("this client is closed: connect_sync() gives another one")
        if threading.current_thread() is self._thread:
            raise RuntimeError("a validator or serializer must not use the client that is calling it")

    def _wait(self, future: concurrent.futures.Future[T]) -> T:
        while True:
            try:
                return future.result(SLICE_S)
            except TimeoutError:
                if future.done():
                    return future.result()
                if not self._thread.is_alive():
                    raise concurrent.futures.CancelledError from None

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except asyncio.CancelledError:
            pass  # closed
        except BaseException as error:
            if self._opened.done():
                logger.error("the client's event loop has ended", exc_info=error)
                return
            if not self._running.done():
                self._running.set_exception(error)
            self._opened.set_exception(error)

    async def _serve(self) -> None:
        self._main = asyncio.current_task()
        self._running.set_result(asyncio.get_running_loop())
        async with self._opening as client:
            self._opened.set_result(client)
            await asyncio.get_running_loop().create_future()  # until closed


class SyncRunHandle(Generic[R]):
    """One run, by its id: what ``RunHandle`` is, for sync code."""

    __slots__ = ("_loop", "_run")

    def __init__(self, run: RunHandle[R], loop: _Loop) -> None:
        self._run = run
        self._loop = loop

    @property
    def id(self) -> str:
        """The run's id."""
        return self._run.id

    def result(self, timeout: Duration | None = None) -> R:
        """Wait until the run has ended and return its result; see ``RunHandle.result``."""
        __tracebackhide__ = True
        return self._loop.do(self._run.result(timeout))

    def describe(self) -> RunDescription:
        """Return the run as it stands; see ``RunHandle.describe``."""
        return self._loop.do(self._run.describe())

    def history(self, generation: int | None = None) -> list[Event]:
        """Return the run's journal; see ``RunHandle.history``."""
        return self._loop.do(self._run.history(generation))

    def signal(
        self,
        name: str,
        payload: Any = None,
        *,
        delivery_id: str | None = None,
        connection: object | None = None,
    ) -> None:
        """Send the run a signal; see ``RunHandle.signal`` and, for ``connection``, ``SyncClient.start``."""
        if connection is not None:
            within(connection, self._loop.do(self._run._sending(name, payload, delivery_id)))
        else:
            self._loop.do(self._run.signal(name, payload, delivery_id=delivery_id))

    @overload
    def update(
        self, update: Update[I, T], value: I, *, id: str | None = None, timeout: Duration | None = None
    ) -> T: ...
    @overload
    def update(
        self, update: str, value: Any = None, *, id: str | None = None, timeout: Duration | None = None
    ) -> Any: ...
    def update(self, update: Any, value: Any = None, **options: Any) -> Any:
        """Ask the run for an update and return its answer; see ``RunHandle.update``."""
        return self._loop.do(self._run.update(update, value, **options))

    def cancel(
        self,
        reason: str = "cancelled by request",
        *,
        grace: Duration | None = None,
        connection: object | None = None,
    ) -> None:
        """Cancel the run and every run below it; see ``RunHandle.cancel``."""
        if connection is not None:
            within(connection, self._loop.do(self._run._cancelling(reason, grace_s_of(reason, grace))))
        else:
            self._loop.do(self._run.cancel(reason, grace=grace))

    def resume(self) -> None:
        """Let a parked run be tried again; see ``RunHandle.resume``."""
        self._loop.do(self._run.resume())

    def prune_generations(self, keep: int = 1) -> int:
        """Delete the journals of all generations but the newest; see ``RunHandle.prune_generations``."""
        return self._loop.do(self._run.prune_generations(keep))

    def __repr__(self) -> str:
        return repr(self._run)


class SyncClient:
    """What ``Client`` is, for sync code. ``connect_sync()`` makes one; threads may share it."""

    def __init__(self, opening: AbstractAsyncContextManager[Client]) -> None:
        self._loop = _Loop(opening)

    def close(self) -> None:
        """Close the client; waits that go on in other threads end with an error."""
        self._loop.close()

    def __enter__(self) -> SyncClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @overload
    def start(
        self,
        flow: Workflow[None, R],
        input: None = None,
        *,
        id: str | None = None,
        namespace: str | None = None,
        priority: int = 0,
        attributes: Mapping[str, Any] | None = None,
        traceparent: str | None = None,
        connection: object | None = None,
    ) -> SyncRunHandle[R]: ...
    @overload
    def start(
        self,
        flow: Workflow[I, R],
        input: I,
        *,
        id: str | None = None,
        namespace: str | None = None,
        priority: int = 0,
        attributes: Mapping[str, Any] | None = None,
        traceparent: str | None = None,
        connection: object | None = None,
    ) -> SyncRunHandle[R]: ...
    @overload
    def start(
        self,
        flow: str,
        input: Any = None,
        *,
        id: str | None = None,
        namespace: str | None = None,
        priority: int = 0,
        attributes: Mapping[str, Any] | None = None,
        traceparent: str | None = None,
        connection: object | None = None,
    ) -> SyncRunHandle[Any]: ...
    def start(
        self,
        flow: Any,
        input: Any = None,  # noqa: A002 - as in Client
        *,
        connection: object | None = None,
        **options: Any,
    ) -> SyncRunHandle[Any]:
        """Start a run of a workflow, given as its definition or by name; see ``Client.start``.

        With a ``connection`` of the caller's (psycopg's ``Connection``, SQLAlchemy's ``Connection`` or
        ``Session``, Django's ``connection``) it is part of the transaction there, and done in the calling thread.
        """
        if connection is None:
            return SyncRunHandle(self._loop.do(self._client.start(flow, input, **options)), self._loop)
        asked, steps = self._loop.do(self._client._starting(flow, input, **options))
        run = asked.handle(self._client._journal, within(connection, steps))
        return SyncRunHandle(run, self._loop)

    @overload
    def get_run(self, run_id: str) -> SyncRunHandle[Any]: ...
    @overload
    def get_run(self, run_id: str, flow: Workflow[Any, R]) -> SyncRunHandle[R]: ...
    def get_run(self, run_id: str, flow: Any = None) -> SyncRunHandle[Any]:
        """Return a handle on a run without looking whether there is one; see ``Client.get_run``."""
        return SyncRunHandle(self._client.get_run(run_id, flow), self._loop)

    def list_runs(
        self,
        *,
        workflow: str | None = None,
        state: str | None = None,
        namespace: str | None = None,
        limit: int = 100,
        before: RunDescription | None = None,
    ) -> list[RunDescription]:
        """Return root runs, newest first; see ``Client.list_runs``."""
        found = self._client.list_runs(
            workflow=workflow, state=state, namespace=namespace, limit=limit, before=before
        )
        return self._loop.do(found)

    def list_children(self, run_id: str, *, limit: int = 1_000, after: str = "") -> list[RunDescription]:
        """Return the children of a run in the order of ids; see ``Client.list_children``."""
        return self._loop.do(self._client.list_children(run_id, limit=limit, after=after))

    def tree(
        self, run_id: str, *, levels: int | None = None, limit: int = 10_000, values: bool = True
    ) -> list[RunDescription]:
        """Return a run and then the runs below it; see ``Client.tree``."""
        return self._loop.do(self._client.tree(run_id, levels=levels, limit=limit, values=values))

    def signal(
        self,
        run_id: str,
        name: str,
        payload: Any = None,
        *,
        delivery_id: str | None = None,
        connection: object | None = None,
    ) -> None:
        """Send a run a signal; see ``SyncRunHandle.signal``."""
        self.get_run(run_id).signal(name, payload, delivery_id=delivery_id, connection=connection)

    @overload
    def update(
        self,
        run_id: str,
        update: Update[I, T],
        value: I,
        *,
        id: str | None = None,
        timeout: Duration | None = None,
    ) -> T: ...
    @overload
    def update(
        self,
        run_id: str,
        update: str,
        value: Any = None,
        *,
        id: str | None = None,
        timeout: Duration | None = None,
    ) -> Any: ...
    def update(self, run_id: str, update: Any, value: Any = None, **options: Any) -> Any:
        """Ask a run for an update and return its answer; see ``RunHandle.update``."""
        return self._loop.do(self._client.update(run_id, update, value, **options))

    def cancel(
        self,
        run_id: str,
        reason: str = "cancelled by request",
        *,
        grace: Duration | None = None,
        connection: object | None = None,
    ) -> None:
        """Cancel a run and every run below it; see ``RunHandle.cancel``."""
        self.get_run(run_id).cancel(reason, grace=grace, connection=connection)

    def prune(self, *, older_than: Duration, limit: int = 100) -> int:
        """Delete trees that ended longer ago; see ``Client.prune``."""
        return self._loop.do(self._client.prune(older_than=older_than, limit=limit))

    def definitions(self) -> list[AnnouncedDefinition]:
        """Return every definition that a worker has announced; see ``Client.definitions``."""
        return self._loop.do(self._client.definitions())

    @property
    def _client(self) -> Client:
        return self._loop.client
