"""The journal in memory as a world: the protocol's verified fake."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, TypeVar

from continuum import Client
from continuum._core.effects import Message
from continuum._journal.memory.journal import MemoryJournal, Straight
from continuum._journal.memory.store import Memory, entry_rows
from continuum._journal.memory.views import described
from continuum._journal.protocol import Journal
from continuum.errors import DatabaseUnreachable
from tests.conformance.harness import Losing, World
from tests.journal.harness import Heard

T = TypeVar("T")
DAY_US = 86_400_000_000


class Fault:
    """One operation that gets no answer."""

    def __init__(self, what: str, happens: bool) -> None:
        self.what, self.happens = what, happens
        self.struck = asyncio.Event()


class LosingWire(Straight):
    """A wire that loses an operation or its answer when it is told to."""

    def __init__(self) -> None:
        self._fault: Fault | None = None

    async def __call__(self, what: str, operation: Callable[..., T], *values: Any) -> T:
        fault = self._fault
        if fault is None or what != fault.what:
            return await super().__call__(what, operation, *values)
        self._fault = None
        if fault.happens:
            operation(*values)
        fault.struck.set()
        raise DatabaseUnreachable("the answer was lost")

    def lose_answer(self, what: str) -> Fault:
        return self._lose(Fault(what, happens=True))

    def lose_statement(self, what: str) -> Fault:
        return self._lose(Fault(what, happens=False))

    def _lose(self, fault: Fault) -> Fault:
        self._fault = fault
        return fault


class MemoryWorld(World):
    """A journal in memory, by the host's clock."""

    def __init__(self) -> None:
        super().__init__()
        offset = time.time_ns() - time.monotonic_ns()
        self.memory = Memory(lambda: (time.monotonic_ns() + offset) // 1_000)

    @asynccontextmanager
    async def journal(self, worker_id: str | None = "w", *, lease_s: float = 10) -> AsyncIterator[Journal]:
        opening = MemoryJournal(self.memory)
        self.heard[worker_id] = Heard(opening)
        async with opening.open() as journal:
            if worker_id is not None:
                await journal.register(worker_id, lease_s, {})
            yield journal

    @asynccontextmanager
    async def losing(self, worker_id: str) -> AsyncIterator[tuple[Journal, Losing]]:
        wire = LosingWire()
        async with MemoryJournal(self.memory, wire=wire).open() as journal:
            await journal.register(worker_id, 10, {})
            yield journal, wire

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Client]:
        """A client whose workers find their runs here, too."""
        async with MemoryJournal(self.memory).open() as journal:
            yield Client(journal)

    def silence(self, worker_id: str) -> None:
        self.memory.workers[worker_id].beat_us -= DAY_US

    def season(self, worker_id: str) -> None:
        self.memory.workers[worker_id].connected_us -= DAY_US

    def lapse_tasks(self) -> None:
        for task in self.memory.tasks.values():
            task.lease_until_us -= DAY_US

    def lapse_deadlines(self) -> None:
        deadlines = self.memory.cancellations
        deadlines.update({run_id: (self.memory.now_us() - 1, why) for run_id, (_, why) in deadlines.items()})

    @contextmanager
    def hold(self, *run_ids: str) -> Iterator[None]:
        self.memory.locked.update(run_ids)
        yield
        self.memory.locked.difference_update(run_ids)

    def deliver_silently(self, message: Message) -> None:
        self.memory.put(message.run_id, message.type, message.key, message.payload)

    def lease(self, run_id: str) -> tuple[str | None, int]:
        run = self.memory.runs[run_id]
        return run.owner, run.token

    def state(self, run_id: str) -> str:
        return described(self.memory.runs[run_id]).state

    def error(self, run_id: str) -> str:
        error = self.memory.runs[run_id].error
        return "None" if error is None else error.decode()

    def inherited(self, run_id: str) -> tuple[str, object, str | None]:
        run = self.memory.runs[run_id]
        return run.namespace, run.attributes, run.trace

    def entries(self, run_id: str, generation: int = 1) -> list[tuple[int, str, str]]:
        rows = entry_rows(self.memory.runs[run_id], generation)
        return [(seq, entry.type, entry.key) for _, seq, entry in rows]

    def count(self, what: str) -> int:
        memory = self.memory
        counts = {
            "runs": len(memory.runs),
            "events": sum(len(rows) for run in memory.runs.values() for rows in run.journal.values()),
            "inbox": sum(map(len, memory.inbox.values())),
            "tasks": len(memory.tasks),
            "deliveries": len(memory.delivered),
            "cancellations": len(memory.cancellations),
        }
        return counts[what]
