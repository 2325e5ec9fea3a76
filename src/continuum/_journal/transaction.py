"""A transaction of several statements on a lane's connection, such as a cascade or a large commit.

The rule: it takes place on one connection and is committed at the end of the block; whatever goes wrong before, it
is rolled back. It is read committed: a cascade is whole only if each statement sees what was committed before it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import psycopg

from continuum._journal.cascade import Steps
from continuum._journal.connections import Connection, is_lost
from continuum._journal.hooks import Hooks
from continuum._journal.lane import Lane, OutcomeUnknown
from continuum._journal.statements import Statement

T = TypeVar("T")


class Transaction:
    """An open transaction."""

    def __init__(self, lane: Lane, connection: Connection, hooks: Hooks) -> None:
        self._lane = lane
        self._connection = connection
        self._hooks = hooks

    async def execute(self, wanted: Statement, values: dict[str, Any]) -> list[tuple[Any, ...]]:
        """Run a statement in it and return its rows."""
        return await self._lane.answered(self._connection, wanted.text, wanted.arguments(values))

    async def take(self, steps: Steps[T]) -> T:
        """Run steps in it, and tell the hooks of their points."""
        try:
            step = next(steps)
            while True:
                rows = await self.execute(step.statement, step.values)
                if step.point:
                    await self._hooks.reach(step.point)
                step = steps.send(rows)
        except StopIteration as end:
            result: T = end.value
            return result


@asynccontextmanager
async def transaction(
    lane: Lane, connection: Connection, hooks: Hooks, *, lock_timeout: str
) -> AsyncGenerator[Transaction, None]:
    """Begin a transaction on a lane's connection; commit it at the end of the block, or roll it back.

    Raises ``OutcomeUnknown`` if the connection breaks, and what Postgres answers.
    """
    try:
        await lane.answered(connection, b"begin isolation level read committed")
        await lane.answered(connection, f"set local lock_timeout = '{lock_timeout}'".encode())
        yield Transaction(lane, connection, hooks)
        await lane.answered(connection, b"commit")
    except BaseException:
        await _roll_back(lane, connection)
        raise


async def _roll_back(lane: Lane, connection: Connection) -> None:
    if not is_lost(connection):
        try:
            await lane.answered(connection, b"rollback")
        except (psycopg.Error, OutcomeUnknown):
            await lane.drop(connection)
