"""The threads that activities without ``async`` run in.

The rule: no thread outlives the process's wish to end. A ``ThreadPoolExecutor`` is joined when the interpreter
ends, so one activity that hangs would keep a worker alive for ever; these threads are daemons and nobody joins
them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue


class Threads:
    """At most ``limit`` threads, made when there is work. Called from one thread only."""

    def __init__(self, limit: int, name: str) -> None:
        self._limit = limit
        self._name = name
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._idle = threading.Semaphore(0)
        self._count = 0

    def submit(self, call: Callable[[], None]) -> None:
        """Run ``call`` in a thread; what it raises ends the thread, so it raises nothing.

        Raises ``RuntimeError`` if the system has no thread for it.
        """
        if not self._idle.acquire(blocking=False) and self._count < self._limit:
            name = f"{self._name}-{self._count + 1}"
            threading.Thread(target=self._serve, name=name, daemon=True).start()
            self._count += 1
        self._calls.put(call)

    def close(self) -> None:
        """End the threads, each when it has no call any more. Waits for none."""
        for _ in range(self._count):
            self._calls.put(None)

    def _serve(self) -> None:
        while (call := self._calls.get()) is not None:
            call()
            del call  # an idle thread holds nothing of the last activity
            self._idle.release()
