"""Attempts that go on though nobody waits for them: cancelled, dropped, or beyond their time.

The rule: none keeps its slot for ever in silence. After ``GRACE_S`` an attempt is warned of and no longer counted.
One on the loop gives its slot up; one in a thread keeps it, for the thread is not there for others.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from continuum._engine.attempts import Attempt

logger = logging.getLogger("continuum.engine")

GRACE_S = 5.0  # how long what is cancelled may take to clean up


class Leavers:
    """The attempts that are to end. ``stop`` cancels what one does, ``free`` gives its slot to others."""

    def __init__(self, stop: Callable[[Attempt], None], free: Callable[[Attempt], None]) -> None:
        self._stop = stop
        self._free = free
        self._since: dict[Attempt, float] = {}
        self._stuck: set[Attempt] = set()  # the ones that were warned of

    def __len__(self) -> int:
        """Return how many still have time to end."""
        return len(self._since)

    def add(self, attempt: Attempt, now: float) -> None:
        """Stop an attempt; what its task does until it ends is its clean-up."""
        self._since[attempt] = now
        self._stop(attempt)

    def ended(self, attempt: Attempt) -> None:
        """Take note that an attempt has ended and freed its slot."""
        if self._since.pop(attempt, None) is None and attempt in self._stuck:
            self._stuck.discard(attempt)
            logger.info("%s has ended after all; its outcome is ignored", attempt)

    def scan(self, now: float) -> None:
        """Warn of those that do not end."""
        for attempt in [attempt for attempt, since in self._since.items() if now - since > GRACE_S]:
            del self._since[attempt]
            self._stuck.add(attempt)
            if attempt.task is None:
                consequence = "it runs in a thread and keeps that"
            else:
                consequence = "it swallowed its cancellation, and its slot is given to others"
            logger.warning("%s goes on %.0f s after it was to end: %s", attempt, GRACE_S, consequence)
            if attempt.task is not None:
                self._free(attempt)

    async def close(self) -> None:
        """Wait ``GRACE_S`` at most for the tasks, stuck ones cancelled once more; then name what goes on."""
        for attempt in self._stuck:
            if attempt.task is not None:
                attempt.task.cancel()
        tasks = [attempt.task for attempt in (*self._since, *self._stuck) if attempt.task is not None]
        try:
            if tasks:
                await asyncio.wait(tasks, timeout=GRACE_S)
            await asyncio.sleep(0)  # for the callbacks that call ended()
        finally:
            for attempt in (*self._since, *self._stuck):
                logger.warning("%s goes on after the worker's end, and nobody will hear of it", attempt)
            self._since.clear()
