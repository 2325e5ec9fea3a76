"""A connection for one purpose that is made anew whenever it breaks.

The rule: statements of a lane go one after the other. A statement whose connection broke before its answer came
raises ``OutcomeUnknown``: it may have happened, so nobody here sends it twice.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

import psycopg
from psycopg import errors

from continuum._journal.backoff import Backoff
from continuum._journal.connections import (
    Connection,
    connect,
    is_ended,
    is_lock_timeout,
    is_lost,
    is_of_values,
    one_line,
    shown,
)
from continuum._journal.statements import Statement
from continuum._journal.wire import Wire
from continuum.errors import DatabaseBusy, DatabaseRefused, DatabaseUnreachable

if TYPE_CHECKING:
    from continuum._journal.cascade import Steps

T = TypeVar("T")

logger = logging.getLogger("continuum.journal")
TRUSTED_S = 1.5  # so long after an answer a connection is taken to be good: longer than a poll takes to come


class OutcomeUnknown(Exception):
    """The connection broke between a statement and its answer."""


class Lane:
    """One connection, made on first use. ``epoch`` counts the connections made."""

    def __init__(
        self, url: str, *, name: str, prepared: bool | None = None, answer_s: float = 60.0, connect_s: float = 10.0
    ) -> None:
        self.url = url
        self.name = name
        self.prepared = prepared
        self.answer_s = answer_s
        self.connect_s = connect_s
        self.epoch = 0
        self._connection: Connection | None = None
        self._wire: Wire | None = None
        self._lock = asyncio.Lock()
        self._used_at = 0.0
        self._closed = False

    async def ready(self) -> Connection:
        """Return the connection, trying until there is one."""
        backoff, told = Backoff(), False
        while True:
            try:
                return await self.now()
            except DatabaseUnreachable as error:
                if self._closed:
                    raise
                if not told:
                    logger.warning("%s; trying again", error)
                told = True
            await backoff.pause()

    async def rows(self, statement: Statement, values: dict[str, Any]) -> list[tuple[Any, ...]]:
        """Run one statement and return its rows; waits for a connection as long as it takes.

        Raises ``OutcomeUnknown``, or the error that Postgres answered with: then nothing happened.
        """
        async with self._lock:
            return await self.answered(await self.ready(), statement.text, statement.arguments(values))

    async def rows_now(
        self, statement: Statement, values: dict[str, Any], *, epoch: int | None = None
    ) -> list[tuple[Any, ...]]:
        """Run one statement, or raise ``DatabaseUnreachable`` at once if Postgres is away or refuses to act.

        So it does if the connection is not that of ``epoch``, if one is given. Raises ``OutcomeUnknown``,
        ``DatabaseRefused`` for values that Postgres will not have, or ``DatabaseBusy``.
        """
        async with self._lock:
            connection = await self.now()
            if epoch not in (None, self.epoch):
                raise DatabaseUnreachable("the connection broke just now, and there is another one")
            try:
                return await self.answered(connection, statement.text, statement.arguments(values))
            except psycopg.Error as error:
                if is_lock_timeout(error):
                    raise DatabaseBusy(f"an open transaction holds what this needs: {one_line(error)}") from error
                if is_of_values(error):
                    raise DatabaseRefused(f"Postgres refuses what it was given: {one_line(error)}") from error
                raise DatabaseUnreachable(f"Postgres at {shown(self.url)} refuses: {one_line(error)}") from error
            except UnicodeError as error:
                raise DatabaseRefused(f"text that no encoding has: {one_line(error)}") from error

    async def ping(self) -> None:
        """Try a connection that was idle for a while; the next statement gets a new one if it does not answer."""
        connection = self._connection
        if connection is None or asyncio.get_running_loop().time() - self._used_at <= TRUSTED_S:
            return
        async with self._lock:
            if connection is self._connection:  # it is the same one still
                with suppress(OutcomeUnknown):
                    await self.answered(connection, b"select 1")

    async def answered(
        self, connection: Connection, text: bytes, arguments: Sequence[Any] = ()
    ) -> list[tuple[Any, ...]]:
        """Run ``text`` on a connection of this lane. Raises as ``rows`` does."""
        try:
            async with asyncio.timeout(self.answer_s):
                if self._wire is None or self._wire.connection is not connection:
                    self._wire = Wire(connection)
                rows = await self._wire.rows(text, arguments)
                self._used_at = asyncio.get_running_loop().time()
                return rows
        except TimeoutError:
            await self.drop(connection)
            raise OutcomeUnknown(f"no answer within {self.answer_s:g} seconds") from None
        except asyncio.CancelledError:
            await self.drop(connection)  # what it was doing is not known any more
            raise
        except psycopg.Error as error:
            if isinstance(error, errors.ReadOnlySqlTransaction):
                await self.drop(
                    connection
                )  # it has become a standby: the next connection may find the new primary
                raise
            if not is_lost(connection):
                raise
            await self.drop(connection)
            raise OutcomeUnknown(one_line(error)) from error

    async def drop(self, connection: Connection) -> None:
        """Close ``connection``; the next statement gets another one."""
        if self._connection is connection:
            self._connection = None
        if self._wire is not None and self._wire.connection is connection:
            self._wire.close()
            self._wire = None
        with suppress(psycopg.Error, OSError):
            await connection.close()

    async def close(self) -> None:
        """Close the connection, if there is one, and make no other."""
        self._closed = True
        if self._connection is not None:
            await self.drop(self._connection)

    async def now(self) -> Connection:
        """Return the connection, or raise ``DatabaseUnreachable`` if there is none to be had now."""
        connection = self._connection
        if connection is not None and is_ended(connection):
            await self.drop(connection)
            connection = None
        if connection is None:
            if not self._closed:
                connection = self._connection = await connect(
                    self.url, name=self.name, prepared=self.prepared, timeout_s=self.connect_s
                )
                self.epoch += 1
            if connection is None or self._closed:
                await self.close()
                raise DatabaseUnreachable("the journal is closed; open another one")
        return connection


class Lanes:
    """Up to ``size`` lanes for statements that need not wait for each other."""

    def __init__(self, url: str, *, name: str, prepared: bool | None = None, size: int = 4) -> None:
        self._idle = [Lane(url, name=name, prepared=prepared) for _ in range(size)]
        self._all = tuple(self._idle)
        self._free = asyncio.Semaphore(size)

    async def read(self, statement: Statement, values: dict[str, Any]) -> list[tuple[Any, ...]]:
        """Run a statement that may as well run twice. Raises ``DatabaseUnreachable``, ``DatabaseRefused``."""
        for _ in self._all:  # after a restart of Postgres each idle connection breaks once
            with suppress(OutcomeUnknown):
                return await self._once(statement, values)
        return await self.write(statement, values)

    async def write(self, statement: Statement, values: dict[str, Any]) -> list[tuple[Any, ...]]:
        """Run a statement once. Raises ``DatabaseUnreachable``, also when it may have happened all the same."""
        try:
            return await self._once(statement, values, ping=True)
        except OutcomeUnknown as error:
            raise DatabaseUnreachable(
                f"the connection broke before Postgres answered, so the write may have happened or not: {error}"
            ) from error

    async def take(self, steps: Steps[T]) -> T:
        """Run steps, each a transaction of its own: the first as a ``write``, the others only read.

        Raises ``DatabaseUnreachable`` whatever is wrong with a read: the write has happened.
        """
        run = self.write
        try:
            step = next(steps)
            while True:
                step = steps.send(await run(step.statement, step.values))
                run = self.read
        except StopIteration as end:
            result: T = end.value
            return result
        except (DatabaseBusy, DatabaseRefused) as error:
            if run == self.write:
                raise
            raise DatabaseUnreachable(f"it is written, but what came of it cannot be read: {error}") from error

    async def close(self) -> None:
        """Close every connection."""
        await asyncio.gather(*(lane.close() for lane in self._all))

    async def _once(
        self, statement: Statement, values: dict[str, Any], ping: bool = False
    ) -> list[tuple[Any, ...]]:
        async with self._free:
            lane = self._idle.pop()  # the one used last: its connection is the likeliest to be good
            try:
                if ping:
                    await lane.ping()
                return await lane.rows_now(statement, values)
            finally:
                self._idle.append(lane)
