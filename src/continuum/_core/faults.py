"""Why a machine cannot go on, as values: the run is parked with them, and nothing is raised into its code.

The rule: a fault is never an ``Exception`` in workflow code, so a saga's ``except Exception`` cannot swallow it.
The code that was running is unwound by ``Unwind``, and what it still tries has no effect.
"""

from __future__ import annotations

import asyncio
import sys
import types
from collections.abc import Generator
from dataclasses import dataclass
from types import CodeType, FrameType
from typing import Any, NoReturn, TypeAlias

from continuum.errors import NonDeterminismError


class Unwind(BaseException):
    """Leaves workflow code whose machine has a fault or is discarded. Not for anybody to catch."""


async def never() -> NoReturn:
    """Wait for ever: what a run that has stopped awaits.

    Raising there would make a loop that retries whatever comes (``except BaseException``) spin for ever.
    """
    while True:
        await _once()


@types.coroutine
def _once() -> Generator[None, None, None]:
    yield


@dataclass(frozen=True, slots=True)
class Divergence:
    """The code no longer takes the decision that is recorded.

    ``recorded`` and ``decided`` tell both sides in words, ``key`` the operation, ``task_path`` the task (empty
    for the main one), ``source`` the line of workflow code as ``file:line in function``.
    """

    recorded: str
    decided: str
    key: str = ""
    task_path: str = ""
    source: str = ""

    def error(self) -> NonDeterminismError:
        """Return the public error that carries this divergence."""
        return NonDeterminismError(
            recorded=self.recorded,
            decided=self.decided,
            key=self.key,
            task_path=self.task_path,
            source=self.source,
        )

    def __str__(self) -> str:
        lines = [
            f"recorded: {self.recorded}",
            f"decided:  {self.decided}",
            f"task:     {self.task_path or 'main'}",
        ]
        return "\n".join([*lines, f"source:   {self.source}"] if self.source else lines)


@dataclass(frozen=True, slots=True)
class Overrun:
    """The workflow did not come to wait within ``limit`` callbacks of one turn."""

    limit: int
    source: str = ""

    def __str__(self) -> str:
        return (
            f"the workflow ran {self.limit:,} callbacks in one turn without waiting for anything "
            f"({self.source or 'no line known'}); let its loop await an activity or a sleep longer than 0"
        )


@dataclass(frozen=True, slots=True)
class Undecodable:
    """A recorded value does not fit the annotation that reads it now."""

    problem: str
    key: str = ""

    def __str__(self) -> str:
        return f"{self.problem}; make the code accept what is recorded, then resume the run"


@dataclass(frozen=True, slots=True)
class Broken:
    """The machine itself failed on an event. ``problem`` is what was raised; nothing of that turn counts."""

    problem: str

    def __str__(self) -> str:
        return f"the run cannot take this event: {self.problem}"


@dataclass(frozen=True, slots=True)
class Forbidden:
    """The watch saw workflow code call what a replay cannot repeat: ``what``, at ``source``; use ``instead``.

    A fault and not an exception: the watch does not see everything on every Python, so code that caught it would
    take one path here and another there.
    """

    what: str
    instead: str
    source: str = ""

    def __str__(self) -> str:
        return f"{self.source + ': ' if self.source else ''}a workflow must not use {self.what}; {self.instead}"


Fault: TypeAlias = Divergence | Overrun | Undecodable | Broken | Forbidden

_PACKAGE = __file__[: -len("_core/faults.py")]
_STDLIB = str(asyncio.__file__)[: -len("asyncio/__init__.py")]


def source_line(frame: FrameType | None = None) -> str:
    """Return ``file:line in function`` of the innermost frame of a turn that is the author's, or ''.

    Without ``frame`` the caller's turn is meant. A watchdog gives another thread's, to say where a workflow
    blocks.
    """
    frame = frame if frame is not None else sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_name in ("drain", "_turn") and frame.f_code.co_filename.startswith(_PACKAGE):
            break  # beyond the loop lies the host
        if is_authors(frame.f_code):
            return _position(frame)
        frame = frame.f_back
    return ""


def waiting_line(task: asyncio.Task[Any]) -> str:
    """Return the author's line at which a suspended task waits, found along its chain of awaits, or ''."""
    found = ""
    awaited: Any = task.get_coro()
    while awaited is not None:
        frame = getattr(awaited, "cr_frame", None)
        if frame is not None and is_authors(frame.f_code):
            found = _position(frame)
        awaited = getattr(awaited, "cr_await", None)
    return found


def _position(frame: FrameType) -> str:
    name = frame.f_code.co_filename.replace("\\", "/").rpartition("/")[2]
    return f"{name}:{frame.f_lineno} in {frame.f_code.co_qualname}"


def is_authors(code: CodeType) -> bool:
    """Tell whether code is neither ours nor the standard library's."""
    path = code.co_filename
    if path.startswith((_PACKAGE, "<frozen")):
        return False
    return not path.startswith(_STDLIB) or "site-packages" in path
