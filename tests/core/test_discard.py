"""Letting a machine go: its coroutines end, and what their clean-up tries reaches nothing and nobody."""

import asyncio
import gc
import warnings
import weakref
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from tests.core.harness import Run

from continuum import (
    activity,
    await_children,
    child,
    map_children,
    now,
    side_effect,
    start_child,
    uuid4,
    wait_signal,
    workflow,
)
from continuum._core.events import ChildCompleted, RunStarted
from continuum._core.machine import Machine, RunContext

SEEN: list[str] = []


@activity
async def charge(order_id: str) -> str:
    return order_id


@workflow
async def ship(order_id: str) -> str:
    return order_id


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    SEEN.clear()
    yield
    gc.collect(1)  # a warning of the garbage collector is this test's failure


def discarded(body: Any) -> Run:
    @workflow
    async def flow() -> None:
        await body()

    run = Run(flow)
    run.replayable = False
    run.machine.discard()
    return run


def test_finally_blocks_run_and_reach_nothing() -> None:
    async def body() -> None:
        try:
            await charge("o1")
        finally:
            SEEN.append("finally")
            await charge("refund")
            SEEN.append("unreachable")

    run = discarded(body)
    assert SEEN == ["finally"]
    assert [command.key for command in run.commands] == ["charge-1"]


@pytest.mark.parametrize(
    "act",
    [
        lambda: start_child(ship, "o1"),
        lambda: side_effect(lambda: SEEN.append("called")),
        now,
        uuid4,
        lambda: asyncio.get_running_loop().create_task(charge("o1")),
        lambda: asyncio.get_running_loop().call_soon(SEEN.append, "called"),
        lambda: asyncio.current_task(),
        lambda: asyncio.Event().set(),
    ],
    ids=["start_child", "side_effect", "now", "uuid4", "create_task", "call_soon", "current_task", "Event.set"],
)
def test_whatever_a_finally_block_calls_decides_nothing(act: Any) -> None:
    async def body() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            act()

    run = discarded(body)
    assert SEEN == []
    assert [type(command).__name__ for command in run.commands] == ["StartTimer"]


def test_a_coroutine_that_will_not_end_is_ended() -> None:
    async def body() -> None:
        while True:
            try:
                await charge("o1")
            except BaseException:
                SEEN.append("once more")
                if len(SEEN) > 5:
                    raise

    discarded(body)
    assert 1 <= len(SEEN) <= 20


def test_clean_up_that_raises_hinders_nobody() -> None:
    async def broken() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            SEEN.append("broken")
            raise ValueError("in clean-up")

    async def body() -> None:
        try:
            await asyncio.gather(broken(), broken())
        finally:
            SEEN.append("main")

    discarded(body)
    assert sorted(SEEN) == ["broken", "broken", "main"]


def test_async_generators_are_closed_with_their_run() -> None:
    async def numbers() -> AsyncIterator[int]:
        try:
            for number in range(10):
                yield number
                await asyncio.sleep(0)
        finally:
            SEEN.append("generator")
            await charge("refund")

    held: list[Any] = []

    async def body() -> None:
        held.append(numbers())
        await anext(held[0])
        await asyncio.sleep(60)

    discarded(body)
    assert SEEN == ["generator"]


def test_an_async_generator_that_a_break_leaves_is_closed_at_no_other_time() -> None:
    async def numbers() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            SEEN.append("generator")

    @workflow
    async def flow() -> list[str]:
        async for _ in numbers():
            break
        await asyncio.sleep(1)
        return list(SEEN)

    run = Run(flow)
    run.replayable = False
    gc.collect(1)
    run.fired()
    assert run.result == []
    run.machine.discard()
    assert SEEN == ["generator"]


def test_nothing_of_one_run_is_seen_in_anothers_turn() -> None:
    async def body() -> None:
        try:
            await wait_signal("go")
        finally:
            await charge("refund")

    @workflow
    async def other() -> None:
        await charge("mine")

    discarded(body)
    gc.collect(1)
    run = Run(other)
    assert [command.input for command in run.commands] == [b'{"order_id":"mine"}']


async def pages() -> AsyncIterator[str]:
    yield "o1"
    yield await charge("o2")


@pytest.mark.parametrize("waits", ["activity", "child", "group", "children", "shield", "queue", "task group"])
def test_a_discarded_run_warns_of_nothing(waits: str) -> None:
    async def forever(queue: asyncio.Queue[int]) -> None:
        await queue.get()

    async def body() -> None:
        match waits:
            case "activity":
                await charge("o1")
            case "child":
                await child(ship, "o1")
            case "group":
                await asyncio.gather(charge("a"), child(ship, "b"), asyncio.sleep(60))
            case "children":
                await await_children([start_child(ship, "a", id="a"), start_child(ship, "b", id="b")])
            case "shield":
                await asyncio.shield(asyncio.ensure_future(charge("o1")))
            case "queue":
                await asyncio.gather(forever(asyncio.Queue()), forever(asyncio.Queue()))
            case "task group":
                async with asyncio.TaskGroup() as group:
                    group.create_task(charge("a"))
                    group.create_task(asyncio.sleep(60))

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        discarded(body)
        gc.collect(1)


@pytest.mark.parametrize("kind", ["activity", "child"])
def test_a_call_that_was_not_awaited_yet_warns_of_nothing(kind: str) -> None:
    """A run let go between the call and the await has forgotten nothing."""

    async def body() -> None:
        first = charge("a") if kind == "activity" else child(ship, "a")
        await charge("b")
        await first

    discarded(body)


def test_a_task_that_failed_unseen_warns_of_nothing_when_its_run_is_let_go() -> None:
    async def body() -> None:
        async def fail() -> None:
            raise ValueError("unseen")

        task = asyncio.create_task(fail())
        await asyncio.sleep(60)
        await task

    discarded(body)


def test_discarding_twice_and_after_the_end_does_nothing() -> None:
    @workflow
    async def flow() -> str:
        return "done"

    run = Run(flow)
    run.machine.discard()
    run.machine.discard()
    assert run.result == "done"


def test_a_discarded_machine_takes_no_event() -> None:
    @workflow
    async def flow() -> None:
        await charge("o1")

    run = Run(flow)
    run.machine.discard()
    with pytest.raises(RuntimeError, match="'run-1'"):
        run.completed("charge-1", "paid")
    run.replayable = False


def test_a_discard_leaves_the_running_loop_as_it_was() -> None:
    loop = asyncio.new_event_loop()
    try:
        found: list[object] = []

        def in_a_callback() -> None:
            discarded(lambda: asyncio.sleep(60))
            found.append(asyncio.get_running_loop())

        loop.call_soon(in_a_callback)
        loop.call_soon(loop.stop)
        loop.run_forever()
        assert found == [loop]
    finally:
        loop.close()


@pytest.mark.parametrize(
    "waits", ["activity", "children", "signal", "closed", "map", "map of pages", "decided map"]
)
def test_a_run_that_is_let_go_is_freed_without_the_garbage_collector(waits: str) -> None:
    """Thousands of runs a second come and go; the collector's passes would grow with those that stay."""

    @workflow
    async def flow(waits: str) -> str:
        async with asyncio.TaskGroup() as group:
            if waits == "activity":
                group.create_task(charge("o1"))
            if waits == "children":
                group.create_task(await_children([start_child(ship, "o1"), start_child(ship, "o2")]))
            if waits == "signal":
                group.create_task(wait_signal("go", timeout=5))
            if waits == "map":
                group.create_task(map_children(ship, ["o1", "o2"], concurrency=1))
            if waits == "map of pages":
                group.create_task(map_children(ship, pages(), concurrency=2))
            if waits == "decided map":
                await map_children(ship, pages(), min_successful=1)
                group.create_task(wait_signal("go"))
        return waits

    gc.disable()
    try:
        machine = Machine(flow, RunContext("run-1"))
        machine.apply(RunStarted(0, f'"{waits}"'.encode()))
        if waits == "decided map":
            machine.apply(ChildCompleted(1, "ship-1", b'"at sea"'))
        loop = weakref.ref(machine.loop)
        machine.discard()
        del machine
        assert loop() is None
    finally:
        gc.enable()
