"""Arithmetic on attempts: whether there is another one, and when. Pure: chance is passed in."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from functools import lru_cache
from typing import cast

from continuum._core.jsontext import load
from continuum.errors import DecodeError, Failure
from continuum.policies import Retry

# What wraps another run's or an activity's error on its way to who awaits it.
_WRAPPERS = frozenset(
    {"ActivityFailed", "ActivityTimedOut", "ChildFailed", "ChildTimedOut", "MapFailed", "RunFailed"}
)


def is_retryable(retry: Retry, failure: Failure, bases: tuple[str, ...] = ()) -> bool:
    """Say whether ``failure`` may be tried again at all. ``bases`` are the names of its class's bases."""
    names = {failure.type, *bases}
    return not any(name in names for name in retry.non_retryable)


def is_retryable_run(retry: Retry, failure: Failure, bases: tuple[str, ...] = ()) -> bool:
    """Say whether a run that failed may be tried again at all; so may not one that a named error has come out of.

    That is the error itself, what an activity or a child failed with that it awaited, or a part of a group.
    """
    return is_retryable(retry, failure, (*bases, *_named(failure)))


def _named(failure: Failure) -> Iterator[str]:
    yield failure.type
    for part in failure.parts:
        yield from _named(part)
    if failure.type in _WRAPPERS and failure.cause is not None:
        yield from _named(failure.cause)


@lru_cache(maxsize=1024)
def decode_retry(text: bytes) -> Retry:
    """Return the policy that a run's row has as JSON, durations in seconds. Raises ``DecodeError``."""
    try:
        fields = load(text)
        return Retry(
            fields["max_attempts"],
            fields["initial_s"],
            fields["backoff"],
            fields["max_interval_s"],
            fields["jitter"],
            tuple(map(str, fields["non_retryable"])),
        )
    except (ValueError, TypeError, KeyError, ArithmeticError) as error:
        raise DecodeError("a run's retry policy", f"it is not as any release wrote it ({error})") from None


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
