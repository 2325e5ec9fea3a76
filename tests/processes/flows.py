"""What the workers of these tests run. Activities append a line to the ledger, a plain file outside the database.

The rule: a label is ``run#step``, and a run takes its steps one after the other. So a line that comes twice in
a row is an activity that was in flight when something happened; twice in any other place is a bug.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from pathlib import Path

from continuum import (
    Update,
    activity,
    await_children,
    continue_as_new,
    on_update,
    start_child,
    wait_signal,
    workflow,
)

LOOK_S = 0.01


def folder() -> Path:
    """Return where the ledger lies and where gates appear: asked each time, for a process is forked with this."""
    return Path(os.environ.get("CONTINUUM_TEST_FOLDER", "."))


def note(kind: str, label: str) -> None:
    """Append a line to the ledger: one write, so that lines of several processes do not mix."""
    ledger = os.open(folder() / "ledger", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(ledger, f"{kind} {label} {os.getpid()}\n".encode())
    finally:
        os.close(ledger)


@dataclass
class Job:
    """A run's own id, and how much it has to do."""

    run: str
    steps: int = 3
    children: int = 0
    pause_s: float = 0.0
    gate: str = ""


@activity
async def step(label: str) -> str:
    note("did", label)
    return label


@activity
def step_in_thread(label: str) -> str:
    note("did", label)
    return label


@activity
async def hold(label: str, gate: str) -> str:
    """Last until somebody opens the gate."""
    note("did", label)
    while not (folder() / gate).exists():
        await asyncio.sleep(LOOK_S)
    return label


@activity
async def deadly(label: str) -> str:
    """Take the whole worker along, each time."""
    note("did", label)
    os._exit(66)


@workflow
async def leaf(job: Job) -> int:
    """Take steps, every other one in a thread, with pauses if there are to be any."""
    for number in range(job.steps):
        await (step, step_in_thread)[number % 2](f"{job.run}#{number}")
        if job.pause_s:
            await asyncio.sleep(job.pause_s)
    return job.steps


@workflow
async def paced(job: Job) -> list[str]:
    """Take a step, sleep, take another."""
    first = await step(f"{job.run}#0")
    await asyncio.sleep(job.pause_s)
    return [first, await step(f"{job.run}#1")]


@workflow
async def held(job: Job) -> int:
    """Take a step, one that lasts until the gate is open, and the rest."""
    await step(f"{job.run}#0")
    await hold(f"{job.run}#1", job.gate)
    for number in range(2, job.steps):
        await step(f"{job.run}#{number}")
    return job.steps


@workflow
async def held_twice(job: Job) -> int:
    """Take one step that lasts until its gate is open, and another."""
    await hold(f"{job.run}#0", f"{job.gate}0")
    await hold(f"{job.run}#1", f"{job.gate}1")
    return 2


@workflow
async def signalled(job: Job) -> str:
    """Wait for two signals with a step in between."""
    one = await wait_signal("go", str)
    await step(f"{job.run}#0")
    two = await wait_signal("go", str)
    return one + two


book = Update("book", str, str)


@workflow(updates=[book])
async def booking(job: Job) -> list[str]:
    """Answer updates, each with a step that lasts until the gate is open, until it is told to end."""
    booked: list[str] = []

    async def handle(label: str) -> str:
        booked.append(await hold(f"{job.run}#{label}", job.gate))
        return f"booking {len(booked)}"

    on_update(book, handle)
    await wait_signal("close")
    return booked


@workflow
async def chain(job: Job) -> int:
    """Take a step in each of so many generations."""
    await step(f"{job.run}#{job.children}")
    if job.children + 1 < job.steps:
        continue_as_new(Job(job.run, job.steps, job.children + 1))
    return job.steps


@workflow
async def sleeper(job: Job) -> int:
    """Only wait."""
    await asyncio.sleep(job.pause_s)
    return job.steps


@workflow
async def dormitory(job: Job) -> int:
    """Have many children that only wait."""
    refs = [
        start_child(sleeper, Job(f"{job.run}/c{number}", 1, 0, job.pause_s), id=f"c{number}")
        for number in range(job.children)
    ]
    return sum(await await_children(refs))


@workflow
async def deadly_activity(job: Job) -> str:
    """Have an activity that takes the worker along."""
    await step(f"{job.run}#0")
    return await deadly(f"{job.run}#1")
