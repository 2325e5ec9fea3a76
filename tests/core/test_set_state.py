"""What people see of a run: published with a turn, the last one of it, and by no replay."""

from dataclasses import dataclass

import pytest
from tests.core.harness import START_US, Run, recorded

from continuum import EncodeError, activity, continue_as_new, set_state, side_effect, wait_signal, workflow
from continuum._core import events as e
from continuum._core.commands import FailRun, PublishState, RunActivity
from continuum._core.effects import effects


@dataclass
class Progress:
    done: int
    of: int


@activity
async def step(number: int) -> int:
    return number


@workflow(state=Progress)
async def counted(of: int) -> int:
    for number in range(of):
        set_state(Progress(number, of))
        await step(number)
    set_state(Progress(of, of))
    return of


def published(run: Run) -> list[bytes]:
    return [command.value for command in run.commands if isinstance(command, PublishState)]


def test_a_fresh_run_publishes_with_each_turn() -> None:
    run = Run(counted, 1)
    assert published(run) == [b'{"done":0,"of":1}']
    run.completed("step-1", 0)
    assert published(run) == [b'{"done":1,"of":1}']
    assert run.result == 1


def test_a_recorded_run_publishes_nothing_again() -> None:
    entry = recorded("activity_completed", "step-1", name="step", input={"number": 0}, result=0)
    run = Run.replayed(counted, 2, entry)
    assert published(run) == []
    assert [type(command) for command in run.commands] == [RunActivity]


def test_a_first_turn_that_left_nothing_is_taken_again_and_publishes_again() -> None:
    @workflow
    async def flow() -> None:
        set_state("waiting")
        await wait_signal("go")

    run = Run(flow)
    assert published(run) == [b'"waiting"']
    assert published(Run.replayed(flow, None)) == [b'"waiting"']


def test_the_last_one_of_a_turn_counts() -> None:
    @workflow
    async def flow() -> None:
        for number in range(1000):
            set_state(number)
        await wait_signal("go")

    run = Run(flow)
    assert run.commands == (PublishState(b"999"),)
    run.signal("go")
    assert published(run) == []


def test_a_value_that_does_not_fit_is_refused_at_the_call() -> None:
    @workflow(state=Progress)
    async def flow() -> str:
        try:
            set_state({"done": "much"})
        except EncodeError as error:
            return error.what
        return "taken"

    run = Run(flow)
    assert published(run) == []
    assert run.result == "state of workflow 'flow'"


def test_without_a_type_it_is_plain_json() -> None:
    @workflow
    async def flow() -> None:
        set_state({"a": [1, None]})
        set_state(object())

    run = Run(flow)
    assert published(run) == [b'{"a":[1,null]}']
    assert isinstance(run.closing, FailRun)
    assert run.failure.type == "EncodeError"


def test_it_leaves_no_entry_and_is_part_of_what_the_turn_has_to_bring_about() -> None:
    run = Run(counted, 1)
    turn = run.completed("step-1", 0)
    assert [entry.type for entry in run.journal] == ["activity_completed"]
    event = e.ActivityCompleted(START_US, "step-1", "step", b'{"number":0}', b"0")
    found = effects(run.context, event, turn)
    assert found.published == b'{"done":1,"of":1}'
    assert [entry.type for entry in found.entries] == ["activity_completed"]


def test_the_turn_that_continues_as_new_publishes_too() -> None:
    @workflow
    async def flow(round: int) -> None:
        set_state(round)
        continue_as_new(round + 1)

    assert published(Run(flow, 3)) == [b"3"]


def test_adding_it_to_running_code_diverges_from_nothing() -> None:
    """It is no decision: a deploy may add it, move it or take it away."""
    entry = recorded("activity_completed", "step-1", name="step", input={"number": 0}, result=0)

    @workflow
    async def flow() -> None:
        await step(0)
        set_state("new")
        await step(1)

    run = Run.replayed(flow, None, entry)
    assert published(run) == []
    run.completed("step-2", 1)


@pytest.mark.parametrize("where", ["side effect", "callback"])
def test_it_is_refused_where_a_replay_would_not_come(where: str) -> None:
    @workflow
    async def flow() -> str:
        if where == "side effect":
            side_effect(lambda: set_state(1))
        else:
            import asyncio

            asyncio.get_running_loop().call_soon(set_state, 1)
            await step(1)
        return "no"

    run = Run(flow, allow_fault=True)
    assert published(run) == []
