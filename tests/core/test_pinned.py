"""During a turn asyncio behaves as on 3.13, on every Python, and outside a turn as its own Python has it."""

from __future__ import annotations

import asyncio
import sys
import threading
from asyncio import tasks
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from continuum._core import pinned

Flow = Callable[["Loop"], Coroutine[Any, Any, Any]]


class Loop(asyncio.AbstractEventLoop):  # what the pins ask of a workflow loop
    is_workflow_loop = True

    def __init__(self) -> None:
        self.ready: deque[asyncio.Handle] = deque()
        self.timers: list[asyncio.TimerHandle] = []
        self.number = 0

    def turn(self) -> None:
        asyncio._set_running_loop(self)
        pinned.enter()
        try:
            while self.ready:
                handle = self.ready.popleft()
                if not handle.cancelled():
                    handle._run()
        finally:
            pinned.leave()
            asyncio._set_running_loop(None)

    def next_number(self) -> int:
        self.number += 1
        return self.number

    def call_soon(self, callback: Any, *args: Any, context: Any = None) -> asyncio.Handle:
        self.ready.append(asyncio.Handle(callback, args, self, context))
        return self.ready[-1]

    def call_next(self, callback: Callable[[], None]) -> None:
        self.ready.appendleft(asyncio.Handle(callback, (), self))

    def call_later(self, delay: float, callback: Any, *args: Any, context: Any = None) -> asyncio.TimerHandle:
        return self.call_at(delay, callback, *args, context=context)

    def call_at(self, when: float, callback: Any, *args: Any, context: Any = None) -> asyncio.TimerHandle:
        self.timers.append(asyncio.TimerHandle(when, callback, args, self, context))
        return self.timers[-1]

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        if handle in self.timers:
            self.timers.remove(handle)

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(self, coro: Any, **options: Any) -> asyncio.Task[Any]:
        return pinned.Task(coro, loop=self, **options)

    def time(self) -> float:
        return 0.0

    def get_debug(self) -> bool:
        return False

    def call_exception_handler(self, context: Any) -> None:
        pass


class Interrupted(asyncio.CancelledError):
    pass


def run(flow: Flow, *between: Callable[[Loop, asyncio.Task[Any]], object]) -> Any:
    loop = Loop()
    main = loop.create_task(flow(loop))
    loop.turn()
    for act in between:
        act(loop, main)
        loop.turn()
    return main.result()


def cancel(_: Loop, main: asyncio.Task[Any]) -> None:
    main.cancel()


def fire_timer(loop: Loop, _: asyncio.Task[Any]) -> None:
    loop.ready.append(loop.timers.pop(0))


def current_task() -> asyncio.Task[Any]:
    task = asyncio.current_task()
    assert task is not None
    return task


async def fail_when_cancelled(loop: Loop, error: BaseException) -> None:
    try:
        await loop.create_future()
    finally:
        raise error


def test_wait_for_runs_a_coroutine_in_the_callers_task():
    async def inner() -> Any:
        return current_task()

    async def flow(loop: Loop) -> bool:
        return await asyncio.wait_for(inner(), 1) is current_task()

    assert run(flow)


def test_wait_for_lets_a_cancellation_through_that_meets_the_result():
    answers: list[asyncio.Future[Any]] = []

    async def flow(loop: Loop) -> None:
        answers.append(loop.create_future())
        await asyncio.wait_for(answers[0], 1)

    def answer_and_cancel(_: Loop, main: asyncio.Task[Any]) -> None:
        answers[0].set_result(1)
        main.cancel()

    with pytest.raises(asyncio.CancelledError):
        run(flow, answer_and_cancel)


def test_gather_of_finished_futures_is_finished_at_once():
    async def flow(loop: Loop) -> Any:
        one = loop.create_future()
        one.set_result(1)
        gathered = asyncio.gather(one, one)
        assert gathered.done()
        assert asyncio.gather().done()
        return await gathered

    assert run(flow) == [1, 1]


def test_gather_keeps_the_order_and_raises_the_first_error():
    async def flow(loop: Loop, return_exceptions: bool) -> Any:
        futures = [loop.create_future() for _ in range(3)]
        loop.call_soon(futures[2].set_result, "last")
        loop.call_soon(futures[1].set_exception, ValueError("second"))
        loop.call_soon(futures[0].cancel, "first")
        return await asyncio.gather(*futures, return_exceptions=return_exceptions)

    outcomes = [repr(outcome) for outcome in run(lambda loop: flow(loop, True))]
    assert outcomes == ["CancelledError('first')", "ValueError('second')", "'last'"]
    with pytest.raises(ValueError, match="second"):
        run(lambda loop: flow(loop, False))


def test_gathers_are_hashed_by_the_loops_numbers():
    async def flow(loop: Loop) -> list[int]:
        return [hash(gathered) for gathered in {asyncio.gather(loop.create_future()) for _ in range(9)}]

    assert run(flow) == list(range(1, 10))


def test_group_that_was_cancelled_and_whose_children_fail_leaves_the_cancellation_pending():
    async def flow(loop: Loop) -> None:
        with pytest.raises(ExceptionGroup):
            async with asyncio.TaskGroup() as group:
                group.create_task(fail_when_cancelled(loop, ValueError()))
        with pytest.raises(asyncio.CancelledError):
            await asyncio.sleep(0)

    run(flow, cancel)


def test_group_closes_a_coroutine_it_refuses():
    async def flow(loop: Loop) -> None:
        async with asyncio.TaskGroup() as group:
            assert group.create_task(asyncio.sleep(0), name="charge").get_name() == "charge"
        refused = asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="finished"):
            group.create_task(refused)
        with pytest.raises(RuntimeError, match="cannot reuse"):
            await refused

    run(flow)


def test_timeout_around_a_group_with_failing_children_leaves_no_cancellation_behind():
    async def flow(loop: Loop) -> str:
        with pytest.raises(ExceptionGroup):
            async with asyncio.timeout(1), asyncio.TaskGroup() as group:
                group.create_task(fail_when_cancelled(loop, ValueError()))
        await asyncio.sleep(0)
        return "went on"

    assert run(flow, fire_timer) == "went on"


def test_task_that_cancels_itself_is_interrupted_at_its_next_await_if_any_request_is_left():
    async def flow(loop: Loop) -> None:
        me, waiting = current_task(), loop.create_future()
        me.cancel()
        assert (me.cancelling(), me.uncancel(), me.uncancel()) == (1, 0, 0)
        await asyncio.sleep(0)
        me.cancel("first")
        me.cancel("last")
        assert (me.cancelling(), me.uncancel()) == (2, 1)
        with pytest.raises(asyncio.CancelledError, match="last"):
            await waiting
        assert (me.cancelling(), waiting.cancelled()) == (1, True)

    run(flow)


def test_task_that_cancels_itself_and_returns_is_cancelled():
    async def cancel_itself() -> str:
        current_task().cancel("why")
        return "never seen"

    async def flow(loop: Loop) -> None:
        child = loop.create_task(cancel_itself())
        for _ in range(2):  # once when it ends, and again when it has ended
            with pytest.raises(asyncio.CancelledError, match="why"):
                await child
        assert child.cancelled()

    run(flow)


def test_timeout_in_a_task_that_ignored_a_cancellation_still_times_out():
    async def flow(loop: Loop) -> None:
        with pytest.raises(asyncio.CancelledError):
            await loop.create_future()
        async with asyncio.timeout(1):
            await loop.create_future()

    with pytest.raises(TimeoutError):
        run(flow, cancel, fire_timer)


def test_timeout_is_entered_only_once():
    async def flow(loop: Loop) -> None:
        timeout = asyncio.timeout(1)
        async with timeout:
            pass
        with pytest.raises(RuntimeError, match="already been entered"):
            await timeout.__aenter__()

    run(flow)


@pytest.mark.parametrize("error", [ValueError(), Interrupted()])
def test_timeout_takes_or_explains_an_error_raised_in_clean_up(error: BaseException):
    async def flow(loop: Loop) -> None:
        async with asyncio.timeout(1):
            await fail_when_cancelled(loop, error)

    with pytest.raises((ValueError, TimeoutError)) as caught:
        run(flow, fire_timer)
    timed_out = caught.value if isinstance(error, Interrupted) else error.__context__
    assert isinstance(timed_out, TimeoutError)
    assert isinstance(timed_out.__cause__, asyncio.CancelledError)


def test_semaphore_wakes_as_many_as_there_are_places():
    semaphore = asyncio.Semaphore(0)
    steps: list[str] = []

    async def take(loop: Loop, name: str) -> None:
        await semaphore.acquire()
        steps.append(name)
        loop.call_soon(steps.append, f"after {name}")

    async def flow(loop: Loop) -> None:
        first = loop.create_task(take(loop, "1st"))
        await asyncio.sleep(0)
        second, third = loop.create_task(take(loop, "2nd")), loop.create_task(take(loop, "3rd"))
        for _ in range(3):
            semaphore.release()  # one place for the first; the others queue up before it leaves
        await asyncio.wait([first, second, third])

    run(flow)
    assert steps == ["1st", "2nd", "3rd", "after 1st", "after 2nd", "after 3rd"]


def test_condition_passes_on_the_notification_of_a_waiter_that_is_cancelled():
    condition = asyncio.Condition()

    async def wait() -> str:
        async with condition:
            await condition.wait()
        return "notified"

    async def flow(loop: Loop) -> str:
        first, second = loop.create_task(wait()), loop.create_task(wait())
        await asyncio.sleep(0)
        async with condition:
            condition.notify()
            first.cancel()
        return await second

    assert run(flow) == "notified"


PINNED = [pin.function for pin in vars(pinned).values() if isinstance(pin, pinned._Pin)]


def in_force() -> list[Any]:
    return [vars(tasks)["_GatheringFuture"], *(function.__code__ for function in PINNED)]


def test_turn_leaves_asyncio_as_it_was():
    before = in_force()

    async def flow(loop: Loop) -> list[Any]:
        assert asyncio.wait_for in PINNED, "the functions stay the same objects"
        return in_force()

    same = [during is outside for during, outside in zip(run(flow), before, strict=True)]
    assert same == [False] + [sys.version_info >= (3, 13)] * 8
    assert all(after is outside for after, outside in zip(in_force(), before, strict=True))


def test_exception_out_of_a_turn_leaves_asyncio_as_it_was():
    before = in_force()

    async def flow(loop: Loop) -> None:
        raise SystemExit

    with pytest.raises(SystemExit):
        run(flow)
    assert in_force() == before


def test_other_thread_has_its_own_asyncio_during_a_turn():
    async def task_of() -> Any:
        return current_task()

    async def program() -> list[Any]:
        done = asyncio.get_running_loop().create_future()
        done.set_result(1)
        gathered, refused, condition = asyncio.gather(done), asyncio.sleep(0), asyncio.Condition()
        at_once, by_address = gathered.done(), hash(gathered) == object.__hash__(gathered)
        async with asyncio.timeout(None), asyncio.TaskGroup() as group:
            in_own_task = await asyncio.wait_for(task_of(), 1) is current_task()
        with pytest.raises(RuntimeError):
            group.create_task(refused)
        closed = refused.cr_frame is None
        refused.close()
        async with asyncio.Semaphore(1), condition:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(condition.wait(), 0)
        return [in_own_task, at_once, closed, by_address, await gathered]

    async def flow(loop: Loop) -> list[Any]:
        seen: list[Any] = []
        thread = threading.Thread(target=lambda: seen.extend(asyncio.run(program())))
        thread.start()
        thread.join()
        return seen

    since_3_12, since_3_13 = sys.version_info >= (3, 12), sys.version_info >= (3, 13)
    assert run(flow) == asyncio.run(program()) == [since_3_12, since_3_12, since_3_13, True, [1]]


def test_turns_of_many_threads_are_all_pinned():
    before = in_force()
    pinned.enter()
    expected = in_force()
    pinned.leave()
    wrong: list[Any] = []

    def turns() -> None:
        for _ in range(500):
            pinned.enter()
            if in_force() != expected:
                wrong.append(in_force())
            pinned.leave()

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=turns) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert not wrong
    assert in_force() == before
