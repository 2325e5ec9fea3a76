"""The loop of one run: its own turn, its own context, its own objects, and nothing of the host's."""

import asyncio
import time
from contextvars import ContextVar
from typing import Any

import pytest
from tests.core.harness import Run

from continuum import activity, now, wait_signal, workflow
from continuum._core import pinned
from continuum._core.commands import CompleteRun
from continuum._core.events import RunStarted
from continuum._core.faults import Forbidden
from continuum._core.loop import Sitting, WorkflowLoop
from continuum._core.machine import Machine, RunContext

SEEN: list[Any] = []
USER: ContextVar[str] = ContextVar("user", default="nobody")


@activity
async def charge(order_id: str) -> str:
    return order_id


@pytest.fixture(autouse=True)
def _nothing_seen() -> None:
    SEEN.clear()


# Objects shared by two runs.


SHARED: dict[str, Any] = {}


@workflow
async def waits() -> str:
    await SHARED["event"].wait()
    return "woken"


@workflow
async def sets() -> str:
    SHARED["event"].set()
    return "set"


def test_a_module_level_event_shared_by_two_runs_fails_loudly() -> None:
    SHARED["event"] = asyncio.Event()
    first, second = Run(waits, id="first"), Run(sets, id="second")
    first.replayable = second.replayable = False
    assert second.failure.type == "WorkflowMisuse"
    assert "belongs to one run" in second.failure.message
    assert "signals" in second.failure.message
    assert first.closing is None


def test_waiting_for_another_runs_event_fails_loudly() -> None:
    SHARED["event"] = asyncio.Event()
    first, second = Run(waits, id="first"), Run(waits, id="second")
    first.replayable = second.replayable = False
    assert second.failure.type == "RuntimeError"
    assert "different event loop" in second.failure.message


def test_a_future_completed_from_outside_its_turn_fails_loudly() -> None:
    @workflow
    async def flow() -> None:
        SHARED["future"] = asyncio.get_running_loop().create_future()
        await SHARED["future"]

    run = Run(flow)
    run.replayable = False
    with pytest.raises(RuntimeError, match="outside its turn"):
        SHARED["future"].set_result(1)


# Contexts.


def test_nothing_of_the_hosts_context_is_seen_in_a_workflow_nor_the_other_way_round() -> None:
    @workflow
    async def flow() -> list[str]:
        before = USER.get()
        USER.set("the workflow")
        await charge("o1")
        return [before, USER.get()]

    token = USER.set("the host")
    try:
        run = Run(flow)
        assert USER.get() == "the host"
        run.completed("charge-1", "paid")
        assert run.result == ["nobody", "the workflow"]
        assert USER.get() == "the host"
    finally:
        USER.reset(token)


def test_tasks_and_timers_inherit_the_context_of_who_made_them() -> None:
    @workflow
    async def flow() -> list[str]:
        async def tell() -> str:
            await asyncio.sleep(1)
            return USER.get()

        USER.set("a")
        first = asyncio.create_task(tell())
        USER.set("b")
        second = asyncio.create_task(tell())
        asyncio.get_running_loop().call_later(1, lambda: SEEN.append(USER.get()))
        return [await first, await second]

    run = Run(flow)
    while run.open:
        run.fired()
    assert run.result == ["a", "b"]
    assert SEEN[0] == "b"


def test_two_runs_share_no_context() -> None:
    @workflow
    async def flow(name: str) -> str:
        before = USER.get()
        USER.set(name)
        await wait_signal("go")
        return f"{before} {USER.get()}"

    first, second = Run(flow, "a", id="first"), Run(flow, "b", id="second")
    second.signal("go")
    first.signal("go")
    assert (first.result, second.result) == ("nobody a", "nobody b")


# Callbacks.


def test_an_exception_in_a_callback_is_kept_and_the_run_goes_on() -> None:
    @workflow
    async def flow() -> str:
        loop = asyncio.get_running_loop()
        loop.call_soon(lambda: {}["missing"])
        await asyncio.sleep(0)
        return "went on"

    run = Run(flow, allow_fault=True)
    assert run.result == "went on"
    (told,) = run.machine.loop.unhandled
    assert isinstance(told["exception"], KeyError)


def test_callbacks_run_in_the_order_they_were_scheduled() -> None:
    @workflow
    async def flow() -> list[int]:
        order: list[int] = []
        loop = asyncio.get_running_loop()
        for number in range(5):
            loop.call_soon(order.append, number)
        loop.call_soon(order.append, 99).cancel()
        await asyncio.sleep(0)
        return order

    assert Run(flow).result == [0, 1, 2, 3, 4]


def test_sets_of_tasks_and_futures_iterate_in_the_order_they_were_made() -> None:
    """RP04: the order of a set of tasks is the same everywhere."""

    @workflow
    async def flow() -> list[str]:
        tasks = {asyncio.create_task(charge(str(number)), name=f"n{number}") for number in range(5)}
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks - done:
            task.cancel()
        return [task.get_name() for task in tasks]

    for id in ("run-1", "run-2", "x"):
        run = Run(flow, id=id)
        run.completed("charge-3", "3")
        names = run.result
        again = Run(flow, id=id)
        again.completed("charge-3", "3")
        assert again.result == names


# What the loop is not.


@pytest.mark.parametrize(
    ("name", "arguments", "says"),
    [
        ("run_in_executor", (None, print), "activity"),
        ("call_soon_threadsafe", (print,), "signal"),
        ("create_connection", (), "activity"),
        ("subprocess_exec", (), "activity"),
        ("add_reader", (0, print), "activity"),
        ("add_signal_handler", (2, print), "activity"),
        ("run_until_complete", (None,), "loop.run_until_complete()"),
        ("stop", (), "loop.stop()"),
        ("set_debug", (True,), "loop.set_debug()"),
    ],
)
def test_what_a_replay_cannot_repeat_is_refused_by_the_loop(
    name: str, arguments: tuple[Any, ...], says: str
) -> None:
    """RP06: I/O, threads and subprocesses through the loop are refused with a hint."""

    @workflow
    async def flow() -> None:
        refused = getattr(asyncio.get_running_loop(), name)(*arguments)
        if refused is not None:
            await refused

    failure = Run(flow).failure
    assert failure.type == "NotDeterministic"
    assert says in failure.message


def clock() -> float:
    return time.time()


def test_what_the_watch_refuses_parks_the_run_and_cannot_be_handled() -> None:
    """RP06: handled as an exception it would be another path where the watch sees less."""

    @workflow
    async def flow() -> str:
        try:
            return str(clock())
        except BaseException:
            SEEN.append("handled")
            return await charge("o1")

    run = Run(flow, allow_fault=True)
    assert isinstance(run.fault, Forbidden)
    assert "continuum.now()" in str(run.fault)
    assert (run.commands, run.closing) == ((), None)


def test_a_task_made_by_hand_is_refused_with_the_way_out() -> None:
    """It has no place in the run, and no hash that is the same everywhere."""

    @workflow
    async def flow() -> str:
        async def inner() -> str:
            return await charge("o1")

        return await asyncio.Task(inner(), loop=asyncio.get_running_loop())

    failure = Run(flow).failure
    assert failure.type in ("WorkflowMisuse", "NotDeterministic")
    assert "asyncio.create_task" in failure.message


def test_a_turn_inside_a_task_of_the_host_is_refused() -> None:
    @workflow
    async def flow() -> None:
        await charge("o1")

    async def host() -> str:
        try:
            Run(flow)
        except RuntimeError as error:
            return str(error)
        return ""

    assert "plain callback" in asyncio.run(host())


def test_a_turn_that_was_refused_leaves_nothing_to_the_next() -> None:
    @workflow
    async def flow() -> str:
        return "done"

    machine, started = Machine(flow, RunContext("r")), RunStarted(1, b"null")

    def turn() -> None:
        with Sitting():
            SEEN.append(machine.apply(started).closing)

    async def host() -> None:
        with pytest.raises(RuntimeError, match="plain callback"):
            machine.apply(started)
        asyncio.get_running_loop().call_soon(turn)
        await asyncio.sleep(0)

    asyncio.run(host())
    assert [CompleteRun(b'"done"')] == SEEN
    assert pinned._turns == 0


def test_after_a_turn_the_hosts_loop_runs_again() -> None:
    @workflow
    async def flow() -> None:
        SEEN.append(type(asyncio.get_running_loop()))
        await charge("o1")

    loop = asyncio.new_event_loop()

    def in_a_callback() -> None:
        Run(flow)
        SEEN.append(asyncio.get_running_loop() is loop)
        loop.stop()

    try:
        loop.call_soon(in_a_callback)
        loop.run_forever()
    finally:
        loop.close()
    assert [WorkflowLoop, True] == SEEN


def test_outside_a_turn_no_loop_is_left_running() -> None:
    @workflow
    async def flow() -> None:
        raise SystemExit

    Run(flow)
    with pytest.raises(RuntimeError):
        asyncio.get_running_loop()


# asyncio's own objects inside one run.


def test_locks_queues_and_events_work_as_they_do_elsewhere() -> None:
    @workflow
    async def flow() -> list[str]:
        order: list[str] = []
        queue: asyncio.Queue[str] = asyncio.Queue(maxsize=1)
        lock, ready, places = asyncio.Lock(), asyncio.Event(), asyncio.Semaphore(1)

        async def produce() -> None:
            for name in "ab":
                async with lock:
                    await queue.put(await charge(name))
            ready.set()

        async def consume() -> None:
            for _ in range(2):
                async with places:
                    order.append(await queue.get())

        async with asyncio.TaskGroup() as group:
            group.create_task(produce())
            group.create_task(consume())
            await ready.wait()
            order.append("ready")
        return order

    run = Run(flow)
    run.restart().completed("t1.charge-1", "A")
    run.restart().completed("t1.charge-2", "B")
    assert run.result == ["A", "ready", "B"] or run.result == ["A", "B", "ready"]


def test_time_stands_still_in_a_turn_also_for_the_loop() -> None:
    @workflow
    async def flow() -> bool:
        loop = asyncio.get_running_loop()
        before = loop.time()
        for _ in range(10):
            await asyncio.sleep(0)
        return loop.time() == before == now().timestamp()

    assert Run(flow).result is True
