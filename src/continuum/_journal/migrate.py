"""Brings the schema up to date, or says how it differs.

The rule: migrations go forward only, each in a transaction of its own, under a lock that a second process waits
for. One that needs a table which an open transaction holds steps back and tries again. Each works beside the
previous release, so a worker accepts migrations newer than itself as long as they say so at their top. What was
applied is kept with its checksum: an edited file is an error, not a surprise.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import psycopg

from continuum._journal.backoff import Backoff
from continuum._journal.connections import Connection, connect, is_in_the_way, is_lost, one_line
from continuum._journal.statements import check_schema, file_text, in_schema
from continuum.errors import DatabaseUnreachable, SchemaMismatch

__all__ = ["Migration", "migrate", "migrations", "roles_script", "verify"]

logger = logging.getLogger("continuum.journal")
LOCK_TIMEOUT = "300ms"  # that a migration waits for a table, and others behind it
PATIENCE_S = 600.0  # with transactions that hold what it needs
_OLDEST = re.compile(r"-- oldest release that can work beside it: (\d+)\n")
_TABLE = """
create table if not exists {schema}.migrations (
  number     integer primary key,
  name       text not null,
  checksum   text not null,
  oldest     integer not null,          -- the lowest number a release must know to work beside it
  applied_at timestamptz not null default now()
)"""


@dataclass(frozen=True, slots=True)
class Migration:
    """One file of ``migrations/``. ``oldest`` is the newest migration that a release beside it must know."""

    number: int
    name: str
    text: str
    checksum: str
    oldest: int


@cache
def migrations() -> tuple[Migration, ...]:
    """Return all migrations of this release in order."""
    found: list[Migration] = []
    for file in resources.files("continuum._journal").joinpath("migrations").iterdir():
        if not file.name.endswith(".sql"):
            continue
        text = file.read_text(encoding="utf-8")
        oldest = _OLDEST.match(text)
        if oldest is None:
            raise SchemaMismatch(f"{file.name} does not say beside which releases it works")
        checksum = hashlib.sha256(text.encode()).hexdigest()[:16]
        name = file.name.removesuffix(".sql")
        found.append(Migration(int(name[:4]), name, text, checksum, int(oldest[1])))
    return tuple(sorted(found, key=lambda migration: migration.number))


async def migrate(url: str, *, schema: str = "continuum") -> list[str]:
    """Bring ``schema`` up to date and return the names of the migrations applied now.

    Durable on return. Needs no right to create anything when nothing is missing. Raises ``SchemaMismatch``,
    ``DatabaseUnreachable``, ``InvalidSetting``.
    """
    connection = await connect(url, name="migrate", prepared=False)
    try:
        return await _migrate(connection, check_schema(schema))
    except psycopg.Error as error:
        if is_lost(connection):
            raise DatabaseUnreachable(f"the connection broke during the migration: {one_line(error)}") from error
        raise SchemaMismatch(
            f"schema {schema!r} cannot be migrated: {one_line(error)}; "
            "run `continuum db migrate` as a role that may create in this database"
        ) from error
    finally:
        await connection.close()


async def verify(connection: Connection, schema: str) -> None:
    """Raise ``SchemaMismatch`` unless this release can work with ``schema`` as it is."""
    try:
        applied = await _applied(connection, check_schema(schema))
    except psycopg.Error as error:
        raise SchemaMismatch(
            f"schema {schema!r} cannot be read: {one_line(error)}; `continuum db roles` prints what a role needs"
        ) from error
    _check(schema, applied)
    missing = [migration.name for migration in migrations() if migration.number not in applied]
    if missing:
        raise SchemaMismatch(
            f"schema {schema!r} lacks {', '.join(missing)}; "
            "run `continuum db migrate`, or connect without migrate=False"
        )


def roles_script(schema: str = "continuum") -> str:
    """Return SQL that makes a least-privileged worker role and a read-only one for ``schema``."""
    text = in_schema(file_text("roles.sql"), schema).replace("schema {schema} to", f'schema "{schema}" to')
    return text.replace("{schema}", schema)


async def _migrate(connection: Connection, schema: str) -> list[str]:
    applied = await _applied(connection, schema)
    _check(schema, applied)
    if all(migration.number in applied for migration in migrations()):
        return []
    return [found.name for found in migrations() if await _patiently(connection, schema, found)]


async def _patiently(connection: Connection, schema: str, migration: Migration) -> bool:
    """Apply a migration, trying again while an open transaction is in the way; tell whether it was missing.

    Between tries nobody waits behind it: a lock on a table that is waited for holds up all who write there.
    """
    backoff, told = Backoff(), False
    give_up_at = asyncio.get_running_loop().time() + PATIENCE_S
    while True:
        try:
            return await _apply(connection, schema, migration)
        except psycopg.Error as error:
            if not is_in_the_way(error) or asyncio.get_running_loop().time() > give_up_at:
                raise
            if not told:
                logger.warning("migration %s has to wait: %s", migration.name, one_line(error))
            told = True
        await backoff.pause()


async def _apply(connection: Connection, schema: str, migration: Migration) -> bool:
    async with connection.transaction():
        await connection.execute("set local lock_timeout = 0")  # another process migrates for as long as it takes
        await connection.execute("select pg_advisory_xact_lock(hashtextextended($1, 0))", [f"continuum {schema}"])
        await connection.execute(f"set local lock_timeout = '{LOCK_TIMEOUT}'".encode())
        await connection.execute(f'create schema if not exists "{schema}"'.encode())
        await connection.execute(in_schema(_TABLE, schema).encode())
        applied = await _applied(connection, schema)
        _check(schema, applied)
        if migration.number in applied:
            return False
        await connection.execute(in_schema(migration.text, schema).encode())
        insert = "insert into {schema}.migrations (number, name, checksum, oldest) values ($1, $2, $3, $4)"
        row = [migration.number, migration.name, migration.checksum, migration.oldest]
        await connection.execute(in_schema(insert, schema).encode(), row)
    return True


async def _applied(connection: Connection, schema: str) -> dict[int, tuple[Any, ...]]:
    found = await connection.execute(
        "select to_regclass($1) is not null", [in_schema("{schema}.migrations", schema)]
    )
    row = await found.fetchone()
    if row is None or not row[0]:
        return {}
    rows = await connection.execute(
        in_schema("select number, name, checksum, oldest from {schema}.migrations", schema).encode()
    )
    return {row[0]: row for row in await rows.fetchall()}


def _check(schema: str, applied: dict[int, tuple[Any, ...]]) -> None:
    known = {migration.number: migration for migration in migrations()}
    newest = max(known)
    for number, name, checksum, oldest in applied.values():
        if number in known and known[number].checksum != checksum:
            raise SchemaMismatch(
                f"migration {name} was applied to schema {schema!r} with another text than this release has; "
                "use the release that made it, or another schema"
            )
        if number not in known and oldest > newest:
            raise SchemaMismatch(f"schema {schema!r} was migrated by a newer release ({name}); upgrade this one")
