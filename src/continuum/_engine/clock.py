"""The database's time, as this process knows it.

The rule: entries are stamped with the database's clock and no other. It is read with each heartbeat and carried on
by the event loop's monotonic clock; the host's clock is never asked. Small corrections never take it back. A
jump does, for who stood still until the database is there again would fire no timer meanwhile.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

logger = logging.getLogger("continuum.engine")
DRIFT_US = 20_000  # so far timers may be off before they are looked at anew
JUMP_US = 1_000_000  # from here on a correction is a jump: what the database's clock does when somebody sets it


class Clock:
    """Microseconds since 1970 UTC by the database's clock. ``time`` is the event loop's clock, in seconds."""

    def __init__(self, time: Callable[[], float]) -> None:
        self.moved: Callable[[], None] = _nobody
        self.loop_now = self._time = time
        self._offset_us: int | None = None
        self._told_us = 0  # what it was when timers were looked at anew
        self._last_us = 0

    def set(self, now_us: int, asked_at: float) -> None:
        """Take over what the database answered; the question was asked at loop time ``asked_at``.

        An answer that took long, or was read late, tells little: nothing, if it may be as it was known to be.
        """
        earliest, latest = now_us - int(self._time() * 1_000_000), now_us - int(asked_at * 1_000_000)
        before = self._offset_us
        if before is not None and latest - earliest > JUMP_US and earliest <= before <= latest:
            return
        self._offset_us = (earliest + latest) // 2
        if before is not None and abs(self._offset_us - before) > JUMP_US:
            logger.warning("the database's clock was set by %+.1f s", (self._offset_us - before) / 1e6)
        if before is None:
            self._told_us = self._offset_us
        elif abs(self._offset_us - self._told_us) > DRIFT_US:  # it jumped, or drifted so far a little at a time
            self._told_us = self._offset_us
            self.moved()

    def now_us(self) -> int:
        """Return the time now: what was returned before at least, but for a jump."""
        now = int(self._time() * 1_000_000) + (self._offset_us or 0)
        if not 0 < self._last_us - now < JUMP_US:
            self._last_us = now
        return self._last_us

    def loop_time(self, at_us: int) -> float:
        """Return when it will be ``at_us``, as a time of the event loop."""
        return (at_us - (self._offset_us or 0)) / 1_000_000


def _nobody() -> None:
    """Serve as a callback that nobody has set."""
