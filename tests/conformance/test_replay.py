"""Replay through real workers: what is recorded is repeated, and what differs is shown."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import pytest

from continuum import (
    ActivityFailed,
    activity,
    child,
    side_effect,
    start_child,
    wait_signal,
    workflow,
)
from continuum.workflow import Workflow
from tests.conformance.cluster import FORGETFUL, Cluster


@activity
async def step(text: str) -> str:
    return f"did {text}"


@activity
async def other(text: str) -> str:
    return f"did another {text}"


@workflow
async def kid(text: str) -> str:
    return f"kid {text}"


@workflow
async def other_kid(text: str) -> str:
    return f"another kid {text}"


@workflow(name="flow")
async def original() -> str:
    done = await step("this")
    born = await child(kid, "this", id="kid")
    return f"{done}, {born}, {await wait_signal('go', str)}"


async def park(cluster: Cluster, first: Workflow[Any, Any], changed: Workflow[Any, Any], *sources: Any) -> str:
    """Run ``first`` until it waits for a signal, go on with ``changed`` in another worker until it is parked.

    Then go on with ``first``, and return what ``describe`` said of the parked run.
    """
    everything = [step, other, kid, other_kid, *sources]
    async with cluster.worker([first, *everything]):
        run = await cluster.start(first, id="r")
        await cluster.until_entry("r", "child_completed")
        before = await cluster.entries("r")
    await run.signal("go", "went")
    async with cluster.worker([changed, *everything]):
        found = await cluster.until_state("r", "parked")
        with pytest.raises(TimeoutError, match="NonDeterminismError"):
            await run.result(timeout=0.01)
    assert found.error is not None
    assert found.error.type == "NonDeterminismError"
    assert " ".join(str(found.error).split()) in (found.waiting_for or "")
    assert await cluster.entries("r") == before, "nothing of it is written"
    async with cluster.worker([first, *everything]):
        await run.resume()
        assert await run.result(timeout=10) == "did this, kid this, went"
        assert (await run.describe()).error is None
    return found.error.message


async def test_recorded_effects_are_not_run_again(cluster: Cluster) -> None:
    """RP01 recorded effects are not re-run."""
    ran: list[str] = []

    @activity
    async def note(text: str) -> str:
        ran.append(text)
        return text

    @activity
    def note_in_thread(text: str) -> str:
        ran.append(text)
        raise ValueError(text)

    @workflow
    async def noting_kid(text: str) -> str:
        return await note(text)

    @workflow
    async def flow() -> list[str]:
        found = [await note("activity"), side_effect(lambda: ran.append("effect") or "effect", type=str)]
        try:
            await note_in_thread("failure")
        except ActivityFailed as error:
            found.append(error.message)
        found.append(await child(noting_kid, "kid"))
        found.append(await wait_signal("one", str))
        found.append(await note("last"))
        found.append(await wait_signal("two", str))
        return found

    sources = [flow, noting_kid, note, note_in_thread]
    async with cluster.worker(sources, **FORGETFUL):
        run = await cluster.start(flow, id="r")
        await cluster.until_state("r", "suspended")
        await run.signal("one", "1")
        await cluster.until_entry("r", "activity_completed", "note-2")
    async with cluster.worker(sources, **FORGETFUL):
        await run.signal("two", "2")
        assert await run.result(timeout=10) == ["activity", "effect", "failure", "kid", "1", "last", "2"]
    assert ran == ["activity", "effect", "failure", "kid", "last"]


@workflow(name="flow")
async def another_type() -> None:
    await asyncio.sleep(1)


@workflow(name="flow")
async def another_name() -> None:
    await other("this")


@workflow(name="flow")
async def another_argument() -> None:
    await step("that")


@workflow(name="flow")
async def another_key() -> None:
    async def inner() -> None:
        await step("this")

    await asyncio.create_task(inner())


@workflow(name="flow")
async def none_of_it() -> None:
    await wait_signal("go")


@pytest.mark.parametrize(
    ("changed", "recorded", "decided"),
    [
        (another_type, "step", "timer"),
        (another_name, "step", "other"),
        (another_argument, "this", "that"),
        (another_key, "step-1", "t1.step-1"),
        (none_of_it, "step", "signal go"),
    ],
    ids=lambda value: value.function.__name__ if isinstance(value, Workflow) else "",
)
async def test_a_mismatch_parks_the_run(
    cluster: Cluster, changed: Workflow[Any, Any], recorded: str, decided: str
) -> None:
    """RP02 type, name, key or argument mismatch: both sides, run parked, resumable."""
    message = await park(cluster, original, changed)
    left, _, right = message.partition("\ndecided: ")
    assert recorded in left
    assert decided in right


async def test_leftover_history_is_found(cluster: Cluster) -> None:
    """RP03 leftover history is detected."""

    @workflow(name="flow")
    async def ends_early() -> str:
        return await step("this")

    message = await park(cluster, original, ends_early)
    assert "kid" in message


async def test_another_child_workflow_at_the_same_key(cluster: Cluster) -> None:
    """CH13 changed child workflow at the same key diverges loudly."""

    @workflow(name="flow")
    async def changed() -> None:
        await step("this")
        await child(other_kid, "this", id="kid")

    message = await park(cluster, original, changed)
    assert "kid" in message
    assert "other_kid" in message


async def test_another_input_of_a_child(cluster: Cluster) -> None:
    """CH14 changed input diverges."""

    @workflow(name="flow")
    async def changed() -> None:
        await step("this")
        await child(kid, "that", id="kid")

    message = await park(cluster, original, changed)
    assert "this" in message
    assert "that" in message


async def test_another_id_of_a_child(cluster: Cluster) -> None:
    """CH15 changed `id=` diverges."""

    @workflow(name="flow")
    async def changed() -> None:
        await step("this")
        await child(kid, "this", id="bairn")

    message = await park(cluster, original, changed)
    assert "kid" in message
    assert "bairn" in message


@dataclass
class Before:
    name: str


@dataclass
class After:
    name: str
    colour: str = "grey"


def with_input(kind: type[Any]) -> tuple[Workflow[Any, Any], ...]:
    """A parent and a child of one code, but for the input's type."""

    async def painted(thing: Any) -> str:
        return f"{thing.name} {getattr(thing, 'colour', '')}"

    async def painter(given: Any) -> str:
        ref = start_child(paint_kid, kind(given.name), id="kid")
        await wait_signal("go")
        return await ref

    painted.__annotations__["thing"] = painter.__annotations__["given"] = kind
    paint_kid = workflow(name="painted")(painted)
    return workflow(name="painter")(painter), paint_kid


async def test_a_field_with_a_new_default_parks_nobody(cluster: Cluster) -> None:
    """CH14 a newly defaulted field does not diverge."""
    async with cluster.worker(with_input(Before)):
        run = await cluster.start(with_input(Before)[0], Before("door"), id="r")
        await cluster.until_entry("r", "child_completed")
    async with cluster.worker(with_input(After)):
        await run.signal("go")
        assert await run.result(timeout=10) == "door "


def swallowing(*caught: type[BaseException]) -> Workflow[Any, Any]:
    @workflow(name="flow")
    async def swallows() -> str:
        try:
            await other("this")
        except caught:
            return "swallowed"
        finally:
            await step("in finally")
        return "not swallowed"

    return swallows


@pytest.mark.parametrize("caught", [Exception, BaseException])
async def test_engine_errors_cannot_be_caught(cluster: Cluster, caught: type[BaseException]) -> None:
    """RP05 engine errors cannot be caught by workflow code."""
    message = await park(cluster, original, swallowing(caught))
    assert "other" in message


class Special(str):
    __slots__ = ()


@dataclass
class Bag:
    things: tuple[int, ...]
    extra: Any = None


async def test_values_are_round_tripped_on_first_execution(cluster: Cluster) -> None:
    """RP09 values are round-tripped on first execution."""
    bag = Bag((1, 2), (3, 4))
    seen: list[Any] = []

    @activity
    async def same(value: Any) -> Any:
        seen.append(type(value))
        return bag.extra

    @activity
    async def typed(given: Bag) -> Bag:
        seen.append(given is bag)
        return bag

    @workflow
    async def echo(given: Bag) -> Bag:
        seen.append(given is bag or type(given.extra))
        return given

    @workflow
    async def flow() -> list[Any]:
        found = [type(await same((1, 2))).__name__]
        got = await typed(bag)
        found += [got is bag, got == Bag((1, 2), [3, 4])]
        found += [await child(echo, bag) is bag]
        found += [type(side_effect(lambda: Special("text"), type=str)).__name__]
        return found

    @workflow
    async def waits() -> list[Any]:
        await wait_signal("go")
        return await flow.function()

    async with cluster.worker([flow, waits, echo, same, typed], **FORGETFUL):
        live = await cluster.result(flow)
        run = await cluster.start(waits, id="w")
        await cluster.until_state("w", "suspended")
        await run.signal("go")
        assert live == await run.result(timeout=10) == ["list", False, True, False, "str"]
    assert seen == [list, False, list] * 2
