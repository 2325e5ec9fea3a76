"""A run with a retry policy that fails: it begins again as its next generation, or fails for good."""

import asyncio
from datetime import timedelta

import pytest
from tests.core.harness import START_US, Run, recorded

from continuum import (
    ActivityFailed,
    ChildFailed,
    Failure,
    Retry,
    Update,
    activity,
    child,
    continue_as_new,
    map_children,
    on_update,
    start_child,
    wait_signal,
    workflow,
)
from continuum._core import events as e
from continuum._core.commands import CancelRun, CompleteRun, ContinueRun, FailRun, RetryRun, StartChild, StartTimer
from continuum._core.effects import effects
from continuum._core.entries import event_of_entry
from continuum._core.machine import Machine, RunContext
from continuum._core.retry import decode_retry
from continuum._journal.render import retry_text
from continuum.errors import DecodeError

plain = Update("plain")
FIVE = Retry(max_attempts=5, initial=8, backoff=2, max_interval=20, jitter=0)


@activity
async def charge(order_id: str) -> str:
    return order_id


@workflow
async def ship(order_id: str) -> str:
    return await charge(order_id)


@workflow
async def order(order_id: str) -> str:
    return await charge(order_id)


def again(run: Run) -> RetryRun:
    assert isinstance(run.closing, RetryRun), run.turn
    return run.closing


def test_a_fresh_failure_with_attempts_left_begins_again_after_the_backoff() -> None:
    """CH34: its parent hears nothing of it."""
    run = Run(order, "o1", depth=1, retry=FIVE)
    run.failed("charge-1", Failure("ConnectionError", "no route"))
    closing = again(run)
    assert (closing.input, closing.attempt, closing.delay_us) == (b'"o1"', 2, 8_000_000)
    assert closing.due_us == run.now_us + 8_000_000
    assert (closing.failure.type, closing.failure.cause and closing.failure.cause.type) == (
        "ActivityFailed",
        "ConnectionError",
    )
    second = run.next_generation()
    assert second.started.at_us == closing.due_us
    second.completed("charge-1", "paid")
    assert second.closing == CompleteRun(b'"paid"')


FAILED = recorded("activity_failed", "charge-1", name="charge", input={"order_id": "o1"}, error={"type": "Busy"})


def test_a_recorded_failure_begins_again_at_the_same_time() -> None:
    options = {"depth": 1, "retry": Retry(max_attempts=3, initial=100, jitter=1)}
    live = Run(order, "o1", **options)  # type: ignore[arg-type]  # options of different types
    live.failed("charge-1", Failure("Busy", ""))
    replayed = Run.replayed(order, "o1", FAILED, **options)
    assert replayed.commands == ()
    assert (again(replayed).due_us, again(replayed).attempt) == (again(live).due_us, 2)
    assert again(live).delay_us != 100_000_000  # by chance, and the same chance


def test_a_pending_second_attempt_asks_again_for_what_it_had_asked() -> None:
    run = Run(order, "o1", retry=FIVE)
    run.failed("charge-1", Failure("Busy", ""))
    second = run.next_generation()
    assert [command.key for command in second.restart().open] == ["charge-1"]


def test_the_last_attempt_fails_for_good() -> None:
    """CH34: the parent hears of the last failure alone."""
    run = Run(order, "o1", depth=1, retry=FIVE)
    waits: list[int] = []
    for attempt in range(1, 5):
        run.failed("charge-1", Failure("Busy", f"{attempt}"))
        waits.append(again(run).delay_us // 1_000_000)
        run = run.next_generation()
    run.failed("charge-1", Failure("Busy", "5"))
    assert waits == [8, 16, 20, 20]
    assert "5" in run.failure.message
    assert run.context.generation == 5


def test_a_run_without_a_policy_fails_at_once() -> None:
    run = Run(order, "o1", depth=1)
    run.failed("charge-1", Failure("Busy", ""))
    assert isinstance(run.closing, FailRun)


class CardDeclined(ValueError):
    pass


def test_named_errors_are_not_tried_again_whatever_wraps_them() -> None:
    @workflow
    async def fails(how: str) -> None:
        if how == "itself":
            raise CardDeclined("no")
        if how == "in a group":
            async with asyncio.TaskGroup() as group:
                group.create_task(charge("o1"))
        if how == "a map":
            await map_children(ship, ["o1"], id=lambda _: "ship")
        await (child(ship, "o1", id="ship") if how == "a child" else charge("o1"))

    given = Failure("CardDeclined", "no")
    behind = Failure("ActivityFailed", "it failed", "", given)

    def failing(how: str, *names: str | type[BaseException]) -> Run:
        run = Run(fails, how, retry=Retry(max_attempts=3, non_retryable=names))
        if how in ("a child", "a map"):
            run.child_failed("ship", behind)
        elif how != "itself":
            run.failed("charge-1", given)
        return run

    for how in ("itself", "an activity", "in a group", "a child", "a map"):
        assert isinstance(failing(how, "CardDeclined").closing, FailRun), how
        assert isinstance(failing(how, CardDeclined, "Other").closing, FailRun), how
        assert isinstance(failing(how, "Other").closing, RetryRun), how
    assert isinstance(failing("itself", ValueError).closing, FailRun)
    assert isinstance(failing("an activity", ActivityFailed).closing, FailRun)
    assert isinstance(failing("a child", ChildFailed).closing, FailRun)


def test_a_cause_that_no_engine_has_wrapped_is_another_error() -> None:
    @workflow
    async def translates() -> None:
        try:
            raise CardDeclined("no")
        except CardDeclined as error:
            raise RuntimeError("later") from error

    run = Run(translates, retry=Retry(max_attempts=2, non_retryable=(CardDeclined,)))
    assert isinstance(run.closing, RetryRun)


def test_what_was_asked_to_stop_is_not_tried_again() -> None:
    """CH34, CA10: raising something else after a request fails the run for good."""

    @workflow
    async def fails() -> None:
        try:
            await wait_signal("never")
        except asyncio.CancelledError:
            raise ValueError("the clean-up failed") from None

    run = Run(fails, retry=FIVE)
    run.cancel("enough")
    assert run.failure.type == "ValueError"


def test_a_run_that_continues_begins_with_its_first_attempt() -> None:
    @workflow
    async def chain(n: int) -> None:
        await charge("o1")
        continue_as_new(n + 1)

    run = Run(chain, 1, retry=FIVE)
    run.failed("charge-1", Failure("Busy", ""))
    second = run.next_generation()
    second.completed("charge-1", "paid")
    assert second.closing == ContinueRun(b"2")
    third = second.next_generation()
    third.failed("charge-1", Failure("Busy", ""))
    assert (again(third).attempt, again(third).input) == (2, b"2")


def test_what_was_not_read_and_who_lives_is_handed_on() -> None:
    """CH34: unread signals, open updates and children with their timeouts."""

    @workflow(updates=[plain])
    async def parent() -> None:
        start_child(ship, "o1", id="slow", timeout=timedelta(hours=1), on_parent_close="cancel")
        await charge("o1")

    run = Run(parent, retry=FIVE)
    run.signal("go", 1)
    run.update("plain", 2)
    run.signal("go", 3)
    run.failed("charge-1", Failure("Busy", ""))
    closing = again(run)
    assert [message.name for message in closing.unread] == ["go", "plain", "go"]
    assert closing.child_deadlines == (("slow", START_US + 3_600_000_000),)
    assert closing.closes_children
    second = run.next_generation()
    assert second.machine.children.closes
    assert StartTimer("slow.timeout", START_US + 3_600_000_000) in second.open
    assert not any(isinstance(command, StartChild) and command.key != "slow" for command in second.commands)


def test_an_update_that_was_being_handled_is_told_that_the_run_went_on() -> None:
    @workflow(updates=[plain])
    async def handles() -> None:
        async def slow(value: object) -> object:
            return await wait_signal("on") or value

        on_update(plain, slow)
        await charge("o1")

    run = Run(handles, retry=FIVE)
    run.update("plain", 1)
    run.failed("charge-1", Failure("Busy", ""))
    assert isinstance(run.closing, RetryRun)
    assert [type(command).__name__ for command in run.commands][:1] == ["AnswerUpdate"]


def test_effects_hand_the_failure_to_the_next_start_and_to_nobody_else() -> None:
    """CH34: the entry of the next start says which attempt it is and how the one before failed."""
    context = RunContext("batch/part", depth=1, retry=FIVE)
    machine = Machine(order, context)
    machine.apply(e.RunStarted(START_US, b'"o1"'))
    failed = e.ActivityFailed(START_US + 5, "charge-1", "charge", b'{"order_id":"o1"}', Failure("Busy", "no"))
    found = effects(context, failed, machine.apply(failed))
    machine.discard()
    assert (found.messages, found.descendants) == ((), "leave")
    (begun,) = [event_of_entry(entry) for entry in found.next_entries]
    assert isinstance(begun, e.RunStarted)
    assert (begun.at_us, begun.input, begun.attempt) == (START_US + 5 + 8_000_000, b'"o1"', 2)
    assert begun.failure is not None
    assert begun.failure.type == "ActivityFailed"


def test_a_result_that_cannot_be_encoded_and_an_exit_are_failures_like_others() -> None:
    @workflow
    async def fails(how: str) -> str:
        if how == "exit":
            raise SystemExit(3)
        return 3  # type: ignore[return-value]  # the point

    for how in ("exit", "result"):
        assert isinstance(Run(fails, how, retry=FIVE).closing, RetryRun)


def test_a_policy_is_read_as_it_was_written() -> None:
    for retry in (FIVE, Retry(max_attempts=9, initial=0.25, jitter=0.5, non_retryable=("Busy", CardDeclined))):
        assert decode_retry(retry_text(retry)) == retry


@pytest.mark.parametrize("text", [b"null", b"{}", b"nonsense", b'{"max_attempts":0}'])
def test_a_policy_that_no_release_has_written_is_undecodable(text: bytes) -> None:
    with pytest.raises(DecodeError, match="retry policy"):
        decode_retry(text)


def test_a_cancel_that_comes_before_the_next_attempt_is_delivered_to_it() -> None:
    run = Run(order, "o1", retry=FIVE)
    run.failed("charge-1", Failure("Busy", ""))
    second = run.next_generation()
    second.cancel("enough")
    assert second.closing == CancelRun("enough")
