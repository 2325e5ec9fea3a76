"""Group commit: the commits of all runs that are ready, as one statement on one connection.

The rule: while one batch is on its way the next gathers; no timer, no second writer. Each commit learns its own
outcome. A bad value, a fenced run or a row that somebody else holds costs its neighbours nothing but time. A batch
whose answer is lost is never sent again.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from typing import TypeVar

import psycopg

from continuum._journal.backoff import Backoff
from continuum._journal.batch import (
    Group,
    Written,
    doubt,
    flush_parts,
    flush_values,
    refusal,
    sayings,
    tell,
    written,
)
from continuum._journal.commit import Commit, Fenced, Outcome, Rejected, Undone, Unknown
from continuum._journal.connections import is_lock_timeout, is_of_server, is_of_values, one_line
from continuum._journal.hints import SILENT, Hints, Telling
from continuum._journal.hooks import Hooks
from continuum._journal.lane import Lane, OutcomeUnknown
from continuum._journal.large import LargeWriter
from continuum._journal.render import Rendered, Row, render
from continuum._journal.statements import Statement, statement

logger = logging.getLogger("continuum.journal")
T = TypeVar("T")

BATCH_ROWS = 500  # beyond this a batch gains nothing and its members wait longer
BATCH_BYTES = 1_000_000
ROOM_BYTES = 32_000_000
PATIENT, WARY = (
    "1s",
    "50ms",
)  # how long a flush waits for rows that somebody holds: at first, and while some are held
HELD_S = 0.25
REFRESH_S = (5.0, 60.0, 300.0)  # plans made while the tables were empty cost 2.6 times as much
MOST_ATTEMPTS = 4  # of a whole batch, before it is taken apart
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
        self._under_way: dict[str, Group] = {}
        self._leaves = self._leave  # one bound method for all groups
        self._closed = False
        self._settled: list[tuple[Group, tuple[Outcome, ...]]] = []
        self._waiting: deque[Group] = deque()
        self._held: list[Group] = []
        self._look_at = 0.0
        self._some = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._crowded = False  # somebody waits for room
        self._plans_of = -1
        self._refreshed = 0
        self._refresh_at = 0.0

    def submit(self, *commits: Commit) -> asyncio.Future[tuple[Outcome, ...]]:
        """Take commits that stand or fall together; the future gives an outcome for each.

        Raises ``RuntimeError`` if a commit of one of the runs is under way: its order would be lost.
        """
        future: asyncio.Future[tuple[Outcome, ...]] = asyncio.get_running_loop().create_future()
        self.hand_in(commits, _tell_future, future)
        return future

    def hand_in(self, commits: Sequence[Commit], told: Callable[[T, tuple[Outcome, ...]], None], about: T) -> None:
        """Take commits as ``submit`` does; ``told(about, outcomes)`` is called from a callback of the loop."""
        number = None
        if len(commits) > 1:
            self._groups += 1
            number = self._groups
        try:
            members = [render(commits[0], None)] if number is None else [render(each, number) for each in commits]
        except Exception:  # noqa: BLE001 - what no encoding has, or what is no JSON: the fault of one
            outcomes = tuple(_unrenderable(commit, number) or Undone() for commit in commits)
            asyncio.get_running_loop().call_soon(told, about, outcomes)
            return
        group = Group(members, told, about, self._leaves)
        self._enter(group)
        if self._closed:
            group.settle(Unknown() for _ in members)
        elif group.large:
            self._large.put(self.worker, group)
        else:
            if not self._waiting:
                self._some.set()
            self._waiting.append(group)

    async def room(self) -> None:
        """Wait until less than ``ROOM_BYTES`` are waiting to be written. Of many who wait, as many pass as fit."""
        while self._size > ROOM_BYTES:
            self._crowded = True
            self._room.clear()
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
        groups = list(dict.fromkeys(self._under_way.values()))
        for group in groups:
            group.settle(Unknown() for _ in group.members)
        doubt(self._hints, groups)

    def serve(self, worker: str) -> None:
        """Write for another worker id from now on; what waits was handed in under a lease that is gone."""
        for group in [*self._waiting, *self._held]:
            group.settle(Fenced() for _ in group.members)
        self._waiting.clear()
        self._held.clear()
        self.worker = worker

    def _enter(self, group: Group) -> None:
        under_way = self._under_way
        for member in group.members:
            run_id = member.commit.run_id
            if run_id in under_way:
                self._forget(group)
                raise RuntimeError(f"a commit of run {run_id!r} is under way already")
            under_way[run_id] = group
        self._size += group.size

    def _leave(self, group: Group, outcomes: tuple[Outcome, ...]) -> None:
        run_id = group.members[0].commit.run_id
        if len(group.members) == 1 and self._under_way.get(run_id) is group:
            del self._under_way[run_id]
        elif not self._forget(group):
            return
        if not self._settled:  # all that are settled by now are told in one callback
            asyncio.get_running_loop().call_soon(self._tell)
        self._settled.append((group, outcomes))
        self._size -= group.size
        if self._crowded and self._size <= ROOM_BYTES:
            self._crowded = False
            self._room.set()

    def _tell(self) -> None:
        settled, self._settled = self._settled, []
        for group, outcomes in settled:
            try:
                group.told(group.about, outcomes)
            except Exception:  # whose fault it is goes on without
                logger.exception("who was told of a commit of run %r failed", group.run_ids()[0])

    def _forget(self, group: Group) -> bool:
        found = False
        for member in group.members:
            if self._under_way.get(member.commit.run_id) is group:
                del self._under_way[member.commit.run_id]
                found = True
        return found

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

    async def _write(self, groups: list[Group], attempt: int = 1) -> None:
        """Write a batch; come back when each of its groups is settled or set aside."""
        backoff = Backoff()
        while True:
            try:
                await self._hooks.reach("flush.begin")
                result, told = await self._send(groups, PATIENT if attempt == 1 and not self._held else WARY)
            except OutcomeUnknown as error:
                logger.warning("a flush of %d commits got no answer: %s", len(groups), error)
                for group in groups:
                    group.settle(Unknown() for _ in group.members)
                doubt(self._hints, groups)
                return
            except psycopg.Error as error:
                if await self._dealt_with(groups, error, attempt):
                    return
                if attempt == 1:
                    logger.warning("a flush was refused: %s; trying again", one_line(error))
                attempt += 1
                await backoff.pause()
            else:
                await self._hooks.reach("flush.committed")
                tell(self._hints, groups, result, told=told)
                clean, plain = result.is_clean(), result.plain
                for group in groups:
                    self._leave(group, plain if clean and len(group.members) == 1 else result.outcomes(group))
                return

    async def _send(self, groups: Sequence[Group], lock_timeout: str) -> tuple[Written, bool]:
        """Write a batch; tells in the same commit, if it is one group that none waits behind. Returns whether."""
        members: list[Rendered] = []
        rows: defaultdict[str, list[Row]] = defaultdict(list)
        parts: set[str] = set()
        for group in groups:
            members += group.members
            if len(group.members) > 1:
                parts.add("mates")
            for member in group.members:
                if member.details:
                    parts.add("standing")
                for table, found in member.rows.items():
                    rows[table] += found
        needed = frozenset(parts.union(rows))
        values = flush_values(self.worker, members, rows, lock_timeout)
        await self._lane.ping()

        async def write(telling: Telling) -> Written:
            wanted = statement("flush", self._schema, needed | telling.parts)
            return written(needed, (await self._lane.rows(wanted, values | telling.values))[0])

        if len(groups) > 1 or self._waiting or lock_timeout == WARY:
            return await write(SILENT), False
        return await self._hints.along(sayings(groups)[1], write)

    async def _dealt_with(self, groups: list[Group], error: psycopg.Error, attempt: int) -> bool:
        """Find who is to blame for an error, and write the others. False: nobody yet, so try all again."""
        if is_lock_timeout(error):
            held = await self._held_by_others(groups)
            stuck = [group for group in groups if _touches(group, held)]
            if stuck:
                self._hold(stuck)
                if len(stuck) < len(groups):
                    await self._write([group for group in groups if not _touches(group, held)])
                return True
        elif is_of_values(error) and len(groups) == 1:
            await self._reject(groups[0], error)
            return True
        elif is_of_values(error):
            attempt = MOST_ATTEMPTS
        # No run's row is held: a child's id that somebody else is inserting, a table that is being altered, a
        # server short of memory. Perhaps it lies with one commit, so in the end the batch is taken apart.
        if attempt < MOST_ATTEMPTS:
            return False
        half = len(groups) // 2
        if half == 0 and is_of_server(error):
            await self._reject(groups[0], error)
        elif half == 0:
            self._hold(groups)
        else:
            await self._write(groups[:half], attempt)
            await self._write(groups[half:], attempt)
        return True

    async def _reject(self, group: Group, error: psycopg.Error) -> None:
        """Settle a group that Postgres refuses; of several members only those whose fault it is are rejected."""
        logger.error("a commit of run %r is refused: %s", group.run_ids()[0], one_line(error))
        if len(group.members) == 1:
            group.settle([refusal(error)])
            return
        found = [await self._fault(member) for member in group.members]
        unsure = [isinstance(fault, Unknown) for fault in found]
        faults = [None if isinstance(fault, Unknown) else fault for fault in found]
        if any(faults):
            group.settle([Undone() if fault is None else fault for fault in faults])
        else:  # nobody by itself, or nobody knows: whoever it is shows when they are made anew
            group.settle([Unknown() if any(unsure) else refusal(error) for _ in faults])

    async def _fault(self, member: Rendered) -> Outcome | None:
        """Return how Postgres refuses one member by itself; ``Unknown``: not found out. Writes nothing."""
        lane, wanted = self._lane, statement("flush", self._schema, flush_parts([member], mates=False))
        values = flush_values(self.worker, [member], member.rows, WARY)
        connection, fault = await lane.ready(), None  # one for all three: on another the second would be a commit
        try:
            await lane.answered(connection, b"begin")
            try:
                await lane.answered(connection, wanted.text, wanted.arguments(values))
            except psycopg.Error as error:
                fault = refusal(error) if is_of_values(error) or is_of_server(error) else None
            await lane.answered(connection, b"rollback")
        except (OutcomeUnknown, psycopg.Error) as error:
            logger.info("not found out who is to blame: %s", one_line(error))
            await lane.drop(connection)  # and with it the transaction
            return Unknown()
        return fault

    def _hold(self, groups: Sequence[Group]) -> None:
        self._held += groups
        self._look_at = asyncio.get_running_loop().time() + HELD_S

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


def _unrenderable(commit: Commit, group: int | None) -> Rejected | None:
    """Return why a commit has no rows, if so."""
    try:
        render(commit, group)
    except Exception as error:  # noqa: BLE001 - see hand_in
        return Rejected(one_line(error))
    return None


def _tell_future(future: asyncio.Future[tuple[Outcome, ...]], outcomes: tuple[Outcome, ...]) -> None:
    if not future.done():
        future.set_result(outcomes)


def _touches(group: Group, run_ids: set[str]) -> bool:
    return not run_ids.isdisjoint(group.run_ids())
