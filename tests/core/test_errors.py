"""Errors on their way: from an activity through a child to its parent, with types, texts and causes."""

import asyncio
import json
from typing import Any

import pytest
from tests.core.harness import Run

from continuum import ActivityFailed, ChildFailed, ChildTimedOut, Failure, activity, child, workflow
from continuum._core.commands import FailRun
from continuum._core.failure import MAX_CHAIN, MAX_PARTS, MAX_TEXT, capture, decode_failure, encode_failure


class CardDeclined(Exception):
    pass


@activity
async def charge(order_id: str) -> str:
    return order_id


@workflow
async def pay() -> str:
    return await charge("o1")


@workflow
async def order() -> str:
    return await child(pay)


def declined() -> CardDeclined:
    try:
        try:
            {}["card"]
        except KeyError as error:
            raise CardDeclined("no money") from error
    except CardDeclined as error:
        return error
    raise AssertionError


def types(failure: Failure) -> list[str]:
    return [link.type for link in failure.chain()]


def test_a_cause_chain_survives_from_an_activity_through_a_child_to_its_parent() -> None:
    """CH03: a child's failure carries type, message, traceback and cause chain of the original."""
    below = Run(pay)
    below.failed("charge-1", declined())
    assert types(below.failure) == ["ActivityFailed", "CardDeclined", "KeyError"]
    above = Run(order)
    above.child_failed("pay-1", decode_failure(encode_failure(below.failure)))
    assert types(above.failure) == ["ChildFailed", "ActivityFailed", "CardDeclined", "KeyError"]
    *_, original, first = above.failure.chain()
    assert (original.message, first.message) == ("no money", "'card'")
    assert "test_errors.py" in original.traceback


def test_the_raised_error_has_the_chain_as_python_causes() -> None:
    caught: list[ChildFailed] = []

    @workflow
    async def flow() -> None:
        try:
            await child(pay)
        except ChildFailed as error:
            caught.append(error)

    failure = Failure("ActivityFailed", "outer", cause=Failure("CardDeclined", "no money"))
    run = Run(flow)
    run.child_failed("pay-1", failure)
    error = caught[0]
    assert (error.child_run_id, error.workflow, error.type) == ("run-1/pay-1", "pay", "ActivityFailed")
    assert error.root_cause == Failure("CardDeclined", "no money")
    causes, link = [], error.__cause__
    while link is not None:
        causes.append(str(link))
        link = link.__cause__
    assert causes == ["ActivityFailed: outer", "CardDeclined: no money"]


def test_an_error_raised_from_a_failed_activity_keeps_it_as_its_cause() -> None:
    @workflow
    async def flow() -> None:
        try:
            await charge("o1")
        except ActivityFailed as error:
            raise LookupError("order lost") from error

    run = Run(flow)
    run.failed("charge-1", declined())
    assert types(run.failure) == ["LookupError", "ActivityFailed", "CardDeclined", "KeyError"]


def test_an_error_while_handling_another_names_it() -> None:
    @workflow
    async def flow() -> None:
        try:
            await charge("o1")
        except ActivityFailed:
            raise LookupError("order lost")

    @workflow
    async def hidden() -> None:
        try:
            await charge("o1")
        except ActivityFailed:
            raise LookupError("order lost") from None

    run, other = Run(flow), Run(hidden)
    run.failed("charge-1", ValueError("no"))
    other.failed("charge-1", ValueError("no"))
    assert types(run.failure) == ["LookupError", "ActivityFailed", "ValueError"]
    assert types(other.failure) == ["LookupError"]


def test_the_parts_of_an_exception_group_survive() -> None:
    @workflow
    async def flow() -> None:
        async def fail(kind: type[Exception]) -> None:
            raise kind("no")

        async with asyncio.TaskGroup() as group:
            group.create_task(fail(ValueError))
            group.create_task(fail(LookupError))

    failure = decode_failure(encode_failure(Run(flow).failure))
    assert failure.type == "ExceptionGroup"
    assert [(part.type, part.message) for part in failure.parts] == [("ValueError", "no"), ("LookupError", "no")]


def test_a_child_out_of_time_is_a_timeout_and_one_whose_activity_was_is_not() -> None:
    """CH34: ``ChildTimedOut`` says that the child's own timeout passed."""

    @workflow
    async def flow() -> str:
        try:
            await child(pay)
        except ChildFailed as error:
            return type(error).__name__
        return ""

    below = Run(pay)
    below.failed("charge-1", Failure("TimeoutError", "start_to_close passed", timed_out=True))
    above = Run(flow)
    above.child_failed("pay-1", decode_failure(encode_failure(below.failure)))
    assert above.result == ChildFailed.__name__
    timed_out = Run(flow)
    timed_out.child_failed("pay-1", Failure("TimeoutError", "the child's timeout passed", timed_out=True))
    assert timed_out.result == ChildTimedOut.__name__


# What ends a run.


@pytest.mark.parametrize("where", ["main", "task", "callback"])
def test_system_exit_fails_the_run_and_nothing_more(where: str) -> None:
    @workflow
    async def flow() -> str:
        async def leave() -> None:
            raise SystemExit(3)

        def leave_at_once() -> None:
            raise SystemExit(3)

        if where == "main":
            raise SystemExit(3)
        if where == "callback":
            asyncio.get_running_loop().call_soon(leave_at_once)
            return await charge("o1")
        return await asyncio.gather(leave(), charge("o1"))

    run = Run(flow)
    assert (run.failure.type, run.failure.message) == ("SystemExit", "3")


def test_an_unencodable_result_is_a_failure_and_no_loop() -> None:
    """CR15: an unencodable result becomes a terminal failure."""

    @workflow
    async def flow() -> dict[str, list[float]]:
        return {"rates": [1.0, float("nan")]}

    failure = Run(flow).failure
    assert failure.type == "EncodeError"
    assert "result of workflow 'flow' at rates[1]" in failure.message


def test_a_result_of_another_type_is_a_failure() -> None:
    @workflow
    async def flow() -> int:
        return "one"  # type: ignore[return-value]

    failure = Run(flow).failure
    assert failure.type == "EncodeError"
    assert "result of workflow 'flow'" in failure.message


def test_an_error_whose_text_cannot_be_made_fails_the_run_all_the_same() -> None:
    class Broken(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no text")

    @workflow
    async def flow() -> None:
        raise Broken

    failure = Run(flow).failure
    assert failure.type == "Broken"
    assert "Broken" in failure.message


@pytest.mark.parametrize(
    ("text", "kept"), [("a\0b", "a\\0b"), ("x\ud800y", "x\\ud800y"), ("täglich\n", "täglich\n")]
)
def test_what_postgres_cannot_store_is_escaped_in_an_error(text: str, kept: str) -> None:
    """AC08: unencodable errors are sanitised."""

    @workflow
    async def flow() -> None:
        raise ValueError(text)

    failure = decode_failure(encode_failure(Run(flow).failure))
    assert failure.message == kept


def test_a_long_text_a_long_chain_and_a_big_group_are_bounded() -> None:
    """AC08: oversized errors are cut."""
    error = ValueError("x" * 100_000)
    for _ in range(50):
        outer = ValueError("next")
        outer.__cause__ = error
        error = outer
    group = ExceptionGroup("many", [ValueError(str(number)) for number in range(1000)])
    assert len(list(capture(error).chain())) == MAX_CHAIN + 1
    assert len(capture(group).parts) == MAX_PARTS
    text = capture(ValueError("x" * 100_000)).message
    assert len(text) < MAX_TEXT + 100
    assert "characters left out" in text


def test_a_chain_that_bites_its_tail_ends() -> None:
    first, second = ValueError("first"), ValueError("second")
    first.__cause__, second.__cause__ = second, first
    assert [link.message for link in capture(first).chain()] == ["first", "second"]


@pytest.mark.parametrize("plain", [None, 5, "text", [], {}, {"type": None}, {"cause": 3}, {"parts": 7}])
def test_a_failure_written_by_others_is_read_as_well_as_it_can_be(plain: Any) -> None:
    assert isinstance(decode_failure(json.dumps(plain).encode()), Failure)


def test_a_failed_run_says_where_in_the_authors_code() -> None:
    @workflow
    async def flow() -> None:
        raise CardDeclined("no money")

    closing = Run(flow).closing
    assert isinstance(closing, FailRun)
    assert 'raise CardDeclined("no money")' in closing.failure.traceback
