"""Arithmetic on attempts."""

from datetime import timedelta

import pytest

from continuum import Failure, Retry
from continuum._core.retry import is_retryable, next_delay

NO_JITTER = 0.5  # the middle of the span


def seconds(retry: Retry, attempt: int, fraction: float = NO_JITTER) -> float | None:
    delay = next_delay(retry, attempt, fraction)
    return None if delay is None else delay.total_seconds()


def test_waits_grow_by_the_factor_up_to_the_cap() -> None:
    """AC01: backoff, cap and max attempts."""
    retry = Retry(max_attempts=6, initial=1, backoff=3, max_interval=20)
    assert [seconds(retry, attempt) for attempt in range(1, 7)] == [1, 3, 9, 20, 20, None]


def test_by_default_there_is_one_attempt() -> None:
    assert seconds(Retry(), 1) is None


@pytest.mark.parametrize(("fraction", "wait"), [(0.0, 9.0), (0.5, 10.0), (0.75, 10.5)])
def test_jitter_spreads_a_wait_by_its_share_to_both_sides(fraction: float, wait: float) -> None:
    """AC01: jitter."""
    retry = Retry(max_attempts=2, initial=timedelta(seconds=10), jitter=0.1)
    assert seconds(retry, 1, fraction) == pytest.approx(wait)


def test_an_attempt_far_out_waits_the_longest_and_does_not_overflow() -> None:
    assert seconds(Retry(max_attempts=10**9, backoff=10), 10**6) == 60


def test_errors_named_or_derived_from_a_named_one_are_not_tried_again() -> None:
    """AC01: non-retryable types, by name, by class, and by a base class."""
    retry = Retry(max_attempts=5, non_retryable=("CardDeclined", LookupError))
    assert retry.non_retryable == ("CardDeclined", "LookupError")
    assert not is_retryable(retry, Failure("CardDeclined", "no"))
    assert not is_retryable(retry, Failure("KeyError", "no"), ("LookupError", "Exception"))
    assert is_retryable(retry, Failure("KeyError", "no"))
