"""Callers with a transaction of their own: one for each library, all used the same way."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
import sqlalchemy as sa
from django.apps import apps
from django.conf import settings
from django.db import connection as django_connection
from django.db import connections, transaction
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session, scoped_session, sessionmaker


@dataclass
class Caller:
    """An open transaction: what is given as ``connection=``, and what its library does with it."""

    connection: Any
    execute: Callable[[str], Any]
    commit: Callable[[], Any]
    rollback: Callable[[], Any]


@contextmanager
def with_psycopg(url: str) -> Iterator[Caller]:
    with psycopg.connect(url) as connection:
        yield Caller(connection, connection.execute, connection.commit, connection.rollback)


@contextmanager
def with_psycopg_in_a_block(url: str) -> Iterator[Caller]:
    """Autocommit, and a block of psycopg's own."""
    with psycopg.connect(url, autocommit=True) as connection:
        block = connection.transaction()
        block.__enter__()

        def roll_back() -> None:
            error = psycopg.Rollback(block)
            block.__exit__(type(error), error, None)

        yield Caller(connection, connection.execute, lambda: block.__exit__(None, None, None), roll_back)


@contextmanager
def engine(url: str, **options: Any) -> Iterator[sa.Engine]:
    made = sa.create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(url), **options)
    yield made
    made.dispose()


@contextmanager
def with_sqlalchemy(url: str) -> Iterator[Caller]:
    with engine(url) as made, made.connect() as connection:
        yield Caller(connection, connection.exec_driver_sql, connection.commit, connection.rollback)


@contextmanager
def with_sqlalchemy_begun(url: str) -> Iterator[Caller]:
    """A transaction that was begun and in which nothing has been done yet."""
    with engine(url) as made, made.connect() as connection:
        connection.begin()
        yield Caller(connection, connection.exec_driver_sql, connection.commit, connection.rollback)


@contextmanager
def with_session(url: str) -> Iterator[Caller]:
    with engine(url) as made, Session(made) as session:
        yield Caller(session, lambda sql: session.execute(sa.text(sql)), session.commit, session.rollback)


@contextmanager
def with_scoped_session(url: str) -> Iterator[Caller]:
    with engine(url) as made:
        session = scoped_session(sessionmaker(made))
        yield Caller(session, lambda sql: session.execute(sa.text(sql)), session.commit, session.rollback)
        session.remove()


@contextmanager
def django(url: str, **options: Any) -> Iterator[Any]:
    """Django's ``connection``, which leads to ``url`` for the block."""
    given = conninfo_to_dict(url)
    database = {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": given["dbname"],
        "USER": given["user"],
        "PASSWORD": given.get("password", ""),
        "HOST": given["host"],
        "PORT": str(given.get("port", "")),
        **options,
    }
    if not settings.configured:
        settings.configure()
        apps.populate(())
    connections.settings = connections.configure_settings({"default": database})
    try:
        yield django_connection
    finally:
        django_connection.close()
        del connections["default"]


@contextmanager
def with_django(url: str) -> Iterator[Caller]:
    with django(url) as connection:
        block = transaction.atomic()
        block.__enter__()

        def execute(sql: str) -> None:
            with connection.cursor() as cursor:
                cursor.execute(sql)

        def roll_back() -> None:
            transaction.set_rollback(True)
            block.__exit__(None, None, None)

        yield Caller(connection, execute, lambda: block.__exit__(None, None, None), roll_back)


@asynccontextmanager
async def with_psycopg_async(url: str) -> AsyncIterator[Caller]:
    async with await psycopg.AsyncConnection.connect(url) as connection:
        yield Caller(connection, connection.execute, connection.commit, connection.rollback)


@asynccontextmanager
async def async_engine(url: str, **options: Any) -> AsyncIterator[Any]:
    async def connect() -> psycopg.AsyncConnection[Any]:
        return await psycopg.AsyncConnection.connect(url)

    made = create_async_engine("postgresql+psycopg://", async_creator=connect, **options)
    yield made
    await made.dispose()


@asynccontextmanager
async def with_sqlalchemy_async(url: str) -> AsyncIterator[Caller]:
    async with async_engine(url) as made, made.connect() as connection:
        yield Caller(connection, connection.exec_driver_sql, connection.commit, connection.rollback)


@asynccontextmanager
async def with_session_async(url: str) -> AsyncIterator[Caller]:
    async with async_engine(url) as made, AsyncSession(made) as session:

        def execute(sql: str) -> Awaitable[Any]:
            return session.execute(sa.text(sql))

        yield Caller(session, execute, session.commit, session.rollback)


SYNC = (
    with_psycopg,
    with_psycopg_in_a_block,
    with_sqlalchemy,
    with_sqlalchemy_begun,
    with_session,
    with_scoped_session,
    with_django,
)
ASYNC = (with_psycopg_async, with_sqlalchemy_async, with_session_async)
