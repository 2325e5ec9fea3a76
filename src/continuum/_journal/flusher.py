"""Group commit: the commits of all runs that are ready, as one statement on one connection.

The rule: while one batch is on its way the next gathers; no timer, no second writer. Each commit learns its own
outcome. A bad value, a fenced run or a row that somebody else holds costs its neighbours nothing but time. A batch
whose answer is lost is never sent again.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Sequence

import psycopg

from continuum._journal.batch import Group, Written, flush_parts, flush_values, tell, written
from continuum._journal.commit import Commit, Outcome, Rejected, Unknown
from continuum._journal.connections import is_lock_timeout, is_of_values, one_line
from continuum._journal.hints import Hints
from continuum._journal.hooks import Hooks
from continuum._journal.lane import Backoff, Lane, OutcomeUnknown
from continuum._journal.large import LargeWriter
from continuum._journal.render import render
from continuum._journal.statements import Statement, statement

logger = logging.getLogger("continuum.journal")

BATCH_ROWS = 500  # beyond this a batch gains nothing and its members wait longer
BATCH_BYTES = 1_000_000
ROOM_BYTES = 32_000_000
PATIENT, WARY = (
    "1s",
    "50ms",
)  # how long a flush waits for rows that somebody holds: at first, and while some are held
HELD_S = 0.25
REFRESH_S = (5.0, 60.0, 300.0)  # plans made while the tables were empty cost 2.6 times as much
_DISCARD_PLANS = Statement(b"discard plans", ())


class Flusher:
    """One coroutine, one connection. ``large`` takes the groups that must not travel with others."""

    def __init__(self, lane: Lane, hints: Hints, large: LargeWriter, *, schema: str, hooks: Hooks) -> None:
        self.worker = ""
        self._lane = lane
        self._hints = hints
        self._large = large
        self._schema = schema
        self._hooks = hooks
        self._groups = 0
        self._size = 0
        self._open: set[Group] = set()
        self._under_way: set[str] = set()
        self._closed = False
        self._waiting: deque[Group] = deque()
        self._held: list[Group] = []
        self._look_at = 0.0
        self._some = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._plans_of = -1
        self._refreshed = 0
        self._refresh_at = 0.0

    def submit(self, *commits: Commit) -> asyncio.Future[tuple[Outcome, ...]]:
        """Take commits that stand or fall together; the future gives an outcome for each.

        Raises ``RuntimeError`` if a commit of one of the runs is under way: its order would be lost.
        """
        number = None
        if len(commits) > 1:
            self._groups += 1
            number = self._groups
        future: asyncio.Future[tuple[Outcome, ...]] = asyncio.get_running_loop().create_future()
        try:
            members = [render(commit, number) for commit in commits]
        except ValueError as error:  # text that no encoding has
            future.set_result(tuple(Rejected(one_line(error)) for _ in commits))
            return future
        group = Group(members, future, self._leave)
        self._enter(group)
        if self._closed:
            group.settle(Unknown() for _ in members)
        elif group.is_large():
            self._large.put(self.worker, group)
        else:
            self._waiting.append(group)
            self._some.set()
        return future

    async def room(self) -> None:
        """Wait until less than ``ROOM_BYTES`` are waiting to be written."""
        await self._room.wait()

    async def run(self) -> None:
        """Write what is handed in until cancelled."""
        while True:
            if self._held and asyncio.get_running_loop().time() >= self._look_at:
                await self._let_go()
            if not self._waiting:
                await self._wait()
            elif groups := self._next_batch():
                await self._write(groups)
                await self._refresh_plans()

    def close(self) -> None:
        """Settle what is open: nobody will hear its answer any more."""
        self._closed = True
        for group in list(self._open):
            group.settle(Unknown() for _ in group.members)

    def _enter(self, group: Group) -> None:
        run_ids = group.run_ids()
        for at, run_id in enumerate(run_ids):
            if run_id in self._under_way:
                self._under_way.difference_update(run_ids[:at])
                raise RuntimeError(f"a commit of run {run_id!r} is under way already")
            self._under_way.add(run_id)
        self._open.add(group)
        self._size += group.size
        if self._size > ROOM_BYTES:
            self._room.clear()

    def _leave(self, group: Group) -> None:
        if group not in self._open:
            return
        self._open.remove(group)
        self._under_way.difference_update(group.run_ids())
        self._size -= group.size
        if self._size <= ROOM_BYTES:
            self._room.set()

    async def _wait(self) -> None:
        self._some.clear()
        if not self._held:
            await self._some.wait()
            return
        try:
            async with asyncio.timeout(HELD_S):
                await self._some.wait()
        except TimeoutError:
            pass

    def _next_batch(self) -> list[Group]:
        groups: list[Group] = []
        rows = size = 0
        while self._waiting:
            group = self._waiting[0]
            rows, size = rows + group.rows, size + group.size
            if groups and (rows > BATCH_ROWS or size > BATCH_BYTES):
                break
            groups.append(self._waiting.popleft())
        return groups

    async def _write(self, groups: list[Group]) -> None:
        """Write a batch; come back when each of its groups is settled or set aside."""
        backoff, told = Backoff(), False
        while True:
            try:
                await self._hooks.reach("flush.begin")
                result = await self._send(groups)
            except OutcomeUnknown as error:
                logger.warning("a flush of %d commits got no answer: %s", len(groups), error)
                for group in groups:
                    group.settle(Unknown() for _ in group.members)
                return
            except psycopg.Error as error:
                if is_lock_timeout(error):
                    await self._set_aside(groups)
                    return
                if is_of_values(error):
                    await self._isolate(groups, error)
                    return
                if not told:
                    logger.warning("a flush was refused: %s; trying again", one_line(error))
                told = True
                await backoff.pause()
            else:
                await self._hooks.reach("flush.committed")
                tell(self._hints, groups, result)
                for group in groups:
                    group.settle([result.outcome(member.commit) for member in group.members])
                return

    async def _send(self, groups: Sequence[Group]) -> Written:
        members = [member for group in groups for member in group.members]
        rows: dict[str, list[bytes]] = {}
        for member in members:
            for table, found in member.rows.items():
                rows.setdefault(table, []).extend(found)
        parts = flush_parts(members)
        values = flush_values(
            self.worker, (member.own for member in members), rows, WARY if self._held else PATIENT
        )
        await self._lane.ping()
        answer = await self._lane.rows(statement("flush", self._schema, parts), values)
        return written(parts, answer[0])

    async def _isolate(self, groups: list[Group], error: psycopg.Error) -> None:
        """Find the commit that Postgres refuses by halving; its neighbours are written."""
        if len(groups) == 1:
            logger.error("a commit of run %r is refused: %s", groups[0].members[0].commit.run_id, one_line(error))
            groups[0].settle(Rejected(one_line(error)) for _ in groups[0].members)
            return
        half = len(groups) // 2
        await self._write(groups[:half])
        await self._write(groups[half:])

    async def _set_aside(self, groups: list[Group]) -> None:
        """Keep those whose rows somebody holds for later, and write the others."""
        held = await self._held_by_others(groups)
        stuck = [group for group in groups if _touches(group, held)]
        free = [group for group in groups if not _touches(group, held)]
        if not stuck and len(groups) > 1:  # not a run's row: a child's id that somebody else is inserting, perhaps
            half = len(groups) // 2
            stuck, free = [], groups
            for part in (groups[:half], groups[half:]):
                await self._write(part)
            return
        self._held += stuck or groups
        self._look_at = asyncio.get_running_loop().time() + HELD_S
        if stuck and free:
            await self._write(free)

    async def _let_go(self) -> None:
        """Put those back whose rows are free again."""
        self._look_at = asyncio.get_running_loop().time() + HELD_S
        held = await self._held_by_others(self._held)
        self._waiting.extendleft(group for group in reversed(self._held) if not _touches(group, held))
        self._held = [group for group in self._held if _touches(group, held)]

    async def _held_by_others(self, groups: Sequence[Group]) -> set[str]:
        run_ids = [run_id for group in groups for run_id in group.run_ids()]
        try:
            rows = await self._lane.rows(statement("held", self._schema), {"run_ids": run_ids})
        except (OutcomeUnknown, psycopg.Error):
            return set(run_ids)
        return {row[0] for row in rows}

    async def _refresh_plans(self) -> None:
        now = asyncio.get_running_loop().time()
        if self._plans_of != self._lane.epoch:
            self._plans_of, self._refreshed = self._lane.epoch, 0
            self._refresh_at = now + REFRESH_S[0]
        elif now >= self._refresh_at:
            self._refreshed = min(self._refreshed + 1, len(REFRESH_S) - 1)
            self._refresh_at = now + REFRESH_S[self._refreshed]
            try:
                await self._lane.rows(_DISCARD_PLANS, {})
            except (OutcomeUnknown, psycopg.Error) as error:
                logger.info("plans not refreshed: %s", one_line(error))


def _touches(group: Group, run_ids: set[str]) -> bool:
    return not run_ids.isdisjoint(group.run_ids())
