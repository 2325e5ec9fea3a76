"""The environment in the hands of somebody who does not know it: what it refuses, and what it leaves behind."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from datetime import datetime, timedelta

import pytest

from continuum import InvalidSetting
from continuum.testing import RunStuck, SyncWorkflowEnvironment, WorkflowEnvironment
from tests.testing_kit import flows
from tests.testing_kit.flows import (
    batch_flow,
    io_and_sleep_flow,
    mail_flow,
    order_flow,
    report_flow,
    send_mail,
    signal_flow,
    slow_report,
    year_flow,
)
from tests.until import until


class Running:
    """What runs in this process: tasks of the test's loop, and threads that an environment may have made."""

    def __init__(self) -> None:
        self.tasks = asyncio.all_tasks()
        self.threads = {thread for thread in threading.enumerate() if thread.name.startswith("continuum")}

    async def again(self) -> None:
        """Wait until nothing more than this runs."""

        async def no_more() -> bool:
            return Running().threads <= self.threads

        assert asyncio.all_tasks() - self.tasks == set()
        await until(no_more)


async def test_nothing_is_left_running_after_the_block() -> None:
    before = Running()
    async with WorkflowEnvironment([flows]) as env:
        await env.start(year_flow, 400)
        await env.start(batch_flow, 5)
        run = await env.start(io_and_sleep_flow, 0.01)
        env.after(3, lambda: None)
        await env.sleep(timedelta(days=3))
        assert (await run.describe()).state == "completed"
        waiting = asyncio.ensure_future((await env.start(signal_flow)).result())
        await asyncio.sleep(0)
    with pytest.raises((RunStuck, ConnectionError)):
        await waiting
    await before.again()


async def test_an_error_in_the_block_comes_out_of_it_as_it_is() -> None:
    before = Running()

    async def use() -> None:
        async with WorkflowEnvironment([flows]) as env:
            env.replace(slow_report, lambda name: env.sleep(60))  # type: ignore[arg-type, return-value]
            await env.start(report_flow, "r1")
            await env.sleep(30)
            _ = 1 / 0

    with pytest.raises(ZeroDivisionError):
        await use()
    await before.again()


async def test_the_block_can_be_cancelled() -> None:
    before = Running()
    begun = asyncio.Event()

    async def use() -> None:
        async def hang(name: str) -> str:
            begun.set()
            await asyncio.Event().wait()
            return name

        async with WorkflowEnvironment([flows]) as env:
            env.replace(slow_report, hang)
            await (await env.start(report_flow, "r1")).result()

    using = asyncio.create_task(use())
    await begun.wait()
    using.cancel()
    with pytest.raises(asyncio.CancelledError):
        await using
    await before.again()


async def test_two_environments_at_once_have_a_time_each() -> None:
    async with WorkflowEnvironment([flows]) as one, WorkflowEnvironment([flows]) as other:
        runs = [await one.start(year_flow, 3, id="same"), await other.start(year_flow, 5, id="same")]
        assert await asyncio.gather(*(run.result() for run in runs)) == [3, 5]
        assert one.now - one.started == timedelta(days=3)
        assert other.now - other.started == timedelta(days=5)


async def test_an_environment_may_be_used_inside_an_activity_of_another() -> None:
    async with WorkflowEnvironment([flows]) as one, WorkflowEnvironment([flows]) as other:

        async def report(name: str) -> str:
            return str(await (await other.start(order_flow, 3)).result())

        one.replace(slow_report, report)
        assert await (await one.start(report_flow, "r1")).result() == "9"


async def test_an_activity_that_blocks_its_thread_holds_time_up_and_not_the_test() -> None:
    async with WorkflowEnvironment([flows]) as env:
        run = await env.start(io_and_sleep_flow, 0.1)
        result = asyncio.ensure_future(run.result())
        rounds = 0
        while not result.done():
            rounds += 1
            await asyncio.sleep(0)
        assert rounds > 10
        assert env.now - env.started == timedelta(hours=1)


async def test_an_activity_may_use_the_environments_client_and_wait_for_a_run_of_its_own() -> None:
    async with WorkflowEnvironment([flows]) as env:

        async def report(name: str) -> str:
            return str(await (await env.client.start(order_flow, 2, id=name)).result())

        env.replace(slow_report, report)
        run = await env.start(report_flow, "inner")
        assert await run.result() == "4"
        assert env.now - env.started == timedelta(minutes=2)


async def test_an_activity_that_waits_in_vain_fails_and_the_test_goes_on() -> None:
    async with WorkflowEnvironment([flows]) as env:

        async def wait_in_vain(address: str, subject: str) -> str:
            try:
                await (await env.start(signal_flow)).result()
            except RunStuck as stuck:
                return stuck.waiting_for
            return "?"

        env.replace(send_mail, wait_in_vain)
        assert await (await env.start(mail_flow, "ada")).result() == "signal go"


async def test_a_replacement_that_raises_what_no_activity_should_fails_its_attempt() -> None:
    async with WorkflowEnvironment([flows]) as env:
        errors = iter([SystemExit(3), KeyboardInterrupt(), StopIteration(), asyncio.CancelledError(), None])

        async def misbehave(address: str, subject: str) -> str:
            if (error := next(errors)) is not None:
                raise error
            return "sent"

        env.replace(send_mail, misbehave)
        assert await (await env.start(mail_flow, "ada")).result() == "sent"
        assert len(env.calls(send_mail)) == 5


async def test_an_environment_that_has_ended_says_so() -> None:
    async with WorkflowEnvironment([flows]) as env:
        run = await env.start(year_flow, 1)
    with pytest.raises(RuntimeError, match="has ended"):
        await env.start(year_flow, 1)
    with pytest.raises(RuntimeError, match="has ended"):
        await env.sleep(1)
    with pytest.raises(RuntimeError, match="has ended"):
        env.replace(send_mail, lambda address, subject: "sent")
    with pytest.raises(RuntimeError, match="closed"):
        await run.result()


async def test_an_environment_belongs_to_its_loop() -> None:
    async with WorkflowEnvironment([flows]) as env:
        await env.start(year_flow, 1)

        def elsewhere() -> None:
            asyncio.run(env.sleep(1))

        with pytest.raises(RuntimeError, match="another event loop"):
            await asyncio.to_thread(elsewhere)


def test_what_an_environment_cannot_be_made_of_is_refused() -> None:
    with pytest.raises(TypeError, match="a list of modules"):
        WorkflowEnvironment(flows)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="time zone"):
        WorkflowEnvironment([flows], now=datetime(2030, 1, 1))
    with pytest.raises(TypeError, match="lease= is the environment's own"):
        WorkflowEnvironment([flows], lease=3)
    with pytest.raises(TypeError, match="did you mean 'threads'"):
        WorkflowEnvironment([flows], thread=3)
    with pytest.raises(InvalidSetting):
        WorkflowEnvironment([flows], threads=0)


async def test_a_debugged_loop_has_no_complaint(caplog: pytest.LogCaptureFixture) -> None:
    loop = asyncio.get_running_loop()
    loop.set_debug(True)
    loop.slow_callback_duration = 10
    async with WorkflowEnvironment([flows]) as env:
        env.replace(send_mail, lambda address, subject: "sent")
        assert await (await env.start(mail_flow, "ada")).result() == "sent"
        assert await (await env.start(io_and_sleep_flow, 0.01)).result()
    gc.collect()
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == []


# --- plain tests


def test_a_plain_test_has_an_environment_too() -> None:
    with SyncWorkflowEnvironment([flows], replay_every_step=True) as env:
        env.replace(send_mail, lambda address, subject: f"sent to {address}")
        run = env.start(mail_flow, "ada")
        assert run.result() == "sent to ada"
        assert [call.arguments["address"] for call in env.calls(send_mail)] == ["ada"]
        waiting = env.start(signal_flow, id="waits")
        env.at(timedelta(days=2), lambda: waiting.signal("go", True))
        assert env.until_waiting(waiting) == "signal go"
        env.restart()
        assert env.get_run("waits", signal_flow).result() is True
        assert env.now - env.started == timedelta(days=2)
        env.sleep(60)
        with pytest.raises(RunStuck):
            env.start(signal_flow).result()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("continuum-replay")]


def test_a_plain_test_may_plan_what_asks_the_environment_itself() -> None:
    with SyncWorkflowEnvironment([flows]) as env:
        seen: list[object] = []

        def look() -> None:
            seen.append(env.start(order_flow, 2).result())
            seen.append((env.now - env.started).total_seconds())

        env.after(10, look)
        env.sleep(200)
        assert seen == [4, 130.0]


def test_an_activity_in_a_thread_of_a_plain_test_may_take_its_time() -> None:
    with SyncWorkflowEnvironment([flows]) as env:
        began = time.monotonic()
        assert env.start(io_and_sleep_flow, 0.02).result()[:2] == [0.02, 0.02]
        assert time.monotonic() - began > 0.02
        assert env.now - env.started == timedelta(hours=1)


async def test_a_sync_environment_is_refused_where_a_loop_runs() -> None:
    with pytest.raises(RuntimeError, match="an event loop runs here"), SyncWorkflowEnvironment([flows]):
        pass
