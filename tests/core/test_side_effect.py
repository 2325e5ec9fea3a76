"""Side effects: called once, journaled with the turn, given back as the journal holds them."""

import datetime as dt
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Any

import pytest

from continuum import EncodeError, SideEffectFailed, activity, side_effect, workflow
from continuum._core.commands import CompleteRun, RecordSideEffect
from tests.core.harness import Run, recorded

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


def test_a_value_that_json_gives_back_otherwise_is_refused_without_its_type() -> None:
    """RP09: the workflow is handed the round-tripped value, also live."""

    @workflow
    async def flow() -> str:
        with pytest.raises(EncodeError) as caught:
            side_effect(lambda: dt.date(2026, 1, 1))
        assert "type=" in str(caught.value)
        assert caught.value.what == "side effect side_effect-1"
        day = side_effect(lambda: dt.date(2026, 1, 1), type=dt.date)
        return f"{day!r} {side_effect(lambda: Region('eu'), type=Region).name}"

    run = Run(flow)
    assert run.result == "datetime.date(2026, 1, 1) eu"
    keys = [command.key for command in run.commands if isinstance(command, RecordSideEffect)]
    assert keys == ["side_effect-2", "side_effect-3"]


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

    failure = Run(flow).failure
    assert failure.type == "EncodeError"
    assert "rates[1]" in failure.message


def test_an_async_function_is_refused_as_a_side_effect() -> None:
    async def read() -> str:
        return "eu"

    @workflow
    async def flow() -> None:
        given: Awaitable[Any] = side_effect(read)
        await given

    failure = Run(flow).failure
    assert failure.type == "TypeError"
    assert "@activity" in failure.message


def test_a_refused_value_leaves_no_entry() -> None:
    @workflow
    async def flow() -> str:
        with pytest.raises(EncodeError):
            side_effect(object)
        return "refused"

    assert Run(flow).command == CompleteRun(b'"refused"')


def test_a_continuum_function_in_a_side_effect_decides_nothing_that_a_replay_misses() -> None:
    """What the function of a side effect decides would not be decided again on replay."""

    @workflow
    async def flow() -> str:
        try:
            return str(side_effect(lambda: side_effect(lambda: 1)))
        finally:
            await fetch("here")

    run = Run(flow, allow_fault=True)
    run.replayable = run.fault is None
