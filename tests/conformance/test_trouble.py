"""Whole workers in trouble: lost answers, silence, an outage, an engine that breaks in the middle."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

import pytest

import continuum
from continuum import (
    ActivityFailed,
    EncodeError,
    activity,
    as_completed,
    await_children,
    start_child,
    wait_signal,
    workflow,
)
from continuum._engine.hooks import EngineHooks
from tests.conformance.cluster import FORGETFUL, Cluster, Gate, Raising, dark, failing
from tests.conformance.flows import add, counts, waiter
from tests.journal.proxy import proxied
from tests.until import until


@workflow
async def family(n: int) -> list[int]:
    return await await_children([start_child(counts, number, id=f"k{number}") for number in range(n)])


async def test_lost_answers_double_nothing(cluster: Cluster, caplog: pytest.LogCaptureFixture) -> None:
    """CR18 connection lost after COMMIT was sent: outcome is resolved, nothing doubled."""
    caplog.set_level(logging.CRITICAL)
    sources = [counts, family, add]
    async with (
        proxied(cluster.url) as proxy,
        cluster.at(proxy.url) as behind,
        behind.worker(sources, lease=30),
    ):
        runs = [await cluster.start(family, 8, id=f"f{number}") for number in range(4)]
        for lose in (proxy.lose_answer, proxy.lose_client, proxy.lose_statement):
            fault = lose("flush")
            await _struck_or_ended(cluster, fault.struck, [run.id for run in runs])
        proxy.faults.clear()
        proxy.cut_all()
        results = [await run.result(timeout=10) for run in runs]
    assert results == [[sum(range(number)) for number in range(8)]] * 4
    for run in runs:
        entries = await cluster.entries(run.id)
        assert len(entries) == len(set(entries)) == 16
        for number in range(8):
            kinds = await cluster.entries(f"{run.id}/k{number}")
            assert kinds == [("activity_completed", f"add-{one + 1}") for one in range(number)]


async def _struck_or_ended(cluster: Cluster, struck: asyncio.Event, run_ids: list[str]) -> None:
    async def enough() -> bool:
        states = [(await cluster.client.get_run(run_id).describe()).state for run_id in run_ids]
        return struck.is_set() or set(states) == {"completed"}

    await until(enough)


async def test_a_parents_crash_leaves_its_children_running(cluster: Cluster) -> None:
    """CH17 a parent's crash leaves children running; it resumes with their outcomes."""
    gate = Gate()

    @workflow
    async def kid(n: int) -> int:
        return await gate.held(n)

    @workflow
    async def parent(n: int) -> list[int]:
        return await await_children([start_child(kid, number, id=f"k{number}") for number in range(n)])

    async with (
        cluster.worker([kid, gate.held]),
        proxied(cluster.url) as proxy,
        cluster.at(proxy.url) as behind,
        behind.worker([parent]) as lost,
    ):
        run = await cluster.start(parent, 5, id="p")
        await gate.entered(5)
        assert (await run.describe()).worker_id == lost.id
        with dark(proxy):
            gate.open()
            for number in range(5):
                await cluster.until_state(f"p/k{number}", "completed")
            async with cluster.worker([parent]):
                assert await run.result(timeout=10) == list(range(5))
    assert gate.calls == list(range(5)), "none was run twice"


async def test_after_an_outage_everybody_goes_on(cluster: Cluster) -> None:
    """CR20 Postgres away longer than a lease: no mutual takeover, nothing lost."""
    gate = Gate()

    @workflow
    async def held(n: int) -> int:
        return await add(await gate.held(n), 1)

    sources = [held, add, gate.held]
    async with (
        proxied(cluster.url) as proxy,
        cluster.at(proxy.url) as behind,
        behind.worker(sources) as one,
        behind.worker(sources) as other,
    ):
        runs = [await cluster.start(held, number) for number in range(10)]
        await gate.entered(10)
        ids = one.id, other.id
        over = time.monotonic() + 1.5  # of a lease

        async def long_enough() -> bool:
            return time.monotonic() > over

        with dark(proxy):
            await until(long_enough)
        gate.open()
        assert [await run.result(timeout=10) for run in runs] == list(range(1, 11))
        assert (one.id, other.id) == ids, "nobody was declared dead"
    assert sorted(gate.calls) == list(range(10)), "nothing was run twice"


@pytest.mark.parametrize("point", ["turn.begin", "turn.taken", "turn.committed"])
async def test_a_crash_between_start_and_flush_starts_nothing_twice(
    cluster: Cluster, point: str, caplog: pytest.LogCaptureFixture
) -> None:
    """CH32 a parent crash between start and flush starts no child twice."""
    caplog.set_level(logging.CRITICAL)
    raising = Raising(point, "p")
    async with cluster.worker([family, counts, add], lease=60, hooks=EngineHooks(points=raising)):
        run = await cluster.start(family, 10, id="p")
        assert await run.result(timeout=10) == [sum(range(number)) for number in range(10)]
    assert raising.raised
    assert set(await cluster.children("p")) == {f"k{number}" for number in range(10)}
    entries = await cluster.entries("p")
    assert len(entries) == len(set(entries)) == 20


async def test_a_run_that_always_breaks_the_engine_is_parked(
    cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    """CR16 a poison run is isolated and parked after bounded attempts."""
    caplog.set_level(logging.CRITICAL)
    raising = Raising("turn.taken", "bad", times=100)
    async with cluster.worker([counts, add], lease=60, hooks=EngineHooks(points=raising)):
        bad, good = await cluster.start(counts, 3, id="bad"), await cluster.start(counts, 3, id="good")
        found = await cluster.until_state("bad", "parked")
        assert await good.result(timeout=10) == 3
        assert "raised at turn.taken" in str(found.error)
        assert raising.raised < 10
        raising.left = 0
        await bad.resume()
        assert await bad.result(timeout=10) == 3


async def test_children_cost_in_proportion(cluster: Cluster) -> None:
    """CH29 N children cost at most c·N rows and at most a few replays."""
    replays: dict[int, int] = {}

    @workflow
    async def leaf(n: int) -> int:
        return n

    @workflow
    async def parent(n: int) -> int:
        replays[n] = replays.get(n, 0) + 1
        return sum(await await_children([start_child(leaf, number) for number in range(n)]))

    async with cluster.worker([parent, leaf]), cluster.worker([parent, leaf]):
        for n in (10, 1000):
            run = await cluster.start(parent, n)
            assert await run.result(timeout=10) == sum(range(n))
            assert len(await run.history()) == 2 * n
            assert cluster.transactions(run.id) <= n + 1
    assert max(replays.values()) <= 3


async def test_a_bottomless_value_harms_nobody_else(cluster: Cluster) -> None:
    """CR15 an unencodable result is a terminal failure, and neighbours go on."""

    @activity
    async def deep() -> Any:
        value: list[Any] = []
        for _ in range(20_000):
            value = [value]
        return value

    @workflow
    async def bad() -> str:
        try:
            await deep()
        except ActivityFailed as error:
            return error.type
        return "kept"

    async with cluster.worker([bad, deep, counts, add]):
        runs = [await cluster.start(counts, 10) for _ in range(20)]
        poison = [await cluster.start(bad) for _ in range(3)]
        assert [await run.result(timeout=10) for run in runs] == [45] * 20
        assert [await run.result(timeout=10) for run in poison] == ["EncodeError"] * 3


async def test_unknown_options_raise(cluster: Cluster) -> None:
    """SV09 unknown options raise."""

    @workflow
    async def flow() -> None:
        start_child(counts, 1, tiemout=3)  # type: ignore[call-overload]

    with pytest.raises(TypeError, match="did you mean 'poll'"):
        async with cluster.worker([flow], pol=3):
            pass
    with pytest.raises(TypeError, match="priority"):
        await cluster.start(counts, 1, prioriti=3)
    with pytest.raises(TypeError, match="schema"):
        continuum.connect(cluster.url, shema="x")  # type: ignore[arg-type]
    async with cluster.worker([flow]):
        error = await failing(await cluster.start(flow))
    assert error.type == "TypeError"
    assert "timeout" in error.message


async def test_a_live_child_is_cancelled_by_a_later_generation(cluster: Cluster) -> None:
    """CN06 live children stay cancellable."""

    @workflow
    async def parent(ref: continuum.ChildRef[str] | None) -> str:
        if ref is None:
            continuum.continue_as_new(start_child(waiter, "kid", id="kid"))
        await wait_signal("on")
        ref.cancel("by the next generation")
        try:
            return await ref
        except continuum.ChildCancelled as error:
            return error.reason

    async with cluster.worker([parent, waiter], **FORGETFUL):
        run = await cluster.start(parent, None, id="p")
        await cluster.until_state("p/kid", "suspended")
        await run.signal("on")
        assert await run.result(timeout=10) == "by the next generation"
        await cluster.until_state("p/kid", "cancelled")


@workflow
async def hedging(count: int) -> int:
    await once("first")
    refs = [start_child(napping, 0.05 + at / 2000, id=f"c{at}") for at in range(count)]
    async for first in as_completed(refs):
        for other in refs:
            if other is not first:
                other.cancel("lost")
        break
    outcomes = [await ref.outcome() for ref in refs]
    return len(outcomes)


@workflow
async def napping(seconds: float) -> float:
    await asyncio.sleep(seconds)
    return seconds


async def test_a_run_that_is_read_anew_keeps_its_journal(cluster: Cluster) -> None:
    """CR13 children that end while they are cancelled void their parent's commit, and nothing starts over."""
    ONCE.clear()
    async with cluster.worker([hedging, napping]):
        runs = [await cluster.start(hedging, 20, id=f"race-{at}") for at in range(8)]
        for run in runs:
            assert await run.result(timeout=20) == 20
    assert ["first"] * len(runs) == ONCE


ONCE: list[str] = []


@activity
async def once(word: str) -> None:
    ONCE.append(word)


@workflow
async def with_attributes(kind: str) -> str:
    await await_children([start_child(counts, 1, id="good")])
    kinds: dict[str, Any] = {
        "no json": {"a": object()},
        "nul": {"a": "x\0y"},
        "surrogate": {"a": "\ud800"},
    }
    try:
        start_child(counts, 1, id="bad", attributes=kinds[kind])
    except EncodeError as error:
        return str(error)
    return "accepted"


@pytest.mark.parametrize("kind", ["no json", "nul", "surrogate"])
async def test_attributes_that_nobody_can_store_are_refused_at_the_start(cluster: Cluster, kind: str) -> None:
    """CR15 what cannot be encoded is an error of the one who says it, not a loop."""
    async with cluster.worker([with_attributes, counts, add]):
        assert "attributes of a child" in await cluster.result(with_attributes, kind)
