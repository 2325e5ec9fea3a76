"""Updates and published state, through real workers."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import pytest

from continuum import (
    EncodeError,
    MessageIdTaken,
    RunNotActive,
    RunNotFound,
    UnknownMessage,
    Update,
    UpdateFailed,
    UpdateRefused,
    continue_as_new,
    on_update,
    set_state,
    start_child,
    wait_condition,
    wait_signal,
    workflow,
)
from continuum._engine.hooks import EngineHooks
from tests.conformance.cluster import FORGETFUL, Cluster, Gate, Raising
from tests.until import soon, until

BOTH = pytest.mark.parametrize("settings", [{}, FORGETFUL], ids=["resident", "forgetful"])


@dataclass
class Address:
    street: str


@dataclass
class Progress:
    done: int


set_address = Update("set_address", Address, int)
note = Update("note")


def counting(gate: Gate | None = None) -> Any:
    """A workflow that counts its updates, and ends when it is told to."""

    @workflow(updates=[set_address, note], state=Progress)
    async def flow() -> list[str]:
        streets: list[str] = []

        def known(address: Address) -> None:
            if not address.street:
                raise ValueError("no such street")

        async def change(address: Address) -> int:
            if address.street == "cursed":
                raise LookupError("nobody lives there")
            if gate is not None:
                await gate.held(address.street)
            streets.append(address.street)
            set_state(Progress(len(streets)))
            return len(streets)

        on_update(set_address, change, validator=known)
        await wait_signal("ship")
        return streets

    return flow


@BOTH
async def test_an_update_is_answered(cluster: Cluster, settings: dict[str, float]) -> None:
    """ST10 an update is handled once and answered once: the same id, the same answer."""
    flow = counting()
    async with cluster.worker([flow], **settings), cluster.worker([flow], **settings):
        run = await cluster.start(flow, id="r")
        for number in range(1, 11):
            wanted = Address(f"s{number}")
            asked = [run.update(set_address, wanted, id=f"u{number}", timeout=10) for _ in range(3)]
            assert await asyncio.gather(*asked) == [number] * 3
        assert await run.update("set_address", Address("by name"), timeout=10) == 11
        assert await cluster.client.update("r", "set_address", {"street": "plain"}, timeout=10) == 12
        await run.signal("ship")
        streets = await run.result(timeout=10)
    assert streets == [*(f"s{number}" for number in range(1, 11)), "by name", "plain"]
    kinds = [kind for kind, _ in await cluster.entries("r")]
    assert kinds.count("update_requested") == kinds.count("update_answered") == 12


@BOTH
async def test_a_refused_update_has_done_nothing(cluster: Cluster, settings: dict[str, float]) -> None:
    """ST11 a refused update has done nothing: the validator's, one that does not fit, one nobody declared."""
    flow = counting()
    async with cluster.worker([flow], **settings):
        run = await cluster.start(flow, id="r")
        for _ in range(2):
            with pytest.raises(UpdateRefused, match="no such street") as caught:
                await run.update(set_address, Address(""), id="u", timeout=10)
            told = (caught.value.type, caught.value.run_id, caught.value.update)
            assert told == ("ValueError", "r", "set_address")
        with pytest.raises(UpdateRefused, match=r"street"):
            await cluster.client.update("r", "set_address", {"street": 3}, timeout=10)
        with pytest.raises(UpdateRefused, match="did you mean 'set_address'"):
            await cluster.client.update("r", "set_adress", 3, timeout=10)
        with pytest.raises(UnknownMessage, match="did you mean 'set_address'"):
            await run.update("set_adress", 3, timeout=10)
        with pytest.raises(EncodeError):
            await run.update(set_address, {"street": 3}, timeout=10)
        with pytest.raises(UpdateFailed, match="nobody lives there") as failed:
            await run.update(set_address, Address("cursed"), timeout=10)
        assert failed.value.type == "LookupError"
        await run.signal("ship")
        assert await run.result(timeout=10) == []


async def test_an_answer_outlives_the_run(cluster: Cluster) -> None:
    """ST12 an answer outlives the run and its generations; whoever was not answered hears of the end."""
    gate = Gate()
    flow = counting(gate)
    async with cluster.worker([flow, gate.held]):
        run = await cluster.start(flow, id="r")
        with pytest.raises(UpdateRefused):
            await run.update(set_address, Address(""), id="refused", timeout=10)
        waiting = asyncio.ensure_future(run.update(set_address, Address("slow"), id="slow"))
        await gate.entered()
        await run.signal("ship")
        with pytest.raises(UpdateFailed, match="the run completed before it answered"):
            await soon(waiting)
        with pytest.raises(UpdateRefused):
            await run.update(set_address, Address(""), id="refused", timeout=10)
        with pytest.raises(UpdateFailed, match="the run completed before it answered"):
            await run.update(set_address, Address("slow"), id="slow", timeout=10)
        with pytest.raises(RunNotActive) as ended:
            await run.update(set_address, Address("x"), id="new", timeout=10)
        assert ended.value.state == "completed"
        with pytest.raises(MessageIdTaken, match="'slow' of run 'r' is that of update 'set_address'"):
            await run.signal("ship", delivery_id="slow")
        cancelled = await cluster.start(flow, id="c")
        waiting = asyncio.ensure_future(cancelled.update(note, 1))
        await cluster.until_entry("c", "update_requested")
        await cancelled.cancel()
        with pytest.raises(UpdateFailed, match="the run was cancelled before it answered"):
            await soon(waiting)
    with pytest.raises(RunNotFound):
        await cluster.client.update("nobody", "note", 1, timeout=10)


async def test_a_cascade_tells_who_waits_for_a_child(cluster: Cluster) -> None:
    """ST10 an update is answered once, or its run has ended, also by a cascade."""
    flow = counting()

    @workflow
    async def parent() -> None:
        await start_child(flow, id="k")

    async with cluster.worker([flow, parent], **FORGETFUL):
        run = await cluster.start(parent, id="p")
        await cluster.until_waiting("p/k", "signal ship")
        waiting = asyncio.ensure_future(cluster.client.update("p/k", "note", 1))
        await cluster.until_entry("p/k", "update_requested")
        await run.cancel()
        with pytest.raises(UpdateFailed):
            await soon(waiting)


@BOTH
async def test_updates_go_on_over_generations(cluster: Cluster, settings: dict[str, float]) -> None:
    """ST12 an answer outlives the generations; updates that wait are carried over and keep their order."""

    @workflow(updates=[note])
    async def flow(round: int) -> list[str]:
        seen: list[str] = []

        async def handle(word: str) -> str:
            seen.append(word)
            return f"{word} in round {round}"

        if round < 3:
            await wait_signal("on")
            continue_as_new(round + 1)
        on_update(note, handle)
        await wait_condition(lambda: len(seen) == 3)
        return seen

    async with cluster.worker([flow], **settings):
        run = await cluster.start(flow, 1, id="r")
        asked = []
        for round, word in enumerate(("a", "b", "c"), 1):
            asked.append(asyncio.ensure_future(run.update(note, word, id=word)))
            await cluster.until_entry("r", "update_requested")
            if round < 3:

                async def arrived(count: int = round) -> bool:
                    events = await run.history()
                    told = {event.payload["id"] for event in events if event.type == "update_requested"}
                    return len(told) == count

                await until(arrived)
                await run.signal("on")
                await cluster.until_generation("r", round + 1)
        assert await soon(asyncio.gather(*asked)) == [f"{word} in round 3" for word in "abc"]
        assert await run.result(timeout=10) == ["a", "b", "c"]
        assert await run.update(note, "anything", id="b", timeout=10) == "b in round 3"


async def test_time_is_up_and_the_update_stays(cluster: Cluster) -> None:
    """ST10 an update is handled once: asking again under its id waits for the same answer."""
    flow = counting()
    run = await cluster.start(flow, id="r")
    with pytest.raises(TimeoutError, match="ask again under id='u'"):
        await run.update(set_address, Address("x"), id="u", timeout=0.01)
    async with cluster.worker([flow]):
        assert await run.update(set_address, Address("other"), id="u", timeout=10) == 1
        await run.signal("ship")
        assert await run.result(timeout=10) == ["x"]


@pytest.mark.parametrize("point", ["turn.begin", "turn.committed"])
async def test_a_worker_that_fails_around_an_update_answers_once(cluster: Cluster, point: str) -> None:
    """ST10 an update is handled once and answered once, whatever fails in between."""
    flow = counting()
    run = await cluster.start(flow, id="r")
    raising = Raising(point, "r", times=2)
    async with cluster.worker([flow], hooks=EngineHooks(points=raising)) as worker:
        assert worker is not None
        assert await run.update(set_address, Address("x"), id="u", timeout=10) == 1
        assert await run.update(set_address, Address("x"), id="u", timeout=10) == 1
        await run.signal("ship")
        assert await run.result(timeout=10) == ["x"]
    assert raising.raised == 2
    assert [kind for kind, _ in await cluster.entries("r")].count("update_answered") == 1


async def test_state_is_seen_with_no_worker_running(cluster: Cluster) -> None:
    """ST13 what set_state published is seen with no worker running: typed by a handle that knows the workflow."""

    @workflow(state=Progress, updates=[note])
    async def flow(round: int) -> str:
        set_state(Progress(round))
        await wait_signal("on")
        if round == 1:
            continue_as_new(2)
        return "done"

    run = await cluster.start(flow, 1, id="r")
    assert (await run.describe()).published is None
    async with cluster.worker([flow], **FORGETFUL):
        await cluster.until_state("r", "suspended")
    assert (await run.describe()).published == Progress(1)
    assert (await cluster.client.get_run("r").describe()).published == {"done": 1}
    await run.signal("on")
    async with cluster.worker([flow], **FORGETFUL):
        await cluster.until_generation("r", 2)
        await cluster.until_waiting("r", "signal on")
        assert (await run.describe()).published == Progress(2)
        await run.signal("on")
        assert await run.result(timeout=10) == "done"
    assert (await run.describe()).published == Progress(2)


async def test_progress_is_published_while_a_run_works(cluster: Cluster) -> None:
    """ST13 what set_state published is seen as soon as the turn is durable."""
    gate = Gate()

    @workflow
    async def flow() -> None:
        for number in range(3):
            set_state({"step": number})
            await gate.held(number)

    async with cluster.worker([flow, gate.held]):
        run = await cluster.start(flow, id="r")
        await gate.entered()
        assert (await run.describe()).published == {"step": 0}
        gate.open()
        await run.result(timeout=10)
    assert (await run.describe()).published == {"step": 2}
