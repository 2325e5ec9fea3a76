"""Simulated processes: each has an event loop, a journal and a worker or a client, and can be killed or frozen.

The rule: what a killed process would still do reaches nobody, and what a frozen one does it does when it is
thawed. The engine in it is the real one and knows nothing of this.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from random import Random
from typing import Any

from continuum._engine.engine import Engine
from continuum._engine.hooks import EngineHooks
from continuum._engine.settings import WorkerSettings
from continuum._journal.memory.journal import MemoryJournal, Wire
from continuum._journal.memory.store import Memory
from continuum.definitions import Definitions
from tests.simulation.loop import SimLoop

MOST_AHEAD_S = 1_000.0  # hosts' monotonic clocks begin anywhere
MOST_LAST_STEPS = 100_000  # of a process that is over
NEVER_S = 1_000_000_000  # the watchdog is a thread, and goes by real time


class Killed(SystemExit):
    """Ends a process in the middle of a callback."""


class Process:
    """One process. ``name`` is never used again."""

    def __init__(self, name: str, now: Callable[[], float], ahead_s: float) -> None:
        self.name = name
        self.alive = True
        self.frozen_until = 0.0
        self.drained = False
        self.loop = SimLoop(now, ahead_s)
        self._main: asyncio.Task[Any] | None = None
        self.error: BaseException | None = None

    def begin(self, main: Coroutine[Any, Any, None]) -> None:
        """Let the process do ``main``; it ends when that ends."""
        self._main = self.loop.create_task(main)

    def next_at(self) -> float | None:
        """Return when it has something to do, by the world's clock."""
        if not self.alive:
            return None
        at = self.loop.next_at()
        return None if at is None else max(at, self.frozen_until)

    def is_ready(self, now: float) -> bool:
        """Tell whether it has something to do now."""
        at = self.next_at()
        return at is not None and at <= now

    def step(self) -> None:
        """Run one callback."""
        try:
            self.loop.step()
        except Killed:
            self.alive = False
        if self._main is not None and self._main.done() and self.alive:
            self.alive = False
            self.drained = True
            self.error = None if self._main.cancelled() else self._main.exception()

    def bury(self) -> None:
        """Let a process that is over end its coroutines, unheard, so that nothing of it is left."""
        self.alive = False
        for task in asyncio.all_tasks(self.loop):
            task.cancel()
        for _ in range(MOST_LAST_STEPS):
            try:
                if not self.loop.step():
                    break
            except KeyboardInterrupt:  # it does not end, or somebody has had enough
                break
            except BaseException:
                pass
        self.loop.close()


class WorkerProcess(Process):
    """A worker: the real engine on a journal in memory. ``plan`` is its number in the scenario."""

    def __init__(
        self,
        name: str,
        now: Callable[[], float],
        random: Random,
        *,
        memory: Memory,
        wire: Callable[[Process], Wire],
        definitions: Definitions,
        settings: dict[str, Any],
        points: Callable[[Process], Any],
        plan: int,
    ) -> None:
        super().__init__(name, now, random.uniform(0, MOST_AHEAD_S))
        self.plan = plan
        self.engine: Engine | None = None
        self._journal = MemoryJournal(memory, wire=wire(self))
        self._make: Callable[[], Engine] = lambda: Engine(
            self._journal,
            definitions,
            WorkerSettings(**settings, blocked_after=NEVER_S),
            hooks=EngineHooks(points=points(self)),
            chance=Random(random.random()),
            name_worker=self._next_name,
        )
        self._lives = 0
        self.begin(self._run())

    def bury(self) -> None:
        super().bury()
        if self.engine is not None:
            self.engine.residents.drop_all()

    def drain(self) -> None:
        """Ask the worker to stop in an orderly way."""
        if self.engine is not None and self.alive:
            self.loop.call_soon(self.engine.drain)

    def _next_name(self) -> str:
        self._lives += 1
        return f"{self.name}.{self._lives}"

    async def _run(self) -> None:
        engine = self.engine = self._make()
        async with self._journal.open():
            await engine.run()
