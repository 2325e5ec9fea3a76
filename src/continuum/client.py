"""The client: start runs, find them, and reach them from applications.

The rule: whatever is refused is refused before anything is written, and what a verb has written is durable when it
returns. A client belongs to one event loop; ``connect_sync`` is for code without one.
"""

from __future__ import annotations

import asyncio
import difflib
from collections.abc import AsyncGenerator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Never, TypeVar, cast, overload

from continuum._asked import Asked, checked_attributes, checked_priority, definition_of, expect_flow, new_run_id
from continuum._caller import within_async
from continuum._core.codec import ANY, Codec
from continuum._core.keys import MAX_RUN_ID_BYTES, check_root_id, check_text
from continuum._core.loop import running_workflow
from continuum._database import Database
from continuum._journal.commit import NewRoot
from continuum._tracing import checked_traceparent, current_traceparent
from continuum.children import MAX_NAME_BYTES
from continuum.descriptions import AnnouncedDefinition, RunDescription, announced, place
from continuum.errors import (
    DatabaseUnreachable,
    InvalidSetting,
    UnknownWorkflow,
    WorkflowMisuse,
)
from continuum.policies import Duration, duration, expect, refuse_unknown
from continuum.runs import RunHandle, described_all, existing
from continuum.updates import Update
from continuum.workflow import Workflow

if TYPE_CHECKING:
    from continuum._journal.cascade import Steps
    from continuum._journal.hooks import Hooks
    from continuum._journal.protocol import Journal

__all__ = ["Client", "connect"]

I = TypeVar("I")  # noqa: E741 - input, as R is result
R = TypeVar("R")
T = TypeVar("T")
OPTIONS = ("url", "schema", "migrate", "home", "listen_url")
START_OPTIONS = ("id", "namespace", "priority", "attributes", "traceparent", "connection")
STATES = ("pending", "running", "suspended", "completed", "failed", "cancelled", "parked")
PAGE = 1_000
REFUSED_IN_WORKFLOWS = (
    "a workflow must not use a client: child() and start_child() start runs, and an activity may use a client"
)


def connect(
    url: str | None = None,
    *,
    schema: str | None = None,
    migrate: bool | None = None,
    home: str | Path | None = None,
    listen_url: str | None = None,
    **unknown: Never,
) -> AbstractAsyncContextManager[Client]:
    """Connect to the journal for the block of an ``async with``, which gets a ``Client``.

    ``url`` is a libpq url or conninfo; else CONTINUUM_DATABASE_URL; else the embedded server in ``home``, in
    CONTINUUM_HOME or in ``./.continuum``, held for the block. A ``home`` that is given asks for the embedded
    server. ``schema`` (CONTINUUM_SCHEMA, else ``continuum``) names the schema; it is brought up to date, or only
    checked if ``migrate`` (CONTINUUM_MIGRATE) is false. ``listen_url`` (CONTINUUM_LISTEN_URL) leads to Postgres
    directly where ``url`` leads through a pooler.

    Raises ``TypeError`` for an option it does not have; on entering ``InvalidSetting``, ``DatabaseUnreachable``,
    ``SchemaMismatch``, and ``EmbeddedError`` if the embedded server cannot be had.

    >>> async with connect() as client:  # doctest: +SKIP
    ...     run = await client.start(order_flow, order)
    """
    refuse_unknown("connect()", unknown, OPTIONS)
    return _connected(Database.choose(url, home=home, schema=schema, listen_url=listen_url, migrate=migrate))


@asynccontextmanager
async def _connected(database: Database) -> AsyncGenerator[Client, None]:
    from continuum._journal.journal import PostgresJournal  # brings the driver, which importing continuum must not

    async with database.reached() as url:
        journal = PostgresJournal(url, schema=database.schema, listen_url=database.listen_url)
        async with journal.open(migrating=database.migrate):
            client = Client(journal)
            try:
                yield client
            finally:
                client._closed = True


class Client:
    """What applications hold: starts runs and gives handles on them. ``connect()`` makes one.

    It may be used by any number of tasks of the event loop that it was made in.
    """

    def __init__(self, journal: Journal) -> None:
        self._opened = journal
        self._loop = asyncio.get_running_loop()
        self._closed = False

    @overload
    async def start(
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
    ) -> RunHandle[R]: ...
    @overload
    async def start(
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
    ) -> RunHandle[R]: ...
    @overload
    async def start(
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
    ) -> RunHandle[Any]: ...
    async def start(
        self,
        flow: Any,
        input: Any = None,  # noqa: A002 - the word of the interface
        *,
        connection: object | None = None,
        **options: Any,
    ) -> RunHandle[Any]:
        """Start a run of a workflow, given as its definition or by name; the run is durable on return.

        ``id`` names it (else it gets a UUIDv7): starting the same workflow with the same input under the same id
        once more gives a handle on the run that is there, ended or not. By name, the highest version that a worker
        has announced is taken, and ``input`` is plain JSON that is not checked before the run begins. Runs of
        higher ``priority`` (0 to 1000) are taken up first. ``namespace`` is a label to list runs by,
        ``attributes`` are plain JSON by name, and ``traceparent`` is W3C's (else that of OpenTelemetry's current
        span, if the application uses that): all below the run inherit them, and ``run_info()`` tells them.

        With a ``connection`` of the caller's (psycopg's ``AsyncConnection``, SQLAlchemy's ``AsyncConnection`` or
        ``AsyncSession``) the start is part of the transaction there: durable when that commits, undone when
        that is rolled back. A savepoint keeps the transaction usable whatever is raised here.

        Raises ``EncodeError`` for an input that does not fit, ``InvalidId``, ``RunAlreadyExists``,
        ``UnknownWorkflow``, ``DatabaseBusy`` if an open transaction is starting a run of this id, and
        ``InvalidSetting`` for a connection that cannot be used.
        """
        asked = await self._ask(flow, input, **options)
        if connection is not None:
            outside = await self._journal().outside()
            return asked.handle(self._journal, await within_async(connection, outside.start(asked.root)))
        return asked.handle(self._journal, await self._start(asked.root))

    async def _ask(
        self,
        flow: Any,
        input: Any = None,  # noqa: A002 - the word of the interface
        *,
        id: str | None = None,  # noqa: A002 - the word of the interface
        namespace: str | None = None,
        priority: int = 0,
        attributes: Mapping[str, Any] | None = None,
        traceparent: str | None = None,
        **unknown: Any,
    ) -> Asked:
        """Return what a start asks for, checked."""
        refuse_unknown("start()", unknown, START_OPTIONS)
        self._journal()
        known, name, version = definition_of(flow)
        codec: Codec[Any] = ANY if known is None else known.input
        given = codec.encode(input)
        run_id = new_run_id() if id is None else check_root_id(id)
        label = "default" if namespace is None else check_text("namespace", namespace, MAX_NAME_BYTES)
        if version is None:
            version = await self._newest(name)
        told = checked_attributes(attributes)
        trace = current_traceparent() if traceparent is None else checked_traceparent(traceparent)
        root = NewRoot(run_id, name, version, given, label, told, trace, checked_priority(priority))
        return Asked(root, known, codec)

    async def _start(self, root: NewRoot) -> tuple[str, bytes] | None:
        """Start a run, or return workflow and input of the one that is there."""
        journal = self._journal()
        try:
            if await journal.start([root]):
                return None
        except DatabaseUnreachable as error:
            error.add_note(f"run {root.run_id!r} may have been started; starting it again under this id is safe")
            raise
        row = await existing(journal, root.run_id)
        return row.workflow, row.input

    async def _starting(
        self,
        flow: Any,
        input: Any = None,  # noqa: A002 - the word of the interface
        **options: Any,
    ) -> tuple[Asked, Steps[tuple[str, bytes] | None]]:
        """Return what a start in a caller's transaction asks for, and its steps."""
        asked = await self._ask(flow, input, **options)
        return asked, (await self._journal().outside()).start(asked.root)

    @overload
    def get_run(self, run_id: str) -> RunHandle[Any]: ...
    @overload
    def get_run(self, run_id: str, flow: Workflow[Any, R]) -> RunHandle[R]: ...
    def get_run(self, run_id: str, flow: Any = None) -> RunHandle[Any]:
        """Return a handle on a run, root or child, without looking whether there is one.

        With ``flow`` its result is decoded as that workflow's. Raises ``InvalidId`` for what cannot be an id.
        """
        return RunHandle(run_id, self._journal, None if flow is None else expect_flow("get_run", flow))

    async def list_runs(
        self,
        *,
        workflow: str | None = None,
        state: str | None = None,
        namespace: str | None = None,
        limit: int = 100,
        before: RunDescription | None = None,
    ) -> list[RunDescription]:
        """Return root runs, newest first; ``before`` is the last one of the page before."""
        if state is not None and state not in STATES:
            near = difflib.get_close_matches(str(state), STATES, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"states are: {', '.join(STATES)}"
            raise InvalidSetting(f"no run has the state {state!r}; {hint}")
        journal = self._journal()
        rows = await journal.views.roots(
            workflow=workflow,
            namespace=namespace,
            state=state,
            limit=_checked_limit(limit),
            before=None if before is None else place(before),
        )
        return await described_all(journal, rows)

    async def list_children(self, run_id: str, *, limit: int = 1_000, after: str = "") -> list[RunDescription]:
        """Return the children of a run in the order of ids, behind the id ``after``. Raises ``RunNotFound``."""
        journal = self._journal()
        found = self.get_run(run_id).id
        if after != "":
            check_text("after", after, MAX_RUN_ID_BYTES)
        rows = await journal.views.below(found, levels=1, after=after, limit=_checked_limit(limit))
        if not rows:
            await existing(journal, found)
        return await described_all(journal, rows)

    async def tree(
        self, run_id: str, *, levels: int | None = None, limit: int = 10_000, values: bool = True
    ) -> list[RunDescription]:
        """Return a run and then the runs below it in the order of ids, ``levels`` deep, ``limit`` at most.

        The order puts a run's descendants directly behind it. Without ``values`` those are described quickly:
        input, result, attributes and published state are left out. Raises ``RunNotFound``.
        """
        journal = self._journal()
        left = _checked_limit(limit) - 1
        if levels is not None:
            _checked_limit(levels, "levels")
        rows = [await existing(journal, self.get_run(run_id).id)]
        read = journal.views.below if values else journal.views.outline
        while left > 0:
            page = await read(run_id, levels=levels, after=rows[-1].run_id, limit=min(left, PAGE))
            rows += page
            left = left - len(page) if len(page) == PAGE else 0
        return await described_all(journal, rows)

    async def signal(
        self,
        run_id: str,
        name: str,
        payload: Any = None,
        *,
        delivery_id: str | None = None,
        connection: object | None = None,
    ) -> None:
        """Send a run a signal; see ``RunHandle.signal``. ``get_run(run_id, flow)`` checks the payload, too."""
        await self.get_run(run_id).signal(name, payload, delivery_id=delivery_id, connection=connection)

    @overload
    async def update(
        self,
        run_id: str,
        update: Update[I, T],
        value: I,
        *,
        id: str | None = None,
        timeout: Duration | None = None,
    ) -> T: ...
    @overload
    async def update(
        self,
        run_id: str,
        update: str,
        value: Any = None,
        *,
        id: str | None = None,
        timeout: Duration | None = None,
    ) -> Any: ...
    async def update(self, run_id: str, update: Any, value: Any = None, **options: Any) -> Any:
        """Ask a run for an update and return its answer; see ``RunHandle.update``."""
        return await self.get_run(run_id).update(update, value, **options)

    async def cancel(
        self,
        run_id: str,
        reason: str = "cancelled by request",
        *,
        grace: Duration | None = None,
        connection: object | None = None,
    ) -> None:
        """Cancel a run and every run below it; see ``RunHandle.cancel``."""
        await self.get_run(run_id).cancel(reason, grace=grace, connection=connection)

    async def prune(self, *, older_than: Duration, limit: int = 100) -> int:
        """Delete roots that ended longer ago, each with all below it and their journals; return how many roots.

        At most ``limit`` of them go at a call, in one transaction: 0 says that none is left. A tree in which
        anything lives is kept whole, so a child is never deleted before its root. Whatever was deleted is
        ``RunNotFound`` from then on, and its id is free.
        """
        age_s = duration("older_than", older_than).total_seconds()
        return await self._journal().prune(age_s, _checked_limit(limit))

    async def definitions(self) -> list[AnnouncedDefinition]:
        """Return every definition that a worker has announced, by kind, name and version."""
        found = await self._journal().definitions()
        return [announced(definition, workers) for definition, workers in found.items()]

    def open_journal(self, *, hooks: Hooks | None = None) -> AbstractAsyncContextManager[Journal]:
        """Open another journal in the same place, for a worker: it has connections and a lease of its own.

        Its services run for the block; the schema is checked and not migrated.
        """
        return self._journal().another(hooks)

    def _journal(self) -> Journal:
        """Return the journal, or refuse where a client cannot work."""
        if running_workflow() is not None:
            raise WorkflowMisuse(REFUSED_IN_WORKFLOWS)
        if self._closed:
            raise RuntimeError("this client is closed: the block of its connect() has ended")
        if asyncio.get_running_loop() is not self._loop:
            raise RuntimeError(
                "this client belongs to another event loop: connect() in this one, or use connect_sync(), for any "
                "thread"
            )
        return self._opened

    async def _newest(self, name: str) -> int:
        announcements = await self._journal().definitions()
        versions = [found.version for found in announcements if (found.kind, found.name) == ("workflow", name)]
        if versions:
            return max(versions)
        known = sorted({found.name for found in announcements if found.kind == "workflow"})
        near = difflib.get_close_matches(name, known, n=1)
        shown = ", ".join(known[:20]) + (", …" if len(known) > 20 else "")
        raise UnknownWorkflow(name, f"did you mean {near[0]!r}?" if near else f"there are: {shown or 'none'}")


def _checked_limit(limit: object, name: str = "limit") -> int:
    expect(name, limit, int, "a whole number")
    if cast("int", limit) < 1:
        raise InvalidSetting(f"{name} is a whole number from 1: got {limit}")
    return cast("int", limit)
