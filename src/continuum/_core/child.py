"""One child of a run as its parent knows it, and who is to hear how it ended; many, in the order of their ends."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from contextvars import Context
from typing import Generic, TypeAlias, TypeVar

from continuum._core import commands as c
from continuum._core import events as e
from continuum._core.loop import WorkflowLoop
from continuum._core.tasks import Handle

Ref = TypeVar("Ref")
Outcome: TypeAlias = e.ChildOutcome | e.ChildStartFailed


class Child:
    """One child as its parent knows it."""

    __slots__ = (
        "asked",
        "cancelled",
        "deadline",
        "deadline_us",
        "fleeting",
        "key",
        "order",
        "outcome",
        "run_id",
        "start",
        "waiters",
    )

    def __init__(self, key: str, run_id: str, start: c.StartChild | None = None) -> None:
        self.key = key
        self.run_id = run_id
        self.start = start  # None: started by an earlier generation
        self.outcome: Outcome | None = None
        self.order = 0  # the how-manieth of the run's children it was to end, from 1
        self.waiters: list[Callable[[], object]] = []
        self.asked = False
        self.cancelled = False
        self.fleeting = False  # nobody has its ref: the family lets it go when it ends
        self.deadline: Handle | None = None
        self.deadline_us: int | None = None

    @property
    def workflow(self) -> str:
        """Name of the child's workflow, or '' if only an earlier generation knows it."""
        return self.start.workflow if self.start is not None else ""


class Callback:
    """A done-callback in the form asyncio's futures have."""

    __slots__ = ("_args", "_context", "_loop", "callback")

    def __init__(
        self,
        loop: WorkflowLoop,
        callback: Callable[..., object],
        args: tuple[object, ...],
        context: Context | None,
    ) -> None:
        self._loop = loop
        self.callback = callback
        self._args = args
        self._context = context

    def __call__(self) -> object:
        return self._loop.call_soon(self.callback, *self._args, context=self._context)


class InOrderOfEnds(Generic[Ref]):
    """Refs of children as those end, in journal order; those that have ended come first."""

    __slots__ = ("_left", "_ready", "_waiting")

    def __init__(self, pairs: Sequence[tuple[Ref, Child]], ask: Callable[[Child], None]) -> None:
        ended = sorted((pair for pair in pairs if pair[1].outcome is not None), key=lambda pair: pair[1].order)
        self._ready = deque(ref for ref, _ in ended)
        self._left = len(pairs)
        self._waiting: deque[asyncio.Future[None]] = deque()
        for ref, found in pairs:
            if found.outcome is None:
                ask(found)
                found.waiters.append(lambda ref=ref: self._ended(ref))  # type: ignore[misc]

    def __aiter__(self) -> InOrderOfEnds[Ref]:
        return self

    async def __anext__(self) -> Ref:
        if self._left == 0:
            raise StopAsyncIteration
        self._left -= 1
        try:
            while not self._ready:
                future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                self._waiting.append(future)
                await future
        except BaseException:
            self._left += 1
            if self._ready:  # woken and cancelled at once: the child is the next one's
                self._wake()
            raise
        return self._ready.popleft()

    def _ended(self, ref: Ref) -> None:
        self._ready.append(ref)
        self._wake()

    def _wake(self) -> None:
        while self._waiting:
            future = self._waiting.popleft()
            if not future.done():
                future.set_result(None)
                return
