"""The journal of an environment's client: whoever waits in it lets time pass.

The rule: it changes nothing of what is written or read. Every use says that the test is doing something.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from continuum._journal.commit import End
from continuum._journal.memory.journal import MemoryJournal
from continuum._journal.protocol import Journal
from continuum.testing.passing import Passing


class WatchedJournal:
    """``journal``, with ``passing`` told of who waits. ``ended`` is called before the end of a run is told."""

    def __init__(
        self,
        journal: MemoryJournal,
        passing: Passing,
        ended: Callable[[str], None],
        standing: Callable[[str], str],
    ) -> None:
        self._journal = journal
        self._standing = standing
        self._passing = passing
        self._ended = ended

    def as_journal(self) -> Journal:
        """Return this: all that is not here is the journal's."""
        return cast("Journal", self)

    def __getattr__(self, name: str) -> Any:
        self._passing.stir()
        return getattr(self._journal, name)

    def standing(self, run_id: str) -> str:
        """Say how a run stands that somebody has waited for too long, and what is under way."""
        return self._standing(run_id) + self._passing.under_way()

    async def wait(self, run_id: str) -> End:
        """Wait until a run ends, and let time pass meanwhile."""
        __tracebackhide__ = True
        runs = self._journal.memory.runs
        end: End = await self._passing.wait(
            self._journal.wait(run_id),
            run_id=run_id,
            answered=lambda: run_id not in runs or not runs[run_id].live,
        )
        self._ended(run_id)
        return end

    async def wait_answer(self, run_id: str, delivery_id: str) -> Any:
        """Wait for the answer to a message, or the end of its run, and let time pass meanwhile."""
        __tracebackhide__ = True
        memory = self._journal.memory

        def answered() -> bool:
            row, answer = memory.runs.get(run_id), memory.deliveries.get((run_id, delivery_id))
            return row is None or not row.live or answer is not None

        coming = self._journal.wait_answer(run_id, delivery_id)
        return await self._passing.wait(coming, run_id=run_id, answered=answered)
