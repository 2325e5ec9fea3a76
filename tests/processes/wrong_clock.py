"""The clocks of a host that are wrong, for one worker process.

The rule: whatever a process can ask for the time of day answers with another year, and with each call a year
further, forward or back. Monotonic clocks stay: they are what a worker may ask.
"""

from __future__ import annotations

import datetime
import itertools
import time

YEAR_S = 365 * 86_400
YEARS = 30


def turn(direction: str) -> None:
    """Let every clock of this process's host go "forward" or "back" from now on."""
    sign = {"forward": 1, "back": -1}[direction]
    right, steps = time.time, itertools.count(1)

    def wrong() -> float:
        return right() + sign * YEAR_S * (1 + next(steps) % YEARS)

    class Wrong(datetime.datetime):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> Wrong:
            return cls.fromtimestamp(wrong(), tz)

        @classmethod
        def utcnow(cls) -> Wrong:
            return cls.fromtimestamp(wrong(), datetime.UTC).replace(tzinfo=None)

    time.time = wrong
    time.time_ns = lambda: int(wrong() * 1e9)
    datetime.datetime = Wrong  # type: ignore[misc]
