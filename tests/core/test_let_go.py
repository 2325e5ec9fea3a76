"""Letting go and reading ahead, against code that makes both difficult."""

import asyncio
import gc
from collections.abc import AsyncIterator
from contextvars import ContextVar
from typing import Any

import pytest
from tests.core.harness import Run

from continuum import activity, start_child, workflow
from continuum._core import commands as c
from continuum._core import events as e
from continuum._core.faults import Broken
from continuum._core.machine import Machine, RunContext


@activity
async def charge(order_id: str) -> str:
    return order_id


@workflow
async def ship(order_id: str) -> str:
    return order_id


def test_what_an_async_generator_awaits_is_closed_with_its_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Left to the garbage collector, its clean-up would decide in another run's turn."""
    seen: list[str] = []

    @workflow
    async def flow() -> None:
        async def step() -> None:
            try:
                await charge("o1")
            finally:
                try:
                    start_child(ship, "ghost", id="ghost")
                except BaseException as error:
                    seen.append(type(error).__name__)
                    raise

        async def pages() -> AsyncIterator[int]:
            await step()
            yield 1

        async for _ in pages():
            pass

    run = Run(flow)
    run.replayable = False
    run.machine.discard()
    assert seen == ["Unwind"]


def test_generators_that_clean_up_opens_never_reach_the_hosts_loop() -> None:
    seen: list[str] = []

    @workflow
    async def flow() -> None:
        async def pages() -> AsyncIterator[int]:
            try:
                yield 1
                yield 2
            finally:
                seen.append(type(asyncio.get_running_loop()).__name__)

        try:
            await charge("o1")
        finally:
            async for _ in pages():
                break

    async def host() -> None:
        done = asyncio.get_running_loop().create_future()

        def callback() -> None:
            run = Run(flow)
            run.replayable = False
            run.machine.discard()
            done.set_result(None)

        asyncio.get_running_loop().call_soon(callback)
        await done

    asyncio.run(host())
    gc.collect()
    assert seen == ["WorkflowLoop"]


def test_clean_up_runs_in_its_own_context() -> None:
    variable: ContextVar[str] = ContextVar("variable", default="host's")

    @workflow
    async def flow() -> None:
        try:
            await charge("o1")
        finally:
            variable.set("leaked")

    run = Run(flow)
    run.replayable = False
    run.machine.discard()
    assert variable.get() == "host's"


def test_a_future_that_refuses_to_be_cancelled_does_not_hinder_the_others() -> None:
    cleaned: list[str] = []

    class Stubborn(asyncio.Future[None]):
        def cancel(self, msg: Any = None) -> bool:
            raise ValueError("mine")

    @workflow
    async def flow() -> None:
        async def other() -> None:
            try:
                await charge("o1")
            finally:
                cleaned.append("other")

        async def stubborn() -> None:
            await Stubborn(loop=asyncio.get_running_loop())

        tasks = [asyncio.create_task(other()), asyncio.create_task(stubborn())]
        await charge("o2")
        await asyncio.gather(*tasks)

    run = Run(flow)
    run.replayable = False
    run.machine.discard()
    assert cleaned == ["other"]


def test_reading_ahead_bounds_each_turn_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("continuum._core.machine.MAX_CALLBACKS_PER_TURN", 30)
    monkeypatch.setattr("continuum._core.ahead.MAX_CALLBACKS_PER_TURN", 30)

    @workflow
    async def flow() -> str:
        for _ in range(10):
            await charge("o1")
            for _ in range(20):
                await asyncio.sleep(0)
        return await charge("last")

    run = Run(flow)
    for number in range(10):
        run.completed(f"charge-{number + 1}", "ok")
    run.restart().completed("charge-11", "end")
    assert run.result == "end"


def test_a_task_that_cancels_itself_and_returns_ends_alike_everywhere() -> None:
    @workflow
    async def flow() -> int:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        return 5

    assert Run(flow).failure.type == "CancelledError"


def test_an_interrupted_turn_counts_for_nothing() -> None:
    @workflow
    async def flow() -> None:
        start_child(ship, "o1")
        raise KeyboardInterrupt

    machine = Machine(flow, RunContext("run-1"))
    with pytest.raises(KeyboardInterrupt):
        machine.apply(e.RunStarted(0, b"null"))
    assert isinstance(machine.fault, Broken)
    assert machine.closing is None
    with pytest.raises(RuntimeError, match="interrupted"):
        machine.apply(e.CancelRequested(1, "late"))
    machine.discard()


def test_a_cancellation_that_comes_before_the_start_is_kept() -> None:
    @workflow
    async def flow() -> None:
        await charge("o1")

    machine = Machine(flow, RunContext("run-1"))
    machine.apply(e.CancelRequested(0, "too early"))
    turn = machine.apply(e.RunStarted(1, b"null"))
    assert turn.closing == c.CancelRun("too early")
    machine.discard()


def test_a_machine_is_not_let_go_in_its_own_turn() -> None:
    machines: list[Machine] = []

    @workflow
    async def flow() -> None:
        machines[0].discard()

    machine = Machine(flow, RunContext("run-1"))
    machines.append(machine)
    turn = machine.apply(e.RunStarted(0, b"null"))
    assert isinstance(turn.closing, c.FailRun)
    assert "own turn" in turn.closing.failure.message
    machine.discard()
