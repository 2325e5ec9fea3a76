"""What a stranger's code may do to a machine: each is bounded, visible, and stays where it is."""

import asyncio
import datetime as dt
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

import pytest
from pydantic import AfterValidator
from tests.core.harness import Run

from continuum import (
    ChildDepthExceeded,
    Retry,
    SideEffectFailed,
    activity,
    await_child,
    child,
    side_effect,
    start_child,
    wait_condition,
    wait_signal,
    workflow,
)
from continuum._core import events as e
from continuum._core.entries import Entry
from continuum._core.failure import capture
from continuum._core.faults import Undecodable


@activity
async def charge(order_id: str) -> str:
    return order_id


@workflow
async def ship(order_id: str) -> str:
    return order_id


def look_up(value: int) -> int:
    return {1: 1}[value]


Known = Annotated[int, AfterValidator(look_up)]


@activity
async def known() -> Known:
    return 1


# Validators that raise what they like.


def test_a_validator_that_raises_anything_makes_of_an_input_a_fault() -> None:
    @workflow
    async def flow(value: Known) -> int:
        return value

    fault = Run(flow, b"5", allow_fault=True).fault
    assert isinstance(fault, Undecodable)
    assert "KeyError" in str(fault)


def test_a_validator_that_raises_anything_makes_of_a_recorded_result_a_fault() -> None:
    @workflow
    async def flow() -> int:
        return await known()

    run = Run(flow, allow_fault=True)
    run.completed("known-1", 5)
    assert isinstance(run.fault, Undecodable)


def test_a_validator_that_raises_anything_fails_the_run_that_returns_such_a_value() -> None:
    @workflow
    async def flow() -> Known:
        return 5

    assert Run(flow).failure.type == "EncodeError"


def test_a_result_without_json_form_fails_the_run() -> None:
    class Opaque:
        pass

    @workflow
    async def flow() -> Opaque:
        return Opaque()

    assert Run(flow).failure.type == "DefinitionError"


def in_the_past(value: int) -> int:
    assert value < dt.datetime.now(dt.UTC).year + 1
    return value


@activity
async def founded() -> Annotated[int, AfterValidator(in_the_past)]:
    return 1999


def test_a_type_may_look_at_the_clock_while_a_value_is_decoded() -> None:
    """RP06: what a type does to be decoded is its own; the watch must not take it for the workflow's doing."""

    @workflow
    async def flow() -> int:
        return await founded()

    run = Run(flow)
    run.completed("founded-1", 1999)
    assert run.result == 1999


# Code that takes whatever comes and tries again.


@pytest.mark.parametrize(
    "again",
    [
        lambda: charge("o1"),
        lambda: child(ship, "o1"),
        lambda: asyncio.sleep(1),
        lambda: wait_signal("go"),
        lambda: wait_condition(lambda: False),
        lambda: asyncio.Event().wait(),
        lambda: asyncio.gather(charge("o1"), charge("o2")),
    ],
    ids=["activity", "child", "sleep", "signal", "condition", "event", "gather"],
)
def test_a_loop_that_swallows_everything_can_be_let_go(again: Callable[[], Any]) -> None:
    """The second await of such a loop must wait, not raise: else it spins in the worker for ever."""

    @workflow
    async def flow() -> None:
        while True:
            try:
                async with asyncio.timeout(None):
                    await again()
            except BaseException:
                continue

    run = Run(flow)
    run.replayable = False
    run.machine.discard()


def test_a_loop_that_swallows_a_divergence_does_not_spin() -> None:
    @workflow
    async def flow() -> None:
        while True:
            try:
                await child(ship, "new", id="c")
            except BaseException:
                continue

    old = Entry("child_started", "c", 0, b'{"workflow":"ship","version":1,"input":"old"}')
    assert Run.replayed(flow, None, old, allow_fault=True).fault is not None


def test_a_ref_awaited_by_such_a_loop_can_be_let_go() -> None:
    @workflow
    async def flow() -> None:
        ref = start_child(ship, "o1")
        while True:
            try:
                await await_child(ref)
            except BaseException:
                continue

    run = Run(flow)
    run.replayable = False
    run.machine.discard()


# The end of the main task.


def test_nothing_else_runs_once_the_main_task_has_ended() -> None:
    @workflow
    async def flow() -> str:
        async def background() -> None:
            while True:
                await asyncio.sleep(0)
                if done:
                    start_child(ship, "late")

        done: list[int] = []
        task = asyncio.create_task(background())
        await asyncio.sleep(0)
        done.append(1)
        return str(task.done())

    run = Run(flow)
    assert run.result == "False"
    assert len(run.commands) == 1


# What leaves the ordinary way.


@pytest.mark.parametrize("error", [SystemExit(3), asyncio.CancelledError(), GeneratorExit()], ids=repr)
def test_whatever_a_side_effect_raises_is_recorded(error: BaseException) -> None:
    def leave() -> None:
        raise error

    @workflow
    async def flow() -> str:
        try:
            side_effect(leave)
        except SideEffectFailed as failed:
            return await charge(failed.type)
        return ""

    run = Run(flow)
    run.restart().completed("charge-1", "on")
    assert run.result == "on"


def test_a_predicate_that_leaves_the_program_fails_the_run() -> None:
    asked: list[int] = []

    def predicate() -> bool:
        asked.append(1)
        if len(asked) > 2:
            sys.exit(3)
        return False

    @workflow
    async def flow() -> None:
        asked.clear()
        await wait_condition(predicate)

    run = Run(flow)
    run.signal("any", 1)
    assert run.failure.type == "SystemExit"


def test_one_child_refused_twice_in_a_turn_is_one_decision() -> None:
    """CH08: the journal of it replays."""

    @workflow
    async def flow() -> str:
        for _ in range(2):
            with pytest.raises(ChildDepthExceeded):
                start_child(ship, "o1", id="x")
        return await charge("o1")

    run = Run(flow, depth=10)
    assert [entry.type for entry in run.journal] == ["child_refused"]
    run.restart().completed("charge-1", "on")
    assert run.result == "on"


# Journals.


def test_json_nested_too_deep_to_read_is_a_fault() -> None:
    @workflow
    async def flow() -> str:
        return await child(ship, "o1", id="c")

    started = Entry("child_started", "c", 0, b'{"workflow":"ship","version":1,"input":"o1"}')
    deep = Entry("child_failed", "c", 1, b'{"error":%b}' % (b"[" * 100_000 + b"]" * 100_000))
    assert isinstance(Run.replayed(flow, None, started, deep, allow_fault=True).fault, Undecodable)


def test_a_second_start_among_the_entries_is_a_fault() -> None:
    @workflow
    async def flow() -> str:
        return await charge("o1")

    again = Entry("run_started", "", 1, b'{"input":null}')
    assert isinstance(Run.replayed(flow, None, again, allow_fault=True).fault, Undecodable)


def test_a_machine_that_has_ended_says_why() -> None:
    @workflow
    async def flow() -> str:
        return "done"

    run = Run(flow)
    with pytest.raises(RuntimeError, match=r"CompleteRun.*done"):
        run.machine.apply(e.CancelRequested(1, "late"))


# Failures.


def test_groups_that_share_their_parts_are_captured_within_bounds() -> None:
    group: BaseException = ValueError("deep")
    for _ in range(16):
        group = ExceptionGroup("both", [group, group])  # type: ignore[list-item]  # each is an Exception

    def count(failure: Any) -> int:
        return 1 + sum(count(part) for part in failure.parts)

    assert count(capture(group)) <= 501


def test_an_error_whose_text_leaves_the_program_is_captured() -> None:
    class Rude(Exception):
        def __str__(self) -> str:
            raise SystemExit(3)

    assert capture(Rude()).type == "Rude"


# Options.


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Retry(max_attempts=2.5), "Retry.max_attempts"),  # type: ignore[arg-type]
        (lambda: Retry(max_attempts="5"), "Retry.max_attempts"),  # type: ignore[arg-type]
        (lambda: Retry(initial="1s"), "Retry.initial"),  # type: ignore[arg-type]
        (lambda: Retry(non_retryable=(3,)), "non_retryable"),  # type: ignore[arg-type]
        (lambda: charge.with_options(retry=5), "retry"),  # type: ignore[typeddict-item]
        (lambda: charge.with_options(queue=7), "queue"),  # type: ignore[typeddict-item]
        (lambda: charge.with_options(priority="high"), "priority"),  # type: ignore[typeddict-item]
        (lambda: charge.with_options(start_to_close=True), "start_to_close"),
        (lambda: charge.with_options(start_to_close="30"), "start_to_close"),  # type: ignore[typeddict-item]
    ],
)
def test_an_option_of_another_type_is_refused_by_name(make: Callable[[], object], says: str) -> None:
    with pytest.raises(TypeError, match=says):
        make()


def test_one_name_that_is_not_retryable_needs_no_tuple() -> None:
    assert Retry(non_retryable="CardDeclined").non_retryable == ("CardDeclined",)  # type: ignore[arg-type]
    assert Retry(non_retryable=KeyError).non_retryable == ("KeyError",)  # type: ignore[arg-type]


@dataclass
class Desk:
    name: str

    async def run(self, order_id: str) -> str:
        return order_id


@pytest.mark.parametrize("decorate", [workflow, activity])
def test_a_method_is_refused_with_the_way_out(decorate: Callable[[Any], object]) -> None:
    with pytest.raises(TypeError, match="is a method"):
        decorate(Desk.run)


def test_an_input_with_a_default_is_refused_with_the_way_out() -> None:
    with pytest.raises(TypeError, match="default"):

        @workflow
        async def flow(order_id: str = "o1") -> str:
            return order_id


def test_signals_that_are_no_mapping_are_refused() -> None:
    with pytest.raises(TypeError, match="maps names to types"):
        workflow(signals=["approve"])(ship.function)  # type: ignore[arg-type]
