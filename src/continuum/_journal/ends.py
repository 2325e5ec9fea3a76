"""Waiting for runs to end.

The rule: polled, and sooner when somebody says so. All who wait share one statement, however many they are.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Collection

from continuum._journal.commit import End
from continuum.errors import DatabaseBusy, DatabaseRefused, DatabaseUnreachable, RunNotFound

logger = logging.getLogger("continuum.journal")

POLL_S = 1.0
DEAF_POLL_S = 0.1  # when notifications do not come through
_CLOSED = "the journal is closed; open another one"
Read = Callable[[Collection[str]], Awaitable[dict[str, End | None]]]


class Ends:
    """Who waits for which run. ``read`` gives the end of each run that exists, None for a live one."""

    def __init__(self, read: Read, hears: Callable[[], bool]) -> None:
        self._read = read
        self._hears = hears
        self._waiting: dict[str, list[asyncio.Future[End]]] = {}
        self._asked: set[str] = set()
        self._some = asyncio.Event()
        self._closed = False

    async def wait(self, run_id: str) -> End:
        """Return how the run ended, when it has. Raises ``RunNotFound``; once closed ``DatabaseUnreachable``."""
        if self._closed:
            raise DatabaseUnreachable(_CLOSED)
        future: asyncio.Future[End] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(run_id, []).append(future)
        self.look([run_id])
        try:
            return await future
        finally:
            waiting = self._waiting.get(run_id, [])
            if future in waiting:
                waiting.remove(future)
            if not waiting:
                self._waiting.pop(run_id, None)

    def close(self) -> None:
        """Tell those who wait that nobody asks for them any more."""
        self._closed = True
        for futures in self._waiting.values():
            for future in futures:
                if not future.done():
                    future.set_exception(DatabaseUnreachable(_CLOSED))

    def look(self, names: Collection[str]) -> None:
        """Ask soon about these runs: "id/" is all below it, nothing at all is everybody."""
        for name in names:
            if name.endswith("/"):
                self._asked.update(run_id for run_id in self._waiting if run_id.startswith(name))
            elif name in self._waiting:
                self._asked.add(name)
        if not names:
            self._asked.update(self._waiting)
        if self._asked:
            self._some.set()

    async def run(self) -> None:
        """Ask and answer until cancelled."""
        while True:
            pause = POLL_S if self._hears() else DEAF_POLL_S
            try:
                async with asyncio.timeout(pause * random.uniform(0.8, 1.2)):
                    await self._some.wait()
            except TimeoutError:
                self._asked.update(self._waiting)
            self._some.clear()
            asked, self._asked = self._asked, set()
            if asked:
                await self._ask(asked)

    async def _ask(self, asked: set[str]) -> None:
        try:
            found = await self._read(asked)
        except (DatabaseUnreachable, DatabaseBusy, DatabaseRefused) as error:
            logger.info("not known who has ended: %s", error)
            return  # the next poll asks again
        for run_id in asked:
            end = found.get(run_id)
            for future in self._waiting.get(run_id, ()):
                if future.done():
                    continue
                if end is not None:
                    future.set_result(end)
                elif run_id not in found:
                    future.set_exception(RunNotFound(run_id))
