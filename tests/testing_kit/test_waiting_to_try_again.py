"""Time in an environment with children that are tried again and runs that are asked to stop: it jumps there."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from continuum import Retry, RunCancelled, activity, child, start_child, wait_signal, workflow
from continuum.testing import WorkflowEnvironment

FAILURES = 3


@activity
async def deliver(attempts: int) -> int: ...


@workflow
async def courier(attempts: int) -> int:
    return await deliver(attempts)


@workflow
async def persistent(attempts: int) -> int:
    return await child(courier, attempts, id="kid", retry=Retry(max_attempts=9, initial=100, jitter=0))


@workflow
async def waits() -> None:
    await wait_signal("never")


@workflow
async def deaf() -> None:
    start_child(waits)
    while True:
        try:
            await wait_signal("never")
        except asyncio.CancelledError:
            continue


@workflow
async def tidies_up() -> str:
    try:
        await wait_signal("never")
    except asyncio.CancelledError:
        await asyncio.sleep(20)
        return "tidy"
    raise AssertionError("nobody sends that")


@pytest.mark.parametrize("every_step", [False, True], ids=["resident", "replayed"])
async def test_time_jumps_to_the_next_attempt(every_step: bool) -> None:
    """CH34 each wait is the longest that the policy has."""
    tried: list[int] = []

    async def stand_in(attempts: int) -> int:
        tried.append(attempts)
        if len(tried) <= FAILURES:
            raise ConnectionError(str(len(tried)))
        return len(tried)

    async with WorkflowEnvironment([persistent, courier, deliver], replay_every_step=every_step) as env:
        env.replace(deliver, stand_in)
        run = await env.start(persistent, 7)
        assert await run.result() == FAILURES + 1
        assert env.now - env.started == timedelta(seconds=60 * FAILURES)
    assert tried == [7] * (FAILURES + 1)


@pytest.mark.parametrize("every_step", [False, True], ids=["resident", "replayed"])
async def test_time_jumps_to_the_end_of_a_grace(every_step: bool) -> None:
    """CA10 and no further."""
    async with WorkflowEnvironment([deaf, waits], replay_every_step=every_step) as env:
        run = await env.start(deaf)
        await env.until_waiting(run)
        asked = env.now
        await run.cancel("enough", grace=30)
        with pytest.raises(RunCancelled, match="enough"):
            await run.result()
        assert env.now - asked == timedelta(seconds=30)


async def test_a_clean_up_has_its_time() -> None:
    async with WorkflowEnvironment([tidies_up]) as env:
        run = await env.start(tidies_up)
        await env.until_waiting(run)
        asked = env.now
        await run.cancel(grace=30)
        assert await run.result() == "tidy"
        assert env.now - asked == timedelta(seconds=20)
