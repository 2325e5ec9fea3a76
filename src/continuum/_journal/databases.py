"""Whole databases, for tests: a migrated one as a template, copies of it, and their end.

The rule: a template has its name only when it is complete, so processes that want it at once cannot meet half of
one; it is named for the migrations that made it.
"""

from __future__ import annotations

import asyncio
import hashlib
from concurrent.futures import ThreadPoolExecutor
from typing import LiteralString

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from continuum._journal.connections import one_line
from continuum._journal.migrate import migrate, migrations
from continuum.errors import DatabaseUnreachable

_MAKING = 0x636F6E7469  # the lock of those who make templates

__all__ = ["copied", "databases", "dropped", "release", "template"]


def release() -> str:
    """Return what tells the tables of this release from those of others."""
    text = "".join(migration.checksum for migration in migrations())
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def template(url: str) -> str:
    """Return the name of a migrated database on the server at ``url``, made if it is missing."""
    name = f"continuum_template_{release()}"
    with _connected(url) as connection:
        if name in _names(connection):
            return name
        connection.execute("select pg_advisory_lock(%s)", (_MAKING,))  # until this connection closes
        if name not in _names(connection):
            making = f"{name}_making"
            _execute(connection, "drop database if exists {}", making)  # of a process that was killed
            _execute(connection, "create database {} template template0", making)
            with ThreadPoolExecutor(1) as pool:  # where no event loop runs
                pool.submit(asyncio.run, migrate(make_conninfo(url, dbname=making))).result()
            _execute(connection, "alter database {} rename to {}", making, name)
    return name


def copied(url: str, source: str, name: str) -> str:
    """Make the database ``name`` a copy of ``source``, which nobody may be connected to, and return its url."""
    with _connected(url) as connection:
        _execute(connection, "create database {} template {}", name, source)
    return make_conninfo(url, dbname=name)


def dropped(url: str, name: str) -> None:
    """Drop a database with all connections to it; one that does not exist is none."""
    with _connected(url) as connection:
        _execute(connection, "drop database if exists {} with (force)", name)


def databases(url: str) -> list[str]:
    """Return the names of all databases of a server."""
    with _connected(url) as connection:
        return _names(connection)


def _connected(url: str) -> psycopg.Connection[tuple[str]]:
    try:
        return psycopg.connect(url, autocommit=True)
    except psycopg.OperationalError as error:
        raise DatabaseUnreachable(f"no database for tests: {one_line(error)}") from error


def _names(connection: psycopg.Connection[tuple[str]]) -> list[str]:
    return [name for (name,) in connection.execute("select datname from pg_database")]


def _execute(connection: psycopg.Connection[tuple[str]], statement: LiteralString, *names: str) -> None:
    connection.execute(sql.SQL(statement).format(*map(sql.Identifier, names)))
