"""Starting, signalling and cancelling in the caller's own transaction, with each library that has one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager

import pytest

from continuum import (
    Client,
    EncodeError,
    RunAlreadyExists,
    RunNotActive,
    RunNotFound,
    SyncClient,
    SyncRunHandle,
    UnknownWorkflow,
)
from continuum._journal.journal import PostgresJournal
from tests.client.callers import ASYNC, SYNC, Caller, with_psycopg, with_psycopg_async
from tests.client.flows import Approval, Order, audit_flow, complete, order_flow
from tests.journal.harness import select

sync_callers = pytest.mark.parametrize("opened", SYNC, ids=lambda opened: opened.__name__)
async_callers = pytest.mark.parametrize("opened", ASYNC, ids=lambda opened: opened.__name__)
Opened = Callable[[str], AbstractContextManager[Caller]]
OpenedAsync = Callable[[str], AbstractAsyncContextManager[Caller]]
CHANGES = """
select (select array_agg(run_id || ' ' || state order by run_id) from continuum.runs),
  (select array_agg(run_id || ' ' || key order by id) from continuum.inbox),
  (select count(*) from orders)"""


@pytest.fixture(autouse=True)
def orders(database: str) -> None:
    """A table of the application's."""
    select(database, "create table orders (id text)")


@sync_callers
@pytest.mark.parametrize("ends", ["commit", "rollback"])
def test_all_or_nothing(sync: SyncClient, database: str, opened: Opened, ends: str) -> None:
    old: SyncRunHandle[int] = sync.start(audit_flow, id="old")
    before = select(database, CHANGES)
    with opened(database) as caller:
        run = sync.start(order_flow, Order("7"), id="new", connection=caller.connection)  # nothing was done before
        caller.execute("insert into orders values ('7')")
        run.signal("approve", Approval("me"), connection=caller.connection)
        sync.signal("new", "other", connection=caller.connection)
        sync.cancel("old", connection=caller.connection)
        with pytest.raises(RunNotFound):
            run.describe()
        assert select(database, CHANGES) == before
        (caller.commit if ends == "commit" else caller.rollback)()
        after = [(["new pending", "old cancelled"], ["new approve", "new other"], 1)]
        assert select(database, CHANGES) == (after if ends == "commit" else before)
    assert (old.describe().state == "cancelled") is (ends == "commit")


@sync_callers
@pytest.mark.parametrize("ends", ["commit", "rollback"])
def test_a_request_to_stop_is_part_of_the_transaction(
    sync: SyncClient, database: str, opened: Opened, ends: str
) -> None:
    run: SyncRunHandle[int] = sync.start(audit_flow, id="old")
    asked = "select (select count(*) from continuum.cancellations), (select count(*) from continuum.inbox)"
    with opened(database) as caller:
        run.cancel("sold out", grace=3600, connection=caller.connection)
        sync.cancel("old", grace=60, connection=caller.connection)
        assert select(database, asked) == [(0, 0)]
        (caller.commit if ends == "commit" else caller.rollback)()
    assert select(database, asked) == ([(1, 1)] if ends == "commit" else [(0, 0)])
    assert run.describe().state == "pending"
    with opened(database) as caller:
        with pytest.raises(RunNotFound):
            sync.cancel("nobody", grace=60, connection=caller.connection)
        with pytest.raises(ValueError, match="grace"):
            run.cancel(grace=-1, connection=caller.connection)
        caller.rollback()


@async_callers
@pytest.mark.parametrize("ends", ["commit", "rollback"])
async def test_a_request_to_stop_is_part_of_the_transaction_with_asyncio(
    client: Client, database: str, opened: OpenedAsync, ends: str
) -> None:
    await client.start(audit_flow, id="old")
    async with opened(database) as caller:
        await client.cancel("old", grace=60, connection=caller.connection)
        await (caller.commit if ends == "commit" else caller.rollback)()
    assert select(database, "select count(*) from continuum.inbox") == [(1 if ends == "commit" else 0,)]


@async_callers
@pytest.mark.parametrize("ends", ["commit", "rollback"])
async def test_all_or_nothing_with_asyncio(client: Client, database: str, opened: OpenedAsync, ends: str) -> None:
    old = await client.start(audit_flow, id="old")
    before = select(database, CHANGES)
    async with opened(database) as caller:
        run = await client.start(order_flow, Order("7"), id="new", connection=caller.connection)
        await caller.execute("insert into orders values ('7')")
        await run.signal("approve", Approval("me"), connection=caller.connection)
        await client.signal("new", "other", connection=caller.connection)
        await client.cancel("old", connection=caller.connection)
        with pytest.raises(RunNotFound):
            await run.describe()
        assert select(database, CHANGES) == before
        await (caller.commit if ends == "commit" else caller.rollback)()
        after = [(["new pending", "old cancelled"], ["new approve", "new other"], 1)]
        assert select(database, CHANGES) == (after if ends == "commit" else before)
    assert ((await old.describe()).state == "cancelled") is (ends == "commit")


@sync_callers
async def test_what_is_refused_leaves_the_transaction_as_it_was(
    sync: SyncClient, database: str, engine: PostgresJournal, opened: Opened
) -> None:
    await engine.start([])
    sync.start(order_flow, Order("1"), id="ended")
    await complete(engine, "ended")
    await asyncio.to_thread(_refused, sync, database, opened)  # Django refuses to work beside a running loop


def _refused(sync: SyncClient, database: str, opened: Opened) -> None:
    with opened(database) as caller:
        given = caller.connection
        for refused, error in (
            (lambda: sync.signal("nobody", "go", connection=given), RunNotFound),
            (lambda: sync.cancel("nobody", connection=given), RunNotFound),
            (lambda: sync.signal("ended", "go", connection=given), RunNotActive),
            (lambda: sync.cancel("ended", connection=given), RunNotActive),
            (lambda: sync.start(order_flow, Order("2"), id="ended", connection=given), RunAlreadyExists),
            (lambda: sync.start(audit_flow, id="ended", connection=given), RunAlreadyExists),
            (lambda: sync.start(order_flow, 7, id="x", connection=given), EncodeError),  # type: ignore[arg-type]
        ):
            with pytest.raises(error):
                refused()
            caller.execute("insert into orders values ('still usable')")
        assert sync.start(order_flow, Order("1"), id="ended", connection=given).id == "ended"
        caller.commit()
    assert select(database, "select count(*) from orders") == [(7,)]
    assert select(database, "select run_id from continuum.runs") == [("ended",)]


@async_callers
async def test_what_is_refused_leaves_the_transaction_as_it_was_with_asyncio(
    client: Client, database: str, opened: OpenedAsync
) -> None:
    await client.start(order_flow, Order("1"), id="taken")
    async with opened(database) as caller:
        given = caller.connection
        with pytest.raises(RunNotFound):
            await client.signal("nobody", "go", connection=given)
        await caller.execute("insert into orders values ('still usable')")
        with pytest.raises(RunAlreadyExists, match="another input"):
            await client.start(order_flow, Order("2"), id="taken", connection=given)
        await caller.execute("insert into orders values ('still usable')")
        for name in ("taken", "new", "new"):
            run = await client.start(order_flow, Order("1"), id=name, connection=given)
            assert run.id == name
        with pytest.raises(RunAlreadyExists, match="of workflow 'order_flow'"):
            await client.start(audit_flow, id="new", connection=given)
        await caller.commit()
    assert select(database, "select run_id from continuum.runs order by 1") == [("new",), ("taken",)]
    assert select(database, "select count(*) from orders") == [(2,)]


@sync_callers
def test_a_start_is_committed_that_is_all_of_its_transaction(
    sync: SyncClient, database: str, opened: Opened
) -> None:
    """A library that has not noticed that there is a transaction commits nothing."""
    with opened(database) as caller:
        run = sync.start(audit_flow, connection=caller.connection)
        caller.commit()
    assert run.describe().state == "pending"


@async_callers
async def test_a_start_is_committed_that_is_all_of_its_transaction_with_asyncio(
    client: Client, database: str, opened: OpenedAsync
) -> None:
    async with opened(database) as caller:
        run = await client.start(audit_flow, connection=caller.connection)
        await caller.commit()
    assert (await run.describe()).state == "pending"


def test_a_delivery_counts_once_in_a_transaction_and_never_was_after_a_rollback(
    sync: SyncClient, database: str
) -> None:
    sync.start(audit_flow, id="r")
    for ends in ("rollback", "commit", "commit"):
        with with_psycopg(database) as caller:
            for _ in range(2):
                sync.signal("r", "go", delivery_id="once", connection=caller.connection)
            (caller.commit if ends == "commit" else caller.rollback)()
    assert select(database, "select run_id, key from continuum.inbox") == [("r", "go")]


async def test_a_signal_whose_run_ends_before_the_commit_reaches_nobody_and_is_swept(
    client: Client, database: str, engine: PostgresJournal
) -> None:
    await engine.start([])
    run = await client.start(order_flow, Order("1"), id="r")
    async with with_psycopg_async(database) as caller:
        await run.signal("go", connection=caller.connection)
        await complete(engine, "r")
        await caller.commit()
    assert (await run.describe()).state == "completed"
    assert select(database, "select run_id, key from continuum.inbox") == [("r", "go")]
    swept = await engine.sweep(every_s=0)
    assert (swept and swept.dropped, select(database, "select 1 from continuum.inbox")) == (1, [])


def test_a_start_by_name_is_of_the_version_that_was_announced(sync: SyncClient, database: str) -> None:
    with with_psycopg(database) as caller:
        with pytest.raises(UnknownWorkflow):
            sync.start("order_flow", {"id": "7"}, connection=caller.connection)
        with pytest.raises(TypeError, match="did you mean 'priority'"):
            sync.start(audit_flow, prioritty=1, connection=caller.connection)  # type: ignore[call-overload]
        caller.execute("insert into orders values ('still usable')")
