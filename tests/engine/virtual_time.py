"""An event loop whose clock jumps: when nothing is ready, it is at once as late as the next timer.

So tests of bounds, waits and graces neither sleep nor measure. A thread that an activity runs in lives in real
time: a test lets it go by an event, and no clock decides when.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import selectors
from collections.abc import Callable, Coroutine
from typing import Any


class _Selector(selectors.DefaultSelector):  # type: ignore[misc, valid-type]  # which one it is, the system decides
    ahead_s = 0.0
    jumps = 0

    def select(self, timeout: float | None = None) -> Any:
        if timeout is None or timeout <= 0:
            return super().select(timeout)
        ready = super().select(0)
        if not ready:
            self.ahead_s += timeout
            self.jumps += 1
        return ready


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._jumping = _Selector()
        super().__init__(self._jumping)
        # After a year a nanosecond is lost in rounding, and nothing would ever be due.
        self._clock_resolution = 1e-6

    def time(self) -> float:
        return self._jumping.ahead_s

    @property
    def jumps(self) -> int:
        """How often everybody waited for a timer."""
        return self._jumping.jumps


def in_virtual_time(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run an async test on a loop of its own whose clock jumps."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
            runner.run(test(*args, **kwargs))

    del run.__wrapped__  # type: ignore[attr-defined]  # pytest would take it for async
    run.__signature__ = inspect.signature(test)  # type: ignore[attr-defined]
    return run
