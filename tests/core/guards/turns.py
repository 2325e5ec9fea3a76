"""A stand-in for the workflow loop: it says whether a turn is going on, and drives a workflow in one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from continuum._core.guards import Watch

Function = Callable[..., Any]


class Turn:
    """A turn that is on or off, and how often the watch asked."""

    def __init__(self) -> None:
        self.on = False
        self.asked = 0
        self.watch = Watch(self.is_on)

    def is_on(self) -> bool:
        self.asked += 1
        return self.on

    def run(self, workflow: Function, *args: Any) -> Any:
        """Drive a workflow from start to end in one turn."""
        self.watch.register(workflow)
        must_end = self.watch.begin(workflow)
        self.on = True
        try:
            return drive(workflow, *args)
        finally:
            self.on = False
            if must_end:
                self.watch.end()


def drive(workflow: Function, *args: Any) -> Any:
    coroutine = workflow(*args)
    try:
        while True:
            coroutine.send(None)
    except StopIteration as stop:
        return stop.value


async def apply(function: Function) -> Any:
    """Be the workflow that calls one helper."""
    return function()


async def apply_to(function: Function, argument: Any) -> Any:
    """Be the workflow that calls one helper with an argument."""
    return function(argument)
