"""Arithmetic on attempts: whether there is another one, and when. Pure: chance is passed in."""

from __future__ import annotations

from datetime import timedelta
from typing import cast

from continuum.errors import Failure
from continuum.policies import Retry


def is_retryable(retry: Retry, failure: Failure, bases: tuple[str, ...] = ()) -> bool:
    """Say whether ``failure`` may be tried again at all. ``bases`` are the names of its class's bases."""
    names = {failure.type, *bases}
    return not any(name in names for name in retry.non_retryable)


def next_delay(retry: Retry, attempt: int, fraction: float) -> timedelta | None:
    """Return how long to wait after the failed ``attempt`` (from 1), or None if it was the last.

    ``fraction`` in [0, 1) is where in the jitter's span the wait falls; 0.5 is no jitter.
    """
    if attempt >= retry.max_attempts:
        return None
    longest = cast("timedelta", retry.max_interval).total_seconds()
    try:
        delay = cast("timedelta", retry.initial).total_seconds() * retry.backoff ** (attempt - 1)
    except OverflowError:
        delay = longest
    delay = min(delay, longest)
    return timedelta(seconds=delay * (1 + retry.jitter * (2 * fraction - 1)))
