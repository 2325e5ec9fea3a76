"""The children of the flows that are killed at every boundary; parents.py has who starts them.

The rule: an input is the run's own id, and a label of the ledger is ``run#step``, so the books can be compared.
"""

from __future__ import annotations

from dataclasses import dataclass

from continuum import (
    Retry,
    activity,
    activity_info,
    await_children,
    child,
    continue_as_new,
    run_info,
    start_child,
    wait_signal,
    workflow,
)
from tests.processes.flows import hold, step

GATE = "never"  # nobody opens it: who holds is cancelled
GENERATIONS = 4
TRIES = 3


@dataclass
class Link:
    """A generation of a chain of so many."""

    run: str
    most: int = GENERATIONS
    number: int = 1


@workflow
async def leaf(run: str) -> int:
    """Take two steps."""
    await step(f"{run}#0")
    await step(f"{run}#1")
    return 2


@workflow
async def late(run: str) -> int:
    """Take a step when somebody says so."""
    await wait_signal("now")
    await step(f"{run}#0")
    return 1


@workflow
async def middle(run: str) -> int:
    """Take a step, have two leaves."""
    await step(f"{run}#0")
    refs = [start_child(leaf, f"{run}/c{number}", id=f"c{number}") for number in range(2)]
    return 1 + sum(await await_children(refs))


@workflow
async def holder(run: str) -> None:
    """Take a step that lasts until somebody ends it."""
    await hold(f"{run}#0", GATE)


@workflow
async def tree(run: str) -> None:
    """Have two holders, and wait for them."""
    await await_children([start_child(holder, f"{run}/c{number}", id=f"c{number}") for number in range(2)])


@workflow
async def chain(link: Link) -> int:
    """Take a step in each of so many generations."""
    await step(f"{link.run}#{link.number}")
    if link.number < link.most:
        continue_as_new(Link(link.run, link.most, link.number + 1))
    return link.number


@activity(retry=Retry(max_attempts=TRIES, initial=0))
async def fragile(label: str) -> str:
    """Fail but for the last attempt."""
    attempt = activity_info().attempt
    await step(f"{label}@{attempt}")
    if attempt < TRIES:
        raise ValueError(f"attempt {attempt}")
    return label


@workflow
async def trier(run: str) -> str:
    """Have an activity that is tried again."""
    return await fragile(f"{run}#0")


@workflow
async def beginner(run: str) -> int:
    """Take a step, and fail but for the last attempt."""
    attempt = run_info().attempt
    await step(f"{run}#{attempt}")
    if attempt < TRIES:
        raise ValueError(f"attempt {attempt}")
    return attempt


@workflow
async def two_levels_of_beginners(run: str) -> int:
    """Have a child that is tried again, and be so oneself."""
    attempt = run_info().attempt
    done = await child(beginner, f"{run}/b{attempt}", id=f"b{attempt}", retry=Retry(max_attempts=TRIES, initial=0))
    if attempt < 2:
        raise ValueError(f"attempt {attempt}, with {done}")
    return done
