"""An environment that is open: its parts, made in the test's event loop, and how they end.

The rule: nothing of it is left at the end, neither a task nor a thread of its own, whatever the test did.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from continuum._journal.memory.journal import MemoryJournal
from continuum._journal.memory.store import Memory
from continuum.client import Client
from continuum.definitions import Definitions
from continuum.testing.loop import SteppedLoop
from continuum.testing.passing import Bounds, Passing
from continuum.testing.replacing import StandIns, key_of
from continuum.testing.replaying import History, differences
from continuum.testing.serving import Serving
from continuum.testing.watched import WatchedJournal
from continuum.workflow import Workflow

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
US = timedelta(microseconds=1)
STEPS = 10_000  # to bring a worker to its end without the test's loop


class Opened:
    """The parts of an environment, made in the test's loop."""

    def __init__(
        self,
        definitions: Definitions,
        started: datetime,
        settings: dict[str, Any],
        seed: int,
        passivating: bool,
        bounds: Bounds,
    ) -> None:
        self.host = asyncio.get_running_loop()
        self.inner = SteppedLoop(self.host)
        begun_us = (started - _EPOCH) // US
        self.memory = Memory(lambda: begun_us + self.inner.elapsed_us)
        self.stand_ins = StandIns(definitions, self.host)
        self.serving = Serving(
            self.memory,
            self.inner,
            self.stand_ins,
            settings,
            seed=seed,
            passivating=passivating,
            begun_us=begun_us,
        )
        self.passing = self.stand_ins.passing = Passing(self.host, self.inner, self.serving, bounds)
        journal = MemoryJournal(self.memory)
        self._hearing = self.host.create_task(journal.run(), name="continuum client of a test")
        watched = WatchedJournal(journal, self.passing, self.check, self.serving.standing)
        self.client = Client(watched.as_journal())
        self.serving.begin()

    def check_loop(self) -> None:
        """Refuse another loop than the one that all of this lives on."""
        if asyncio.get_running_loop() is not self.host:
            raise RuntimeError("this environment belongs to another event loop: make one in each")

    def replace(self, definition: Any, by: Callable[..., Any]) -> None:
        """Let ``by`` be called instead of a definition, which for a workflow is another program."""
        if isinstance(definition, Workflow):
            self.check_ended()
            key = key_of(cast("Workflow[Any, Any]", definition))
            for run in self.memory.runs.values():
                if run.live and (run.workflow, run.version) == key:
                    raise ValueError(f"replace({definition!r}, …) comes too late: run {run.run_id!r} is under way")
        self.stand_ins.replace(definition, by)

    # --- checks

    def check(self, run_id: str) -> None:
        """Replay a run that has ended, and those below it. Raises ``AssertionError`` with the difference."""
        below = f"{run_id}/"
        self._replay([name for name in self.serving.ended if name == run_id or name.startswith(below)])

    def check_ended(self) -> None:
        """Replay all runs that have ended lately."""
        self._replay(list(self.serving.ended))

    def check_all(self) -> None:
        """Raise what a test should have been told of."""
        trouble = self.serving.trouble() or self.passing.failed
        if trouble is not None:
            raise trouble
        self._check_parked()
        self.check_ended()

    def _check_parked(self) -> None:
        for run in self.memory.runs.values():
            if run.state == "parked" and run.run_id not in self.serving.told_parked:
                raise self.serving.parked(run)

    def _replay(self, run_ids: list[str]) -> None:
        recorded: list[tuple[Workflow[Any, Any], History]] = []
        for run_id in run_ids:
            self.serving.ended.pop(run_id, None)
            row = self.memory.runs[run_id]
            flow = self.stand_ins.definitions.workflows.get((row.workflow, row.version))
            if flow is not None:
                recorded.append((flow, self.serving.history(run_id)))
        if not recorded:
            return
        for (flow, history), problem in zip(recorded, differences(recorded), strict=True):
            if problem is not None:
                raise AssertionError(
                    f"{flow!r} does not replay run {history.run_id!r}, which has just ended:\n{problem}"
                )

    # --- life

    async def restart(self) -> None:
        """Let the worker end as in a crash, and another one begin."""
        with self.passing.doing():
            await self._ended()
            self.serving.begin()

    async def close(self) -> None:
        """End everything, and wait for it."""
        tasks = self.passing.end()
        await self._ended()
        self._hearing.cancel()
        await asyncio.wait([*tasks, self._hearing])
        self._closed()

    def close_at_once(self) -> None:
        """End everything in a thread whose loop does not run."""
        self.passing.end()
        self.inner.halt()
        task = self.serving.end()
        self.stand_ins.abandon()
        for _ in range(STEPS):
            if task is None or task.done():
                break
            self.inner.step()
        if not self.host.is_closed():
            self._hearing.cancel()
        self._closed()
        self.check_all()

    async def _ended(self) -> None:
        """Let the worker end, and wait for that."""
        task = self.serving.end()
        if task is None:
            return
        ended = self.host.create_future()
        task.add_done_callback(lambda _: None if ended.done() else ended.set_result(None))
        try:
            await ended
        finally:
            if task.done() and not task.cancelled():
                task.exception()  # it was told where somebody waited

    def _closed(self) -> None:
        self.inner.close()
        self.client._closed = True
