"""Starts of root runs: those that come while others are being written go together in the next statement.

The rule: a start is durable when its caller hears of it, and whole, whoever's rows go along. What is wrong with
one costs its neighbours nothing but time: what Postgres refuses, or somebody's open transaction holds, is tried
once more by itself. A statement whose answer is lost is never sent again.
"""

from __future__ import annotations

import asyncio
import copy
from collections import deque
from collections.abc import Coroutine, Iterable, Sequence
from typing import Any

from continuum._journal.batch import array
from continuum._journal.commit import NewRoot
from continuum._journal.ends import Ends
from continuum._journal.hints import Hints, Telling
from continuum._journal.lane import Lanes
from continuum._journal.rows import encoded, root_row
from continuum._journal.statements import statement
from continuum.errors import DatabaseBusy, DatabaseRefused

MOST_ROWS = 500  # of a statement that several callers share
MOST_BYTES = 1_000_000
_WARY = frozenset(("wary",))


class _Asked:
    """What one caller starts; the future gives the ids inserted now."""

    __slots__ = ("future", "ids", "rows", "size")

    def __init__(self, runs: Sequence[NewRoot]) -> None:
        self.ids = {run.run_id: f"{run.workflow}:{run.version}" for run in runs}
        self.rows = encoded(root_row, runs)
        self.size = sum(map(len, self.rows))
        self.future: asyncio.Future[set[str]] = asyncio.get_running_loop().create_future()


class Starts:
    """One statement at a time; there is a task only while somebody starts something."""

    def __init__(self, lanes: Lanes, hints: Hints, ends: Ends, schema: str, *, patient: asyncio.Semaphore) -> None:
        self._lanes = lanes
        self._hints = hints
        self._ends = ends
        self._schema = schema
        self._waiting: deque[_Asked] = deque()
        self._writer: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._patient = patient  # who waits for somebody's transaction leaves others a way

    async def start(self, runs: Sequence[NewRoot]) -> set[str]:
        """Insert root runs in one commit; return the ids inserted now.

        Who stops waiting has not undone it. Raises ``DatabaseUnreachable``, or ``DatabaseRefused`` and
        ``DatabaseBusy``, of which nobody else is told.
        """
        asked = _Asked(runs)
        self._waiting.append(asked)
        if self._writer is None or self._writer.done():
            self._writer = self._begin(self._write_all())
        return await asked.future

    def _begin(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _write_all(self) -> None:
        try:
            while group := self._next_group():
                await self._write(group, patient=False)
        finally:
            _fail(self._waiting, asyncio.CancelledError())  # there are none unless this task is cancelled

    def _next_group(self) -> list[_Asked]:
        """Take those who wait, up to what goes into a statement; who starts an id that is in it comes after."""
        group: list[_Asked] = []
        ids = set[str]()
        size = 0
        while self._waiting:
            asked = self._waiting[0]
            if not asked.future.done():
                size += asked.size
                full = len(ids) + len(asked.ids) > MOST_ROWS or size > MOST_BYTES
                if group and (full or not ids.isdisjoint(asked.ids)):
                    break
                group.append(asked)
                ids.update(asked.ids)
            self._waiting.popleft()
        return group

    async def _write(self, group: Sequence[_Asked], *, patient: bool) -> None:
        """Write a group and tell its callers. Whose fault an error is shows when each is tried by itself."""
        try:
            started = await self._send(group, patient=patient)
        except (DatabaseBusy, DatabaseRefused) as error:
            if patient:
                _fail(group, error)
            for asked in () if patient else group:
                self._begin(self._by_itself(asked))
        except asyncio.CancelledError as error:
            _fail(group, error)
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, it is told to whoever waits
            _fail(group, error)
        else:
            for asked in group:
                if not asked.future.done():
                    asked.future.set_result(started & asked.ids.keys())

    async def _by_itself(self, asked: _Asked) -> None:
        async with self._patient:
            await self._write([asked], patient=True)

    async def _send(self, group: Sequence[_Asked], *, patient: bool) -> set[str]:
        ids = {run_id: name for asked in group for run_id, name in asked.ids.items()}
        values: dict[str, Any] = {"runs": array(row for asked in group for row in asked.rows)}
        parts = frozenset[str]() if patient else _WARY

        async def write(telling: Telling) -> list[tuple[Any, ...]]:
            found = statement("start", self._schema, parts | telling.parts)
            return await self._lanes.write(found, values | telling.values)

        started = set[str]()
        self._ends.begin(ids)
        try:
            rows, told = await self._hints.along({"ready": set(ids.values())}, write)
            started = {row[0] for row in rows}
        finally:
            if len(started) < len(ids):
                self._ends.look([run_id for run_id in ids if run_id not in started])
        if not told:
            self._hints.say("ready", {ids[run_id] for run_id in started})
        return started


def _fail(group: Iterable[_Asked], error: BaseException) -> None:
    """Tell an error to those who still wait, each a copy: callers add notes to it."""
    for asked in group:
        if asked.future.done():
            continue
        if isinstance(error, asyncio.CancelledError):
            asked.future.cancel()
            continue
        copied = copy.copy(error)
        copied.__cause__ = error.__cause__
        asked.future.set_exception(copied)
