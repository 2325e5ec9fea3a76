"""Side effects: called once, journaled with the turn, given back as the journal holds them."""

import datetime as dt
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest
from tests.core.harness import Run, recorded

from continuum import (
    Failure,
    SideEffectFailed,
    activity,
    patched,
    random,
    side_effect,
    start_child,
    uuid4,
    workflow,
)
from continuum._core.commands import RecordSideEffect

CALLS: list[str] = []


@activity
async def fetch(url: str) -> str:
    return url


@dataclass
class Region:
    name: str


def read_region() -> str:
    CALLS.append("region")
    return "eu"


@workflow
async def somewhere() -> str:
    region = side_effect(read_region)
    return region + await fetch(region)


@pytest.fixture(autouse=True)
def _count_from_zero() -> None:
    CALLS.clear()


def test_a_fresh_side_effect_is_called_and_journaled_with_the_turn() -> None:
    run = Run(somewhere)
    assert run.commands[0] == RecordSideEffect("side_effect-1", b'"eu"')
    assert CALLS == ["region"]


def test_a_recorded_side_effect_is_not_called_again() -> None:
    """RP01: a recorded side effect's value is taken from the journal."""
    value = recorded("side_effect_recorded", "side_effect-1", value="us")
    done = recorded("activity_completed", "fetch-1", name="fetch", input={"url": "us"}, result="!")
    run = Run.replayed(somewhere, None, value, done)
    assert (run.result, CALLS) == ("us!", [])


def test_a_side_effect_recorded_before_a_pending_step_is_kept() -> None:
    run = Run.replayed(somewhere, None, recorded("side_effect_recorded", "side_effect-1", value="us"))
    assert run.command.input == b'{"url":"us"}'
    assert CALLS == []


def test_a_side_effect_that_was_not_recorded_is_called_again() -> None:
    """A worker that dies before its commit has called the function for nothing."""
    Run.replayed(somewhere, None)
    assert CALLS == ["region"]


@workflow
async def failing() -> list[str]:
    try:
        return [side_effect(lambda: str(1 / len("")))]
    except SideEffectFailed as error:
        return [error.type, error.message, type(error.__cause__).__name__, await fetch("here")]


def test_a_failing_side_effect_is_journaled_and_raised_as_its_replay_will_raise_it() -> None:
    run = Run(failing)
    decision = run.commands[0]
    assert isinstance(decision, RecordSideEffect)
    assert (decision.value, decision.failure.type) == (None, "ZeroDivisionError")
    run.restart().completed("fetch-1", "page")
    assert run.result == ["ZeroDivisionError", "division by zero", "RemoteError", "page"]


def test_a_recorded_failure_of_a_side_effect_is_raised_again() -> None:
    error = recorded("side_effect_recorded", "side_effect-1", error={"type": "OSError", "message": "gone"})
    run = Run.replayed(failing, None, error)
    run.completed("fetch-1", "page")
    assert run.result == ["OSError", "gone", "RemoteError", "page"]


def refusal(flow: Any, type_: str) -> Failure:
    """Run a workflow whose side effect is refused; return the refusal, which is journaled as a failure is."""
    run = Run(flow)
    assert isinstance(run.commands[0], RecordSideEffect)
    outer, inner = run.failure.chain()
    assert (outer.type, inner.type) == ("SideEffectFailed", type_)
    return inner


def test_a_value_that_json_gives_back_otherwise_is_refused_without_its_type() -> None:
    @workflow
    async def flow() -> None:
        side_effect(lambda: dt.date(2026, 1, 1))

    failure = refusal(flow, "EncodeError")
    assert "side_effect-1" in failure.message
    assert "datetime.date(2026, 1, 1)" in failure.message
    assert "type=" in failure.message


def test_a_value_with_a_type_is_given_back_as_json_gives_it() -> None:
    """RP09: the workflow is handed the round-tripped value, also live."""

    @workflow
    async def flow() -> str:
        day = side_effect(lambda: dt.date(2026, 1, 1), type=dt.date)
        region = Region("eu")
        given = side_effect(lambda: region, type=Region)
        return f"{day!r} {given!r} {given is region}"

    assert Run(flow).result == "datetime.date(2026, 1, 1) Region(name='eu') False"


def test_a_refusal_that_the_workflow_handles_is_the_same_on_replay() -> None:
    @workflow
    async def flow() -> str:
        try:
            side_effect(object)
        except SideEffectFailed:
            return await fetch("instead")
        return ""

    run = Run(flow)
    run.completed("fetch-1", "page")
    assert run.result == "page"
    run.restart()


def test_the_annotation_of_the_function_is_its_type() -> None:
    def today() -> dt.date:
        return dt.date(2026, 1, 1)

    @workflow
    async def flow() -> str:
        return type(side_effect(today)).__name__

    assert Run(flow).result == "date"


def test_a_nan_is_refused_with_the_way_out() -> None:
    @workflow
    async def flow() -> None:
        side_effect(lambda: {"rates": [1.0, float("nan")]})

    assert "rates[1]" in refusal(flow, "EncodeError").message


def test_an_async_function_is_refused_as_a_side_effect() -> None:
    async def read() -> str:
        return "eu"

    @workflow
    async def flow() -> None:
        given: Awaitable[Any] = side_effect(read)
        await given

    assert "@activity" in refusal(flow, "TypeError").message


@workflow
async def other() -> None: ...


@pytest.mark.parametrize(
    "inner",
    [
        lambda: side_effect(lambda: 1),
        lambda: start_child(other).id,
        lambda: patched("p"),
        lambda: str(uuid4()),
        lambda: random().random(),
        lambda: fetch("here").close(),
    ],
    ids=["side_effect", "start_child", "patched", "uuid4", "random", "activity"],
)
def test_a_continuum_function_inside_a_side_effect_is_refused(inner: Callable[[], object]) -> None:
    """A replay does not call the function, so it would not decide, count or draw what that did."""

    @workflow
    async def flow() -> str:
        value = str(side_effect(inner))
        return value + await fetch(str(uuid4()))

    run = Run(flow, allow_fault=True)
    assert "WorkflowMisuse" in [failure.type for failure in run.failure.chain()]
