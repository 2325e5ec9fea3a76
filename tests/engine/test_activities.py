"""Activities run in place: outcomes, retries, bounds, cancellation, slots. Without a database, in virtual time."""

from __future__ import annotations

import asyncio
import functools
import inspect
import logging
import random
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from contextvars import ContextVar
from typing import Any

import pytest

from continuum import Failure, Retry, activity, activity_info
from continuum._core.commands import RunActivity
from continuum._core.events import ActivityCompleted, ActivityFailed, ActivityStarted
from continuum._engine.activities import Activities
from continuum._engine.leavers import GRACE_S
from continuum.activity import Activity
from continuum.policies import ActivityOptions

from .virtual_time import VirtualTimeLoop, in_virtual_time

NOW_US = 1_767_225_600_000_000


class Owner:
    """Stands for a resident run."""

    run_id = "run-1"


class Worker:
    """Activities, and what they reported."""

    def __init__(self, *, limit: int = 100, threads: int = 4, chance: float = 0.5, **defaults: Any) -> None:
        self.reports: list[tuple[object, ActivityCompleted | ActivityFailed | ActivityStarted]] = []
        self.on_report: Callable[[Any], None] = lambda event: None
        fixed = random.Random()
        fixed.random = lambda: chance  # type: ignore[method-assign]  # the middle of the span: no jitter
        self.activities = Activities(
            limit=limit,
            threads=threads,
            defaults=ActivityOptions(**defaults),
            now_us=lambda: NOW_US,
            report=self._report,
            chance=fixed,
        )
        self.owner = Owner()

    def _report(self, owner: object, event: ActivityCompleted | ActivityFailed | ActivityStarted) -> None:
        assert asyncio.current_task() is None, "a turn cannot be taken inside a task"
        self.reports.append((owner, event))
        self.on_report(event)

    def start(
        self,
        program: Activity[Any, Any],
        given: bytes = b"{}",
        *,
        key: str = "",
        owner: object = None,
        attempt: int = 1,
        **options: Any,
    ) -> RunActivity:
        chosen = program.with_options(**options).options
        request = RunActivity(key or f"{program.name}-1", program.name, given, chosen)
        self.activities.start(owner or self.owner, request, program, attempt)
        return request

    @property
    def events(self) -> list[Any]:
        return [event for _, event in self.reports]

    @property
    def outcomes(self) -> list[Any]:
        """Return the ends that were reported. Time flies while a thread works, so it may count as long."""
        return [event for event in self.events if not isinstance(event, ActivityStarted)]

    def failure(self) -> Failure:
        """Return the one outcome that was reported, a failure."""
        (event,) = self.outcomes
        assert isinstance(event, ActivityFailed), event
        return event.failure

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Worker]:
        service = asyncio.create_task(self.activities.run())
        await turns()
        try:
            yield self
        finally:
            service.cancel()
            await asyncio.wait([service])
            assert service.cancelled()


async def turns(count: int = 3) -> None:
    """Let the loop go round, without any time passing."""
    for _ in range(count):
        await asyncio.sleep(0)


async def outcome_of(program: Activity[Any, Any], given: bytes = b"{}", **options: Any) -> Any:
    """Run one activity to its end; return the one event it ended with."""
    async with Worker().running() as worker:
        worker.start(program, given, **options)
        await worker.activities.wait_idle()
    (event,) = worker.outcomes
    return event


async def until_set(event: threading.Event) -> None:
    """Wait for another thread."""
    while not event.is_set():
        await asyncio.sleep(0)


@activity
async def double(n: int) -> int:
    return 2 * n


@activity
async def forever() -> None:
    await asyncio.Event().wait()


class Flaky:
    """An activity that fails a number of times before it succeeds, and notes when each attempt began."""

    def __init__(self, failures: int, error: BaseException | None = None) -> None:
        self.began: list[float] = []

        @activity
        async def flaky() -> int:
            self.began.append(asyncio.get_running_loop().time())
            if len(self.began) <= failures:
                raise error or ConnectionError(f"attempt {len(self.began)}")
            return len(self.began)

        self.activity = flaky


class Stubborn:
    """An activity that swallows its cancellation and goes on until it is let go."""

    def __init__(self) -> None:
        self.go_on = asyncio.Event()
        self.cancelled = 0

        @activity
        async def stubborn() -> str:
            while not self.go_on.is_set():
                try:
                    await self.go_on.wait()
                except asyncio.CancelledError:
                    self.cancelled += 1
            return "late"

        self.activity = stubborn


# Outcomes.


@in_virtual_time
async def test_a_result_is_reported_once_with_name_and_input() -> None:
    worker = Worker()
    async with worker.running():
        request = worker.start(double, b'{"n":21}', key="double-7")
        assert worker.activities.busy(worker.owner)
        assert worker.activities.count == 1
        await worker.activities.wait_idle()
    done = ActivityCompleted(NOW_US, "double-7", "double", request.input, b"42")
    assert worker.reports == [(worker.owner, done)]
    assert not worker.activities.busy(worker.owner)


@in_virtual_time
async def test_who_has_nothing_to_do_sleeps_all_the_while() -> None:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualTimeLoop)
    worker = Worker()
    async with worker.running():
        worker.start(double, b'{"n":21}')
        await worker.activities.wait_idle()
        before = loop.jumps
        await asyncio.sleep(3600)
        assert loop.jumps <= before + 3


@in_virtual_time
async def test_a_plain_function_runs_in_a_thread_of_the_pool() -> None:
    @activity
    def where() -> str:
        return threading.current_thread().name

    event = await outcome_of(where)
    assert event.result.startswith(b'"continuum-activity-')


@in_virtual_time
async def test_arguments_missing_in_an_older_record_take_their_defaults() -> None:
    @activity
    async def scale(n: int, factor: int = 3) -> int:
        return n * factor

    assert (await outcome_of(scale, b'{"n":5}')).result == b"15"


@in_virtual_time
async def test_an_error_is_reported_with_its_type_text_traceback_and_cause() -> None:
    @activity
    async def declined() -> None:
        try:
            raise KeyError("card")
        except KeyError as error:
            raise ValueError("declined") from error

    event = await outcome_of(declined)
    assert isinstance(event, ActivityFailed)
    assert (event.failure.type, event.failure.message) == ("ValueError", "declined")
    assert "in declined" in event.failure.traceback
    assert event.failure.cause is not None
    assert event.failure.cause.type == "KeyError"


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, GeneratorExit, asyncio.CancelledError])
@pytest.mark.parametrize("threaded", [False, True])
@in_virtual_time
async def test_what_would_end_a_program_only_fails_the_activity(kind: type[BaseException], threaded: bool) -> None:
    @activity
    async def on_loop() -> None:
        await asyncio.sleep(0)
        raise kind

    @activity
    def in_thread() -> None:
        raise kind

    event = await outcome_of(in_thread if threaded else on_loop)
    assert isinstance(event, ActivityFailed)
    assert event.failure.type == kind.__name__
    assert not event.failure.timed_out


@pytest.mark.parametrize("raised", [ValueError, KeyboardInterrupt])
@in_virtual_time
async def test_an_error_without_a_text_is_reported_by_its_type(raised: type[BaseException]) -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise raised

    @activity
    async def mute() -> None:
        raise Mute

    failure = (await outcome_of(mute)).failure
    assert (failure.type, failure.message) == ("Mute", "<Mute whose text cannot be made>")


@in_virtual_time
async def test_an_activity_that_cancels_its_own_task_has_failed() -> None:
    @activity
    async def suicidal() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(0)

    event = await outcome_of(suicidal)
    assert event.failure.type == "CancelledError"


@in_virtual_time
async def test_one_whose_task_somebody_cancels_before_its_first_step_has_failed() -> None:
    async with Worker().running() as worker:
        before = asyncio.all_tasks()
        worker.start(forever)
        for task in asyncio.all_tasks() - before:
            task.cancel()
        await worker.activities.wait_idle()
    assert worker.failure().type == "CancelledError"


@in_virtual_time
async def test_an_attempt_stays_that_of_the_generation_it_began_in() -> None:
    """Its name for others, an idempotency key made of it, would else be that of another activity."""
    go, told = asyncio.Event(), list[tuple[int, int]]()

    class Owner:
        about = "r", 1, None

    @activity
    async def long() -> None:
        began = activity_info().generation
        await go.wait()
        told.append((began, activity_info().generation))

    owner = Owner()
    async with Worker().running() as worker:
        worker.start(long, owner=owner)
        await turns()
        owner.about = ("r", 2, None)
        go.set()
        await worker.activities.wait_idle()
    assert told == [(1, 1)]


@in_virtual_time
async def test_stop_iteration_out_of_a_thread_is_a_failure_like_others() -> None:
    @activity
    def empty() -> int:
        return next(iter(()))

    assert (await outcome_of(empty)).failure.type == "StopIteration"


@in_virtual_time
async def test_what_a_plain_function_returns_to_be_awaited_is_awaited_on_the_loop() -> None:
    seen: list[object] = []

    def logged(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            seen.append(threading.current_thread() is threading.main_thread())
            return function(*args, **kwargs)

        return call

    @activity
    @logged
    async def later(n: int) -> int:
        await asyncio.sleep(0)
        seen.append(asyncio.get_running_loop())
        return n + 1

    assert (await outcome_of(later, b'{"n":1}')).result == b"2"
    assert seen == [False, asyncio.get_running_loop()]


@in_virtual_time
async def test_a_partial_of_an_async_function_runs_on_the_loop() -> None:
    async def add(a: int, b: int) -> int:
        assert asyncio.current_task() is not None
        return a + b

    made: Any = functools.partial(add, 40)
    functools.update_wrapper(made, add)
    made.__signature__ = inspect.signature(lambda b: b)
    made.__annotations__ = {"b": int, "return": int}
    del made.__wrapped__
    assert (await outcome_of(activity(made), b'{"b":2}')).result == b"42"


@in_virtual_time
async def test_activities_see_no_context_of_who_started_them_nor_of_each_other() -> None:
    mark: ContextVar[str] = ContextVar("mark", default="clean")

    @activity
    async def on_loop() -> str:
        seen = mark.get()
        mark.set("left behind")
        return seen

    @activity
    def in_thread() -> str:
        seen = mark.get()
        mark.set("left behind")
        return seen

    async with Worker(threads=1).running() as worker:
        mark.set("of the caller")
        seen_by_report: list[str] = []
        worker.on_report = lambda event: seen_by_report.append(mark.get())
        for n in range(2):
            worker.start(on_loop, key=f"a{n}")
            worker.start(in_thread, key=f"b{n}")
        await worker.activities.wait_idle()
    assert [event.result for event in worker.outcomes] == [b'"clean"'] * 4
    assert set(seen_by_report) == {"clean"}


# Retries.


@in_virtual_time
async def test_failures_are_tried_again_after_growing_waits() -> None:
    """AC01: backoff, cap and max attempts."""
    flaky = Flaky(3)
    async with Worker().running() as worker:
        worker.start(flaky.activity, retry=Retry(max_attempts=4, initial=1, backoff=3, max_interval=5))
        await worker.activities.wait_idle()
        *started, event = worker.events
    assert event.result == b"4"
    assert started == [ActivityStarted(NOW_US, "flaky-1", attempt) for attempt in (2, 3, 4)]
    waits = [after - before for before, after in zip(flaky.began, flaky.began[1:])]
    assert waits == pytest.approx([1, 3, 5], abs=0.01)


@in_virtual_time
async def test_the_last_failure_is_reported_when_attempts_are_used_up() -> None:
    flaky = Flaky(9)
    async with Worker(retry=Retry(max_attempts=3, initial=0)).running() as worker:
        worker.start(flaky.activity)
        await worker.activities.wait_idle()
        assert worker.failure().message == "attempt 3"
    assert len(flaky.began) == 3


@in_virtual_time
async def test_attempts_are_counted_on_from_the_number_given() -> None:
    flaky = Flaky(9)
    async with Worker().running() as worker:
        worker.start(flaky.activity, retry=Retry(max_attempts=3, initial=0), attempt=2)
        await worker.activities.wait_idle()
        assert [type(event) for event in worker.events] == [ActivityStarted, ActivityStarted, ActivityFailed]
    assert len(flaky.began) == 2


@pytest.mark.parametrize("named", [ConnectionRefusedError, "ConnectionError", OSError])
@in_virtual_time
async def test_an_error_that_is_not_retryable_fails_at_once(named: Any) -> None:
    flaky = Flaky(9, ConnectionRefusedError("no"))
    async with Worker().running() as worker:
        worker.start(flaky.activity, retry=Retry(max_attempts=5, non_retryable=(named,)))
        await worker.activities.wait_idle()
        assert worker.failure().type == "ConnectionRefusedError"
    assert len(flaky.began) == 1


@in_virtual_time
async def test_arguments_and_results_that_do_not_fit_fail_without_a_retry() -> None:
    """AC08: what cannot succeed by repetition is not repeated."""
    calls: list[int] = []

    @activity(retry=Retry(max_attempts=5))
    async def broken(n: int) -> int:
        calls.append(n)
        return "no number"  # type: ignore[return-value]

    assert (await outcome_of(broken, b'{"n":"x"}')).failure.type == "DecodeError"
    assert calls == []
    assert (await outcome_of(broken, b'{"n":1}')).failure.type == "EncodeError"
    assert calls == [1]


@in_virtual_time
async def test_between_attempts_no_slot_is_taken() -> None:
    flaky = Flaky(1)
    async with Worker(limit=1).running() as worker:
        worker.start(flaky.activity, retry=Retry(max_attempts=2, initial=100))
        await turns()
        worker.start(double, b'{"n":1}')
        await worker.activities.wait_idle()
        assert [event.key for event in worker.events] == ["double-1", "flaky-1", "flaky-1"]


@in_virtual_time
async def test_a_queue_is_refused_and_not_within_start() -> None:
    async with Worker().running() as worker:
        worker.start(double, b'{"n":1}', queue="gpu", retry=Retry(max_attempts=3))
        assert worker.events == []
        await worker.activities.wait_idle()
        assert worker.failure().type == "QueueNotAvailable"
        assert "gpu" in worker.failure().message


# Started.


@in_virtual_time
async def test_an_attempt_is_reported_as_started_once_after_a_second() -> None:
    @activity
    async def slow(s: float) -> None:
        await asyncio.sleep(s)

    async with Worker().running() as worker:
        worker.start(slow, b'{"s":0.9}', key="quick")
        worker.start(slow, b'{"s":9}', key="slow")
        await worker.activities.wait_idle()
        assert [(type(event), event.key) for event in worker.events] == [
            (ActivityCompleted, "quick"),
            (ActivityStarted, "slow"),
            (ActivityCompleted, "slow"),
        ]


# Bounds.


@in_virtual_time
async def test_an_attempt_that_takes_too_long_times_out_where_it_was() -> None:
    """AC02: start-to-close."""
    failure = (await outcome_of(forever, start_to_close=0.5)).failure
    assert failure.timed_out
    assert (failure.type, failure.message) == ("TimeoutError", "attempt 1 took longer than start_to_close=0.5 s")
    assert "in forever" in failure.traceback
    assert failure.cause is None


@in_virtual_time
async def test_the_worker_bounds_attempts_that_do_not_say_and_they_are_tried_again() -> None:
    async with Worker(start_to_close=0.5, retry=Retry(max_attempts=2)).running() as worker:
        worker.start(forever)
        await worker.activities.wait_idle()
        assert worker.failure().message == "attempt 2 took longer than start_to_close=0.5 s"


@in_virtual_time
async def test_time_up_waits_for_clean_up_and_tells_what_that_raised() -> None:
    cleaned: list[float] = []

    @activity
    async def tidy() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(1)
            cleaned.append(asyncio.get_running_loop().time())
            raise LookupError("clean-up")

    failure = (await outcome_of(tidy, start_to_close=0.5)).failure
    assert failure.timed_out
    assert failure.cause is not None
    assert failure.cause.type == "LookupError"
    assert cleaned == [pytest.approx(1.5)]


@in_virtual_time
async def test_an_attempt_that_swallows_its_time_out_is_given_up_after_the_grace() -> None:
    stubborn = Stubborn()
    async with Worker(limit=1).running() as worker:
        worker.start(stubborn.activity, start_to_close=1)
        worker.start(double, b'{"n":1}', start_to_close=100)
        await asyncio.sleep(1 + GRACE_S + 0.1)
        assert worker.failure().timed_out
        assert stubborn.cancelled == 1, "clean-up is interrupted once"
        assert not any(event.key == "double-1" for event in worker.events), "its slot is still taken"
        stubborn.go_on.set()
        await worker.activities.wait_idle()
        assert [event.key for event in worker.events if isinstance(event, ActivityCompleted)] == ["double-1"]


@in_virtual_time
async def test_a_result_after_the_time_is_up_is_a_time_out() -> None:
    @activity
    async def partial_result() -> str:
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        return "half of it"

    assert (await outcome_of(partial_result, start_to_close=1)).failure.timed_out


@in_virtual_time
async def test_a_timeout_of_the_activitys_own_is_no_time_out_of_ours() -> None:
    @activity
    async def impatient() -> None:
        async with asyncio.timeout(1):
            await asyncio.Event().wait()

    failure = (await outcome_of(impatient, start_to_close=10)).failure
    assert failure.type == "TimeoutError"
    assert not failure.timed_out


@in_virtual_time
async def test_a_thread_whose_time_is_up_is_left_alone_and_keeps_its_slot() -> None:
    release, began, ran = threading.Event(), threading.Event(), list[int]()

    @activity
    def hangs(n: int) -> int:
        ran.append(n)
        began.set()
        if n == 1:
            release.wait()
        return n

    async with Worker(threads=1).running() as worker:
        worker.start(hangs, b'{"n":1}', key="first", start_to_close=1)
        worker.start(hangs, b'{"n":2}', key="second")
        await until_set(began)
        await asyncio.sleep(2)
        assert worker.failure().timed_out
        assert (ran, worker.activities.count) == ([1], 2)
        release.set()
        await worker.activities.wait_idle()
    assert [event.key for event in worker.outcomes] == ["first", "second"]


@in_virtual_time
async def test_all_attempts_and_waits_are_bounded_together() -> None:
    """AC02: schedule-to-close."""
    flaky = Flaky(99)
    async with Worker().running() as worker:
        retry = Retry(max_attempts=99, initial=2, backoff=1)
        worker.start(flaky.activity, retry=retry, schedule_to_close=5)
        await worker.activities.wait_idle()
        failure = worker.failure()
    assert failure.timed_out
    assert failure.message == "schedule_to_close leaves no time for attempt 4"
    assert failure.cause is not None
    assert failure.cause.message == "attempt 3"
    assert flaky.began == pytest.approx([0, 2, 4], abs=0.01)


@in_virtual_time
async def test_the_bound_of_all_attempts_ends_one_that_runs_and_is_not_tried_again() -> None:
    failure = (
        await outcome_of(forever, schedule_to_close=2, start_to_close=9, retry=Retry(max_attempts=9))
    ).failure
    assert failure.timed_out
    assert failure.message == "schedule_to_close passed during attempt 1"


@in_virtual_time
async def test_the_bound_of_all_attempts_counts_the_wait_for_a_slot() -> None:
    async with Worker(limit=1).running() as worker:
        worker.start(forever)
        worker.start(double, b'{"n":1}', schedule_to_close=2)
        await asyncio.sleep(3)
        (event,) = worker.outcomes
        assert event.key == "double-1"
        assert event.failure.message == "schedule_to_close passed while attempt 1 waited for its turn"
        worker.activities.drop(worker.owner)
        await worker.activities.wait_idle()


@in_virtual_time
async def test_a_result_at_the_very_bound_counts() -> None:
    @activity
    async def sharp() -> int:
        await asyncio.sleep(1)
        return 1

    event = await outcome_of(sharp, start_to_close=1.000_001)
    assert isinstance(event, ActivityCompleted)


# Cancellation.


@in_virtual_time
async def test_a_cancelled_activity_cleans_up_and_reports_nothing() -> None:
    """CA09: an in-place activity sees cancellation."""
    seen: list[str] = []

    @activity
    async def watcher() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            seen.append("cancelled")
            await asyncio.sleep(1)
            seen.append("clean")
            raise

    async with Worker().running() as worker:
        worker.start(watcher)
        await turns()
        worker.activities.cancel(worker.owner, "watcher-1")
        worker.activities.cancel(worker.owner, "watcher-1")
        assert not worker.activities.busy(worker.owner)
        assert worker.activities.count == 1
        await worker.activities.wait_idle()
    assert seen == ["cancelled", "clean"]
    assert worker.events == []


@pytest.mark.parametrize("steps", [0, 1, 2, 3])
@in_virtual_time
async def test_cancelling_frees_the_slot_however_far_the_activity_came(steps: int) -> None:
    async with Worker(limit=1).running() as worker:
        worker.start(double, b'{"n":1}', key="first")
        await turns(steps)
        worker.activities.cancel(worker.owner, "first")
        worker.start(double, b'{"n":2}', key="second")
        await worker.activities.wait_idle()
        assert [event.key for event in worker.events][-1] == "second"
        assert len(worker.events) == (1 if steps < 2 else 2)


@in_virtual_time
async def test_one_that_waits_for_a_slot_is_cancelled_and_never_runs() -> None:
    ran: list[int] = []

    @activity
    async def note(n: int) -> None:
        ran.append(n)

    async with Worker(limit=1).running() as worker:
        worker.start(forever)
        for n in range(4):
            worker.start(note, b'{"n":%d}' % n, key=f"note-{n}")
        worker.activities.cancel(worker.owner, "note-1")
        worker.activities.cancel(worker.owner, "forever-1")
        await worker.activities.wait_idle()
    assert ran == [0, 2, 3]


@in_virtual_time
async def test_one_that_waits_for_its_next_attempt_is_cancelled() -> None:
    flaky = Flaky(1)
    async with Worker().running() as worker:
        worker.start(flaky.activity, retry=Retry(max_attempts=2, initial=10))
        await turns()
        assert worker.activities.busy(worker.owner)
        worker.activities.cancel(worker.owner, "flaky-1")
        await worker.activities.wait_idle()
        await asyncio.sleep(20)
    assert worker.events == []
    assert len(flaky.began) == 1


@in_virtual_time
async def test_dropping_an_owner_stops_its_activities_and_no_others() -> None:
    release, began = threading.Event(), threading.Event()

    @activity
    def blocks() -> str:
        began.set()
        release.wait()
        return "late"

    flaky, other = Flaky(1), Owner()
    async with Worker(limit=3).running() as worker:
        worker.start(forever)
        worker.start(blocks)
        worker.start(flaky.activity, retry=Retry(max_attempts=2, initial=10))
        worker.start(double, b'{"n":4}', owner=other)
        worker.start(double, b'{"n":4}')
        await until_set(began)
        worker.activities.drop(worker.owner)
        worker.activities.drop(worker.owner)
        release.set()
        await worker.activities.wait_idle()
        await asyncio.sleep(20)
    assert [owner for owner, _ in worker.reports if owner is not worker.owner] == [other]
    assert all(event.key == "double-1" for event in worker.events)


@in_virtual_time
async def test_an_answer_of_an_earlier_owner_is_not_taken_for_a_later_ones() -> None:
    first, second = Owner(), Owner()
    stubborn = Stubborn()
    async with Worker().running() as worker:
        worker.start(stubborn.activity, owner=first)
        await turns()
        worker.activities.drop(first)
        worker.start(stubborn.activity, owner=second)
        await turns()
        stubborn.go_on.set()
        await worker.activities.wait_idle()
    assert [owner for owner, _ in worker.reports] == [second]


@in_virtual_time
async def test_a_cancelled_key_can_be_asked_for_again_at_once() -> None:
    stubborn = Stubborn()
    async with Worker().running() as worker:
        worker.start(stubborn.activity)
        await turns()
        worker.activities.cancel(worker.owner, "stubborn-1")
        worker.start(stubborn.activity)
        await turns()
        stubborn.go_on.set()
        await worker.activities.wait_idle()
    assert len(worker.events) == 1


@in_virtual_time
async def test_a_key_under_way_is_not_begun_twice() -> None:
    async with Worker().running() as worker:
        worker.start(forever)
        with pytest.raises(RuntimeError, match="under way already"):
            worker.start(forever)
        assert worker.activities.count == 1


@in_virtual_time
async def test_one_that_swallows_cancellation_is_warned_of_and_gives_its_slot_up(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "continuum.engine")
    stubborn = Stubborn()
    async with Worker(limit=1).running() as worker:
        worker.start(stubborn.activity)
        await turns()
        worker.activities.cancel(worker.owner, "stubborn-1")
        worker.start(double, b'{"n":1}')
        await worker.activities.wait_idle()
        assert [event.key for event in worker.events] == ["double-1"]
        (warning,) = (record for record in caplog.records if record.levelno == logging.WARNING)
        assert "'stubborn' (stubborn-1) of run 'run-1'" in warning.getMessage()
        stubborn.go_on.set()
        await turns()
        assert "ended after all" in caplog.text
        for n in range(2):  # its slot did not come back twice
            worker.start(forever, key=f"forever-{n}")
        await turns()
        assert sum(task.get_name().startswith("forever") for task in asyncio.all_tasks()) == 1


@in_virtual_time
async def test_a_thread_that_goes_on_is_warned_of_and_not_counted(caplog: pytest.LogCaptureFixture) -> None:
    release, began = threading.Event(), threading.Event()

    @activity
    def blocks() -> None:
        began.set()
        release.wait()

    async with Worker(threads=1).running() as worker:
        worker.start(blocks)
        await until_set(began)
        worker.activities.cancel(worker.owner, "blocks-1")
        await worker.activities.wait_idle()
        assert "keeps" in caplog.text
        worker.start(blocks, key="again")
        began.clear()
        release.set()
        await until_set(began)
        await worker.activities.wait_idle()
        assert [event.key for event in worker.outcomes] == ["again"]


# Slots.


@in_virtual_time
async def test_no_more_than_the_limit_run_and_the_others_follow_in_order() -> None:
    """Ten thousand asked for at once."""
    order: list[int] = []
    now = most = 0

    @activity
    async def step(n: int) -> None:
        nonlocal now, most
        order.append(n)
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.01)
        now -= 1

    async with Worker(limit=100).running() as worker:
        for n in range(10_000):
            worker.start(step, b'{"n":%d}' % n, key=f"step-{n}", owner=Owner())
        assert worker.activities.count == 10_000
        await worker.activities.wait_idle()
    assert most == 100
    assert order == list(range(10_000))
    assert len(worker.events) == 10_000


@in_virtual_time
async def test_async_ones_and_threads_do_not_take_each_others_slots() -> None:
    release, began = threading.Event(), threading.Event()

    @activity
    def blocks() -> None:
        began.set()
        release.wait()

    async with Worker(limit=1, threads=1).running() as worker:
        worker.start(blocks)
        await until_set(began)
        worker.start(double, b'{"n":1}')
        await turns(5)
        assert [event.key for event in worker.outcomes] == ["double-1"]
        worker.start(forever)
        await turns()
        release.set()
        while len(worker.outcomes) < 2:
            await turns()
        assert worker.outcomes[1].key == "blocks-1"


@in_virtual_time
async def test_threads_are_made_when_needed_and_at_most_as_many_as_allowed() -> None:
    names: set[str] = set()
    lock = threading.Lock()

    @activity
    def name() -> None:
        with lock:
            names.add(threading.current_thread().name)

    async with Worker(threads=2).running() as worker:
        for n in range(50):
            worker.start(name, key=f"name-{n}")
        await worker.activities.wait_idle()
    assert names <= {"continuum-activity-1", "continuum-activity-2"}


@in_virtual_time
async def test_a_report_may_start_the_next_one() -> None:
    async with Worker(limit=1).running() as worker:
        left = [3, 2, 1]
        worker.on_report = lambda event: worker.start(double, b'{"n":%d}' % left.pop()) if left else None
        worker.start(double, b'{"n":0}')
        await worker.activities.wait_idle()
        assert [event.result for event in worker.events] == [b"0", b"2", b"4", b"6"]


@pytest.mark.parametrize("sizes", [{"limit": 0}, {"threads": 0}])
def test_there_must_be_a_slot_of_each_kind(sizes: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="slots of each kind"):
        Worker(**sizes)


# The service.


@in_virtual_time
async def test_what_is_started_before_the_service_runs_waits_for_it() -> None:
    worker = Worker()
    for n in range(3):
        worker.start(double, b'{"n":%d}' % n, key=f"double-{n}", owner=worker if n == 1 else None)
    worker.activities.cancel(worker, "double-1")
    await turns(5)
    assert worker.events == []
    async with worker.running():
        await worker.activities.wait_idle()
    assert [event.result for event in worker.events] == [b"0", b"4"]


@in_virtual_time
async def test_the_services_end_cancels_all_awaits_them_and_reports_nothing() -> None:
    cleaned: list[str] = []

    @activity
    async def tidy() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(1)
            cleaned.append("clean")

    flaky = Flaky(1)
    worker = Worker(limit=2)
    async with worker.running():
        worker.start(tidy)
        worker.start(flaky.activity, retry=Retry(max_attempts=2, initial=60))
        await turns()
        worker.start(forever)
        worker.start(double, b'{"n":1}')
        idle = asyncio.create_task(worker.activities.wait_idle())
    await idle
    assert cleaned == ["clean"]
    assert worker.events == []
    assert worker.activities.count == 0
    worker.start(double, b'{"n":1}')
    await turns(5)
    assert (worker.events, worker.activities.count) == ([], 0)


@in_virtual_time
async def test_the_services_end_waits_no_longer_than_the_grace(caplog: pytest.LogCaptureFixture) -> None:
    release, began = threading.Event(), threading.Event()

    @activity
    def blocks() -> Awaitable[None]:
        began.set()
        release.wait()
        return asyncio.sleep(0)  # a coroutine that nobody will await

    stubborn = Stubborn()
    worker = Worker()
    loop = asyncio.get_running_loop()
    async with worker.running():
        worker.start(stubborn.activity)
        worker.start(blocks)
        await until_set(began)
        before = loop.time()
    assert loop.time() - before == pytest.approx(GRACE_S, abs=0.01)
    assert caplog.text.count("after the worker's end") == 2
    release.set()
    stubborn.go_on.set()
    while any(thread.name.startswith("continuum-activity") for thread in threading.enumerate()):
        await asyncio.sleep(0)
    await turns()
    assert worker.events == []


@in_virtual_time
async def test_when_everything_is_cancelled_at_once_no_failure_is_reported() -> None:
    """A host that cancels all tasks means to end, not to fail what runs."""
    worker = Worker()
    service = asyncio.create_task(worker.activities.run())
    await turns()
    for n in range(3):
        worker.start(forever, key=f"forever-{n}")
    await turns()
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()
    await asyncio.wait([service])
    await turns()
    assert worker.events == []


@in_virtual_time
async def test_the_service_runs_once() -> None:
    async with Worker().running() as worker:
        with pytest.raises(RuntimeError, match="run already"):
            await worker.activities.run()
        worker.start(double, b'{"n":1}')
        await worker.activities.wait_idle()
        assert len(worker.events) == 1


@in_virtual_time
async def test_nothing_of_a_failed_activity_is_held_after_its_report() -> None:
    import gc
    import weakref

    class Heavy(Exception):
        pass

    held: list[weakref.ref[Any]] = []

    @activity
    async def heavy() -> None:
        error = Heavy()
        held.append(weakref.ref(error))
        try:
            raise error
        finally:
            del error

    gc.disable()
    try:
        async with Worker().running() as worker:
            worker.start(heavy)
            await worker.activities.wait_idle()
            await turns()
            assert held[0]() is None
    finally:
        gc.enable()
