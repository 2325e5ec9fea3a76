"""The environment: time that jumps, what stands in, and what is said when a test cannot go on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from random import Random

import pytest

from continuum import ChildFailed, RunCancelled, RunFailed, RunNotFound
from continuum.testing import RunStuck, WorkflowEnvironment, assert_history
from continuum.testing.loop import SteppedLoop
from tests.testing_kit import flows
from tests.testing_kit.flows import (
    batch_flow,
    failing_flow,
    generations_flow,
    io_and_sleep_flow,
    mail_flow,
    order_flow,
    parent_flow,
    price,
    price_flow,
    report_flow,
    send_mail,
    signal_flow,
    slow_report,
    waiting_parent_flow,
    year_flow,
)

START = datetime(2030, 3, 31, tzinfo=UTC)


@pytest.fixture
async def env() -> AsyncIterator[WorkflowEnvironment]:
    async with WorkflowEnvironment([flows], now=START) as env:
        yield env


# --- time


async def test_a_year_of_sleeps_passes_at_once_and_to_the_microsecond(env: WorkflowEnvironment) -> None:
    run = await env.start(year_flow, 365)
    assert await run.result() == 365
    assert env.now - env.started == timedelta(days=365)
    assert (await run.describe()).completed_at == START + timedelta(days=365)


async def test_no_rounding_leaves_a_microsecond() -> None:
    loop = SteppedLoop(asyncio.get_running_loop())
    chance = Random(1)
    for digits in range(1, 16):
        for _ in range(200):
            loop.elapsed_us = chance.randrange(10**digits)
            assert int(loop.time() * 1_000_000) == loop.elapsed_us
    loop.close()


async def test_a_century_is_not_too_long(env: WorkflowEnvironment) -> None:
    await env.sleep(timedelta(days=36_500))
    run = await env.start(year_flow, 2)
    assert await run.result() == 2
    assert env.now == START + timedelta(days=36_502)


async def test_time_stands_still_while_the_test_waits_for_something_else(env: WorkflowEnvironment) -> None:
    await env.start(year_flow, 3)
    for _ in range(50):
        await asyncio.sleep(0)
    await asyncio.to_thread(lambda: None)
    assert env.now == START


async def test_no_time_passes_while_an_activity_is_under_way(env: WorkflowEnvironment) -> None:
    run = await env.start(io_and_sleep_flow, 0.05)
    working, blocking, slept_until = await run.result()
    assert (working, blocking) == (0.05, 0.05)
    assert slept_until == (START + timedelta(hours=1)).timestamp()
    assert env.now == START + timedelta(hours=1)
    kinds = [event.type for event in await run.history()]
    assert kinds == ["activity_completed", "activity_completed", "timer_fired"]


async def test_what_is_due_while_an_activity_runs_comes_when_it_really_is(env: WorkflowEnvironment) -> None:
    going_on = asyncio.Event()

    async def report(name: str) -> str:
        await going_on.wait()
        return name

    env.replace(slow_report, report)
    env.after(0.01, going_on.set)
    run = await env.start(report_flow, "r1")
    assert await run.result() == "r1"
    assert env.now == START + timedelta(milliseconds=10)


async def test_a_test_that_sleeps_wakes_after_all_that_happens_until_then(env: WorkflowEnvironment) -> None:
    run = await env.start(year_flow, 2)
    await env.sleep(timedelta(days=1))
    assert [event.key for event in await run.history()] == ["timer-1"]
    await env.sleep(timedelta(days=1))
    assert (await run.describe()).state == "completed"


async def test_what_is_planned_happens_at_its_time_in_order_and_may_wait_itself(env: WorkflowEnvironment) -> None:
    seen: list[tuple[str, datetime]] = []

    async def wait_and_note() -> None:
        await env.sleep(30)
        seen.append(("waited", env.now))

    env.at(timedelta(minutes=2), lambda: seen.append(("second", env.now)))
    env.at(START + timedelta(minutes=1), lambda: seen.append(("first", env.now)))
    env.after(timedelta(minutes=1), wait_and_note)
    await env.sleep(timedelta(minutes=3))
    minutes = [(name, (at - START) / timedelta(minutes=1)) for name, at in seen]
    assert minutes == [("first", 1), ("waited", 1.5), ("second", 2)]
    with pytest.raises(ValueError, match="has passed"):
        env.at(timedelta(minutes=1), lambda: None)


async def test_time_passes_for_who_waits_for_the_answer_to_an_update(env: WorkflowEnvironment) -> None:
    run = await env.start(price_flow, True)
    assert await run.update(price, 21) == 42
    assert env.now == START + timedelta(minutes=1)
    assert await run.result() == 21
    deaf = await env.start(price_flow, False)
    with pytest.raises(RunStuck, match="signal go"):
        await deaf.update(price, 21)


async def test_generations_pass_like_everything_else(env: WorkflowEnvironment) -> None:
    run = await env.start(generations_flow, 5)
    assert await run.result() == 0
    assert (await run.describe()).generation == 6
    assert env.now == START + timedelta(minutes=1)


async def test_a_thousand_children_sleep_beside_each_other(env: WorkflowEnvironment) -> None:
    run = await env.start(batch_flow, 1000)
    assert await run.result() == sum(number * number for number in range(1000))
    assert env.now == START + timedelta(minutes=999)


# --- what stands in


async def test_a_replacement_is_called_and_its_calls_are_known(env: WorkflowEnvironment) -> None:
    env.replace(send_mail, lambda address, subject: f"{subject} to {address}")
    run = await env.start(mail_flow, "ada")
    assert await run.result() == "hello to ada"
    (call,) = env.calls(send_mail)
    assert call.arguments == {"address": "ada", "subject": "hello"}
    assert (call.run_id, call.result, call.error) == (run.id, "hello to ada", None)


async def test_an_async_replacement_runs_on_the_tests_own_loop(env: WorkflowEnvironment) -> None:
    loop = asyncio.get_running_loop()

    async def here(address: str, subject: str) -> str:
        await asyncio.sleep(0)
        return str(asyncio.get_running_loop() is loop)

    env.replace(send_mail, here)
    run = await env.start(mail_flow, "ada")
    assert await run.result() == "True"


async def test_time_jumps_through_the_pauses_between_attempts(env: WorkflowEnvironment) -> None:
    def fail(address: str, subject: str) -> str:
        raise ConnectionError(f"attempt {len(env.calls(send_mail))}")

    env.replace(send_mail, fail)
    run = await env.start(mail_flow, "ada")
    with pytest.raises(RunFailed, match="attempt 5") as caught:
        await run.result()
    assert caught.value.root_cause.type == "ConnectionError"
    assert [type(call.error) for call in env.calls(send_mail)] == [ConnectionError] * 5
    assert timedelta(minutes=5) < env.now - START < timedelta(minutes=30)


async def test_the_same_seed_gives_the_same_pauses() -> None:
    async def take(seed: int) -> timedelta:
        async with WorkflowEnvironment([flows], seed=seed) as env:
            env.replace(send_mail, lambda address, subject: str(1 // (len(env.calls(send_mail)) // 3)))
            await (await env.start(mail_flow, "ada")).result()
            return env.now - env.started

    assert await take(1) == await take(1) != await take(2)


async def test_an_activity_may_take_as_long_as_the_test_says(env: WorkflowEnvironment) -> None:
    async def take_four_minutes(name: str) -> str:
        await env.sleep(timedelta(minutes=4))
        return name

    env.replace(slow_report, take_four_minutes)
    run = await env.start(report_flow, "r1")
    assert await run.result() == "r1"
    assert env.now == START + timedelta(minutes=4)


async def test_an_activity_that_hangs_runs_into_its_bound(env: WorkflowEnvironment) -> None:
    env.replace(slow_report, lambda name: env.sleep(timedelta(days=1)))  # type: ignore[arg-type, return-value]
    run = await env.start(report_flow, "r1")
    await env.sleep(timedelta(minutes=5) - timedelta(microseconds=1))
    assert len(env.calls(slow_report)) == 1
    await env.sleep(timedelta(minutes=1))
    assert len(env.calls(slow_report)) == 2
    await run.cancel()
    with pytest.raises(RunCancelled):
        await run.result()


async def test_a_replaced_child_gives_its_parent_a_result(env: WorkflowEnvironment) -> None:
    async def square(number: int) -> int:
        await env.sleep(5)
        return number * 100

    env.replace(order_flow, square)
    run = await env.start(parent_flow, 7)
    assert await run.result() == 701
    assert [call.arguments for call in env.calls(order_flow)] == [{"number": 7}]
    assert env.now == START + timedelta(seconds=5)
    assert_history(await run.history(), [("child_started", "order_flow-1"), ("child_completed", "order_flow-1")])


async def test_a_replaced_child_fails_as_its_replacement_does(env: WorkflowEnvironment) -> None:
    class CardDeclined(Exception):
        pass

    def decline(number: int) -> int:
        raise CardDeclined("no money")

    env.replace(order_flow, decline)
    run = await env.start(parent_flow, 7)
    with pytest.raises(RunFailed) as caught:
        await run.result()
    assert (caught.value.type, caught.value.root_cause.type) == (ChildFailed.__name__, "CardDeclined")
    assert caught.value.root_cause.message == "no money"


async def test_a_workflow_with_runs_under_way_is_replaced_too_late(env: WorkflowEnvironment) -> None:
    assert await (await env.start(order_flow, 2)).result() == 4
    env.replace(order_flow, lambda number: 1)
    assert await (await env.start(order_flow, 2)).result() == 1
    await env.start(order_flow, 2)
    with pytest.raises(ValueError, match="comes too late: run"):
        env.replace(order_flow, lambda number: 2)


async def test_what_is_no_definition_cannot_be_replaced(env: WorkflowEnvironment) -> None:
    with pytest.raises(TypeError, match="an activity or a workflow"):
        env.replace(print, lambda: None)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="takes a function"):
        env.replace(send_mail, "sent")  # type: ignore[call-overload]


# --- waiting in vain


async def test_waiting_for_what_can_never_come_is_told_at_once(env: WorkflowEnvironment) -> None:
    run = await env.start(signal_flow)
    with pytest.raises(RunStuck, match="can never come: signal go") as caught:
        await run.result()
    assert caught.value.waiting_for == "signal go"
    await run.signal("go", True)
    assert await run.result() is True


async def test_what_a_stuck_runs_children_wait_for_is_told_too(env: WorkflowEnvironment) -> None:
    run = await env.start(waiting_parent_flow)
    with pytest.raises(RunStuck, match=r"child waits \(signal_flow\)\n.*'.*/waits' waits for signal go"):
        await run.result()


async def test_a_child_that_nobody_can_run_is_named(env: WorkflowEnvironment) -> None:
    await env.restart([parent_flow])
    run = await env.start(parent_flow, 1)
    with pytest.raises(RunStuck, match="a worker with workflow 'order_flow' version 1; give that"):
        await run.result()


async def test_a_run_of_a_workflow_that_was_not_given_is_refused() -> None:
    async with WorkflowEnvironment([mail_flow]) as env:
        with pytest.raises(LookupError, match="no workflow 'year_flow'"):
            await env.start(year_flow, 1)


async def test_what_happens_until_time_must_pass_happens(env: WorkflowEnvironment) -> None:
    run = await env.start(year_flow, 2)
    assert await env.until_waiting(run) == "timer timer-1"
    await env.sleep(timedelta(days=2))
    assert await env.until_waiting(run) == ""
    with pytest.raises(RunNotFound):
        await env.until_waiting(env.client.get_run("nobody"))
    with pytest.raises(RunNotFound):
        await env.client.get_run("nobody").result()


async def test_two_that_wait_are_answered_each(env: WorkflowEnvironment) -> None:
    runs = [await env.start(year_flow, days) for days in (3, 1)]
    assert await asyncio.gather(*(run.result() for run in runs)) == [3, 1]


async def test_a_signal_sent_beside_the_wait_is_waited_for(env: WorkflowEnvironment) -> None:
    run = await env.start(signal_flow)
    found, _ = await asyncio.gather(run.result(), run.signal("go", False))
    assert found is False


async def test_a_failed_run_and_a_cancelled_one_are_no_trouble(env: WorkflowEnvironment) -> None:
    run = await env.start(failing_flow, "no")
    with pytest.raises(RunFailed, match="ValueError: no"):
        await run.result()
    other = await env.start(batch_flow, 3)
    env.after(61, lambda: other.cancel("enough"))
    with pytest.raises(RunCancelled, match="enough"):
        await other.result()


async def test_what_a_planned_action_raises_is_raised_where_the_test_waits(env: WorkflowEnvironment) -> None:
    async def fail() -> None:
        raise KeyError("planned")

    env.after(5, fail)
    with pytest.raises(KeyError, match="planned"):
        await env.sleep(10)
