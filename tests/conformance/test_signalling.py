"""Signals and timers, through real workers."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import pytest

from continuum import (
    DecodeError,
    EncodeError,
    InvalidId,
    RunNotActive,
    RunNotFound,
    UnknownMessage,
    Workflow,
    continue_as_new,
    now,
    start_child,
    wait_signal,
    workflow,
)
from tests.conformance.cluster import FORGETFUL, Cluster
from tests.until import until

BOTH = pytest.mark.parametrize("settings", [{}, FORGETFUL], ids=["resident", "forgetful"])


@workflow
async def reads(count: int) -> list[int]:
    return [await wait_signal("number", int) for _ in range(count)]


async def test_an_early_signal_waits(cluster: Cluster) -> None:
    """ST01 an early signal waits."""

    @workflow
    async def flow() -> list[str]:
        first = await wait_signal("first", str)
        return [first, await wait_signal("early", str)]

    run = await cluster.start(flow, id="r")
    await run.signal("early", "before it began")
    async with cluster.worker([flow], **FORGETFUL):
        await cluster.until_entry("r", "signal_received", "early")
        await cluster.until_waiting("r", "signal first")
        await run.signal("first", "now")
        assert await run.result(timeout=10) == ["now", "before it began"]


@BOTH
async def test_signals_are_read_in_their_order(cluster: Cluster, settings: dict[str, float]) -> None:
    """ST02 FIFO per name."""
    async with cluster.worker([reads], **settings), cluster.worker([reads], **settings):
        run = await cluster.start(reads, 60)
        for number in range(60):
            await run.signal("number", number)
        assert await run.result(timeout=10) == list(range(60))


@BOTH
async def test_a_heap_of_signals_is_read_in_its_order(cluster: Cluster, settings: dict[str, float]) -> None:
    """ST02 FIFO per name, also of more than are read at once."""

    @workflow
    async def sends(count: int) -> list[int]:
        ref = start_child(reads, 2 * count, id="reader")
        for number in range(2 * count):
            if number == count:
                await wait_signal("more")
            ref.signal("number", number)
        return await ref

    async with cluster.worker([sends], **settings), cluster.worker([reads], **settings):
        run = await cluster.start(sends, 350, id="s")
        await cluster.until_entry("s/reader", "signal_received")
        await run.signal("more")
        assert await run.result(timeout=10) == list(range(700))


async def test_signals_of_other_names_do_not_block(cluster: Cluster) -> None:
    """ST03 signals of other names do not block."""

    @workflow
    async def flow() -> list[str]:
        async def read(name: str) -> str:
            return f"{name} {await wait_signal(name, str)}"

        return list(await asyncio.gather(*(read(name) for name in "abc")))

    async with cluster.worker([flow], **FORGETFUL):
        run = await cluster.start(flow)
        for name in ("x", "c", "y", "a", "a", "b"):
            await run.signal(name, "came")
        assert await run.result(timeout=10) == ["a came", "b came", "c came"]


async def test_signal_against_timeout(cluster: Cluster) -> None:
    """ST04 signal against timeout: either may win, replay agrees."""
    seen: dict[str, list[str]] = {}

    @workflow
    async def flow(name: str) -> str:
        try:
            word = await wait_signal("word", str, timeout=0.03)
        except TimeoutError:
            word = "nothing"
        seen.setdefault(name, []).append(word)
        await wait_signal("on")
        return word

    async with cluster.worker([flow]):
        runs = [await cluster.start(flow, f"r{number}", id=f"r{number}") for number in range(12)]
        await runs[0].signal("word", "early")
        for run in runs[2:]:  # the time is over somewhere in between
            await run.signal("word", "came")

        async def decided() -> bool:
            return len(seen) == len(runs)

        await until(decided)
    async with cluster.worker([flow]):
        for run in runs:
            await run.signal("on")
        results = {run.id: await run.result(timeout=10) for run in runs}
    assert results["r1"] == "nothing"
    assert {name: set(words) for name, words in seen.items()} == {name: {word} for name, word in results.items()}
    assert all(len(words) > 1 for words in seen.values()), "each was replayed"


async def test_signals_to_nobody_and_to_the_ended(cluster: Cluster) -> None:
    """ST05 to a missing run `RunNotFound`, to an ended one `RunNotActive`."""
    with pytest.raises(RunNotFound):
        await cluster.client.signal("nobody", "go")
    async with cluster.worker([reads]):
        run = await cluster.start(reads, 0)
        await run.result(timeout=10)
        with pytest.raises(RunNotActive) as caught:
            await run.signal("number", 1)
    assert caught.value.state == "completed"


@dataclass
class Approval:
    by: str
    granted: bool


async def test_typed_payloads_are_checked_first(cluster: Cluster) -> None:
    """ST06 typed payloads are validated before the write."""

    @workflow(signals={"approve": Approval})
    async def flow() -> str:
        approval = await wait_signal("approve")
        return f"{approval.by} {approval.granted}"

    async with cluster.worker([flow]):
        run = await cluster.start(flow)
        with pytest.raises(EncodeError):
            await run.signal("approve", "yes")
        await run.signal("approve", Approval("me", True))
        assert await run.result(timeout=10) == "me True"
        assert len(await cluster.entries(run.id)) == 1


async def test_a_payload_nobody_could_check_is_the_workflows_to_judge(cluster: Cluster) -> None:
    """ST06 payloads are checked before the write; where no definition is known, by who reads them."""

    @workflow
    async def flow() -> list[str]:
        seen: list[str] = []
        while len(seen) < 2:
            try:
                approval = await wait_signal("approve", Approval)
            except DecodeError as error:
                seen.append(error.field)
            else:
                seen.append(approval.by)
        return seen

    async with cluster.worker([flow], **FORGETFUL):
        run = await cluster.start(flow, id="r")
        await cluster.client.signal("r", "approve", {"by": "me", "granted": "perhaps"})
        await cluster.client.signal("r", "approve", {"by": "me", "granted": True})
        assert await run.result(timeout=10) == ["granted", "me"]


async def test_a_name_that_is_not_declared_is_refused(cluster: Cluster) -> None:
    """ST06 payloads are checked before the write, and so is the name; a parent's ref checks as a handle does."""

    @workflow(signals={"approve": Approval})
    async def approved() -> str:
        return str((await wait_signal("approve")).by)

    @workflow
    async def parent() -> list[str]:
        ref = start_child(approved, id="c")
        problems: list[str] = []
        for name, payload in (("aprove", Approval("x", True)), ("approve", "yes")):
            try:
                ref.signal(name, payload)
            except (UnknownMessage, EncodeError) as error:
                problems.append(type(error).__name__)
        ref.signal("approve", Approval("parent", True))
        return [*problems, await ref]

    async with cluster.worker([approved, parent], **FORGETFUL):
        assert await cluster.result(parent) == ["UnknownMessage", "EncodeError", "parent"]
        run = await cluster.start(approved, id="r")
        with pytest.raises(UnknownMessage, match="did you mean 'approve'"):
            await cluster.client.get_run("r", approved).signal("aprove")
        await run.signal("approve", Approval("me", True))
        assert await run.result(timeout=10) == "me"
        assert len(await cluster.entries("r")) == 1


async def test_by_id_alone_a_name_is_looked_up_in_what_workers_have_announced(cluster: Cluster) -> None:
    """ST06 payloads are checked before the write, and so is the name, also by id alone."""

    @workflow(signals={"approve": Approval})
    async def approved() -> str:
        return str((await wait_signal("approve")).by)

    @workflow
    async def open_flow() -> str:
        return await wait_signal("whatever", str)

    by_id = cluster.client
    await cluster.start(approved, id="early")
    await by_id.signal("early", "nobody knows yet")
    async with cluster.worker([approved, open_flow], **FORGETFUL):
        await cluster.start(approved, id="r")
        await cluster.start(open_flow, id="open")
        await by_id.signal("open", "whatever", "any")
        with pytest.raises(UnknownMessage, match="'approved' declares no signal 'aprove'; did you mean 'approve'"):
            await by_id.signal("r", "aprove")
        for missing in ("nobody", "nul\0"):
            with pytest.raises((RunNotFound, InvalidId)):
                await by_id.signal(missing, "aprove")
        await by_id.signal("r", "approve", {"by": "me", "granted": True})
        assert await cluster.client.get_run("r").result(timeout=10) == "me"
        assert await cluster.client.get_run("open").result(timeout=10) == "any"


async def test_one_who_announced_no_signals_makes_any_name_acceptable(cluster: Cluster) -> None:
    """ST06 payloads are checked before the write, by what all who have a version announced together."""

    def version(signals: dict[str, type]) -> Workflow[None, int]:
        @workflow(signals=signals)
        async def flow() -> int:
            return await wait_signal("go", int)

        return flow

    await cluster.start(version({}), id="r")
    async with cluster.worker([version({"go": int})]), cluster.worker([version({"go": int, "new": int})]):
        await cluster.client.signal("r", "new", 1)
        with pytest.raises(UnknownMessage, match="there are: go, new"):
            await cluster.client.signal("r", "other", 1)
    async with cluster.worker([version({})]):
        await cluster.client.signal("r", "other", 1)


@BOTH
async def test_a_delivery_id_counts_once_in_all_generations(cluster: Cluster, settings: dict[str, float]) -> None:
    """ST07 a delivery id makes a signal idempotent, across generations."""

    @workflow
    async def flow(seen: list[int]) -> list[int]:
        seen = [*seen, await wait_signal("number", int)]
        if len(seen) < 4:
            continue_as_new(seen)
        return seen

    async with cluster.worker([flow], **settings), cluster.worker([flow], **settings):
        run = await cluster.start(flow, [])
        for number in range(4):
            for again in range(number + 1):
                await run.signal("number", again, delivery_id=f"d-{again}")
            await cluster.until_generation(run.id, min(number + 2, 4))
        assert await run.result(timeout=10) == [0, 1, 2, 3]
        events = await run.history()
        told = [event.payload["delivery_id"] for event in events if event.type == "signal_received"]
        assert told == ["d-0", "d-1", "d-2", "d-3"]


async def test_long_and_short_sleeps(cluster: Cluster) -> None:
    """ST08 sleeps of years and of zero."""

    @workflow
    async def short() -> bool:
        before = now()
        await asyncio.sleep(0)
        return before == now()

    @workflow
    async def long(years: int) -> None:
        await asyncio.sleep(years * 366 * 24 * 3600)

    async with cluster.worker([short, long], **FORGETFUL):
        assert await cluster.result(short) is True
        for years in (1, 50, 5000):
            run = await cluster.start(long, years)
            found = await cluster.until_waiting(run.id, "timer")
            assert found.state == "suspended"
            await run.cancel()
