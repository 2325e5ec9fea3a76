"""What a parent must not ask of children: one clear error in the parent, and nothing of it written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from continuum import (
    ChildDepthExceeded,
    ChildRef,
    DefinitionError,
    DuplicateChildId,
    EncodeError,
    InvalidId,
    WorkflowMisuse,
    child,
    continue_as_new,
    start_child,
    wait_signal,
    workflow,
)
from tests.conformance.cluster import FORGETFUL, Cluster, failing


@dataclass(frozen=True)
class Order:
    id: str
    cents: int


@workflow
async def idle() -> None:
    await wait_signal("never")


@workflow
async def order_flow(order: Order) -> str:
    return order.id


@workflow
async def plain(n: int) -> int:
    return n


WRONG: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "an empty id": (lambda: start_child(idle, id=""), InvalidId, "child id must not be empty"),
    "a blank id": (lambda: start_child(idle, id="  "), InvalidId, "child id must not be blank"),
    "an id with a slash": (lambda: start_child(idle, id="a/b"), InvalidId, "must not hold '/'"),
    "an id with a line end": (lambda: start_child(idle, id="a\n"), InvalidId, "must not hold '\\n'"),
    "an id of 81 bytes": (lambda: start_child(idle, id="x" * 81), InvalidId, "longer than 80 bytes"),
    "an id that is a number": (lambda: start_child(idle, id=7), TypeError, "a child id is a str: got 7"),  # type: ignore[call-overload]
    "an input of another type": (
        lambda: start_child(order_flow, {"id": 3}),  # type: ignore[call-overload]
        EncodeError,
        "input of workflow 'order_flow'",
    ),
    "a text for a number": (lambda: start_child(plain, "three"), EncodeError, "input of workflow 'plain'"),  # type: ignore[call-overload]
    "no input": (lambda: start_child(order_flow), EncodeError, "input of workflow 'order_flow'"),  # type: ignore[call-overload]
    "a function": (lambda: start_child(len, 1), DefinitionError, "takes a workflow's definition"),  # type: ignore[call-overload]
    "attributes that are none": (
        lambda: start_child(idle, attributes="blue"),  # type: ignore[call-overload]
        TypeError,
        "attributes is a mapping",
    ),
    "attributes that are no JSON": (
        lambda: start_child(idle, attributes={"a": object()}),
        EncodeError,
        "attributes",
    ),
    "an option that is none": (lambda: start_child(idle, atributes={}), TypeError, "did you mean 'attributes'"),  # type: ignore[call-overload]
}
CALLED = {
    "a ref of another run": ("q/kid", "was not started by run 'p'"),
    "a ref of a run never started": ("p/kid", "was never started"),
    "a ref of a root": ("q", "was not started by run 'p'"),
}


async def expect_nothing_written(cluster: Cluster) -> None:
    """See that the parent has neither a child nor an entry."""
    assert await cluster.client.list_children("p") == []
    assert await cluster.entries("p") == []


async def test_a_child_that_cannot_be_is_one_error_and_nothing_is_written(cluster: Cluster) -> None:
    """CH25 a child that cannot be started is one clear error in its parent, and nothing is half-written."""

    @workflow
    async def parent() -> dict[str, list[str]]:
        said: dict[str, list[str]] = {}
        for what, (ask, kind, _) in WRONG.items():
            try:
                ask()
            except kind as error:
                said[what] = [type(error).__name__, str(error)]
        return said

    async with cluster.worker([parent, order_flow, plain]):
        said = await cluster.result(parent, id="p")
        await expect_nothing_written(cluster)
    assert said.keys() == WRONG.keys()
    for what, (_, kind, words) in WRONG.items():
        assert said[what][0] == kind.__name__, what
        assert words in said[what][1], what


async def test_not_caught_it_fails_the_parent_and_what_was_right_stays(cluster: Cluster) -> None:
    """CH25 so does one that the parent does not catch: it fails with that error."""

    @workflow
    async def parent() -> None:
        start_child(plain, 1, id="good")
        await child(idle, id="a/b")

    async with cluster.worker([parent, plain]):
        error = await failing(await cluster.start(parent, id="p"))
    assert (error.type, "must not hold '/'" in error.message) == ("InvalidId", True)
    assert [key for _, key in await cluster.entries("p")] == ["good"]
    assert [found.id for found in await cluster.client.tree("p")] == ["p", "p/good"]


async def test_a_ref_that_is_not_this_runs_is_refused(cluster: Cluster) -> None:
    """CH25 so is whatever is asked of a ref of another run, or of one that was never started."""

    @workflow
    async def parent() -> list[list[str]]:
        said: list[list[str]] = []
        for run_id, _ in CALLED.values():
            ref: ChildRef[Any] = ChildRef(run_id)
            for ask in (ref.cancel, lambda ref=ref: ref.signal("go"), ref.done):
                try:
                    ask()
                except WorkflowMisuse as error:
                    said.append([run_id, str(error)])
            try:
                await ref
            except WorkflowMisuse as error:
                said.append([run_id, str(error)])
        return said

    async with cluster.worker([parent]):
        said = await cluster.result(parent, id="p")
        await expect_nothing_written(cluster)
    assert [run_id for run_id, _ in said] == [run_id for run_id, _ in CALLED.values() for _ in range(4)]
    words = dict(CALLED.values())
    assert all(words[run_id] in message for run_id, message in said)


async def test_the_same_key_with_another_input_is_refused_and_the_first_child_stays(cluster: Cluster) -> None:
    """CH25 same key, same child; another one is DuplicateChildId."""

    @workflow
    async def parent() -> list[Any]:
        first = start_child(plain, 1, id="kid")
        assert start_child(plain, 1, id="kid") == first
        try:
            start_child(plain, 2, id="kid")
        except DuplicateChildId as error:
            return [str(error), await first]
        raise AssertionError("it was started")

    async with cluster.worker([parent, plain]):
        message, value = await cluster.result(parent, id="p")
    assert "child 'p/kid' is already started" in message
    assert value == 1
    assert [found.id for found in await cluster.client.tree("p")] == ["p", "p/kid"]


async def test_a_recursion_without_end_ends_at_the_allowed_depth(cluster: Cluster) -> None:
    """CH08 a start below the allowed depth raises in the parent: at 10 by default, and each level says why."""

    @workflow
    async def again(n: int) -> int:
        return await child(again, n + 1)

    async with cluster.worker([again]):
        error = await failing(await cluster.start(again, 0, id="p"))
    assert error.root_cause.type == ChildDepthExceeded.__name__
    assert "would lie 11 below its root; max_child_depth is 10" in error.root_cause.message
    tree = await cluster.client.tree("p")
    assert [found.depth for found in tree] == list(range(11))
    assert {found.state for found in tree} == {"failed"}
    assert [kind for kind, _ in await cluster.entries(tree[-1].id)] == ["child_refused"]


@pytest.mark.parametrize("how", ["keyword", "variable"])
async def test_the_allowed_depth_is_a_keyword_and_a_variable(
    cluster: Cluster, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CH09 the depth is a setting."""

    @workflow
    async def again(n: int) -> int:
        return await child(again, n + 1)

    settings: dict[str, Any] = {}
    if how == "keyword":
        settings = {"max_child_depth": 2}
    else:
        monkeypatch.setenv("CONTINUUM_MAX_CHILD_DEPTH", "2")
    async with cluster.worker([again], **settings):
        error = await failing(await cluster.start(again, 0, id="p"))
    assert "would lie 3 below its root; max_child_depth is 2" in error.root_cause.message
    assert len(await cluster.client.tree("p")) == 3


async def test_in_a_later_generation_a_ref_never_started_is_waited_for_visibly(cluster: Cluster) -> None:
    """CH23 a later generation cannot know what earlier ones started: the run says whom it waits for."""

    @workflow
    async def parent(n: int) -> None:
        if n == 0:
            continue_as_new(1)
        ref: ChildRef[Any] = ChildRef("p/kid")
        await ref

    async with cluster.worker([parent], **FORGETFUL):
        await cluster.start(parent, 0, id="p")
        found = await cluster.until_waiting("p", "kid")
    assert found.state in ("running", "suspended")
