"""Updates: checked, handled by a task of their own, answered once, on a replay as they were."""

import asyncio
import json
from dataclasses import dataclass
from typing import Any

import pytest
from tests.core.harness import START_US, Run, recorded

from continuum import (
    Update,
    WorkflowMisuse,
    activity,
    child,
    continue_as_new,
    now,
    on_update,
    side_effect,
    start_child,
    uuid4,
    wait_condition,
    wait_signal,
    workflow,
)
from continuum._core import commands as c
from continuum._core import events as e
from continuum._core.effects import Answer, effects
from continuum._core.entries import Entry, event_of_entry
from continuum._core.faults import Undecodable


@dataclass
class Address:
    street: str
    city: str = "Berlin"


@activity
async def book(street: str) -> str:
    return street


@workflow
async def courier(street: str) -> str:
    return street


set_address = Update("set_address", Address, str)
plain = Update("plain")
ASKED = recorded("update_requested", "set_address", id="u-1", input={"street": "Lindenweg"})
BOOKED = recorded("activity_completed", "u1.book-1", name="book", input={"street": "Lindenweg"}, result="ok")


@workflow(updates=[set_address, plain])
async def order() -> str:
    current = "none"

    def known(address: Address) -> None:
        if address.street == "nowhere":
            raise ValueError("no such street")

    async def change(address: Address) -> str:
        nonlocal current
        booked = await book(address.street)
        current = address.street
        return f"{booked} in {address.city}"

    on_update(set_address, change, validator=known)
    await wait_signal("ship")
    return current


def answers(run: Run) -> list[c.AnswerUpdate]:
    return [command for command in run.commands if isinstance(command, c.AnswerUpdate)]


def answer(run: Run) -> c.AnswerUpdate:
    (found,) = answers(run)
    return found


# Fresh, recorded, recorded but pending.


def test_a_fresh_update_is_handled_in_a_task_of_its_own_and_answered() -> None:
    run = Run(order)
    run.update("set_address", {"street": "Lindenweg"})
    assert isinstance(run.command, c.RunActivity)
    assert run.command.key == "u1.book-1"
    run.restart().completed("u1.book-1", "ok")
    assert answer(run) == c.AnswerUpdate("u-1", b'"ok in Berlin"')
    run.restart().signal("ship")
    assert run.result == "Lindenweg"


def test_a_recorded_update_is_answered_as_it_was() -> None:
    answered = recorded("update_answered", "u-1", result="ok in Berlin")
    run = Run.replayed(order, None, ASKED, BOOKED, answered)
    assert run.commands == ()
    run.signal("ship")
    assert run.result == "Lindenweg"


def test_a_recorded_update_that_is_pending_goes_on() -> None:
    run = Run.replayed(order, None, ASKED)
    assert isinstance(run.command, c.RunActivity)
    assert run.command.key == "u1.book-1"
    run.completed("u1.book-1", "ok")
    assert answer(run).result == b'"ok in Berlin"'


def test_another_answer_than_was_given_diverges() -> None:
    answered = recorded("update_answered", "u-1", result="something else")
    run = Run.replayed(order, None, ASKED, BOOKED, answered, allow_fault=True)
    assert run.divergence.key == "u-1"
    assert "something else" in run.divergence.recorded


def test_an_answer_that_is_no_longer_given_diverges() -> None:
    answered = recorded("update_answered", "u-1", result="early")
    run = Run.replayed(order, None, ASKED, answered, allow_fault=True)
    assert "update_answered u-1" in run.divergence.recorded


def test_a_failure_where_a_result_was_given_diverges_and_the_other_way_round() -> None:
    for answered in ({"error": {"type": "E", "message": "m"}}, {"refused": {"type": "E", "message": "m"}}):
        journal = ASKED, BOOKED, recorded("update_answered", "u-1", **answered)
        assert Run.replayed(order, None, *journal, allow_fault=True).divergence.key == "u-1"


# The validator.


def test_what_the_validator_raises_refuses_the_update_and_nothing_is_done() -> None:
    run = Run(order)
    run.update("set_address", {"street": "nowhere"})
    refused = answer(run)
    assert refused.refused
    assert (refused.failure.type, refused.failure.message) == ("ValueError", "no such street")  # type: ignore[union-attr]
    run.restart().update("set_address", {"street": "Lindenweg"}, id="u-2")
    assert isinstance(run.command, c.RunActivity)
    assert run.command.key == "u1.book-1", "one that was refused counts for no task"


def test_an_input_that_does_not_fit_is_refused() -> None:
    run = Run(order)
    run.update("set_address", {"city": 3})
    assert answer(run).refused
    assert answer(run).failure.type == "DecodeError"  # type: ignore[union-attr]
    run.signal("ship")
    assert run.result == "none"


def test_a_validator_may_change_under_runs_in_flight() -> None:
    """Whether an update was accepted stands in the journal: a replay asks no validator."""

    def flow_with(validator: Any) -> Any:
        @workflow(updates=[set_address])
        async def flow() -> None:
            async def change(address: Address) -> str:
                return await book(address.street)

            on_update(set_address, change, validator=validator)
            await wait_signal("ship")

        return flow

    def refuses(address: Address) -> None:
        raise ValueError("no")

    run = Run(flow_with(None))
    run.update("set_address", {"street": "Lindenweg"})
    assert Run.replayed(flow_with(refuses), None, *run.journal).open != ()
    run = Run(flow_with(refuses))
    run.update("set_address", {"street": "Lindenweg"})
    assert Run.replayed(flow_with(None), None, *run.journal).open == ()


@pytest.mark.parametrize(
    "what", ["start_child", "activity", "side_effect", "task", "signal", "coroutine", "uuid4"]
)
def test_a_validator_decides_nothing(what: str) -> None:
    async def nothing() -> None: ...

    def make_task() -> None:
        coroutine = nothing()
        try:
            asyncio.get_running_loop().create_task(coroutine)
        finally:
            coroutine.close()

    @workflow(updates=[plain])
    async def flow() -> None:
        ref = start_child(courier, "x", id="c")

        def validator(value: Any) -> Any:
            return {
                "start_child": lambda: start_child(courier, "y"),
                "activity": lambda: book("x"),
                "side_effect": lambda: side_effect(lambda: 1),
                "task": make_task,
                "signal": lambda: ref.signal("go"),
                "coroutine": lambda: nothing(),
                "uuid4": lambda: uuid4(),
            }[what]()

        async def handle(value: Any) -> None: ...

        on_update(plain, handle, validator=validator)
        await wait_signal("ship")

    run = Run(flow)
    run.update("plain", 1)
    assert answer(run).refused
    assert len(run.commands) == 1


@pytest.mark.parametrize("verdict", [True, False, "no such street"])
def test_what_a_validator_returns_is_no_verdict_and_refuses_loudly(verdict: object) -> None:
    @workflow(updates=[plain])
    async def flow() -> None:
        async def handle(value: Any) -> None: ...

        def validator(value: Any) -> Any:
            return verdict

        on_update(plain, handle, validator=validator)
        await wait_signal("ship")

    run = Run(flow)
    run.update("plain", 1)
    failure = answer(run).failure
    assert failure is not None
    assert answer(run).refused
    assert str(failure) == f"TypeError: a validator raises to refuse: it returned {verdict!r}"


@pytest.mark.parametrize("what", ["async", "no function"])
def test_what_cannot_be_a_validator_is_refused_when_it_is_named(what: str) -> None:
    async def waits(value: Any) -> None: ...

    @workflow(updates=[plain])
    async def flow() -> str:
        validator: Any = waits if what == "async" else "waits"
        try:
            on_update(plain, waits, validator=validator)
        except TypeError as error:
            return str(error)
        return ""

    assert str(Run(flow).result).startswith("the validator of update 'plain' is a plain function: got ")


def test_a_validator_sees_the_workflows_own_state_and_its_clock() -> None:
    @workflow(updates=[plain])
    async def flow() -> list[Any]:
        seen: list[Any] = []

        async def handle(value: Any) -> int:
            return len(seen)

        on_update(plain, handle, validator=lambda value: seen.append([value, now().second]))
        await wait_signal("ship")
        return seen

    run = Run(flow)
    run.replayable = False  # what a validator leaves behind is not repeated
    run.update("plain", "a")
    assert answer(run).result == b"1"


# Handlers.


@pytest.mark.parametrize("waits", [True, False])
def test_what_a_handler_raises_fails_the_update_and_not_the_run(waits: bool) -> None:
    @workflow(updates=[plain])
    async def flow() -> str:
        async def handle(value: Any) -> None:
            if waits:
                await asyncio.sleep(1)
            raise LookupError("no such thing")

        on_update(plain, handle)
        await wait_signal("ship")
        return "shipped"

    run = Run(flow)
    run.update("plain")
    if waits:
        run.fired("u1.timer-1")
    failed = answer(run)
    assert (failed.refused, failed.failure.type) == (False, "LookupError")  # type: ignore[union-attr]
    run.restart().signal("ship")
    assert run.result == "shipped"


def test_an_answer_that_does_not_fit_fails_the_update() -> None:
    @workflow(updates=[set_address])
    async def flow() -> None:
        async def change(address: Address) -> str:
            return 3  # type: ignore[return-value]

        on_update(set_address, change)
        await wait_signal("ship")

    run = Run(flow)
    run.update("set_address", {"street": "x"})
    assert answer(run).failure.type == "EncodeError"  # type: ignore[union-attr]


def test_several_updates_are_handled_side_by_side_under_keys_of_their_own() -> None:
    @workflow(updates=[plain])
    async def flow() -> list[str]:
        done: list[str] = []

        async def handle(street: str) -> str:
            both = await asyncio.gather(book(street), child(courier, street))
            done.append(f"{street} {both}")
            return street

        on_update(plain, handle)
        before = asyncio.create_task(book("main"))
        await wait_condition(lambda: len(done) == 2)
        await before
        return done

    run = Run(flow)
    run.update("plain", "a", id="u-a")
    keys_a = [command.key for command in run.commands]  # type: ignore[union-attr]
    assert keys_a == ["u1.book-1", "u1.courier-1"]
    run.restart().update("plain", "b", id="u-b")
    keys_b = [command.key for command in run.commands]  # type: ignore[union-attr]
    assert [key.replace("u1.", "u2.") for key in keys_a] == keys_b
    for keys in (keys_b, keys_a):
        for key in keys:
            if "book" in key:
                run.completed(key, "booked")
            else:
                run.child_completed(key, "went")
            run.restart()
    run.completed("book-1", "x")
    assert [line.split()[0] for line in run.result] == ["b", "a"]


def test_a_later_handler_takes_the_place_of_the_one_before() -> None:
    @workflow(updates=[plain])
    async def flow() -> None:
        async def one(value: Any) -> int:
            return 1

        async def two(value: Any) -> int:
            return 2

        on_update(plain, one)
        await wait_signal("next")
        on_update(plain, two)
        await wait_signal("ship")

    run = Run(flow)
    run.update("plain", id="a")
    assert answer(run).result == b"1"
    run.signal("next")
    run.restart().update("plain", id="b")
    assert answer(run).result == b"2"


def test_an_update_wakes_a_condition() -> None:
    @workflow(updates=[plain])
    async def flow() -> int:
        total = 0

        async def add(number: int) -> int:
            nonlocal total
            total += number
            return total

        on_update(plain, add)
        await wait_condition(lambda: total >= 10)
        return total

    run = Run(flow)
    run.update("plain", 4, id="a")
    run.restart().update("plain", 7, id="b")
    assert [found.result for found in answers(run)] == [b"11"]
    assert run.result == 11


# Early ones, unknown ones.


def test_early_updates_wait_for_their_handler_and_are_handled_in_order() -> None:
    @workflow(updates=[plain, set_address])
    async def flow() -> list[int]:
        seen: list[int] = []

        async def handle(value: int) -> int:
            seen.append(value)
            return len(seen)

        await wait_signal("open")
        on_update(plain, handle)
        await wait_signal("ship")
        return seen

    run = Run(flow)
    for number in (1, 2, 3):
        run.restart().update("plain", number, id=f"u-{number}")
        assert run.commands == ()
    run.restart().signal("open")
    assert answers(run) == [c.AnswerUpdate(f"u-{number}", b"%d" % number) for number in (1, 2, 3)]
    run.restart().signal("ship")
    assert run.result == [1, 2, 3]


def test_an_update_that_the_workflow_does_not_declare_is_refused_with_the_nearest_name() -> None:
    run = Run(order)
    run.update("set_adress", 1)
    failure = answer(run).failure
    assert answer(run).refused
    assert failure is not None
    assert failure.type == "UnknownMessage"
    assert "did you mean 'set_address'" in failure.message


def test_declaring_a_name_later_does_not_change_what_was_refused() -> None:
    @workflow(updates=[set_address, plain, Update("late")], name="order")
    async def newer() -> str:
        return await order.function()

    run = Run(order)
    run.update("late", 1)
    assert answer(run).refused
    assert Run.replayed(newer, None, *run.journal).turn.fault is None


def test_taking_a_name_away_leaves_what_waited_waiting() -> None:
    @workflow(updates=[])
    async def newer() -> None:
        await wait_signal("ship")

    @workflow(updates=[plain])
    async def older() -> None:
        await wait_signal("ship")

    run = Run(older)
    run.update("plain", 1)
    again = Run.replayed(newer, None, *run.journal)
    again.replayable = False
    assert again.turn.fault is None


def test_on_update_refuses_what_is_not_declared_and_what_cannot_handle() -> None:
    def sync(value: Any) -> None: ...

    async def handle(value: Any) -> None: ...

    @workflow(updates=[plain])
    async def flow() -> list[str]:
        problems: list[str] = []
        for update, handler in ((set_address, handle), (plain, sync), ("plain", handle)):
            try:
                on_update(update, handler)  # type: ignore[arg-type]
            except (WorkflowMisuse, TypeError) as error:
                problems.append(str(error))
        return problems

    undeclared, not_async, no_update = Run(flow).result
    assert "declares no update 'set_address'" in undeclared
    assert "declare it" in undeclared
    assert "async def" in not_async
    assert "takes an Update first" in no_update


# Ends of a generation and of a run.


@workflow(updates=[plain])
async def rounds(round: int) -> str:
    if round == 1:
        await wait_signal("open")

    async def handle(value: Any) -> str:
        if value == "slow":
            await book("slow")
        return f"round {round}"

    if round == 2:
        on_update(plain, handle)
    await wait_signal("next")
    if round < 3:
        continue_as_new(round + 1)
    return "done"


def test_updates_without_a_handler_are_carried_over_in_the_order_they_came() -> None:
    run = Run(rounds, 1)
    run.update("plain", "quick", id="a")
    run.signal("other", 1)
    run.update("plain", "slow", id="b")
    run.signal("open")
    run.restart().signal("next")
    assert isinstance(run.closing, c.ContinueRun)
    assert [message.name for message in run.closing.unread] == ["plain", "other", "plain"]
    second = run.next_generation()
    assert answers(second) == [c.AnswerUpdate("a", b'"round 2"')]
    second.restart().completed("u2.book-1", "x")
    assert answers(second) == [c.AnswerUpdate("b", b'"round 2"')]


def test_an_update_in_progress_is_answered_when_the_run_continues_as_new() -> None:
    run = Run(rounds, 2)
    run.update("plain", "slow", id="a")
    run.restart().signal("next")
    failed = answer(run)
    assert (failed.update_id, failed.refused, failed.failure.type) == ("a", False, "RunContinued")  # type: ignore[union-attr]
    assert isinstance(run.closing, c.ContinueRun)
    assert run.closing.unread == ()


def test_an_answer_missing_at_a_continuation_diverges_on_replay() -> None:
    run = Run(rounds, 2)
    run.update("plain", "slow", id="a")
    run.signal("next")
    run.replayable = False
    assert [entry.type for entry in run.journal] == ["update_requested", "signal_received", "update_answered"]
    assert Run.replayed(rounds, 2, *run.journal[:-1], allow_fault=True).divergence.key == "a"


def test_what_was_carried_over_and_is_no_longer_declared_is_refused() -> None:
    carried = [e.UpdateRequested(START_US, "gone", b"1", "u-1"), e.UpdateRequested(START_US, "plain", b"2", "u-2")]
    run = Run(rounds, 1, generation=2, carried=carried)  # type: ignore[arg-type]
    assert [(found.update_id, found.refused) for found in answers(run)] == [("u-1", True)]
    run.restart().signal("open")


def test_a_run_that_ends_answers_nothing_more() -> None:
    run = Run(order)
    run.update("set_address", {"street": "Lindenweg"})
    run.signal("ship")
    assert [type(command) for command in run.commands] == [c.CompleteRun]
    cancelled = Run(order)
    cancelled.update("set_address", {"street": "Lindenweg"})
    cancelled.cancel()
    assert [type(command) for command in cancelled.commands] == [c.CancelRun]


def test_a_machine_that_is_let_go_answers_nothing() -> None:
    told: list[str] = []

    @workflow(updates=[plain])
    async def flow() -> None:
        async def handle(value: Any) -> None:
            try:
                await book("x")
            except BaseException as error:
                told.append(type(error).__name__)
                raise ValueError("in clean-up") from None

        on_update(plain, handle)
        await wait_signal("ship")

    run = Run(flow)
    run.replayable = False
    run.update("plain")
    before = list(run.machine.decisions.commands)
    run.machine.discard()
    assert told == ["GeneratorExit"]
    assert run.machine.decisions.commands == before


# What it comes to.


def test_an_answer_is_an_entry_and_goes_to_who_asked() -> None:
    run = Run(order)
    run.update("set_address", {"street": "Lindenweg"})
    turn = run.completed("u1.book-1", "ok")
    event = e.ActivityCompleted(START_US, "u1.book-1", "book", b'{"street":"Lindenweg"}', b'"ok"')
    found = effects(run.context, event, turn)
    assert [(entry.type, entry.key) for entry in found.entries] == [
        ("activity_completed", "u1.book-1"),
        ("update_answered", "u-1"),
    ]
    assert found.answers == (Answer("u-1", b'{"result":"ok in Berlin"}'),)


def test_an_update_is_read_back_from_what_the_inbox_holds() -> None:
    entry = Entry("update_requested", "set_address", 7, json.dumps({"id": "u", "input": {"a": 1}}).encode())
    assert event_of_entry(entry) == e.UpdateRequested(7, "set_address", b'{"a":1}', "u")


def test_a_recorded_input_that_no_longer_fits_is_a_fault() -> None:
    asked = recorded("update_requested", "set_address", id="u-1", input={"street": 3})
    run = Run.replayed(order, None, asked, allow_fault=True)
    assert isinstance(run.fault, Undecodable)
