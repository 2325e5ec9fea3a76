"""Signals: messages to a run, read in the order they came, each name for itself."""

from __future__ import annotations

import asyncio
from functools import lru_cache
from typing import Any, TypeVar, overload

from continuum._core.codec import ANY, Codec
from continuum.errors import WorkflowMisuse
from continuum.policies import Duration, duration
from continuum.workflow import entered, undeclared_signal

__all__ = ["wait_signal"]

T = TypeVar("T")


@overload
async def wait_signal(name: str, type: type[T], *, timeout: Duration | None = None) -> T: ...
@overload
async def wait_signal(name: str, type: Any = None, *, timeout: Duration | None = None) -> Any: ...
async def wait_signal(name: str, type: Any = None, *, timeout: Duration | None = None) -> Any:  # noqa: A002 - reads as it is said
    """Wait for the next signal called ``name`` and return its payload; one that came earlier is taken at once.

    ``type`` is the payload's annotation (default: the one declared by the workflow, else plain JSON).
    ``timeout`` (a ``timedelta`` or seconds) is a durable timer; past it ``TimeoutError`` is raised. Raises
    ``DecodeError`` if the payload does not fit (that signal is then read), and ``WorkflowMisuse`` for a name that
    the workflow does not declare though it declares others.

    >>> approval = await wait_signal("approve", Approval, timeout=3600)  # doctest: +SKIP
    """
    if not isinstance(name, str) or not name:
        raise TypeError(f"wait_signal() takes the name of a signal first: got {name!r}")
    machine = (await entered("wait_signal")).machine
    problem = undeclared_signal(machine.program.name, name, machine.program.signals)
    if problem is not None:
        raise WorkflowMisuse(f"{problem}; declare it: @workflow(signals={{…}})")
    if timeout is None:
        signal = await machine.signals.get(name)
    else:
        async with asyncio.timeout(duration("timeout", timeout).total_seconds()):
            signal = await machine.signals.get(name)
    codec = machine.program.signals.get(name, ANY) if type is None else _codec(name, type)
    return codec.decode(signal.payload)


@lru_cache(maxsize=1024)
def _codec(name: str, kind: Any) -> Codec[Any]:
    return Codec(kind, f"signal {name!r}")
