"""What is recorded of an exception: a plain value that crosses processes, runs and releases.

The rule: it is made by ``_core.failure`` alone, within its bounds, and reading it never fails.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["Failure"]

_OF_CHILDREN = ("ChildFailed", "ChildTimedOut", "MapFailed")
_PASSING_ON = (*_OF_CHILDREN, "ActivityFailed", "ActivityTimedOut", "SideEffectFailed")


@dataclass(frozen=True, slots=True)
class Failure:
    """An exception as it is recorded: everything about it that survives encoding.

    ``type`` is the class name without its module, so that a journal does not break when a class moves.
    ``traceback`` is text for people. ``cause`` is the exception it was raised from (or during), ``parts`` are
    the members of an exception group. ``timed_out`` marks a failure that the engine made because time was up.
    """

    type: str
    message: str
    traceback: str = ""
    cause: Failure | None = None
    parts: tuple[Failure, ...] = ()
    timed_out: bool = False

    def chain(self) -> Iterator[Failure]:
        """Yield this failure, then its cause, and so on to the first one."""
        failure: Failure | None = self
        while failure is not None:
            yield failure
            failure = failure.cause

    def origin(self) -> Failure:
        """Return what failed at the bottom: this, or what failed in the child of which this tells."""
        found = self
        while found.type in _OF_CHILDREN and found.cause is not None:
            found = found.cause
        return found

    def reason(self) -> Failure:
        """Return what went wrong first, behind all that only passes it on: activities, children, groups."""
        found = self
        while True:
            if found.parts:
                found = found.parts[0]
            elif found.type in _PASSING_ON and found.cause is not None:
                found = found.cause
            else:
                return found

    def brief(self) -> str:
        """Return one text that begins with the reason, for where little room is."""
        reason, whole = str(self.reason()), str(self)
        return whole if reason == whole else f"{reason} ({whole.removesuffix(f': {reason}')})"

    def __str__(self) -> str:
        return f"{self.type}: {self.message}" if self.message else self.type
