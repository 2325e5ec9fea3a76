"""Activities: asked for, answered once, cancelled, compared."""

import asyncio
from dataclasses import dataclass
from datetime import timedelta

import pytest
from tests.core.harness import Run, recorded

from continuum import ActivityFailed, ActivityOptions, ActivityTimedOut, Failure, Retry, activity, workflow
from continuum._core.commands import CancelActivity, RunActivity


@activity
async def charge(order_id: str, cents: int = 100) -> str:
    return f"{order_id}: {cents}"


@activity
def count_files(folder: str) -> int:
    return len(folder)


@dataclass
class Parcel:
    id: str
    grams: int = 0


@activity(retry=Retry(max_attempts=3), start_to_close=timedelta(seconds=5), queue="post", priority=2)
async def weigh(parcel: Parcel, *, scale: str = "kg") -> Parcel:
    return parcel


@workflow
async def pay(order_id: str) -> str:
    return await charge(order_id)


def charged(result: str = "paid") -> object:
    return recorded("activity_completed", "charge-1", name="charge", input=CHARGE, result=result)


CHARGE = {"order_id": "o1", "cents": 100}


def test_a_fresh_activity_is_asked_for_with_its_defaults_written_out() -> None:
    run = Run(pay, "o1")
    assert run.command == RunActivity("charge-1", "charge", b'{"order_id":"o1","cents":100}', ActivityOptions())
    assert run.machine.waiting_for() == "activity charge-1"
    run.completed("charge-1", "paid")
    assert run.result == "paid"


def test_a_recorded_activity_is_not_run_again() -> None:
    """RP01: a recorded activity's result is taken from the journal."""
    run = Run.replayed(pay, "o1", charged())
    assert run.commands == ()
    assert run.result == "paid"


def test_a_recorded_but_pending_activity_is_asked_for_again() -> None:
    run = Run.replayed(twice, "o1", charged())
    assert [command.key for command in run.commands] == ["charge-2"]
    run.completed("charge-2", "paid again")
    assert run.result == ["paid", "paid again"]


@workflow
async def twice(order_id: str) -> list[str]:
    return [await charge(order_id), await charge(order_id)]


def test_a_sync_activity_is_asked_for_like_an_async_one() -> None:
    @workflow
    async def flow() -> int:
        return await count_files("here")

    run = Run(flow)
    assert run.command == RunActivity("count_files-1", "count_files", b'{"folder":"here"}', ActivityOptions())
    run.restart().completed("count_files-1", 7)
    assert run.result == 7


def test_options_come_from_the_definition_and_the_call_changes_some() -> None:
    @workflow
    async def flow() -> None:
        await weigh(Parcel("p"))
        await weigh.with_options(queue="air", retry=None)(Parcel("p"))

    run = Run(flow)
    by_definition = ActivityOptions(Retry(max_attempts=3), timedelta(seconds=5), queue="post", priority=2)
    assert run.command.options == by_definition
    run.completed("weigh-1", {"id": "p"})
    assert run.command.options == ActivityOptions(None, timedelta(seconds=5), queue="air", priority=2)
    assert weigh.options == by_definition


def test_the_workflow_is_handed_the_value_that_went_through_json() -> None:
    """RP09: arguments and results are round-tripped on first execution."""

    @workflow
    async def flow(parcel: Parcel) -> str:
        weighed = await weigh(parcel, scale="g")
        return f"{type(parcel).__name__} {weighed}"

    run = Run(flow, Parcel("p", 3))
    assert run.command.input == b'{"parcel":{"id":"p","grams":3},"scale":"g"}'
    run.completed("weigh-1", {"id": "p", "grams": 250})
    assert run.result == "Parcel Parcel(id='p', grams=250)"


def test_activities_of_concurrent_tasks_have_keys_by_task_path() -> None:
    @workflow
    async def flow() -> list[str]:
        async def two(name: str) -> str:
            return await charge(name) + await charge(name)

        return [await charge("a"), *await asyncio.gather(two("b"), two("c"))]

    run = Run(flow)
    run.completed("charge-1", "A")
    assert [command.key for command in run.commands] == ["t1.charge-1", "t2.charge-1"]
    run.completed("t2.charge-1", "C")
    run.restart().completed("t1.charge-1", "B")
    run.completed("t2.charge-2", "c")
    run.completed("t1.charge-2", "b")
    assert run.result == ["A", "Bb", "Cc"]


def test_the_key_is_taken_at_the_call_and_the_activity_asked_for_at_the_await() -> None:
    @workflow
    async def flow() -> list[str]:
        first, second = charge("a"), charge("b")
        return [await second, await first]

    run = Run(flow)
    assert (run.command.key, run.command.input) == ("charge-2", b'{"order_id":"b","cents":100}')
    run.completed("charge-2", "B")
    assert run.command.key == "charge-1"
    run.completed("charge-1", "A")
    assert run.result == ["B", "A"]


def test_a_failed_activity_raises_with_the_recorded_type_and_message() -> None:
    @workflow
    async def flow() -> list[str]:
        try:
            await charge("o1")
        except ActivityFailed as error:
            return [error.activity, error.type, error.message, error.traceback, str(error)]
        return []

    run = Run(flow)
    run.failed("charge-1", Failure("CardDeclined", "no money", "line 3"))
    text = "activity 'charge' failed: CardDeclined: no money"
    assert run.result == ["charge", "CardDeclined", "no money", "line 3", text]


def test_a_failure_that_was_recorded_is_raised_again() -> None:
    error = {"type": "CardDeclined", "message": "no money"}
    entry = recorded("activity_failed", "charge-1", name="charge", input=CHARGE, error=error)
    run = Run.replayed(pay, "o1", entry)
    assert (run.failure.type, run.failure.cause) == ("ActivityFailed", Failure("CardDeclined", "no money"))


def test_an_activity_out_of_time_raises_a_timeout_error() -> None:
    @workflow
    async def flow() -> str:
        try:
            return await charge("o1")
        except TimeoutError as error:
            return type(error).__name__

    run = Run(flow)
    run.failed("charge-1", Failure("TimeoutError", "start_to_close passed", timed_out=True))
    assert run.result == ActivityTimedOut.__name__


def test_a_started_entry_is_for_people_and_changes_nothing() -> None:
    run = Run.replayed(pay, "o1", recorded("activity_started", "charge-1", attempt=2))
    assert [command.key for command in run.commands] == ["charge-1"]
    run.completed("charge-1", "paid")
    assert run.result == "paid"


# Cancelling.


@workflow
async def hurry(order_id: str) -> str:
    try:
        async with asyncio.timeout(5):
            return await charge(order_id)
    except TimeoutError:
        return await charge("fallback")


def test_cancelling_the_await_cancels_the_activity() -> None:
    run = Run(hurry, "o1")
    run.fired()
    assert run.commands[0] == CancelActivity("charge-1")
    assert run.commands[1].key == "charge-2"
    assert [request.key for request in run.open] == ["charge-2"]


@pytest.mark.parametrize("outcome", ["completed", "failed"])
def test_the_late_outcome_of_a_cancelled_activity_is_journaled_and_ignored(outcome: str) -> None:
    run = Run(hurry, "o1")
    run.fired()
    if outcome == "completed":
        run.completed("charge-1", "late")
    else:
        run.failed("charge-1", ValueError("late"))
    assert run.commands == ()
    run.restart().completed("charge-2", "in time")
    assert run.result == "in time"
    assert [entry.key for entry in run.journal] == ["timer-1", "charge-1", "charge-2"]


def test_an_activity_that_is_cancelled_before_it_is_awaited_is_never_asked_for() -> None:
    @workflow
    async def flow() -> str:
        task = asyncio.create_task(charge("o1"))
        task.cancel()
        await asyncio.wait([task])
        return "cancelled" if task.cancelled() else "ran"

    run = Run(flow)
    assert len(run.commands) == 1
    assert run.result == "cancelled"


def test_a_shielded_activity_goes_on_when_its_await_is_cancelled() -> None:
    @workflow
    async def flow() -> str:
        task = asyncio.ensure_future(charge("o1"))
        try:
            async with asyncio.timeout(5):
                return await asyncio.shield(task)
        except TimeoutError:
            return "late: " + await task

    run = Run(flow)
    run.fired()
    assert run.commands == ()
    run.restart().completed("charge-1", "paid")
    assert run.result == "late: paid"


@activity
async def with_positional_only(first: int, /, second: int) -> int:
    return first - second


def test_recorded_arguments_reach_positional_only_parameters() -> None:
    call = with_positional_only.parameters.call(with_positional_only.function, {"first": 5, "second": 3})
    assert asyncio.run(call) == 2
