"""The database's time, as this process knows it.

The rule: entries are stamped with the database's clock and no other. It is read with each heartbeat and carried on
by the event loop's monotonic clock; it never goes back, so nobody's journal does.
"""

from __future__ import annotations

from collections.abc import Callable


class Clock:
    """Microseconds since 1970 UTC by the database's clock. ``time`` is the event loop's clock, in seconds."""

    def __init__(self, time: Callable[[], float]) -> None:
        self.loop_now = self._time = time
        self._offset_us = 0
        self._last_us = 0

    def set(self, now_us: int, asked_at: float) -> None:
        """Take over what the database answered; the question was asked at loop time ``asked_at``."""
        middle = (asked_at + self._time()) / 2
        self._offset_us = now_us - int(middle * 1_000_000)

    def now_us(self) -> int:
        """Return the time now, at least what was returned before."""
        now = int(self._time() * 1_000_000) + self._offset_us
        if now > self._last_us:
            self._last_us = now
        return self._last_us

    def loop_time(self, at_us: int) -> float:
        """Return when it will be ``at_us``, as a time of the event loop."""
        return (at_us - self._offset_us) / 1_000_000
