"""SIGTERM and SIGINT for a process that drains: the first one asks, the second one ends it.

The rule: the second signal ends the process also while its event loop is blocked, so it is handled between two
bytecodes and not by the loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Generator
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stopping:
    """Whether this process was asked to stop: ``asked``. To be made inside a running loop."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.signals: list[int] = []
        self._abandoned: asyncio.Task[object] | None = None

    @contextlib.contextmanager
    def watch(self, then: Callable[[int], None] | None = None) -> Generator[None]:
        """Handle both signals for the block; each one is told to ``then``.

        Without ``then`` the second one ends the process at once, with exit code 130 or 143.
        """
        loop = asyncio.get_running_loop()

        def heard(number: int) -> None:
            self.ask()
            if then is not None:
                then(number)

        def count(number: int, _: FrameType | None) -> None:
            self.signals.append(number)
            if then is None and len(self.signals) > 1:
                os._exit(128 + number)

        before = {number: signal.getsignal(number) for number in SIGNALS}
        for number in SIGNALS:
            loop.add_signal_handler(number, heard, number)  # wakes the loop up
            signal.signal(number, count)  # and this runs at once, whatever the loop does
            signal.siginterrupt(number, False)
        try:
            yield
        finally:
            for number, handler in before.items():
                loop.remove_signal_handler(number)
                signal.signal(number, handler)

    def ask(self) -> None:
        """Ask this process to stop, as a signal does."""
        self.asked.set()
        if self._abandoned is not None:
            self._abandoned.cancel()

    def abandon_if_asked(self) -> None:
        """Let this task be cancelled when the process is asked to stop: it has nothing to drain yet."""
        self._abandoned = asyncio.current_task()

    def drain_if_asked(self) -> None:
        """Let this task go on from now on when the process is asked to stop."""
        self._abandoned = None
