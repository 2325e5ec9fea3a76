"""Signals and updates that have arrived, and conditions that are waited for.

The rule: a message is kept from its arrival until it is taken or the generation ends, first in, first out for each
name; those not taken are handed to the next generation in the order they came.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from continuum._core import events as e
from continuum._core.faults import Unwind
from continuum._core.loop import WorkflowLoop


class Mailbox:
    """The signals of one run's generation that nobody has read, and the updates that nobody has begun with."""

    __slots__ = ("_arrived", "_boxes", "_loop", "_updates", "_waiting")

    def __init__(self, loop: WorkflowLoop) -> None:
        self._loop = loop
        self._boxes: dict[str, deque[tuple[int, e.SignalReceived]]] = {}
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}
        self._updates: list[tuple[int, e.UpdateRequested]] = []
        self._arrived = 0

    def put(self, signal: e.SignalReceived) -> None:
        """Take in a signal, wanted yet or not."""
        self._arrived += 1
        self._boxes.setdefault(signal.name, deque()).append((self._arrived, signal))
        self._wake(signal.name)

    async def get(self, name: str) -> e.SignalReceived:
        """Wait for the next signal of that name and take it."""
        while not self._boxes.get(name):
            future = self._loop.create_future()
            queue = self._waiting.setdefault(name, deque())
            queue.append(future)
            try:
                await future
            except asyncio.CancelledError:
                if future in queue:
                    queue.remove(future)
                elif self._boxes.get(name):  # woken and cancelled at once: the signal is the next one's
                    self._wake(name)
                raise
        box = self._boxes[name]
        _, signal = box.popleft()
        if not box:
            del self._boxes[name]
        return signal

    def put_update(self, update: e.UpdateRequested) -> None:
        """Keep an update that has no handler yet."""
        self._arrived += 1
        self._updates.append((self._arrived, update))

    def take_updates(self, wanted: Callable[[str], bool]) -> list[e.UpdateRequested]:
        """Give out the updates that are kept and whose name is ``wanted``, in order of arrival."""
        taken = [pair for pair in self._updates if wanted(pair[1].name)]
        if taken:
            self._updates = [pair for pair in self._updates if not wanted(pair[1].name)]
        return [update for _, update in taken]

    def unread(self) -> tuple[e.SignalReceived | e.UpdateRequested, ...]:
        """Return what nobody has taken, in order of arrival."""
        pairs: list[tuple[int, e.SignalReceived | e.UpdateRequested]] = [*self._updates]
        for box in self._boxes.values():
            pairs += box
        return tuple(message for _, message in sorted(pairs, key=_order))

    def awaited(self) -> list[str]:
        """Return the names that somebody waits for."""
        return [name for name, queue in self._waiting.items() if any(not future.done() for future in queue)]

    def _wake(self, name: str) -> None:
        queue = self._waiting.get(name)
        while queue:
            future = queue.popleft()
            if not future.done():
                future.set_result(None)
                return


def _order(pair: tuple[int, e.SignalReceived | e.UpdateRequested]) -> int:
    return pair[0]


class Conditions:
    """Predicates over the workflow's own state, looked at whenever a turn comes to rest."""

    __slots__ = ("_loop", "waiting")

    def __init__(self, loop: WorkflowLoop) -> None:
        self._loop = loop
        self.waiting: dict[asyncio.Future[None], Callable[[], object]] = {}

    async def wait(self, predicate: Callable[[], object]) -> None:
        """Wait until ``predicate()`` is true. What it raises is raised here."""
        if predicate():
            return
        future = self._loop.create_future()
        self.waiting[future] = predicate
        try:
            await future
        finally:
            self.waiting.pop(future, None)

    def check(self) -> bool:
        """Wake those whose predicate has become true; say whether there were any."""
        woken = False
        for future, predicate in list(self.waiting.items()):
            if future.done():
                continue
            try:
                if not predicate():
                    continue
                future.set_result(None)
            except (KeyboardInterrupt, Unwind):
                raise
            except BaseException as error:  # noqa: BLE001 - the author's predicate; its waiter gets the error
                future.set_exception(error)
            woken = True
        return woken
