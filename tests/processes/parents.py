"""Parents, in a module of their own: a worker may have them without their children's code, or that alone."""

from __future__ import annotations

from collections.abc import Callable

from continuum import ChildRef, Workflow, await_children, start_child, workflow
from tests.processes import flows
from tests.processes.flows import Job


async def fan(job: Job, start: Callable[[Job, str], ChildRef[int]]) -> int:
    """Take a step, fan out and back in, take another."""
    await flows.step(f"{job.run}#0")
    keys = [f"c{number}" for number in range(job.children)]
    refs = [start(Job(f"{job.run}/{key}", job.steps, 0, job.pause_s, job.gate), key) for key in keys]
    total = sum(await await_children(refs))
    await flows.step(f"{job.run}#1")
    return total


def start_leaf(job: Job, key: str) -> ChildRef[int]:
    return start_child(flows.leaf, job, id=key)


def start_held(job: Job, key: str) -> ChildRef[int]:
    return start_child(flows.held, job, id=key)


@workflow
async def family(job: Job) -> int:
    """Fan out over leaves."""
    return await fan(job, start_leaf)


@workflow
async def held_family(job: Job) -> int:
    """Fan out over children that last until the gate is open."""
    return await fan(job, start_held)


def _copy(number: int) -> Workflow[Job, int]:
    @workflow(name=f"family_{number}")
    async def copy(job: Job) -> int:
        return await fan(job, start_leaf)

    return copy


COPIES = [_copy(number) for number in range(5)]
"""The same under names of their own, so that a test can say which worker gets which run."""
family_0, family_1, family_2, family_3, family_4 = COPIES
