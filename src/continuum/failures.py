"""What is recorded of an exception: a plain value that crosses processes, runs and releases.

The rule: it is made by ``_core.failure`` alone, within its bounds, and reading it never fails.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["Failure"]


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
        """Return what failed at the bottom: this, or what the child failed with of which this tells, and so on."""
        found = self
        while found.type in ("ChildFailed", "ChildTimedOut") and found.cause is not None:
            found = found.cause
        return found

    def __str__(self) -> str:
        return f"{self.type}: {self.message}" if self.message else self.type
