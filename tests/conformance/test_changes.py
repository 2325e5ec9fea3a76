"""Code that changes while runs are under way, through real workers."""

from __future__ import annotations

import asyncio
import os
import random
import threading
import time
import uuid
from collections.abc import Callable
from typing import Any

import pytest

from continuum import NotDeterministic, activity, continue_as_new, patched, wait_signal, workflow
from continuum.workflow import Workflow
from tests.conformance.cluster import FORGETFUL, Cluster


@activity
async def step(text: str) -> str:
    return f"did {text}"


@activity
async def other(text: str) -> str:
    return f"did another {text}"


async def test_patched_keeps_old_runs_on_their_path(cluster: Cluster) -> None:
    """RP10 `patched`: old runs keep the old path, first decision wins."""

    def version(new: bool) -> Workflow[Any, Any]:
        @workflow(name="flow")
        async def flow() -> str:
            if new and patched("louder"):
                done = await other("this")
            else:
                done = await step("this")
            await wait_signal("go")
            return done

        return flow

    everything = [step, other]
    async with cluster.worker([version(new=False), *everything]):
        old = await cluster.start("flow", id="old")
        await cluster.until_entry("old", "activity_completed")
    async with cluster.worker([version(new=True), *everything], **FORGETFUL):
        new = await cluster.start("flow", id="new")
        await cluster.until_entry("new", "activity_completed")
        await cluster.until_state("new", "suspended")
        for run in (old, new):
            await run.signal("go")
        assert await old.result(timeout=10) == "did this"
        assert await new.result(timeout=10) == "did another this"


async def test_a_run_waits_for_a_worker_with_its_version(cluster: Cluster) -> None:
    """RP11 version pinning: a run waits for a worker that has its version, visibly."""

    def numbered(number: int) -> Workflow[None, int]:
        @workflow(name="flow", version=number)
        async def flow() -> int:
            await wait_signal("go")
            return number

        return flow

    async with cluster.worker([numbered(1)]):
        old = await cluster.start("flow", id="old")
        await cluster.until_state("old", "running", "suspended")
    async with cluster.worker([numbered(2)]):
        await old.signal("go")
        await cluster.until_waiting("old", "a worker with workflow 'flow' version 1")
        new = await cluster.start("flow", id="new")
        await new.signal("go")
        assert await new.result(timeout=10) == 2
        async with cluster.worker([numbered(1)]):
            assert await old.result(timeout=10) == 1


async def test_the_next_generation_takes_the_newest_version(cluster: Cluster) -> None:
    """RP11 version pinning: a run stays on its version, its next generation takes the writer's."""

    def numbered(number: int) -> Workflow[int, list[int]]:
        @workflow(name="flow", version=number)
        async def flow(first: int) -> list[int]:
            await wait_signal("go")
            if first == 0:
                continue_as_new(number)
            return [first, number]

        return flow

    async with cluster.worker([numbered(1)]):
        run = await cluster.start("flow", 0, id="r")
        await cluster.until_state("r", "running", "suspended")
    async with cluster.worker([numbered(1), numbered(2)], **FORGETFUL):
        await run.signal("go")
        assert (await cluster.until_generation("r", 2)).version == 2
        await run.signal("go")
        assert await run.result(timeout=10) == [1, 2]


FORBIDDEN: dict[str, Callable[[], object]] = {
    "clock": time.time,
    "chance": random.random,
    "uuid": uuid.uuid4,
    "file": lambda: open(os.devnull).close(),
    "thread": lambda: threading.Thread(target=print).start(),
    "executor": lambda: asyncio.to_thread(print),
}


@pytest.mark.parametrize("what", FORBIDDEN)
async def test_what_cannot_be_repeated_is_refused_at_run_time(cluster: Cluster, what: str) -> None:
    """RP06 I/O, clock, randomness, threads used in a workflow are refused with a hint: the run is parked."""

    def version(good: bool) -> Workflow[Any, Any]:
        def helper() -> object:
            return None if good else FORBIDDEN[what]()

        @workflow(name="flow")
        async def flow() -> str:
            await step("this")
            found: Any = helper()
            if asyncio.iscoroutine(found):
                await found
            return "good"

        return flow

    async with cluster.worker([version(good=False), step]):
        run = await cluster.start("flow", id="r")
        found = await cluster.until_state("r", "parked", "failed", "completed")
        assert found.state == "parked"
        assert found.error is not None
        assert found.error.type == "NotDeterministic"
        assert "use" in found.error.message
    async with cluster.worker([version(good=True), step]):
        await run.resume()
        assert await run.result(timeout=10) == "good"


async def test_what_cannot_be_repeated_is_refused_where_source_shows_it() -> None:
    """RP06 I/O, clock, randomness, threads used in a workflow are refused with a hint, at decoration."""
    with pytest.raises(NotDeterministic, match=r"time\.time.*now\(\)"):

        @workflow
        async def reads_the_clock() -> float:
            return time.time()

    with pytest.raises(NotDeterministic, match="random"):

        @workflow
        async def draws() -> float:
            return random.random()
