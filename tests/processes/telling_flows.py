"""A parent whose children end in every way, over two generations, for what listeners are told of."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NoReturn

from continuum import ChildRef, await_children, continue_as_new, start_child, wait_signal, workflow
from tests.processes.flows import Job, held, leaf, step


@dataclass
class Mixed:
    """Its own id, and the child that the first generation leaves to the second."""

    run: str
    carried: ChildRef[int] | None = None


@workflow
async def bad(label: str) -> None:
    await step(label)
    raise ValueError("bad")


@workflow
async def idle() -> None:
    await wait_signal("never")


@workflow
async def mixed(job: Mixed) -> int:
    if job.carried is None:
        await first(job)
    assert job.carried is not None
    return await job.carried + await start_child(leaf, Job(f"{job.run}/second", steps=2), id="second")


async def first(job: Mixed) -> NoReturn:
    """Be the first generation."""
    refs: list[ChildRef[Any]] = [
        start_child(leaf, Job(f"{job.run}/c{number}", steps=1 + number), id=f"c{number}") for number in range(4)
    ]
    refs.append(start_child(bad, f"{job.run}/bad#0", id="bad"))
    refs.append(start_child(idle, id="gone"))
    refs.append(start_child(idle, id="slow", timeout=0.1))
    start_child(leaf, Job(f"{job.run}/unawaited", steps=1), id="unawaited")
    carried = start_child(held, Job(f"{job.run}/held", steps=3, gate="go"), id="held")
    await step(f"{job.run}#0")
    refs[5].cancel()
    await await_children(refs, return_exceptions=True)
    continue_as_new(replace(job, carried=carried))
