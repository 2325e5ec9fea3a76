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
from typing import Any

import psycopg

from continuum._journal.backoff import Backoff
from continuum._journal.batch import Group, Written, doubt, flush_values, tell, written
from continuum._journal.cascade import Cascade, locking
from continuum._journal.commit import Fenced, Stale, Undone, Unknown
from continuum._journal.connections import is_lock_timeout, is_of_values, one_line
from continuum._journal.endings import bringing_about, is_in_order, trees
from continuum._journal.hints import Hints
from continuum._journal.hooks import Hooks
from continuum._journal.lane import Lane, OutcomeUnknown
from continuum._journal.render import TABLES, Row, weight
from continuum._journal.statements import Statement, statement
from continuum._journal.transaction import transaction
from continuum.errors import DatabaseRefused

logger = logging.getLogger("continuum.journal")
Execute = Callable[[Statement, dict[str, Any]], Awaitable[list[tuple[Any, ...]]]]
PORTION_ROWS = 2_000
PORTION_BYTES = 4_000_000
LOCK_TIMEOUT = "1s"
# Children come first: a message may go to one. What is consumed comes after what records it.
_ORDER = ("children", "entries", "messages", "consumed", "tasks", "discarded", "answers", "deadlines")
assert set(_ORDER) == set(TABLES)


class _Void(Exception):
    """A member is fenced or stale; the transaction is rolled back."""

    def __init__(self, result: Written) -> None:
        self.result = result


@dataclass(slots=True)
class _Done:
    """What a transaction did, told after it."""

    result: Written
    cascade: Cascade = field(default_factory=Cascade)


class LargeWriter:
    """Writes large groups one after the other."""

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
                done.cascade.tell(self._hints)
                group.settle(done.result.outcomes(group))
                return

    async def _write(self, worker: str, group: Group) -> _Done:
        await self._lane.ping()
        connection = await self._lane.ready()
        await self._hooks.reach("large.begin")
        async with transaction(self._lane, connection, self._hooks, lock_timeout=LOCK_TIMEOUT) as inside:
            commits = [member.commit for member in group.members]
            if group.cascades and not is_in_order(commits):
                own = [commit.run_id for commit in commits]
                await inside.take(locking(self._schema, own, trees(commits)))
            done = await self._portions(inside.execute, worker, group)
            if group.cascades:
                done.cascade = await inside.take(bringing_about(self._schema, commits))
            await self._hooks.reach("large.written")
        await self._hooks.reach("large.committed")
        return done

    async def _portions(self, execute: Execute, worker: str, group: Group) -> _Done:
        # One statement takes all locks in order and judges all leases; afterwards they cannot change.
        total = await self._flush(execute, worker, group, {}, frozenset())
        if total.fenced:
            raise _Void(total)
        await self._hooks.reach("large.locked")
        for table in _ORDER:
            rows = [row for member in group.members for row in member.rows.get(table, ())]
            for portion in portions(rows):
                answer = await self._flush(execute, worker, group, {table: portion}, frozenset((table,)))
                if answer.stale:
                    raise _Void(answer)
                total.existed |= answer.existed
                total.undelivered |= answer.undelivered
                total.near |= answer.near
                total.far |= answer.far
        if any(member.standing for member in group.members):
            await self._flush(execute, worker, group, {}, frozenset(("standing",)))
        return _Done(total)

    async def _flush(
        self,
        execute: Execute,
        worker: str,
        group: Group,
        rows: dict[str, list[Row]],
        parts: frozenset[str],
    ) -> Written:
        values: dict[str, Any] = flush_values(worker, group.members, rows, LOCK_TIMEOUT)
        answer = await execute(statement("flush", self._schema, parts), values)
        return written(parts, answer[0])


def portions(rows: list[Row]) -> Iterator[list[Row]]:
    """Yield ``rows`` in parts of at most ``PORTION_ROWS`` rows and, but for single rows, ``PORTION_BYTES``."""
    part: list[Row] = []
    size = 0
    for row in rows:
        more = weight(row)
        if part and (len(part) >= PORTION_ROWS or size + more > PORTION_BYTES):
            yield part
            part, size = [], 0
        part.append(row)
        size += more
    if part:
        yield part
