"""The worker: it runs workflows and in-place activities in this process.

The rule: it is given what it may run, and nothing else; it holds runs by leases that its own heartbeat prolongs.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from inspect import iscoroutinefunction
from types import ModuleType, TracebackType
from typing import TYPE_CHECKING, Any, cast

from continuum._engine.engine import Engine
from continuum._engine.health import Health
from continuum._engine.hooks import EngineHooks, Told
from continuum._engine.settings import WorkerSettings
from continuum._journal.protocol import Journal
from continuum.client import Client
from continuum.definitions import Definition, Definitions
from continuum.errors import WorkflowMisuse

__all__ = ["Worker"]

if TYPE_CHECKING:
    from typing_extensions import TypedDict, Unpack

    from continuum.policies import Duration, Retry

    class WorkerChanges(TypedDict, total=False):
        """A worker's settings; see ``WorkerSettings``."""

        lease: Duration
        heartbeat: Duration
        poll: Duration
        claim_batch: int
        cache: int
        passivate_after: Duration
        max_activities: int
        threads: int
        max_child_depth: int
        drain: Duration
        blocked_after: Duration
        retry: Retry | None
        start_to_close: Duration | None


class Worker:
    """Runs the workflows and activities of ``sources``, modules or definitions, until the block ends.

    Settings are keywords or ``CONTINUUM_*`` variables, see ``WorkerSettings``; an unknown one raises
    ``TypeError``. With ``port`` it answers ``GET /healthz`` and ``/readyz`` on ``host``. ``listeners`` are called
    with the name and the fields of what happens (``continuum.run.*``, ``continuum.child.*``), after the commit
    that made it so.

    >>> async with continuum.connect() as client:              # doctest: +SKIP
    ...     async with continuum.Worker(client, [flows]):
    ...         run = await client.start(flows.batch_flow, batch, id="batch-7")
    ...         print(await run.result())

    At the end of the block it drains: it claims nothing more, gives running activities up to ``drain`` seconds,
    and hands everything over. An error of the engine itself cancels the block and is raised from it.
    """

    def __init__(
        self,
        client: Client,
        sources: Iterable[ModuleType | Definition],
        *,
        port: int | None = None,
        host: str = "127.0.0.1",
        listeners: Sequence[Callable[[str, Mapping[str, Any]], None]] = (),
        hooks: EngineHooks | None = None,
        **settings: Unpack[WorkerChanges],
    ) -> None:
        _check(client, sources)
        told = _checked_listeners(listeners)
        self.definitions = Definitions(sources)
        self.settings = WorkerSettings.resolve(settings, os.environ)
        hooks = hooks or EngineHooks()
        self._hooks = EngineHooks(hooks.journal, hooks.points, (*hooks.listeners, *told))
        self._client = client
        self._address = None if port is None else (host, port)
        self._engine: Engine | None = None
        self._ended: asyncio.Event | None = None
        self._serving: AbstractAsyncContextManager[None] | None = None

    def __repr__(self) -> str:
        return f"<worker {self.id or 'not registered'}>"

    @property
    def id(self) -> str:
        """This worker's id; '' before it has registered. It changes if the worker was declared dead."""
        return self._engine.worker_id if self._engine is not None else ""

    @property
    def ready(self) -> bool:
        """Whether it has registered and claims runs."""
        return self._engine is not None and self._engine.ready

    @property
    def alive(self) -> bool:
        """Whether a heartbeat got through within the lease time."""
        return self._engine is not None and self._engine.alive

    def status(self) -> dict[str, Any]:
        """Return a few figures: the worker's id, runs in memory, activities that were asked for."""
        engine = self._engine
        return {
            "worker": self.id,
            "ready": self.ready,
            "runs": 0 if engine is None else len(engine.residents),
            "activities": 0 if engine is None else engine.activities.count,
        }

    async def stop(self) -> None:
        """Drain, and return when it has ended. May be asked again, and by several."""
        if self._engine is not None and self._ended is not None:
            self._engine.drain()
            await self._ended.wait()

    async def run(self) -> None:
        """Serve until ``stop()``, or until cancelled: then it drains first."""
        async with self:
            assert self._ended is not None
            await self._ended.wait()

    async def __aenter__(self) -> Worker:
        if self._serving is not None:
            raise WorkflowMisuse("this Worker was used before: make another one")
        self._serving = self._serve()
        await self._serving.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        assert self._serving is not None
        return await self._serving.__aexit__(kind, error, traceback)

    @asynccontextmanager
    async def _serve(self) -> AsyncGenerator[None, None]:
        self.definitions.prepare()
        self._ended = asyncio.Event()
        health = await self._health()
        try:
            async with (
                self._client.open_journal(hooks=self._hooks.journal) as journal,
                self._working(journal, health),
            ):
                yield
        finally:
            self._ended.set()
            if health is not None:
                health.close()

    @asynccontextmanager
    async def _working(self, journal: Journal, health: Health | None) -> AsyncGenerator[None, None]:
        """Run the engine for the block, which ends by draining it."""
        engine = self._engine = Engine(journal, self.definitions, self.settings, hooks=self._hooks)
        raised: Exception | None = None
        try:
            async with asyncio.TaskGroup() as tasks:
                answering = None if health is None else tasks.create_task(health.run())
                running = tasks.create_task(self._run(engine))
                try:
                    await engine.registered.wait()
                    yield
                except Exception as error:  # noqa: BLE001 - raised below as it is, not in a group
                    raised = error
                finally:
                    engine.drain()
                    await asyncio.wait([running])
                    if answering is not None:
                        answering.cancel()
        except ExceptionGroup as group:
            raise _only(group) from None
        if raised is not None:
            raise raised

    async def _run(self, engine: Engine) -> None:
        try:
            await engine.run()
        finally:
            engine.registered.set()
            assert self._ended is not None
            self._ended.set()

    async def _health(self) -> Health | None:
        """Take the port before anything else happens, if there is to be one. Raises ``InvalidSetting``."""
        if self._address is None:
            return None
        host, port = self._address
        health = Health(host, port, alive=lambda: self.alive, ready=lambda: self.ready, status=self.status)
        await health.bind()
        return health


def _check(client: object, sources: object) -> None:
    """Raise ``TypeError`` or ``ValueError`` for what a worker cannot be made of."""
    if not isinstance(client, Client):
        raise TypeError(
            f"Worker(client, sources): the client is what `async with connect()` gives: got {client!r}"
        )
    if isinstance(sources, (str, bytes, ModuleType)) or not isinstance(sources, Iterable):
        raise TypeError(
            f"Worker(client, sources): sources is a list of modules or definitions, as [flows]: got {sources!r}"
        )
    if isinstance(sources, (list, tuple, set, frozenset)) and not sources:
        raise ValueError("Worker(client, sources): there is nothing to run; give it modules or definitions")


def _checked_listeners(listeners: Any) -> tuple[Told, ...]:
    """Return the listeners. Raises ``TypeError`` for one that cannot be called: later only the log would tell."""
    if isinstance(listeners, (str, bytes)) or not isinstance(listeners, Iterable):
        raise TypeError(f"listeners is a list of functions, as [told]: got {listeners!r}")
    told: tuple[Any, ...] = tuple(cast("Iterable[Any]", listeners))
    for listener in told:
        if not callable(listener):
            raise TypeError(f"a listener is a function of a name and its fields: got {listener!r}")
        if iscoroutinefunction(listener) or iscoroutinefunction(type(listener).__call__):
            raise TypeError(f"a listener is a plain function, it is not awaited: got {listener!r}")
    return told


def _only(group: BaseExceptionGroup[Exception]) -> BaseException:
    """Return the one error of a group, or the group."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error
