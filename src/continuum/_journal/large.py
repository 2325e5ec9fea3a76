"""Commits that must not travel with others: thousands of rows, or a cascade in them.

The rule: each is a transaction of its own on a second connection, so that neighbours and heartbeats go on. It
takes its locks first, writes in portions, and cascades last. Whatever goes wrong before the end, nothing is
written.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

import psycopg

from continuum._journal.backoff import Backoff
from continuum._journal.batch import Group, Written, doubt, flush_values, tell, written
from continuum._journal.cascade import Cascade, Steps, cancelling, locking
from continuum._journal.commit import Cancelled, Fenced, Stale, Undone, Unknown
from continuum._journal.connections import (
    Connection,
    is_in_the_way,
    is_lock_timeout,
    is_lost,
    is_of_values,
    one_line,
)
from continuum._journal.hints import Hints
from continuum._journal.hooks import Hooks
from continuum._journal.lane import Lane, OutcomeUnknown
from continuum._journal.render import TABLES, held
from continuum._journal.statements import Statement, statement
from continuum.errors import DatabaseBusy, DatabaseRefused, DatabaseUnreachable

logger = logging.getLogger("continuum.journal")
T = TypeVar("T")
Execute = Callable[[Statement, dict[str, Any]], Awaitable[list[tuple[Any, ...]]]]
PORTION_ROWS = 2_000
PORTION_BYTES = 4_000_000
LOCK_TIMEOUT = "1s"
PATIENCE_S = 30.0  # of a cascade for rows that others hold
# Children come first: a message may go to one. What is consumed comes after what records it.
_ORDER = ("children", "entries", "messages", "consumed", "tasks", "discarded", "answers")
assert set(_ORDER) == set(TABLES)


class _Void(Exception):
    """A member is fenced or stale; the transaction is rolled back."""

    def __init__(self, result: Written) -> None:
        self.result = result


@dataclass(slots=True)
class _Done:
    """What a transaction did, told after it."""

    result: Written
    cascades: list[Cascade] = field(default_factory=list[Cascade])


class LargeWriter:
    """Writes large groups one after the other, and cancels runs for clients."""

    def __init__(self, lane: Lane, hints: Hints, *, schema: str, hooks: Hooks) -> None:
        self._lane = lane
        self._hints = hints
        self._schema = schema
        self._hooks = hooks
        self._waiting: deque[tuple[str, Group]] = deque()
        self._some = asyncio.Event()
        self._lock = asyncio.Lock()

    def put(self, worker: str, group: Group) -> None:
        """Take a group to be written."""
        self._waiting.append((worker, group))
        self._some.set()

    async def run(self) -> None:
        """Write what is put until cancelled."""
        while True:
            self._some.clear()
            if not self._waiting:
                await self._some.wait()
            worker, group = self._waiting.popleft()
            await self._settle(worker, group)

    async def cancel(self, run_id: str, reason: str) -> Cancelled | None:
        """Cancel a run with everything below it; None if there is no such run.

        Raises ``OutcomeUnknown``, ``DatabaseUnreachable``, ``DatabaseRefused``, after a while ``DatabaseBusy``.
        """
        backoff = Backoff()
        give_up_at = asyncio.get_running_loop().time() + PATIENCE_S
        while True:
            try:
                async with self._lock:
                    done = await self._cancel(run_id, reason)
            except psycopg.Error as error:
                if is_of_values(error):
                    raise DatabaseRefused(f"Postgres refuses what it was given: {one_line(error)}") from error
                if not is_in_the_way(error):
                    raise DatabaseUnreachable(f"Postgres refuses to cancel: {one_line(error)}") from error
                if asyncio.get_running_loop().time() > give_up_at:
                    raise DatabaseBusy(f"others hold runs below {run_id!r}: {one_line(error)}") from error
                logger.info("a cascade from %r has to wait: %s", run_id, one_line(error))
                await backoff.pause()
            else:
                done.tell(self._hints)
                return None if done.state is None else Cancelled(done.state, done.runs)

    async def _cancel(self, run_id: str, reason: str) -> Cascade:
        await self._lane.ping()
        connection = await self._lane.now()
        await self._hooks.reach("cancel.begin")
        try:
            await self._begin(connection)
            done = await self._take(self._inside(connection), cancelling(self._schema, run_id, reason))
            await self._lane.answered(connection, b"commit")
        except BaseException:
            await self._roll_back(connection)
            raise
        await self._hooks.reach("cancel.committed")
        return done

    async def _settle(self, worker: str, group: Group) -> None:
        backoff, told = Backoff(), False
        while True:
            try:
                async with self._lock:
                    done = await self._write(worker, group)
            except _Void as fenced:
                outcome = fenced.result.outcome
                ours = [outcome(member.commit) for member in group.members]
                group.settle(found if isinstance(found, Fenced | Stale) else Undone() for found in ours)
                return
            except OutcomeUnknown as error:
                logger.warning("a large commit got no answer: %s", error)
                group.settle(Unknown() for _ in group.members)
                doubt(self._hints, [group])
                return
            except DatabaseRefused as error:
                group.refuse(error)
                return
            except psycopg.Error as error:
                if is_of_values(error):
                    group.refuse(error)
                    return
                if is_lock_timeout(error) and self._waiting:  # its rows are held: let others pass
                    asyncio.get_running_loop().call_later(0.25, self.put, worker, group)
                    return
                if not told:
                    logger.warning("a large commit has to wait: %s", one_line(error))
                told = True
                await backoff.pause()
            else:
                tell(self._hints, [group], done.result)
                for cascade in done.cascades:
                    cascade.tell(self._hints)
                group.settle(done.result.outcomes(group))
                return

    async def _write(self, worker: str, group: Group) -> _Done:
        await self._lane.ping()
        connection = await self._lane.ready()
        await self._hooks.reach("large.begin")
        try:
            await self._begin(connection)
            execute = self._inside(connection)
            own = [member.commit.run_id for member in group.members]
            trees = [wanted.run_id for member in group.members for wanted in member.commit.cancels]
            if trees and len(own) + len(trees) > 2:  # else the order is right by itself
                await self._take(execute, locking(self._schema, own, trees))
            done = await self._portions(execute, worker, group)
            for member in group.members:
                for wanted in member.commit.cancels:
                    steps = cancelling(self._schema, wanted.run_id, wanted.reason)
                    done.cascades.append(await self._take(execute, steps))
            await self._hooks.reach("large.written")
            await self._lane.answered(connection, b"commit")
        except BaseException:
            await self._roll_back(connection)
            raise
        await self._hooks.reach("large.committed")
        return done

    async def _portions(self, execute: Execute, worker: str, group: Group) -> _Done:
        # One statement takes all locks in order and judges all leases; afterwards they cannot change.
        own = [held(member, 1) for member in group.members]
        total = await self._flush(execute, worker, own, {}, frozenset())
        if total.fenced:
            raise _Void(total)
        await self._hooks.reach("large.locked")
        for table in _ORDER:
            rows = [row for member in group.members for row in member.rows.get(table, ())]
            for portion in portions(rows):
                answer = await self._flush(execute, worker, own, {table: portion}, frozenset((table,)))
                if answer.stale:
                    raise _Void(answer)
                total.existed |= answer.existed
                total.undelivered |= answer.undelivered
                total.near |= answer.near
                total.far |= answer.far
        if any(member.standing for member in group.members):
            await self._flush(
                execute, worker, [member.own for member in group.members], {}, frozenset(("standing",))
            )
        return _Done(total)

    async def _flush(
        self,
        execute: Execute,
        worker: str,
        own: list[bytes],
        rows: dict[str, list[bytes]],
        parts: frozenset[str],
    ) -> Written:
        values: dict[str, Any] = flush_values(worker, own, rows, LOCK_TIMEOUT)
        answer = await execute(statement("flush", self._schema, parts), values)
        return written(parts, answer[0])

    async def _take(self, execute: Execute, steps: Steps[T]) -> T:
        try:
            step = next(steps)
            while True:
                rows = await execute(step.statement, step.values)
                if step.point:
                    await self._hooks.reach(step.point)
                step = steps.send(rows)
        except StopIteration as end:
            result: T = end.value
            return result

    def _inside(self, connection: Connection) -> Execute:
        """Return how to run statements in the transaction of this very connection."""

        async def execute(wanted: Statement, values: dict[str, Any]) -> list[tuple[Any, ...]]:
            return await self._lane.answered(connection, wanted.text, wanted.arguments(values))

        return execute

    async def _begin(self, connection: Connection) -> None:
        # A cascade is only whole when each statement sees what was committed before it.
        await self._lane.answered(connection, b"begin isolation level read committed")
        await self._lane.answered(connection, f"set local lock_timeout = '{LOCK_TIMEOUT}'".encode())

    async def _roll_back(self, connection: Connection) -> None:
        if not is_lost(connection):
            try:
                await self._lane.answered(connection, b"rollback")
            except (psycopg.Error, OutcomeUnknown):
                await self._lane.drop(connection)


def portions(rows: list[bytes]) -> Iterator[list[bytes]]:
    """Yield ``rows`` in parts of at most ``PORTION_ROWS`` rows and, but for single rows, ``PORTION_BYTES``."""
    part: list[bytes] = []
    size = 0
    for row in rows:
        if part and (len(part) >= PORTION_ROWS or size + len(row) > PORTION_BYTES):
            yield part
            part, size = [], 0
        part.append(row)
        size += len(row)
    if part:
        yield part
