"""Time: sleeping, timeouts, waiting for at most so long; every one a durable timer."""

import asyncio
from datetime import timedelta

import pytest
from tests.core.harness import START_US, Run, recorded

from continuum import activity, continue_as_new, now, start_child, wait_signal, workflow
from continuum._core.commands import CancelTimer, CompleteRun, ContinueRun, RunActivity, StartTimer


@activity
async def fetch(url: str) -> str:
    return url


@workflow
async def nap() -> str:
    await asyncio.sleep(90)
    return now().isoformat()


def test_a_fresh_sleep_starts_a_timer() -> None:
    run = Run(nap)
    assert run.command == StartTimer("timer-1", START_US + 90_000_000)
    assert run.machine.next_timer_us == START_US + 90_000_000
    assert run.machine.waiting_for() == "timer timer-1"
    run.fired()
    assert run.result == "2026-01-01T00:01:30+00:00"


def test_a_recorded_sleep_is_over() -> None:
    run = Run.replayed(nap, None, recorded("timer_fired", "timer-1", at=93))
    assert run.result == "2026-01-01T00:01:33+00:00"


def test_a_recorded_but_pending_sleep_keeps_its_due_time() -> None:
    @workflow
    async def flow() -> None:
        await asyncio.sleep(10)
        await asyncio.sleep(10)

    run = Run.replayed(flow, None, recorded("timer_fired", "timer-1", at=12))
    assert run.commands == (StartTimer("timer-2", START_US + 22_000_000),)
    run.fired()
    assert run.closing == CompleteRun(b"null")


@pytest.mark.parametrize("seconds", [0, -1])
def test_a_sleep_of_no_time_starts_no_timer(seconds: float) -> None:
    """ST08: sleeps of zero."""

    @workflow
    async def flow() -> str:
        await asyncio.sleep(seconds)
        return "awake"

    run = Run(flow)
    assert run.command == CompleteRun(b'"awake"')


def test_a_sleep_of_years_is_due_in_years() -> None:
    """ST08: sleeps of years, and past the end of time."""

    @workflow
    async def flow() -> None:
        await asyncio.sleep(timedelta(days=3650).total_seconds())
        await asyncio.sleep(1e18)

    run = Run(flow)
    assert run.command.due_us == START_US + 3650 * 86_400_000_000
    run.fired()
    assert run.command.due_us == 253_402_300_799_000_000


def test_an_endless_sleep_has_no_timer_that_cannot_be_written() -> None:
    @workflow
    async def flow() -> None:
        await asyncio.sleep(float("inf"))

    assert Run(flow).machine.next_timer_us in (None, 253_402_300_799_000_000)


def test_a_sleep_of_a_microsecond_is_a_timer() -> None:
    @workflow
    async def flow() -> None:
        await asyncio.sleep(0.000_001)

    assert Run(flow).command == StartTimer("timer-1", START_US + 1)


def test_a_timer_that_fires_late_wakes_with_the_time_it_fired() -> None:
    @workflow
    async def flow() -> float:
        before = now()
        await asyncio.sleep(5)
        return (now() - before).total_seconds()

    run = Run(flow)
    run.now_us += 3_600_000_000
    run.fired()
    assert run.result == 3600.0


# timeout.


@workflow
async def bounded() -> str:
    try:
        async with asyncio.timeout(30):
            return await fetch("here")
    except TimeoutError:
        return "late at " + now().isoformat()


def test_a_fresh_timeout_is_a_timer_beside_what_it_bounds() -> None:
    run = Run(bounded)
    assert run.commands[0] == StartTimer("timer-1", START_US + 30_000_000)
    assert isinstance(run.commands[1], RunActivity)
    run.completed("fetch-1", "page")
    assert run.commands == (CancelTimer("timer-1"), CompleteRun(b'"page"'))


def test_a_timeout_that_is_recorded_raises_again() -> None:
    run = Run.replayed(bounded, None, recorded("timer_fired", "timer-1", at=30))
    assert run.result == "late at 2026-01-01T00:00:30+00:00"


def test_a_timeout_that_was_not_needed_asks_for_nothing_on_replay() -> None:
    done = recorded("activity_completed", "fetch-1", name="fetch", input={"url": "here"}, result="page")
    run = Run.replayed(bounded, None, done)
    assert (run.commands, run.result) == ((), "page")


def test_a_timeout_that_is_pending_is_asked_for_again() -> None:
    run = Run.replayed(bounded, None, recorded("signal_received", "hello", payload=1, at=2))
    assert {type(command) for command in run.commands} == {StartTimer, RunActivity}
    run.fired()
    assert run.result.startswith("late")


def test_a_timeout_can_be_moved_and_asked() -> None:
    @workflow
    async def flow() -> list[bool]:
        async with asyncio.timeout(5) as first:
            first.reschedule(asyncio.get_running_loop().time() + 50)
            await asyncio.sleep(20)
        async with asyncio.timeout(None) as second:
            await asyncio.sleep(1)
        return [first.expired(), second.expired()]

    run = Run(flow)
    due = {command.key: command.due_us - START_US for command in run.open}
    assert due == {"timer-2": 50_000_000, "timer-3": 20_000_000}
    run.fired()
    run.restart().fired()
    assert run.result == [False, False]


def test_nested_timeouts_raise_in_the_one_that_expired() -> None:
    @workflow
    async def flow() -> str:
        try:
            async with asyncio.timeout(10):
                try:
                    async with asyncio.timeout(60):
                        await fetch("here")
                except TimeoutError:
                    return "inner"
        except TimeoutError:
            return "outer"
        return "none"

    run = Run(flow)
    run.fired()
    assert run.result == "outer"


# wait_for.


@workflow
async def waiting() -> str:
    try:
        return await asyncio.wait_for(fetch("here"), 30)
    except TimeoutError:
        return "late"


def test_a_fresh_wait_for_makes_no_task_and_so_no_path() -> None:
    run = Run(waiting)
    assert {command.key for command in run.commands} == {"timer-1", "fetch-1"}
    run.completed("fetch-1", "page")
    assert run.result == "page"


def test_a_recorded_wait_for_gives_the_recorded_side_of_the_race() -> None:
    done = recorded("activity_completed", "fetch-1", name="fetch", input={"url": "here"}, result="page")
    assert Run.replayed(waiting, None, done).result == "page"
    assert Run.replayed(waiting, None, recorded("timer_fired", "timer-1", at=30)).result == "late"


def test_a_pending_wait_for_asks_for_both_sides_again() -> None:
    run = Run.replayed(waiting, None, recorded("signal_received", "hello", payload=1, at=2))
    assert {command.key for command in run.commands} == {"timer-1", "fetch-1"}


def test_wait_for_without_time_cancels_at_once() -> None:
    @workflow
    async def flow() -> str:
        try:
            return await asyncio.wait_for(fetch("here"), 0)
        except TimeoutError:
            return "late"

    run = Run(flow)
    assert run.result == "late"
    assert not [command for command in run.commands if isinstance(command, RunActivity)]


# What asyncio builds on timers.


def test_a_race_of_two_timers_due_at_once_is_decided_by_the_journal() -> None:
    @workflow
    async def flow() -> list[str]:
        order = []

        async def sleeper(name: str) -> None:
            await asyncio.sleep(5)
            order.append(name)

        await asyncio.gather(sleeper("a"), sleeper("b"))
        return order

    run = Run(flow)
    run.fired("t2.timer-1")
    run.restart().fired("t1.timer-1")
    assert run.result == ["b", "a"]


def test_call_later_and_its_cancel_are_a_timer_and_its_end() -> None:
    @workflow
    async def flow() -> list[str]:
        said: list[str] = []
        loop = asyncio.get_running_loop()
        loop.call_later(5, said.append, "kept")
        loop.call_later(3, said.append, "dropped").cancel()
        await asyncio.sleep(10)
        return said

    run = Run(flow)
    assert {type(command).__name__ for command in run.commands} == {"StartTimer", "CancelTimer"}
    run.fired()
    run.restart().fired()
    assert run.result == ["kept"]


def test_a_sleep_that_is_cancelled_takes_its_timer_back() -> None:
    @workflow
    async def flow() -> str:
        task = asyncio.create_task(asyncio.sleep(60))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        return "done"

    run = Run(flow)
    assert [type(command).__name__ for command in run.commands] == ["StartTimer", "CancelTimer", "CompleteRun"]


# The database's clock was set back, so events come with an earlier time than the journal's last.

HOUR_US = 3_600_000_000


@workflow
async def two_naps() -> list[float]:
    before = now()
    await wait_signal("go")
    await asyncio.sleep(10)
    first = (now() - before).total_seconds()
    async with asyncio.timeout(20):
        await asyncio.sleep(5)
    return [first, (now() - before).total_seconds()]


def test_a_timer_asked_for_after_the_clock_was_set_back_is_due_by_that_clock() -> None:
    """It waits as long as it says, not until the clock is where it once was; and journal time does not go back."""
    run = Run(two_naps, at_us=START_US + HOUR_US)
    run.now_us = START_US
    run.signal("go")
    assert run.command == StartTimer("timer-1", run.now_us + 10_000_000)
    assert run.machine.next_timer_us == run.now_us + 10_000_000
    run.fired()
    assert {request.due_us - run.now_us for request in run.open} == {5_000_000, 20_000_000}
    run.fired("timer-3")
    assert run.result == [10.0, 15.0]


def test_the_next_generation_keeps_a_childs_deadline_by_the_clock_that_was_set_back() -> None:
    @workflow
    async def parent(n: int) -> None:
        start_child(nap, id="kid", timeout=60)
        await wait_signal("go")
        continue_as_new(n + 1)

    run = Run(parent, 0, at_us=START_US + HOUR_US)
    run.now_us = START_US
    run.signal("go")
    assert run.closing == ContinueRun(b"1", (), (("kid", run.now_us + 60_000_000),))
