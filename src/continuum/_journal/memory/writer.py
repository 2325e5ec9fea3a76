"""Group commit in memory: one batch on its way while the next gathers; see ``_journal/flusher.py``.

The rule: a batch whose answer is lost is never sent again. A group that cancels other runs, or is large, goes by
itself on a lane of its own.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from continuum._journal.backoff import Backoff
from continuum._journal.commit import Commit, Fenced, Outcome, Rejected, Stale, Undone, Unknown
from continuum._journal.endings import reaches_below
from continuum._journal.hooks import Hooks
from continuum._journal.memory.hints import MemoryHints
from continuum._journal.memory.store import Memory
from continuum._journal.memory.writing import fault
from continuum.errors import DatabaseUnreachable

if TYPE_CHECKING:
    from continuum._journal.memory.journal import Wire

logger = logging.getLogger("continuum.journal")
T = TypeVar("T")
BATCH_ROWS = 500
LARGE_ROWS = 2_000
ROOM_ROWS = 100_000
HELD_S = 0.25


class NotSent(DatabaseUnreachable):
    """An operation that was certainly not begun."""


@dataclass(slots=True, eq=False)
class _Group:
    commits: tuple[Commit, ...]
    told: Callable[[Any, tuple[Outcome, ...]], None]
    about: Any
    rows: int


class Writer:
    """Takes commits and settles each group once."""

    def __init__(self, wire: Wire, memory: Memory, hints: MemoryHints, hooks: Hooks) -> None:
        self.worker: str | None = None
        self._hints = hints
        self._closed = False
        self._under_way: dict[str, _Group] = {}
        self._rows = 0
        self._room = asyncio.Event()
        self._room.set()
        self._small = _Lane(self, wire, memory, hooks, "flush", BATCH_ROWS)
        self._large = _Lane(self, wire, memory, hooks, "large", 1)
        self.lanes = (self._small, self._large)

    def submit(self, *commits: Commit) -> asyncio.Future[tuple[Outcome, ...]]:
        """Take commits that stand or fall together; the future gives an outcome for each."""
        future: asyncio.Future[tuple[Outcome, ...]] = asyncio.get_running_loop().create_future()
        self.hand_in(commits, _tell_future, future)
        return future

    def hand_in(self, commits: Sequence[Commit], told: Callable[[T, tuple[Outcome, ...]], None], about: T) -> None:
        """Take commits as ``submit`` does; ``told(about, outcomes)`` is called from a callback of the loop."""
        faults = [fault(commit) for commit in commits]
        if any(faults):
            outcomes = tuple(Rejected(found) if found else Undone() for found in faults)
            asyncio.get_running_loop().call_soon(told, about, outcomes)
            return
        known = set(self._under_way)
        for commit in commits:
            if commit.run_id in known:  # or stands in this group twice: an old copy of the run that waited with it
                raise RuntimeError(f"a commit of run {commit.run_id!r} is under way already")
            known.add(commit.run_id)
        group = _Group(tuple(commits), told, about, sum(map(_rows, commits)))
        self._under_way.update({commit.run_id: group for commit in commits})
        self._rows += group.rows
        if self._closed:
            self.settle(group, [Unknown() for _ in commits])
        elif group.rows > LARGE_ROWS or any(map(reaches_below, commits)):
            self._large.put(group)
        else:
            self._small.put(group)

    async def room(self) -> None:
        """Wait until little enough is waiting to be written."""
        while self._rows > ROOM_ROWS:
            self._room.clear()
            await self._room.wait()

    def serve(self, worker: str | None) -> None:
        """Write for another worker id from now on; what waits was handed in under a lease that is gone."""
        for group in [group for lane in self.lanes for group in lane.drop()]:
            self.settle(group, [Fenced() for _ in group.commits])
        self.worker = worker

    def close(self) -> None:
        """Settle what is open: nobody will hear its answer any more."""
        self._closed = True
        for group in list(dict.fromkeys(self._under_way.values())):
            self.doubt(group)

    def doubt(self, group: _Group) -> None:
        """Settle a group of which nobody knows whether it was written."""
        if self.settle(group, [Unknown() for _ in group.commits]):
            for commit in group.commits:
                self._hints.doubtful(commit)

    def settle(self, group: _Group, outcomes: Sequence[Outcome]) -> bool:
        """Tell the outcomes, once."""
        if self._under_way.get(group.commits[0].run_id) is not group:
            return False
        for commit in group.commits:
            del self._under_way[commit.run_id]
        self._rows -= group.rows
        self._room.set()
        asyncio.get_running_loop().call_soon(group.told, group.about, tuple(outcomes))
        return True

    def written(self, group: _Group, outcomes: tuple[Outcome, ...]) -> None:
        """Note what others should know of a group, and settle it."""
        if not any(isinstance(outcome, Fenced | Stale | Rejected | Undone) for outcome in outcomes):
            for commit in group.commits:
                self._hints.committed(commit)
        self.settle(group, outcomes)

    @property
    def hints(self) -> MemoryHints:
        """Where is noted what others should know."""
        return self._hints


class _Lane:
    """One connection: a batch at a time."""

    def __init__(self, writer: Writer, wire: Wire, memory: Memory, hooks: Hooks, name: str, most: int) -> None:
        self._writer = writer
        self._wire = wire
        self._memory = memory
        self._hooks = hooks
        self._name = name
        self._most = most
        self._waiting: list[_Group] = []
        self._some = asyncio.Event()

    def put(self, group: _Group) -> None:
        """Take a group to be written."""
        self._waiting.append(group)
        self._some.set()

    def drop(self) -> list[_Group]:
        """Return what waits, which is not written any more."""
        waiting, self._waiting = self._waiting, []
        return waiting

    async def run(self) -> None:
        """Write what is put until cancelled."""
        backoff = Backoff()
        while True:
            await self._some.wait()
            self._some.clear()
            while batch := self._next_batch():
                try:
                    await self._write(batch)
                    backoff.reset()
                except NotSent:
                    self._waiting[:0] = batch
                    await backoff.pause()

    def _next_batch(self) -> list[_Group]:
        rows, batch = 0, list[_Group]()
        while self._waiting and (not batch or rows + self._waiting[0].rows <= self._most):
            batch.append(self._waiting.pop(0))
            rows += batch[-1].rows
        return batch

    async def _write(self, batch: list[_Group]) -> None:
        await self._hooks.reach(f"{self._name}.begin")
        writer, groups = self._writer, [group.commits for group in batch]
        try:
            done = await self._wire(self._name, self._memory.flush, writer.worker, groups)
        except NotSent:
            raise
        except DatabaseUnreachable:
            for group in batch:
                writer.doubt(group)
            return
        await self._hooks.reach(f"{self._name}.committed")
        writer.hints.mail(done.near, done.far)
        for cascade in done.cascades:
            writer.hints.cascade(cascade)
        held: list[_Group] = []
        for group, outcomes in zip(batch, done.outcomes, strict=True):
            if outcomes is None:
                held.append(group)
            else:
                writer.written(group, outcomes)
        if held:  # their rows are somebody else's for now
            asyncio.get_running_loop().call_later(HELD_S, self._again, held)

    def _again(self, held: list[_Group]) -> None:
        for group in held:
            self.put(group)


def _rows(commit: Commit) -> int:
    return 1 + len(commit.entries) + len(commit.messages) + len(commit.children) + len(commit.consumed)


def _tell_future(future: asyncio.Future[tuple[Outcome, ...]], outcomes: tuple[Outcome, ...]) -> None:
    if not future.done():
        future.set_result(outcomes)
