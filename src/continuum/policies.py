"""Options that authors and applications set: plain frozen values, checked when they are made.

Durations are ``timedelta`` or a number of seconds, and are held as ``timedelta``.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from datetime import timedelta
from typing import Any, Literal, TypeAlias, TypeVar

__all__ = [
    "ActivityOptions",
    "ChildOptions",
    "Duration",
    "MapPolicy",
    "ParentClose",
    "Retry",
    "duration",
    "refuse_unknown",
]

Duration: TypeAlias = timedelta | float
ParentClose: TypeAlias = Literal["abandon", "cancel"]
_Options = TypeVar("_Options", "ActivityOptions", "ChildOptions")


def duration(name: str, value: Duration) -> timedelta:
    """Return ``value`` as a ``timedelta``; a number is seconds. Raises ``ValueError`` below zero or for NaN."""
    expect(name, value, (timedelta, int, float), "a timedelta or a number of seconds")
    seconds = value.total_seconds() if isinstance(value, timedelta) else float(value)
    if math.isnan(seconds):
        raise ValueError(f"{name} must be finite: got {value!r}")
    if seconds < 0:
        raise ValueError(f"{name} must not be negative: got {value!r}")
    if isinstance(value, timedelta):
        return value
    try:
        return timedelta(seconds=seconds)
    except OverflowError:
        raise ValueError(f"{name} must be finite: got {value!r}") from None


def expect(name: str, value: object, kinds: type | tuple[type, ...], words: str) -> None:
    """Raise ``TypeError`` if ``value`` is of none of ``kinds``; True and False are no numbers."""
    if not isinstance(value, kinds) or (isinstance(value, bool) and kinds is not bool):
        raise TypeError(f"{name} is {words}: got {value!r} of type {type(value).__name__}")


def refuse_unknown(where: str, unknown: Iterable[str], known: Iterable[str]) -> None:
    """Raise ``TypeError`` for the first of ``unknown``, with the nearest name in ``known``."""
    options = sorted(known)
    for name in unknown:
        near = difflib.get_close_matches(name, options, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"options are: {', '.join(options)}"
        raise TypeError(f"{where} has no option {name!r}; {hint}")


@dataclass(frozen=True, slots=True)
class Retry:
    """When and how often a failed attempt is made again.

    ``max_attempts`` counts the first one. The wait after attempt *n* is ``initial * backoff ** (n - 1)``, at
    most ``max_interval``, spread by ± ``jitter`` of itself. Errors whose class name is in ``non_retryable`` (or
    that derive from a class given there) fail at once.

    >>> Retry(max_attempts=5, initial=0.5).max_attempts
    5
    """

    max_attempts: int = 1
    initial: Duration = timedelta(seconds=1)
    backoff: float = 2.0
    max_interval: Duration = timedelta(seconds=60)
    jitter: float = 0.1
    non_retryable: tuple[str | type[BaseException], ...] = ()

    def __post_init__(self) -> None:
        expect("Retry.max_attempts", self.max_attempts, int, "a whole number")
        expect("Retry.backoff", self.backoff, (int, float), "a number")
        expect("Retry.jitter", self.jitter, (int, float), "a number")
        given: Any = self.non_retryable
        kinds = (given,) if isinstance(given, (str, type)) else tuple(given)
        for kind in kinds:
            expect("each of Retry.non_retryable", kind, (str, type), "an exception's class or its name")
        if self.max_attempts < 1:
            raise ValueError(
                f"Retry.max_attempts counts the first attempt, so it is at least 1: got {self.max_attempts}"
            )
        if not self.backoff >= 1:
            raise ValueError(f"Retry.backoff is a factor of at least 1: got {self.backoff}")
        if not 0 <= self.jitter <= 1:
            raise ValueError(f"Retry.jitter is a share between 0 and 1: got {self.jitter}")
        object.__setattr__(self, "initial", duration("Retry.initial", self.initial))
        object.__setattr__(self, "max_interval", duration("Retry.max_interval", self.max_interval))
        names = tuple(kind if isinstance(kind, str) else kind.__name__ for kind in kinds)
        object.__setattr__(self, "non_retryable", names)


@dataclass(frozen=True, slots=True)
class ActivityOptions:
    """How an activity is run. What is None is taken from the definition, then the worker, then the default.

    ``start_to_close`` bounds one attempt, ``schedule_to_close`` all attempts and the waits between them,
    ``heartbeat_timeout`` the silence of a running attempt. ``queue`` names the queue that runs it; without one
    the worker that holds the run does. Higher ``priority`` is taken from a queue first.
    """

    retry: Retry | None = None
    start_to_close: Duration | None = None
    schedule_to_close: Duration | None = None
    heartbeat_timeout: Duration | None = None
    queue: str | None = None
    priority: int | None = None

    def __post_init__(self) -> None:
        _expect_common(self.retry, self.priority)
        if self.queue is not None:
            expect("queue", self.queue, str, "a queue's name")
        for name in ("start_to_close", "schedule_to_close", "heartbeat_timeout"):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, duration(name, value))


@dataclass(frozen=True, slots=True)
class ChildOptions:
    """What a parent asks for one child beside its input.

    ``on_parent_close`` says what happens to the child when the parent ends first. ``timeout`` is the child's
    whole life, retries and generations included. ``retry`` starts a failed child anew as its next generation.
    ``attributes`` are added to those inherited from the parent. Higher ``priority`` is claimed first.
    """

    on_parent_close: ParentClose = "abandon"
    timeout: Duration | None = None
    retry: Retry | None = None
    attributes: Mapping[str, Any] | None = None
    priority: int | None = None

    def __post_init__(self) -> None:
        _expect_common(self.retry, self.priority)
        if self.on_parent_close not in ("abandon", "cancel"):
            raise ValueError(f"on_parent_close is 'abandon' or 'cancel': got {self.on_parent_close!r}")
        if self.attributes is not None:
            expect("attributes", self.attributes, Mapping, "a mapping of names to plain JSON")
        if self.timeout is not None:
            object.__setattr__(self, "timeout", duration("timeout", self.timeout))


@dataclass(frozen=True, slots=True)
class MapPolicy:
    """When a map is over, how it goes on until then, and what it keeps; see ``map_children``."""

    concurrency: int
    min_successful: int | None
    tolerate_failures: int | None
    rest: Literal["cancel", "abandon"]
    collect: bool

    def __post_init__(self) -> None:
        expect("concurrency", self.concurrency, int, "a whole number")
        if self.concurrency < 1:
            raise ValueError(f"concurrency is at least 1: got {self.concurrency}")
        if self.min_successful is not None:
            expect("min_successful", self.min_successful, int, "a whole number")
            if self.min_successful < 1:
                raise ValueError(f"min_successful is at least 1, or None for all: got {self.min_successful}")
        if self.tolerate_failures is not None:
            expect("tolerate_failures", self.tolerate_failures, int, "a whole number")
            if self.tolerate_failures < 0:
                raise ValueError(f"tolerate_failures must not be negative: got {self.tolerate_failures}")
        if self.rest not in ("cancel", "abandon"):
            raise ValueError(f"rest is 'cancel' or 'abandon': got {self.rest!r}")
        expect("collect", self.collect, bool, "True or False")


def _expect_common(retry: object, priority: object) -> None:
    if retry is not None:
        expect("retry", retry, Retry, "a Retry(...)")
    if priority is not None:
        expect("priority", priority, int, "a whole number")


def with_options(
    where: str, options: _Options, changes: Mapping[str, Any], *, beside: Iterable[str] = ()
) -> _Options:
    """Return ``options`` with ``changes`` applied; an unknown name raises ``TypeError`` with the nearest one.

    ``beside`` are names of what the caller takes itself, and may have been meant.
    """
    if not changes:
        return options
    known: set[str] = {field.name for field in fields(options)}
    refuse_unknown(where, (name for name in changes if name not in known), known.union(beside))
    return replace(options, **changes)
