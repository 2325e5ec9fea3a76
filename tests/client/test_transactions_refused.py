"""Connections that cannot be used, and what is kept as it was in those that can."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager, contextmanager
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from django.db import transaction
from psycopg.conninfo import make_conninfo
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

import continuum
from continuum import Client, DatabaseBusy, DatabaseUnreachable, InvalidSetting, SyncClient
from tests.client.callers import async_engine, django, engine, with_session
from tests.client.flows import Order, audit_flow, order_flow
from tests.databases import Servers, run
from tests.journal.harness import select

Refused = Callable[[str], AbstractContextManager[Any]]
RefusedAsync = Callable[[str], AbstractAsyncContextManager[Any]]


@contextmanager
def a_url(url: str) -> Iterator[Any]:
    yield url


@contextmanager
def sqlite(url: str) -> Iterator[Any]:
    connection = sqlite3.connect(":memory:")
    yield connection
    connection.close()


@contextmanager
def an_engine(url: str) -> Iterator[Any]:
    with engine(url) as made:
        yield made


@contextmanager
def sqlite_with_sqlalchemy(url: str) -> Iterator[Any]:
    made = sa.create_engine("sqlite://")
    with made.connect() as connection:
        yield connection
    made.dispose()


@contextmanager
def sqlite_with_django(url: str) -> Iterator[Any]:
    with django(url, ENGINE="django.db.backends.sqlite3", NAME=":memory:") as connection:
        yield connection


@contextmanager
def closed(url: str) -> Iterator[Any]:
    with psycopg.connect(url) as connection:
        pass
    yield connection


@contextmanager
def closed_by_sqlalchemy(url: str) -> Iterator[Any]:
    with engine(url) as made:
        with made.connect() as connection:
            pass
        yield connection


@contextmanager
def failed(url: str) -> Iterator[Any]:
    with psycopg.connect(url) as connection:
        with pytest.raises(psycopg.errors.DivisionByZero):
            connection.execute("select 1 / 0")
        yield connection


@contextmanager
def failed_session(url: str) -> Iterator[Any]:
    with engine(url) as made, Session(made) as session:
        table = sa.Table("once", sa.MetaData(), sa.Column("id", sa.Integer, primary_key=True))
        table.create(made)
        nested = session.connection()
        nested.execute(table.insert(), {"id": 1})
        with pytest.raises(IntegrityError):
            session.execute(table.insert(), {"id": 1})
        yield session


@contextmanager
def failed_block(url: str) -> Iterator[Any]:
    with django(url) as connection, transaction.atomic():
        transaction.set_rollback(True)
        yield connection


@contextmanager
def committing_each(url: str) -> Iterator[Any]:
    with psycopg.connect(url, autocommit=True) as connection:
        yield connection


@contextmanager
def committing_each_with_sqlalchemy(url: str) -> Iterator[Any]:
    with engine(url, isolation_level="AUTOCOMMIT") as made, Session(made) as session:
        yield session


@contextmanager
def committing_each_with_django(url: str) -> Iterator[Any]:
    with django(url) as connection:
        yield connection


@contextmanager
def after_a_block(url: str) -> Iterator[Any]:
    with django(url) as connection:
        with transaction.atomic():
            pass
        yield connection


@contextmanager
def in_a_copy(url: str) -> Iterator[Any]:
    with psycopg.connect(url) as connection, connection.cursor().copy("copy (select 1) to stdout") as copy:
        yield connection
        while copy.read():
            pass


@contextmanager
def only_reading(url: str) -> Iterator[Any]:
    with psycopg.connect(url) as connection:
        connection.read_only = True
        yield connection


@contextmanager
def in_latin_1(url: str) -> Iterator[Any]:
    with psycopg.connect(url, client_encoding="latin1") as connection:
        yield connection


@contextmanager
def without_rights(url: str) -> Iterator[Any]:
    with psycopg.connect(url) as connection:
        connection.execute("create role nobody_special")
        connection.execute("set role nobody_special")
        yield connection
        connection.rollback()


@contextmanager
def for_asyncio(url: str) -> Iterator[Any]:
    yield psycopg.AsyncConnection.__new__(psycopg.AsyncConnection)


REFUSED: list[tuple[Refused, str]] = [
    (a_url, "connection= takes a psycopg Connection, .*Django's connection: got str"),
    (sqlite, "got sqlite3.Connection"),
    (an_engine, r"got sqlalchemy\.\S*\.Engine"),
    (sqlite_with_sqlalchemy, r"uses sqlite\+pysqlite: .*postgresql\+psycopg://"),
    (sqlite_with_django, "Django's connection 'default' leads to sqlite"),
    (closed, "closed: bring an open one"),
    (closed_by_sqlalchemy, "closed: bring an open one"),
    (failed, "its transaction has failed: roll it back"),
    (failed_session, "its transaction has failed: roll it back"),
    (failed_block, r"atomic\(\) block .* has failed"),
    (committing_each, "autocommit.*: begin a transaction"),
    (committing_each_with_sqlalchemy, "autocommit.*: begin a transaction"),
    (committing_each_with_django, r"autocommit.*: use transaction\.atomic\(\), or leave connection= out"),
    (after_a_block, r"autocommit.*: use transaction\.atomic\(\)"),
    (in_a_copy, "in the midst of a statement"),
    (only_reading, "the connection only reads"),
    (in_latin_1, "client_encoding is UTF8"),
    (without_rights, "may not write to the journal: permission denied .*continuum db roles"),
    (for_asyncio, r"AsyncConnection is for asyncio.*: use connect\(\)"),
]


@pytest.mark.parametrize(("opened", "told"), REFUSED, ids=lambda it: getattr(it, "__name__", ""))
def test_a_connection_that_cannot_be_used_is_named_with_the_way_out(
    sync: SyncClient, database: str, opened: Refused, told: str
) -> None:
    with opened(database) as connection:
        with pytest.raises(InvalidSetting, match=told) as caught:
            sync.start(audit_flow, connection=connection)
        assert "\n" not in str(caught.value)
    assert select(database, "select count(*) from continuum.runs") == [(0,)]


@asynccontextmanager
async def a_session_of_sync_code(url: str) -> AsyncIterator[Any]:
    with with_session(url) as caller:
        yield caller.connection


@asynccontextmanager
async def with_another_driver(url: str) -> AsyncIterator[Any]:
    with sqlite(url) as connection:
        yield connection


@asynccontextmanager
async def committing_each_async(url: str) -> AsyncIterator[Any]:
    async with async_engine(url, isolation_level="AUTOCOMMIT") as made, made.connect() as connection:
        yield connection


@asynccontextmanager
async def closed_async(url: str) -> AsyncIterator[Any]:
    async with async_engine(url) as made:
        async with made.connect() as connection:
            pass
        yield connection


REFUSED_ASYNC: list[tuple[RefusedAsync, str]] = [
    (a_session_of_sync_code, r"Session is for code without asyncio, .*: use connect_sync\(\), or give"),
    (with_another_driver, "takes a psycopg AsyncConnection, .*: got sqlite3.Connection"),
    (committing_each_async, "autocommit"),
    (closed_async, "closed: bring an open one"),
]


@pytest.mark.parametrize(("opened", "told"), REFUSED_ASYNC, ids=lambda it: getattr(it, "__name__", ""))
async def test_so_is_one_that_asyncio_cannot_use(
    client: Client, database: str, opened: RefusedAsync, told: str
) -> None:
    async with opened(database) as connection:
        with pytest.raises(InvalidSetting, match=told):
            await client.start(audit_flow, connection=connection)
        with pytest.raises(InvalidSetting, match=told):
            await client.signal("r", "go", connection=connection)
        with pytest.raises(InvalidSetting, match=told):
            await client.cancel("r", connection=connection)
    assert select(database, "select count(*) from continuum.runs") == [(0,)]


def test_another_database_is_noticed_and_the_transaction_goes_on(
    sync: SyncClient, servers: Servers, database: str, empty_database: str
) -> None:
    with servers.database("embedded") as journal_of_another:
        for url, told in ((empty_database, "has not the journal's tables"), (journal_of_another, "in 'test_")):
            with psycopg.connect(url) as connection:
                connection.execute("create table orders (id int)")
                for refused in (
                    lambda given=connection: sync.start(order_flow, Order("1"), connection=given),
                    lambda given=connection: sync.signal("r", "go", connection=given),
                    lambda given=connection: sync.cancel("r", connection=given),
                ):
                    with pytest.raises(InvalidSetting, match=told):
                        refused()
                connection.execute("insert into orders values (1)")
            assert select(url, "select count(*) from orders") == [(1,)]
        assert select(journal_of_another, "select count(*) from continuum.runs") == [(0,)]


def test_how_long_the_caller_waits_for_locks_is_as_it_was(sync: SyncClient, database: str) -> None:
    def patience(connection: psycopg.Connection[Any]) -> Any:
        return connection.execute("show lock_timeout").fetchone()

    with psycopg.connect(database) as connection:
        for wanted in ("0", "20ms", "3min"):
            connection.execute(f"set lock_timeout = '{wanted}'".encode())
            sync.start(audit_flow, id=f"r{wanted}", connection=connection)
            assert patience(connection) == (wanted,)
            with pytest.raises(continuum.RunNotFound):
                sync.cancel("nobody", connection=connection)
            assert patience(connection) == (wanted,)


def test_what_another_open_transaction_starts_is_busy_and_both_go_on(sync: SyncClient, database: str) -> None:
    with psycopg.connect(database) as one, psycopg.connect(database) as other:
        sync.start(audit_flow, id="r", connection=one)
        with pytest.raises(DatabaseBusy, match="this one can go on"):
            sync.start(audit_flow, id="r", connection=other)
        sync.start(audit_flow, id="s", connection=other)
        one.commit()
        assert sync.start(audit_flow, id="r", connection=other).id == "r"
        with pytest.raises(continuum.RunAlreadyExists):
            sync.start(order_flow, Order("1"), id="r", connection=other)
    assert select(database, "select run_id from continuum.runs order by 1") == [("r",), ("s",)]


def test_what_a_snapshot_cannot_see_asks_for_another_transaction(sync: SyncClient, database: str) -> None:
    with psycopg.connect(database) as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        connection.execute("select 1")
        sync.start(audit_flow, id="r")
        with pytest.raises(DatabaseBusy, match="begin this one again"):
            sync.start(audit_flow, id="r", connection=connection)
        with pytest.raises(InvalidSetting, match="read committed"):
            sync.cancel("r", connection=connection)
        sync.start(audit_flow, id="s", connection=connection)
    assert select(database, "select run_id from continuum.runs order by 1") == [("r",), ("s",)]


def test_a_connection_that_breaks_says_that_its_transaction_is_lost(sync: SyncClient, database: str) -> None:
    with psycopg.connect(database) as connection:
        connection.execute("select 1")
        run(database, f"select pg_terminate_backend({connection.info.backend_pid})")
        with pytest.raises(DatabaseUnreachable, match="its transaction is lost"):
            sync.start(audit_flow, connection=connection)


def test_an_inner_block_of_django_that_is_rolled_back_takes_with_it_what_was_asked_in_it(
    sync: SyncClient, database: str
) -> None:
    sync.start(order_flow, Order("1"), id="r")
    with django(database) as connection:
        with transaction.atomic():
            sync.start(order_flow, Order("2"), id="s", connection=connection)
            sync.signal("s", "go", connection=connection)
            with transaction.atomic():
                sync.cancel("r", connection=connection)
                transaction.set_rollback(True)
        assert {run.id: run.state for run in sync.list_runs()} == {"r": "pending", "s": "pending"}


@pytest.mark.parametrize("ends", ["commit", "rollback"])
def test_django_without_autocommit_has_a_transaction_to_be_part_of(
    sync: SyncClient, database: str, ends: str
) -> None:
    with django(database, AUTOCOMMIT=False) as connection:
        run = sync.start(audit_flow, id="r", connection=connection)
        with pytest.raises(continuum.RunNotFound):
            run.describe()
        (connection.commit if ends == "commit" else connection.rollback)()
    assert [found.id for found in sync.list_runs()] == (["r"] if ends == "commit" else [])


def test_django_outside_of_a_block_starts_without_its_connection(sync: SyncClient, database: str) -> None:
    with django(database) as connection:
        with pytest.raises(InvalidSetting, match="leave connection= out"):
            sync.cancel("r", connection=connection)
        assert sync.start(audit_flow).describe().state == "pending"


def test_the_applications_own_row_factory_and_types_do_no_harm(sync: SyncClient, database: str) -> None:
    with psycopg.connect(database, row_factory=psycopg.rows.dict_row) as connection:
        connection.adapters.register_loader("json", psycopg.types.string.TextLoader)
        connection.prepare_threshold = 0
        for _ in range(2):
            sync.start(order_flow, Order("ü\U0001f600"), id="r", connection=connection)
            sync.signal("r", "ü", {"text": "\U0001f600"}, connection=connection)
        assert connection.execute("select 1 as one").fetchone() == {"one": 1}
    assert sync.get_run("r", order_flow).describe().input == Order("ü\U0001f600")


async def test_a_transaction_through_another_way_to_the_same_database_is_taken(
    client: Client, database: str
) -> None:
    url = make_conninfo(database, application_name="another")
    async with await psycopg.AsyncConnection.connect(url) as connection:
        await client.start(audit_flow, id="r", connection=connection)
    assert (await client.get_run("r").describe()).state == "pending"
