"""Waiting for runs to end, and for answers.

The rule: polled, and sooner when somebody says so. All who wait share one statement, however many they are.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Collection, Iterable
from contextlib import suppress
from typing import Generic, TypeVar

from continuum._journal.commit import End
from continuum._journal.storable import is_storable
from continuum.errors import DatabaseBusy, DatabaseRefused, DatabaseUnreachable, RunNotFound

logger = logging.getLogger("continuum.journal")

POLL_S = 1.0
DEAF_POLL_S = 0.1  # when notifications do not come through
MOST_BEGUN = 1_000
_CLOSED = "the journal is closed; open another one"
T = TypeVar("T")


class Waits(Generic[T]):
    """Who waits for what, by key. ``read`` gives what there is: None while it is to be waited for further.

    ``listen`` is called when somebody waits.
    """

    def __init__(
        self,
        read: Callable[[Collection[str]], Awaitable[dict[str, T | None]]],
        hears: Callable[[], bool],
        listen: Callable[[], None] = lambda: None,
    ) -> None:
        self._read = read
        self._hears = hears
        self._listen = listen
        self._waiting: dict[str, list[asyncio.Future[T]]] = {}
        self._asked: set[str] = set()
        self._some = asyncio.Event()
        self._closed = False

    async def come(self, key: str) -> T:
        """Return what comes. Raises ``RunNotFound``; once closed ``DatabaseUnreachable``."""
        if self._closed:
            raise DatabaseUnreachable(_CLOSED)
        self._listen()
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(key, []).append(future)
        if not self._is_pending(key):
            self._asked.add(key)
        self._some.set()
        try:
            return await future
        finally:
            waiting = self._waiting.get(key, [])
            if future in waiting:
                waiting.remove(future)
            if not waiting:
                self._waiting.pop(key, None)

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
            self._asked.update(self._keys_of(name))
        if not names:
            self._asked.update(self._waiting)
        if self._asked:
            self._some.set()

    async def run(self) -> None:
        """Ask and answer until cancelled."""
        time = asyncio.get_running_loop().time
        due: float | None = None  # when all are asked about, however often some are meanwhile
        while True:
            if self._waiting:
                soon = time() + (POLL_S if self._hears() else DEAF_POLL_S) * random.uniform(0.8, 1.2)
                due = soon if due is None else min(due, soon)
            with suppress(TimeoutError):
                async with asyncio.timeout_at(due):
                    await self._some.wait()
            if due is not None and time() >= due:
                self._asked.update(self._waiting)
                due = None
            self._some.clear()
            asked, self._asked = self._asked, set()
            if asked:
                await self._ask(asked)

    def _is_pending(self, _key: str) -> bool:
        """Tell whether it would have been heard if there were something to be had."""
        return False

    def _keys_of(self, name: str) -> Iterable[str]:
        if name.endswith("/"):
            return [key for key in self._waiting if key.startswith(name)]
        return (name,) if name in self._waiting else ()

    async def _ask(self, asked: set[str]) -> None:
        try:
            found = await self._read(asked)
        except (DatabaseUnreachable, DatabaseBusy, DatabaseRefused) as error:
            logger.info("not known what has ended or is answered: %s", error)
            return  # the next poll asks again
        for key in asked:
            come = found.get(key)
            for future in self._waiting.get(key, ()):
                if future.done():
                    continue
                if come is not None:
                    future.set_result(come)
                elif key not in found:
                    future.set_exception(RunNotFound(key.partition("\0")[0]))


class Ends(Waits[End]):
    """Who waits for which run to end; keys are run ids.

    Who waits for a run that began here just now need not ask: its end is heard, or found by the next poll.
    """

    def __init__(
        self,
        read: Callable[[Collection[str]], Awaitable[dict[str, End | None]]],
        hears: Callable[[], bool],
        listen: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(read, hears, listen)
        self._begun: dict[str, None] = {}

    def begin(self, run_ids: Iterable[str]) -> None:
        """Note runs that are about to begin: an end may be heard before the answer that they began.

        The last of them are remembered until something is heard of them.
        """
        if self._hears():
            self._begun.update(dict.fromkeys(run_ids))
            while len(self._begun) > MOST_BEGUN:
                del self._begun[next(iter(self._begun))]

    def look(self, names: Collection[str]) -> None:
        """Ask soon about these runs: "id/" is all below it, nothing at all is everybody."""
        for name in names:
            self._begun.pop(name, None)
        if not names:
            self._begun.clear()
        super().look(names)

    def _is_pending(self, key: str) -> bool:
        return key in self._begun and self._hears()

    async def wait(self, run_id: str) -> End:
        """Return how the run ended, when it has. Raises as ``come`` does."""
        return await self.come(run_id)


class Answers(Waits["bytes | End"]):
    """Who waits for which answer; see ``key``. A run that ends without it answers with its end."""

    async def answer(self, run_id: str, delivery_id: str) -> bytes | End:
        """Return the answer when it is there, or the run's end. Raises as ``come`` does."""
        if not (is_storable(run_id) and is_storable(delivery_id)):
            raise RunNotFound(run_id)
        return await self.come(self.key(run_id, delivery_id))

    @staticmethod
    def key(run_id: str, delivery_id: str) -> str:
        """Return the key of an answer: no id holds a NUL."""
        return f"{run_id}\0{delivery_id}"

    def _keys_of(self, name: str) -> Iterable[str]:
        prefix = name if name.endswith("/") else name + "\0"
        return [key for key in self._waiting if key.startswith(prefix)]
