"""One child of a run as its parent knows it, and who is to hear how it ended."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import Context
from typing import TypeAlias

from continuum._core import commands as c
from continuum._core import events as e
from continuum._core.loop import WorkflowLoop
from continuum._core.tasks import Handle

Outcome: TypeAlias = e.ChildOutcome | e.ChildStartFailed


class Child:
    """One child as its parent knows it."""

    __slots__ = (
        "asked",
        "cancelled",
        "deadline",
        "deadline_us",
        "fleeting",
        "key",
        "order",
        "outcome",
        "run_id",
        "start",
        "waiters",
    )

    def __init__(self, key: str, run_id: str, start: c.StartChild | None = None) -> None:
        self.key = key
        self.run_id = run_id
        self.start = start  # None: started by an earlier generation
        self.outcome: Outcome | None = None
        self.order = 0  # the how-manieth of the run's children it was to end, from 1
        self.waiters: list[Callable[[], object]] = []
        self.asked = False
        self.cancelled = False
        self.fleeting = False  # nobody has its ref: the family lets it go when it ends
        self.deadline: Handle | None = None
        self.deadline_us: int | None = None

    @property
    def workflow(self) -> str:
        """Name of the child's workflow, or '' if only an earlier generation knows it."""
        return self.start.workflow if self.start is not None else ""


class Callback:
    """A done-callback in the form asyncio's futures have."""

    __slots__ = ("_args", "_context", "_loop", "callback")

    def __init__(
        self,
        loop: WorkflowLoop,
        callback: Callable[..., object],
        args: tuple[object, ...],
        context: Context | None,
    ) -> None:
        self._loop = loop
        self.callback = callback
        self._args = args
        self._context = context

    def __call__(self) -> object:
        return self._loop.call_soon(self.callback, *self._args, context=self._context)
