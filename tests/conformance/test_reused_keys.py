"""A child's key used again by a later generation, for another child or the same: timing makes no difference."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any, TypeVar

import pytest

from continuum import Client, DuplicateChildId, child, continue_as_new, start_child, wait_signal, workflow
from continuum._engine.hooks import EngineHooks
from continuum._journal.memory.journal import MemoryJournal, Straight
from continuum._journal.memory.store import Memory
from tests.conformance.cluster import FORGETFUL, Cluster, Raising
from tests.conformance.flows import waiter
from tests.until import until

T = TypeVar("T")
OUTCOMES = {True: "kid 7", False: "duplicate"}


@workflow
async def reuses(names: list[str]) -> str:
    """Start a child called names[0]; the next generation, told to go on, awaits names[1] under its key."""
    if len(names) == 2:
        start_child(waiter, names[0], id="kid")
        continue_as_new(names[1:])
    await wait_signal("on")
    try:
        return await child(waiter, names[0], id="kid")
    except DuplicateChildId:
        return "duplicate"


SAME, OTHER = ["kid", "kid"], ["kid", "another"]
BOTH = pytest.mark.parametrize("same", [True, False])


def names(same: bool) -> list[str]:
    return SAME if same else OTHER


@BOTH
async def test_a_key_whose_child_is_known_to_have_ended(cluster: Cluster, same: bool) -> None:
    """CH25 the earlier child's end stands in the journal before its key is used again."""
    async with cluster.worker([reuses, waiter]):
        run = await cluster.start(reuses, names(same), id="p")
        await cluster.until_generation("p", 2)
        await cluster.client.signal("p/kid", "go", "7")
        await cluster.until_entry("p", "child_completed", "kid")
        await run.signal("on")
        assert await run.result(timeout=10) == OUTCOMES[same]


@BOTH
@pytest.mark.parametrize("first", ["on", "child_completed"])
async def test_a_key_whose_child_ended_unheard(cluster: Cluster, same: bool, first: str) -> None:
    """CH25 the earlier child's end is taken with what makes the parent use its key again, before or behind it."""
    async with cluster.worker([waiter]):
        async with cluster.worker([reuses], **FORGETFUL):
            run = await cluster.start(reuses, names(same), id="p")
            await cluster.until_waiting("p", "signal on")
        if first == "on":
            await run.signal("on")
        await cluster.client.signal("p/kid", "go", "7")
        await cluster.until_state("p/kid", "completed")
        if first != "on":
            await run.signal("on")
        async with cluster.worker([reuses]):
            assert await run.result(timeout=10) == OUTCOMES[same]


@BOTH
@pytest.mark.parametrize("ends", ["before", "behind"])
async def test_a_key_whose_start_was_committed_and_its_answer_lost(
    cluster: Cluster, same: bool, ends: str, caplog: pytest.LogCaptureFixture
) -> None:
    """CH25 a worker that dies between the start and what the journal says of it changes nothing."""
    caplog.set_level(logging.CRITICAL)
    raising = Raising("turn.committed", "p", times=0)

    async def raised() -> int:
        return raising.raised

    async with cluster.worker([reuses, waiter], lease=60, hooks=EngineHooks(points=raising)):
        run = await cluster.start(reuses, names(same), id="p")
        await cluster.until_generation("p", 2)
        if ends == "before":
            await cluster.client.signal("p/kid", "go", "7")
            await cluster.until_entry("p", "child_completed", "kid")
        raising.left = 1
        await run.signal("on")
        await until(raised)
        if ends == "behind" and same:
            await cluster.client.signal("p/kid", "go", "7")
        assert await run.result(timeout=10) == OUTCOMES[same]


@BOTH
async def test_a_forgotten_run_has_the_same_answer(cluster: Cluster, same: bool) -> None:
    """CH25 a parent that is replayed whenever it has waited."""
    async with cluster.worker([reuses, waiter], **FORGETFUL):
        run = await cluster.start(reuses, names(same), id="p")
        await cluster.until_waiting("p", "signal on")
        await run.signal("on")
        if same:
            await cluster.until_waiting("p", "child kid")
            await cluster.client.signal("p/kid", "go", "7")
        assert await run.result(timeout=10) == OUTCOMES[same]


class Slow(Straight):
    """A wire that answers questions about runs' ends only when the test says so."""

    def __init__(self) -> None:
        self.answers = asyncio.Event()
        self.asked = asyncio.Event()
        self.answers.set()

    async def __call__(self, what: str, operation: Callable[..., T], *values: Any) -> T:
        if what == "ends" and not self.answers.is_set():
            self.asked.set()
            await self.answers.wait()
        return await super().__call__(what, operation, *values)


@BOTH
async def test_a_child_that_ends_while_it_is_compared(same: bool) -> None:
    """CH25 the earlier child ends on the parent's worker between the start and what the journal says of it."""
    slow = Slow()
    memory = Memory(lambda: time.time_ns() // 1_000)
    async with MemoryJournal(memory, wire=slow).open() as journal:
        cluster = Cluster("", Client(journal))
        async with cluster.worker([reuses, waiter]):
            run = await cluster.start(reuses, names(same), id="p")
            await cluster.until_generation("p", 2)
            slow.answers.clear()
            await run.signal("on")
            await slow.asked.wait()
            await cluster.client.signal("p/kid", "go", "7")
            await cluster.until_state("p/kid", "completed")
            await run.signal("more")
            await cluster.until_entry("p", "signal_received", "more")
            assert ("child_completed", "kid") not in await cluster.entries("p"), "not yet known whose end it is"
            slow.answers.set()
            assert await run.result(timeout=10) == OUTCOMES[same]
        told = [kind for kind, key in await cluster.entries("p", 2) if key == "kid"]
        assert told == ["child_started", "child_completed" if same else "child_start_failed"]


async def test_a_refused_start_is_its_generations_own(cluster: Cluster) -> None:
    """CH25 what the journal refused one generation is not refused the next one, which means the first child."""

    @workflow
    async def parent(generation: int) -> str:
        if generation < 3:
            start_child(waiter, f"kid {generation}", id="kid")
            continue_as_new(generation + 1)
        return await child(waiter, "kid 1", id="kid")

    async with cluster.worker([parent, waiter]):
        run = await cluster.start(parent, 1, id="p")
        await cluster.until_generation("p", 3)
        await cluster.client.signal("p/kid", "go", "7")
        assert await run.result(timeout=10) == "kid 1 7"
