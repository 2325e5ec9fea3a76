"""Functions for authors, called where they cannot work: outside, in another thread, on the wrong thing."""

import threading
from collections.abc import Callable
from typing import Any

import pytest
from tests.core.harness import Run

import continuum
from continuum import ChildRef, DefinitionError, WorkflowMisuse, activity, child, start_child, workflow


@activity
async def charge(order_id: str) -> str:
    return order_id


@workflow
async def ship(order_id: str) -> str:
    return order_id


async def never_called(value: Any) -> None: ...


def send(coroutine: Any) -> None:
    try:
        coroutine.send(None)
    finally:
        coroutine.close()


CALLS: dict[str, Callable[[], Any]] = {
    "now": continuum.now,
    "random": continuum.random,
    "uuid4": continuum.uuid4,
    "side_effect": lambda: continuum.side_effect(lambda: 1),
    "patched": lambda: continuum.patched("p"),
    "set_state": lambda: continuum.set_state(1),
    "on_update": lambda: continuum.on_update(continuum.Update("u"), never_called),
    "continue_as_new": lambda: continuum.continue_as_new(1),
    "wait_condition": lambda: send(continuum.wait_condition(lambda: True)),
    "wait_signal": lambda: send(continuum.wait_signal("go")),
    "start_child": lambda: start_child(ship, "o1"),
    "child": lambda: child(ship, "o1"),
    "await_children": lambda: send(continuum.await_children([])),
    "as_completed": lambda: continuum.as_completed([]),
    "map_children": lambda: continuum.map_children(ship, []),
    "run_info": continuum.run_info,
    "parent": continuum.parent,
    "ParentRef.signal": lambda: continuum.ParentRef("r").signal("go"),
    "await ref": lambda: send(continuum.await_child(ChildRef("r/x"))),
    "ChildRef.signal": lambda: ChildRef("r/x").signal("go"),
    "ChildRef.cancel": lambda: ChildRef("r/x").cancel(),
    "ChildRef.done": lambda: ChildRef("r/x").done(),
    "ChildRef.result": lambda: ChildRef("r/x").result(),
}


def names(name: str, error: WorkflowMisuse) -> bool:
    return f"{name}() works only while a workflow's code runs" in str(error)


@pytest.mark.parametrize("name", CALLS)
def test_outside_a_workflow_it_is_refused_by_name(name: str) -> None:
    with pytest.raises(WorkflowMisuse) as caught:
        CALLS[name]()
    assert isinstance(caught.value, RuntimeError)
    assert names(name, caught.value)
    assert "client" in str(caught.value)


def test_all_functions_for_authors_are_tried_here() -> None:
    tried = {name for name in CALLS if name in continuum.__all__} | {"await_child"}
    functions = {name for name in continuum.__all__ if name.islower() and callable(getattr(continuum, name))}
    assert functions - tried == {
        "workflow",
        "activity",
        "deterministic",
        "connect",
        "connect_sync",
        "activity_info",
    }


@pytest.mark.parametrize("name", ["now", "start_child", "side_effect", "ChildRef.cancel"])
def test_from_another_thread_it_is_refused_while_a_turn_runs(name: str) -> None:
    def in_a_thread() -> str:
        told: list[str] = []

        def call() -> None:
            try:
                CALLS[name]()
            except WorkflowMisuse as error:
                told.append(str(error))

        thread = threading.Thread(target=call)
        thread.start()
        thread.join()
        return told[0]

    @workflow
    async def flow() -> str:
        return continuum.side_effect(in_a_thread)

    message = Run(flow).result
    assert message.startswith(f"{name}() works only while")
    assert "another thread" in message


def test_a_workflow_called_inside_a_workflow_is_refused_with_both_ways_out() -> None:
    @workflow
    async def flow() -> str:
        return await ship("o1")

    failure = Run(flow).failure
    assert failure.type == "WorkflowMisuse"
    assert "'ship'" in failure.message
    assert "child(ship, …)" in failure.message
    assert "ship.function(…)" in failure.message


def test_the_plain_function_of_a_workflow_runs_in_the_callers_run() -> None:
    @workflow
    async def flow() -> str:
        return await ship.function("o1")

    assert Run(flow).result == "o1"


async def plain(order_id: str) -> str:
    return order_id


@pytest.mark.parametrize(
    "thing", [plain, charge, "ship", None, 3], ids=["function", "activity", "name", "None", "int"]
)
@pytest.mark.parametrize("start", [child, start_child])
def test_what_is_no_workflow_is_no_child(start: Any, thing: Any) -> None:
    @workflow
    async def flow() -> str:
        try:
            start(thing, "o1")
        except DefinitionError as error:
            return str(error)
        return ""

    message = Run(flow).result
    assert message.startswith(f"{start.__name__}() takes a workflow's definition")
    assert repr(thing) in message
    assert "@workflow" in message


@pytest.mark.parametrize(
    ("use", "words"),
    [
        (lambda ref: continuum.await_children([1, 2]), "what await_children() waits for is a ref of a child"),
        (
            lambda ref: continuum.await_children(ref),
            "await_children() takes an iterable of refs of children: got <child",
        ),
        (
            lambda ref: continuum.await_children(None),
            "await_children() takes an iterable of refs of children: got None",
        ),
        (lambda ref: continuum.await_child(None), "what await_child() waits for is a ref of a child"),
        (
            lambda ref: anext(continuum.as_completed([ref, "x"])),
            "what as_completed() waits for is a ref of a child",
        ),
    ],
    ids=["numbers", "a ref", "nothing", "no ref", "a text"],
)
def test_what_is_no_ref_of_a_child_is_not_waited_for(use: Callable[[Any], Any], words: str) -> None:
    @workflow
    async def flow() -> str:
        try:
            await use(start_child(ship, "o1", id="p"))
        except TypeError as error:
            return str(error)
        return "waited"

    assert words in Run(flow).result


@pytest.mark.parametrize("id", ["run-2/ship-1", "run-1", "run-1/ship-1/x", "run-1/", "run-10/ship-1"])
def test_a_ref_of_another_run_is_refused(id: str) -> None:
    @workflow
    async def flow() -> str:
        return await ChildRef[str](id)

    failure = Run(flow).failure
    assert failure.type == "WorkflowMisuse"
    assert repr(id) in failure.message
    assert "'run-1'" in failure.message


@pytest.mark.parametrize(
    "use",
    [
        lambda ref: ref.signal("go"),
        lambda ref: ref.cancel(),
        lambda ref: ref.done(),
        lambda ref: continuum.as_completed([ref]),
        lambda ref: ref.add_done_callback(print),
    ],
    ids=["signal", "cancel", "done", "as_completed", "callback"],
)
def test_a_ref_that_was_never_started_is_refused(use: Callable[[ChildRef[str]], object]) -> None:
    @workflow
    async def flow() -> None:
        use(ChildRef("run-1/never"))

    failure = Run(flow).failure
    assert failure.type == "WorkflowMisuse"
    assert "'run-1/never'" in failure.message
    assert "start_child" in failure.message


@pytest.mark.parametrize("name", ["", "a\0b", "\ud800", 5], ids=["empty", "NUL", "surrogate", "int"])
def test_a_signal_to_a_child_has_a_name_that_can_be_read_and_stored(name: Any) -> None:
    @workflow
    async def flow() -> None:
        start_child(ship, "o1", id="x").signal(name)

    assert Run(flow).failure.type in ("TypeError", "InvalidId", "ValueError")


def test_a_cancel_reason_that_an_entry_cannot_hold_is_refused() -> None:
    @workflow
    async def flow() -> None:
        start_child(ship, "o1", id="x").cancel("\ud800")

    assert Run(flow).closing is not None


def test_from_a_bare_callback_it_is_refused() -> None:
    @workflow
    async def flow() -> list[str]:
        import asyncio

        told: list[str] = []

        def callback() -> None:
            try:
                start_child(ship, "o1")
            except WorkflowMisuse as error:
                told.append(str(error))

        asyncio.get_running_loop().call_soon(callback)
        await asyncio.sleep(0)
        return told

    assert "bare callback" in Run(flow).result[0]
