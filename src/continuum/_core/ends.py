"""Ends of children that wake nobody: one of ten thousand that are waited for together.

The rule: taking such an end in is what ``Machine.apply`` would do with it, without the turn: no callback becomes
ready and nothing is decided, so no code of the author's runs. An end of which that is not certain has its turn.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from continuum._core import events as e
from continuum._core.loop import WATCH

if TYPE_CHECKING:
    from continuum._core.family import Family
    from continuum._core.machine import Machine


class AllEnded:
    """Makes a future done when ``left`` more children have ended or, with ``family``, one of it has not completed.

    It is among the waiters of each of them.
    """

    __slots__ = ("_family", "_future", "left")

    def __init__(self, future: asyncio.Future[None], left: int, family: Family | None) -> None:
        self._future = future
        self._family = family
        self.left = left

    def __call__(self) -> None:
        self.left = left = self.left - 1
        if (left == 0 or (self._family is not None and self._family.last_failed)) and not self._future.done():
            self._future.set_result(None)


def is_only_noted(machine: Machine, event: e.ChildCompleted) -> bool:
    """Take in that a child has completed if that wakes nobody, and say so; else leave it to a turn."""
    family, loop = machine.family, machine.loop
    if family is None or machine.closing is not None or machine.decisions.fault is not None or loop.discarded:
        return False
    child = family.get(event.key)
    if child is None or child.outcome is not None or child.deadline is not None or machine.conditions.waiting:
        return False
    if child.waiters:
        wake: object = child.waiters[0]
        if len(child.waiters) > 1 or not isinstance(wake, AllEnded) or wake.left == 1:
            return False
    if machine.program.function not in WATCH.spent:
        WATCH.passed(machine.program.function)  # else the next parent's first turn of many calls would be framed
    if event.at_us > loop.now_us:
        loop.now_us = event.at_us
    family.settle(child, event)
    return True
