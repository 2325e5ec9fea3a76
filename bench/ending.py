"""SIGINT and SIGTERM: the benchmark ends, and leaves no server and no folder.

The rule: the first signal decides, and it is acted on where that is safe. A server that is being started is waited
for, else nobody would know what to stop; once the cleaning up has begun, signals change nothing.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable, Coroutine, Generator
from contextlib import contextmanager
from types import FrameType
from typing import Any


def _interrupt() -> None:
    raise KeyboardInterrupt


def _wait() -> None:
    """Go on: whoever held the signal back looks at ``number`` afterwards."""


class Ending:
    """What a signal does at the moment. ``number`` is the first signal that came."""

    def __init__(self) -> None:
        self.number: int | None = None
        self._act: Callable[[], None] = _interrupt

    def watch(self) -> None:
        """Take both signals, also where a shell had SIGINT ignored."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._told)

    @contextmanager
    def held_back(self) -> Generator[None, None, None]:
        """Let a signal wait for the end of the block. If the block fails, cleaning up begins."""
        before, self._act = self._act, _wait
        yield
        self._act = before
        if self.number is not None:
            self.ignore()
            _interrupt()

    def ignore(self) -> None:
        """Let no signal do anything from now on: what follows cleans up."""
        self._act = _wait

    def run(self, main: Coroutine[Any, Any, None]) -> None:
        """Run ``main`` on an event loop; a signal cancels it, and what it holds is given up in order."""

        async def watched() -> None:
            loop, task = asyncio.get_running_loop(), asyncio.current_task()
            assert task is not None

            def cancel() -> None:
                loop.call_soon_threadsafe(task.cancel)

            with self._acting(cancel):
                await main

        try:
            asyncio.run(watched())
        except BaseException:
            if self.number is None:
                raise
        if self.number is not None:
            _interrupt()

    @contextmanager
    def _acting(self, act: Callable[[], None]) -> Generator[None, None, None]:
        before, self._act = self._act, act
        try:
            yield
        finally:
            self._act = before

    def _told(self, number: int, _frame: FrameType | None) -> None:
        if self.number is None:
            self.number = number
            print(f"bench: {signal.Signals(number).name}: cleaning up", file=sys.stderr, flush=True)
            self._act()
