"""The workflows of the engine's figures. ``continuum worker bench.flows`` runs them.

The rule: what they do themselves costs nothing, so that what is measured is the engine. What a step hands over is
as large as the payload of the other figures.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from continuum import (
    activity,
    await_children,
    continue_as_new,
    map_children,
    start_child,
    wait_signal,
    workflow,
)

STEPS = 10
WIDE = 10
IN_WINDOW = 1_000
A_DAY_S = 86_400.0
NOTE = "x" * 13  # with it a step's entry carries 120 bytes


@dataclass(frozen=True, slots=True)
class Order:
    """What an activity is given."""

    order: str
    sku: str
    amount: int
    note: str


@activity
async def book(order: Order) -> str:
    """Do nothing with an order."""
    return order.order


@activity
async def look_at_clock() -> int:
    """Return nanoseconds of the clock that all processes of a machine share."""
    return time.monotonic_ns()


@workflow
async def ten_steps(number: int) -> int:
    """Run an activity ten times, one after the other."""
    return await _steps(STEPS)


@workflow
async def many_steps(steps: int) -> int:
    """Run an activity that often, one after the other."""
    return await _steps(steps)


@workflow
async def nothing(number: int) -> int:
    """End at once."""
    return number


@workflow
async def nap(seconds: float) -> float:
    """Wait for a timer."""
    await asyncio.sleep(seconds)
    return seconds


@workflow
async def parent(children: int) -> int:
    """Start that many children at once, which end at once, and wait for all of them."""
    refs = [start_child(nothing, number, id=f"child-{number:07d}") for number in range(children)]
    return len(await await_children(refs))


@workflow
async def tree(levels: int) -> int:
    """Start ten children with a level less each, and count the leaves."""
    if not levels:
        return 1
    return sum(
        await await_children([start_child(tree, levels - 1, id=f"child-{number}") for number in range(WIDE)])
    )


@workflow
async def dormitory(children: int) -> int:
    """Start that many children at once, which only wait, and wait for all of them."""
    refs = [start_child(nap, A_DAY_S, id=f"child-{number:07d}") for number in range(children)]
    return len(await await_children(refs))


@workflow
async def chain(generations: int) -> int:
    """Have that many generations, each with a look at the clock."""
    await look_at_clock()
    if generations > 1:
        continue_as_new(generations - 1)
    return generations


@workflow
async def mapping(children: int) -> int:
    """Start that many children, a thousand at a time."""
    return len((await map_children(nothing, range(children), concurrency=IN_WINDOW)).results)


@workflow
async def until_told() -> int:
    """Wait for a signal, and run an activity."""
    await wait_signal("go")
    return await look_at_clock()


async def _steps(count: int) -> int:
    for number in range(count):
        await book(Order("o-123456", "a-1", number, NOTE))
    return count
