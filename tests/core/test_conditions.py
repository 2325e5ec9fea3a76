"""Waiting for a condition over the workflow's own state."""

import asyncio

from tests.core.harness import START_US, Run, recorded

from continuum import activity, wait_condition, wait_signal, workflow
from continuum._core.commands import CompleteRun, StartTimer


@activity
async def fetch(url: str) -> str:
    return url


@workflow
async def two_votes() -> list[str]:
    votes: list[str] = []

    async def collect() -> None:
        while True:
            votes.append(await wait_signal("vote", str))

    collector = asyncio.create_task(collect())
    await wait_condition(lambda: len(votes) >= 2)
    collector.cancel()
    return votes


def test_a_fresh_condition_is_waited_for_until_it_is_true() -> None:
    run = Run(two_votes)
    assert run.commands == ()
    assert "a condition" in run.machine.waiting_for()
    run.signal("vote", "a")
    assert run.closing is None
    run.restart().signal("vote", "b")
    assert run.result == ["a", "b"]


def test_a_recorded_condition_has_come_true() -> None:
    votes = [recorded("signal_received", "vote", payload=vote) for vote in "ab"]
    assert Run.replayed(two_votes, None, *votes).result == ["a", "b"]


def test_a_recorded_condition_that_is_pending_goes_on_waiting() -> None:
    run = Run.replayed(two_votes, None, recorded("signal_received", "vote", payload="a"))
    assert "a condition" in run.machine.waiting_for()
    run.signal("vote", "b")
    assert run.result == ["a", "b"]


def test_a_condition_that_is_true_does_not_wait() -> None:
    @workflow
    async def flow() -> str:
        await wait_condition(lambda: True, timeout=60)
        return "there"

    run = Run(flow)
    assert run.closing == CompleteRun(b'"there"')
    assert run.open == ()


def test_conditions_that_make_each_other_true_come_to_rest_in_one_turn() -> None:
    @workflow
    async def flow() -> list[int]:
        steps: list[int] = []

        async def step(number: int) -> None:
            await wait_condition(lambda: len(steps) == number)
            steps.append(number)

        async with asyncio.TaskGroup() as group:
            for number in (3, 1, 2, 0):
                group.create_task(step(number))
        return steps

    assert Run(flow).result == [0, 1, 2, 3]


@workflow
async def hurried() -> str:
    votes: list[str] = []
    try:
        await wait_condition(lambda: bool(votes), timeout=60)
    except TimeoutError:
        return "late"
    return "voted"


def test_a_fresh_condition_with_a_timeout_starts_a_timer() -> None:
    run = Run(hurried)
    assert run.command == StartTimer("timer-1", START_US + 60_000_000)
    run.fired()
    assert run.result == "late"


def test_a_recorded_timeout_of_a_condition_is_raised_again() -> None:
    assert Run.replayed(hurried, None, recorded("timer_fired", "timer-1", at=60)).result == "late"


def test_a_pending_condition_with_a_timeout_asks_for_its_timer_again() -> None:
    run = Run.replayed(hurried, None, recorded("signal_received", "other", payload=1, at=9))
    assert run.command == StartTimer("timer-1", START_US + 60_000_000)


def test_a_predicate_that_raises_raises_in_its_waiter() -> None:
    @workflow
    async def flow() -> list[str]:
        state: dict[str, int] = {}

        async def fill() -> None:
            await fetch("here")
            state["broken"] = 1

        def predicate() -> bool:
            if "broken" in state:
                raise LookupError("it broke")
            return False

        async with asyncio.TaskGroup() as group:
            group.create_task(fill())
            try:
                await wait_condition(predicate)
            except LookupError as error:
                return [str(error)]
        return []

    run = Run(flow)
    run.restart().completed("t1.fetch-1", "page")
    assert run.result == ["it broke"]


def test_a_predicate_that_raises_at_once_raises_at_the_call() -> None:
    @workflow
    async def flow() -> None:
        await wait_condition(lambda: 1 / 0 > 1)

    assert Run(flow).failure.type == "ZeroDivisionError"


def test_a_waiter_that_is_cancelled_is_asked_no_more() -> None:
    @workflow
    async def flow() -> int:
        asked: list[int] = []

        def predicate() -> bool:
            asked.append(1)
            return False

        task = asyncio.create_task(wait_condition(predicate))
        await asyncio.sleep(0)
        task.cancel()
        await fetch("here")
        before = len(asked)
        await fetch("there")
        return len(asked) - before

    run = Run(flow)
    run.completed("fetch-1", "page")
    run.completed("fetch-2", "page")
    assert run.result == 0
