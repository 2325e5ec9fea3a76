"""The event loop that an environment's worker lives on: driven by the test's loop, in its thread, step by step.

The rule: whatever the worker does by itself (polls, heartbeats) goes by the real clock, and does not change what
runs see. What belongs to runs (their timers, retries and bounds of activities) goes by a clock that stands still
until somebody sets it. No selector, no thread: the worker does no I/O of its own.
"""

from __future__ import annotations

import asyncio
import heapq
import sys
from asyncio import events
from collections.abc import Callable
from contextvars import Context
from typing import Any, cast

from continuum._engine.activities import Activities
from continuum._engine.slots import Slots
from continuum._engine.timers import Timers

NEAR_S = 2e-6  # the engine looks at its timers a microsecond late, so that no rounding makes it early
ROUNDS = 100  # in one step; then the test's loop has its turn
LONGEST_S = 1e6  # that a real wait is handed to the test's loop for; some count in milliseconds, by 32 bits


class SteppedLoop(asyncio.BaseEventLoop):
    """``stirred`` is called when something is to be done, ``rested`` when nothing is left; ``host`` drives it."""

    def __init__(self, host: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self.stirred: Callable[[], None] = _nothing
        self.rested: Callable[[], None] = _nothing
        self.elapsed_us = 0  # of the clock that runs see
        self._host = host
        self._context = Context()
        self._woken = False
        self._halted = False
        self._ordered = 0
        self._waiting: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._real: dict[asyncio.TimerHandle, asyncio.TimerHandle] = {}

    # --- time

    def time(self) -> float:
        """Return the time that runs see, in the middle of its microsecond so that no rounding leaves that."""
        return (self.elapsed_us + 0.5) / 1_000_000

    def call_at(  # type: ignore[override]  # as typeshed has it, but for the arguments' own types
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """Call back at a time: of the clock of runs if it concerns them, else as many real seconds from now."""
        timer = asyncio.TimerHandle(when, callback, args, self, context)
        if isinstance(getattr(callback, "__self__", None), (Timers, Slots, Activities)):
            self._ordered += 1
            heapq.heappush(self._waiting, (when, self._ordered, timer))
        elif not self._host.is_closed():
            delay_s = min(max(0.0, when - self.time()), LONGEST_S)
            self._real[timer] = self._host.call_later(delay_s, self._real_time_came, timer)
        return timer

    def next_due_us(self) -> int | None:
        """Return when the next attempt or bound of an activity is due, in elapsed time. Timers know theirs."""
        while self._waiting and self._waiting[0][2].cancelled():
            heapq.heappop(self._waiting)
        due = [
            when
            for when, _, timer in self._waiting
            if not (timer.cancelled() or isinstance(cast("Any", timer)._callback.__self__, Timers))
        ]
        return int(min(due) * 1_000_000) if due else None

    def fire(self) -> bool:
        """Make ready what is due by the clock of runs; return whether there was anything."""
        until, found = self.time() + NEAR_S, False
        while self._waiting and self._waiting[0][0] <= until:
            _, _, timer = heapq.heappop(self._waiting)
            if not timer.cancelled():
                cast("Any", self)._ready.append(timer)
                found = True
        if found:
            self._wake()
        return found

    def _real_time_came(self, timer: asyncio.TimerHandle) -> None:
        self._real.pop(timer, None)
        if not timer.cancelled():
            cast("Any", self)._ready.append(timer)
            self._wake()

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        real = self._real.pop(handle, None)
        if real is not None:
            real.cancel()

    # --- steps

    @property
    def at_rest(self) -> bool:
        """Whether nothing is ready."""
        return not cast("Any", self)._ready

    def call_soon(  # type: ignore[override]  # as typeshed has it, but for the arguments' own types
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        """Call back in the next step."""
        handle = super().call_soon(callback, *args, context=context)
        self._wake()
        return handle

    def _write_to_self(self) -> None:
        """Wake the test's loop from another thread. Raises ``RuntimeError`` if it is closed."""
        self._host.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        if self._woken or self._halted:
            return
        self._woken = True
        self.stirred()
        self._host.call_soon(self.step, context=self._context)

    def step(self) -> None:
        """Run what is ready, and what that makes ready; a plain callback of the test's loop."""
        ready = cast("Any", self)._ready
        before, hooks = events._get_running_loop(), sys.get_asyncgen_hooks()
        events._set_running_loop(self)
        sys.set_asyncgen_hooks(None, None)  # else the test's loop would close generators of ours at its end
        try:
            for _ in range(ROUNDS):
                for _ in range(len(ready)):
                    handle = ready.popleft()
                    if not handle._cancelled:
                        handle._run()
                if not ready:
                    break
        finally:
            events._set_running_loop(before)
            sys.set_asyncgen_hooks(*hooks)
            self._woken = False
            if ready:
                self._wake()
        if not ready:
            self.rested()

    def halt(self) -> None:
        """Ask nothing of the test's loop any more: it does not run. Whoever calls ``step`` drives this one."""
        self._halted = True
        self.stirred = self.rested = _nothing

    def close(self) -> None:
        """End: nothing that waits happens any more."""
        self._halted = True
        for real in self._real.values():
            real.cancel()
        self._real.clear()
        self._waiting.clear()
        super().close()

    def _process_events(self, event_list: Any) -> None:
        """Do nothing: there is no selector."""


def _nothing() -> None:
    """Serve as a callback that nobody has set."""
