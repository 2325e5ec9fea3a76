"""The connection that a caller's transaction comes with: psycopg's, SQLAlchemy's or Django's.

The rule: what is given is recognised by the name of its class and of that class's package, and asked only what its
library documents, so neither SQLAlchemy nor Django is imported, let alone required. What it comes down to is a
connection of psycopg 3; whatever else it is gets one error that names it and the way out. Nothing here begins a
transaction that the caller's library does not know of, and nothing ends one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from continuum.errors import InvalidSetting

if TYPE_CHECKING:
    from continuum._journal.cascade import Steps

__all__ = ["within", "within_async"]

T = TypeVar("T")
_SYNC = "a psycopg Connection, a SQLAlchemy Connection or Session, or Django's connection"
_ASYNC = "a psycopg AsyncConnection, or a SQLAlchemy AsyncConnection or AsyncSession"
_BEGIN = "begin a transaction on it first, so that there is one to be part of"
_BEGIN_DJANGO = "use transaction.atomic(), or leave connection= out"


def within(connection: object, steps: Steps[T]) -> T:
    """Carry ``steps`` out in the transaction of a sync ``connection``, in this thread.

    Raises ``InvalidSetting``, and what the steps raise.
    """
    from continuum._journal.outside import take  # brings the driver, which importing continuum must not

    return take(_below(connection), steps)


async def within_async(connection: object, steps: Steps[T]) -> T:
    """Carry ``steps`` out in the transaction of an async ``connection``; see ``within``."""
    from continuum._journal.outside import take_async  # brings the driver, which importing continuum must not

    return await take_async(await _below_async(connection), steps)


def _below(connection: Any) -> Any:
    """Return the psycopg connection that a sync connection comes down to, in its transaction."""
    if _is(connection, "django", "BaseDatabaseWrapper", "ConnectionProxy"):
        return _below_django(connection)
    if _is(connection, "sqlalchemy", "Session", "scoped_session"):
        return _below(_asked(connection, connection.connection))
    if _is(connection, "sqlalchemy", "Connection"):
        _check_dialect(connection)
        if not connection.in_transaction():  # SQLAlchemy has to know of it, else its commit() commits nothing
            _asked(connection, connection.exec_driver_sql, "select 1").close()
        return _in_transaction(connection, _asked(connection, lambda: connection.connection.driver_connection))
    if _is(connection, "psycopg", "Connection"):
        return _in_transaction(connection, connection)
    if _is_async(connection):
        raise InvalidSetting(
            f"{_name(connection)} is for asyncio, and this client is not: use connect(), or give {_SYNC}"
        )
    raise _unknown(connection, _SYNC)


async def _below_async(connection: Any) -> Any:
    """Return the psycopg connection that an async connection comes down to, in its transaction."""
    if _is(connection, "sqlalchemy", "AsyncSession", "async_scoped_session"):
        return await _below_async(await _awaited(connection, connection.connection))
    if _is(connection, "sqlalchemy", "AsyncConnection"):
        _check_dialect(connection)
        if not connection.in_transaction():
            (await _awaited(connection, connection.exec_driver_sql, "select 1")).close()
        raw = await _awaited(connection, connection.get_raw_connection)
        return _in_transaction(connection, raw.driver_connection)
    if _is(connection, "psycopg", "AsyncConnection"):
        return _in_transaction(connection, connection)
    if _is_sync(connection):
        raise InvalidSetting(
            f"{_name(connection)} is for code without asyncio, and this client is for asyncio: use "
            f"connect_sync(), or give {_ASYNC}"
        )
    raise _unknown(connection, _ASYNC)


def _below_django(connection: Any) -> Any:
    """Return what lies below Django's connection, in its transaction; outside ``atomic()`` it has none."""
    if connection.vendor != "postgresql":
        raise InvalidSetting(
            f"Django's connection {connection.alias!r} leads to {connection.vendor}: give connections[…] of the "
            "Postgres database that the client uses"
        )
    _asked(connection, connection.validate_thread_sharing)
    _asked(connection, connection.ensure_connection)
    if connection.needs_rollback:
        raise InvalidSetting(
            "the atomic() block of Django's connection has failed and will be rolled back: leave it first"
        )
    return _in_transaction(connection, connection.connection, _BEGIN_DJANGO)


def _in_transaction(connection: object, raw: Any, way_out: str = _BEGIN) -> Any:
    """Return ``raw`` unless what we do on it would be committed at once, behind the caller's back."""
    checked = _checked_driver(connection, raw)
    if checked.autocommit and not checked.closed and checked.info.transaction_status.name == "IDLE":
        raise InvalidSetting(f"{_name(connection)} commits each statement by itself (autocommit): {way_out}")
    return checked


def _checked_driver(connection: object, raw: Any) -> Any:
    if _is(raw, "psycopg", "Connection", "AsyncConnection"):
        return raw
    raise InvalidSetting(
        f"{_name(connection)} uses the driver {type(raw).__module__.partition('.')[0]!r}: it must be psycopg 3"
    )


def _check_dialect(connection: Any) -> None:
    dialect = connection.dialect
    if (dialect.name, dialect.driver) != ("postgresql", "psycopg"):
        raise InvalidSetting(
            f"{_name(connection)} uses {dialect.name}+{dialect.driver}: make its engine of a "
            "postgresql+psycopg:// url"
        )
    if connection.closed:
        raise InvalidSetting(f"{_name(connection)} is closed: bring an open one")


def _asked(connection: object, ask: Any, *arguments: Any) -> Any:
    """Return what a library answers; whatever it raises says that the connection cannot be used."""
    try:
        return ask(*arguments)
    except Exception as error:  # the library's own errors, whose classes are not known here
        raise _unusable(connection, error) from error


async def _awaited(connection: object, ask: Any, *arguments: Any) -> Any:
    try:
        return await ask(*arguments)
    except Exception as error:  # the library's own errors, whose classes are not known here
        raise _unusable(connection, error) from error


def _unusable(connection: object, error: Exception) -> InvalidSetting:
    reason = " ".join(str(error).split()) or type(error).__name__
    return InvalidSetting(f"{_name(connection)} cannot be used: {reason}")


def _unknown(connection: object, wanted: str) -> InvalidSetting:
    return InvalidSetting(f"connection= takes {wanted}: got {_name(connection)}")


def _is_sync(connection: object) -> bool:
    return (
        _is(connection, "psycopg", "Connection")
        or _is(connection, "sqlalchemy", "Connection", "Session", "scoped_session")
        or _is(connection, "django", "BaseDatabaseWrapper", "ConnectionProxy")
    )


def _is_async(connection: object) -> bool:
    return _is(connection, "psycopg", "AsyncConnection") or _is(
        connection, "sqlalchemy", "AsyncConnection", "AsyncSession", "async_scoped_session"
    )


def _is(thing: object, package: str, *names: str) -> bool:
    """Tell whether a class of one of these names, of this package, is among those that ``thing`` is of."""
    kinds = type(thing).__mro__
    return any(kind.__name__ in names and kind.__module__.partition(".")[0] == package for kind in kinds)


def _name(thing: object) -> str:
    kind = type(thing)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
