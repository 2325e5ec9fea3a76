"""Connections to Postgres: how they are made, and what their errors mean.

The rule: a url's password is never shown. Every connection commits each statement by itself, and takes JSON as
text: no value is parsed on its way to or from a table.
"""

from __future__ import annotations

import os
import re
from typing import Any
from urllib.parse import unquote

import psycopg
from psycopg import AsyncRawCursor, errors, pq
from psycopg.abc import AdaptContext, Buffer
from psycopg.adapt import Dumper, Loader
from psycopg.conninfo import conninfo_to_dict

from continuum._journal import arrays
from continuum._journal.storable import is_storable
from continuum.errors import DatabaseUnreachable, InvalidSetting

Connection = psycopg.AsyncConnection[tuple[Any, ...]]
_WAY_OUT = "is it running, and is the url right (argument, or CONTINUUM_DATABASE_URL)?"


# A password may hold anything where its url is not as it should be: all up to the last @, or to the closing quote.
_BEFORE_HOST = re.compile(r"://([^:]*):(.*)@", re.DOTALL)
_IN_URL = re.compile(r"(password=)([^&]*)", re.IGNORECASE)
_IN_WORDS = re.compile(r"(password\s*=\s*)('(?:[^'\\]|\\.)*(?:'|$)|(?:\\.|\S)+)", re.IGNORECASE | re.DOTALL)


class JsonText(bytes):
    """JSON as a parameter: sent as it stands."""


class _JsonDumper(Dumper):
    oid = 114

    def dump(self, obj: Buffer) -> Buffer | None:
        return bytes(obj)


class _ArrayDumper(Dumper):
    format = pq.Format.BINARY

    def dump(self, obj: Buffer) -> Buffer | None:
        return obj


_ARRAYS = {kind: type(f"_{kind.__name__}Dumper", (_ArrayDumper,), {"oid": kind.array}) for kind in arrays.KINDS}


class _BytesLoader(Loader):
    format = pq.Format.TEXT

    def load(self, data: Buffer) -> bytes:
        return bytes(data)


def check_url(url: object) -> str:
    """Return ``url`` if libpq can read it, else raise ``InvalidSetting`` with the way out."""
    form = "it looks like postgresql://user:password@host:5432/database"
    if not isinstance(url, str):
        raise InvalidSetting(f"a database url is a str: got {type(url).__name__}; {form}")
    if not url.strip():
        raise InvalidSetting(f"the database url is empty; {form}")
    if not is_storable(url):
        raise InvalidSetting(f"the database url has characters that no url has; {form}")
    scheme, separator, _ = url.partition("://")
    if separator and scheme not in ("postgresql", "postgres") and re.fullmatch(r"[a-z0-9+.-]+", scheme, re.I):
        raise InvalidSetting(f"database url {shown(url)} has the scheme {scheme!r}; {form}")
    if separator and url.partition("://")[2].partition("/")[0].partition("?")[0].count("@") > 1:
        raise InvalidSetting(
            f"database url {shown(url)} has two @ before its database; in a password write %40; {form}"
        )
    try:
        conninfo_to_dict(url)
    except psycopg.ProgrammingError as error:
        raise InvalidSetting(f"database url {shown(url)} cannot be read: {_reason(error, url)}; {form}") from None
    return url


def shown(url: str) -> str:
    """Return ``url`` as it may be printed: without its password."""
    return one_line(_masked(url))


def _masked(text: str) -> str:
    password = _IN_URL if "://" in text else _IN_WORDS
    return password.sub(r"\1***", _BEFORE_HOST.sub(r"://\1:***@", text))


def _reason(error: Exception, url: str) -> str:
    """Return an error's text without what it quotes of the password: libpq quotes where it stumbles."""
    found = [match[2] for pattern in (_BEFORE_HOST, _IN_URL, _IN_WORDS) for match in pattern.finditer(url)]
    secrets = "\n".join([*found, *map(unquote, found)])
    text = one_line(_masked(str(error)))
    if isinstance(error, psycopg.ProgrammingError) and secrets:
        return re.sub(r'".*"', '"…"', text)
    return re.sub(r'"([^"]+)"', lambda found: '"…"' if found[1] in secrets else found[0], text)


def one_line(reason: object) -> str:
    """Return an error's text on one line."""
    return " ".join(str(reason).split()) or type(reason).__name__


async def connect(url: str, *, name: str, prepared: bool | None = True, timeout_s: float = 10) -> Connection:
    """Return a new connection. Raises ``DatabaseUnreachable``.

    With a pooler in between that gives each transaction another session, the name of a prepared statement may
    mean somebody else's statement there. So statements are prepared only if ``prepared``, or if it is None and
    the session is the one that we connected to.
    """
    given = conninfo_to_dict(check_url(url))
    options: dict[str, Any] = {
        "application_name": f"continuum {name}",
        "connect_timeout": max(2, round(timeout_s)),
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "tcp_user_timeout": 20_000,
    }
    options = {key: value for key, value in options.items() if key not in given}
    try:
        connection = await psycopg.AsyncConnection.connect(
            url,
            autocommit=True,
            cursor_factory=AsyncRawCursor,
            prepare_threshold=None,
            **options,
        )
        direct = await _is_direct(connection)
    except (psycopg.Error, OSError, UnicodeError) as error:
        reason = _reason(error, url)
        raise DatabaseUnreachable(f"cannot reach Postgres at {shown(url)}: {reason}; {_WAY_OUT}") from None
    adapt(connection)
    if prepared or (prepared is None and direct):
        connection.prepare_threshold = 0
        connection.prepared_max = 300
    return connection


_SESSION = b"""
select set_config(s.name, wanted.value, false) from pg_settings s join (values
  ('statement_timeout', '0'), ('transaction_timeout', '0'), ('idle_session_timeout', '0'),
  ('idle_in_transaction_session_timeout', '0'), ('lock_timeout', '1s'), ('jit', 'off'),
  ('enable_seqscan', 'off'), ('plan_cache_mode', 'force_generic_plan'),
  ('default_transaction_isolation', 'read committed'), ('default_transaction_deferrable', 'off')
) wanted (name, value) using (name)"""


async def _is_direct(connection: Connection) -> bool:
    """Tell whether no pooler stands in between: it would have made up the process id that it gave us.

    A session that is ours alone is set up. Limits of time that a role brings along are for other programs: a batch
    would be cut off each time. The isolation is the one that every race was run at. Nothing waits longer than a
    second for a row that somebody holds. No statement of ours is worth compiling. None reads a whole table: a plan
    that does was made while the table was small, and a prepared statement keeps it. A plan made for the
    very values is never worth making: Postgres made one for each claim of a worker with few definitions, 0.4 ms.
    """
    try:
        row = await (await connection.execute("select pg_backend_pid()")).fetchone()
        direct = row is not None and row[0] == connection.info.backend_pid
        if direct:
            await connection.execute(_SESSION)
    except BaseException:
        await connection.close()
        raise
    return direct


def adapt(context: AdaptContext) -> None:
    """Teach a connection, or one cursor, to take arrays as they are, and to take and give JSON as text."""
    context.adapters.register_dumper(JsonText, _JsonDumper)
    for array, dumper in _ARRAYS.items():
        context.adapters.register_dumper(array, dumper)
    for kind in ("json", "jsonb"):
        context.adapters.register_loader(kind, _BytesLoader)


def is_lost(connection: Connection) -> bool:
    """Tell whether a connection is of no more use."""
    return connection.closed or connection.broken


def is_ended(connection: Connection) -> bool:
    """Tell whether the server has ended an idle connection and nobody has read that yet. Waits for nothing.

    What is sent on such a connection would be lost, and nobody could tell whether it has happened.
    """
    try:
        for _ in range(2):  # what it has said, then that it says no more
            connection.pgconn.consume_input()
    except psycopg.Error:
        return True
    return is_lost(connection)


# Classes of errors that come from the values of a statement: it fails each time, whatever the server does.
_OF_VALUES = ("22", "23", "54", "P0")


def is_of_values(error: psycopg.Error) -> bool:
    """Tell whether Postgres refuses the values of a statement, rather than being unable to act just now."""
    return (
        isinstance(error, (psycopg.DataError, psycopg.IntegrityError)) or (error.sqlstate or "")[:2] in _OF_VALUES
    )


def is_of_a_copy(error: psycopg.Error) -> bool:
    """Tell whether entries are there already that a run's copy in memory knows nothing of."""
    return isinstance(error, errors.UniqueViolation) and error.diag.constraint_name == "events_pkey"


def is_of_server(error: psycopg.Error) -> bool:
    """Tell whether something is broken inside the server: a page, perhaps, that only this statement touches."""
    return (error.sqlstate or "").startswith("XX")


def is_lock_timeout(error: psycopg.Error) -> bool:
    """Tell whether somebody else held a row for too long."""
    return isinstance(error, errors.LockNotAvailable)


def is_in_the_way(error: psycopg.Error) -> bool:
    """Tell whether another transaction was in the way: the same may well succeed a moment later."""
    return is_lock_timeout(error) or (error.sqlstate or "").startswith("40")


def default_url() -> str | None:
    """Return the url of the environment, if there is one."""
    return os.environ.get("CONTINUUM_DATABASE_URL") or None
