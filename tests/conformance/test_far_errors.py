"""Errors that come from far below: readable at each level above, in Python and for people."""

from __future__ import annotations

import asyncio
import contextlib
import io
import traceback
from typing import Any

import pytest

from continuum import (
    ChildFailed,
    RemoteError,
    activity,
    child,
    workflow,
)
from continuum.cli import main
from tests.conformance.cluster import FORGETFUL, Cluster, failing

BOTH = pytest.mark.parametrize("settings", [{}, FORGETFUL], ids=["resident", "forgetful"])


def look_up(shelf: dict[str, int], name: str) -> int:
    return shelf[name]


@activity
async def price(name: str) -> int:
    try:
        return look_up({}, name)
    except KeyError as error:
        raise ValueError(f"no price for {name}") from error


@workflow
async def grandchild(name: str) -> int:
    return await price(name)


@workflow
async def middle(name: str) -> int:
    return await child(grandchild, name, id="low")


@workflow
async def top(name: str) -> int:
    return await child(middle, name, id="mid")


@workflow
async def looks(name: str) -> list[str]:
    """Says what its code sees of the error, cause by cause."""
    try:
        await child(middle, name, id="mid")
    except ChildFailed as error:
        return described(error)
    raise AssertionError("it did not fail")


def described(error: BaseException | None) -> list[str]:
    """Return class, recorded type and message of an error and its causes."""
    found: list[str] = []
    while error is not None:
        found.append(f"{type(error).__name__} {getattr(error, 'type', '')}: {getattr(error, 'message', error)}")
        error = error.__cause__
    return found


ACTIVITY = "ActivityFailed: activity 'price' failed: ValueError: no price for pear"
LOW = f"ChildFailed: child 'p/mid/low' (grandchild) failed: {ACTIVITY}"
MID = f"ChildFailed: child 'p/mid' (middle) failed because of one below it: {ACTIVITY}"
ROOTS = ["RemoteError ValueError: no price for pear", "RemoteError KeyError: 'pear'"]


@BOTH
async def test_an_error_from_three_levels_below_is_readable_at_each(
    cluster: Cluster, settings: dict[str, Any]
) -> None:
    """CH03 a child's failure is raised with type, message, traceback and causes, over three edges."""
    async with cluster.worker([top, middle, grandchild, price], **settings):
        run = await cluster.start(top, "pear", id="p")
        error = await failing(run)
    recorded = [f"RemoteError {text}" for text in (MID, LOW, ACTIVITY)]
    assert described(error) == [f"RunFailed {MID}", *recorded, *ROOTS]
    assert (error.type, error.root_cause.type, error.root_cause.message) == ("ChildFailed", "KeyError", "'pear'")
    causes = list(error.failure.chain())
    assert "in look_up" in causes[-1].traceback
    assert "in price" in causes[-2].traceback
    printed = "".join(traceback.format_exception(error))
    for words in ("KeyError: 'pear'", "ValueError: no price for pear", "ActivityFailed: ", "in look_up"):
        assert words in printed, words


@BOTH
async def test_the_code_above_sees_each_cause(cluster: Cluster, settings: dict[str, Any]) -> None:
    """CH03 in the parent each cause is the ``__cause__`` of the one before."""
    async with cluster.worker([looks, middle, grandchild, price], **settings):
        seen = await cluster.result(looks, "pear", id="p")
    assert seen == [f"ChildFailed {LOW}", f"RemoteError {LOW}", f"RemoteError {ACTIVITY}", *ROOTS]


@activity
async def fails(name: str) -> None:
    raise ValueError(f"{name} is bad")


@workflow
async def grouped() -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(fails("pear"))
        group.create_task(fails("plum"))
        await asyncio.sleep(30)


@workflow
async def above() -> list[Any]:
    try:
        await child(grouped, id="kid")
    except ChildFailed as error:
        return [error.type, [part.message for part in error.failure.parts]]
    raise AssertionError("it did not fail")


@workflow
async def over() -> None:
    await child(grouped, id="kid")


@BOTH
async def test_a_group_of_errors_keeps_its_members(cluster: Cluster, settings: dict[str, Any]) -> None:
    """CH03 an ``ExceptionGroup`` of a child's ``TaskGroup`` arrives with its members."""
    async with cluster.worker([above, over, grouped, fails], **settings):
        kind, members = await cluster.result(above)
        error = await failing(await cluster.start(over, id="p"))
    assert kind == "ExceptionGroup"
    assert members
    assert all("ActivityFailed" in member or "is bad" in member for member in members)
    cause = error.__cause__
    assert isinstance(cause, (RemoteError, BaseExceptionGroup))
    printed = "".join(traceback.format_exception(error))
    assert "ValueError: pear is bad" in printed


async def test_people_read_the_whole_chain_in_the_shell(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """CH03 ``runs show`` and ``runs tree`` tell of it as Python does."""
    monkeypatch.delenv("COLUMNS", raising=False)
    async with cluster.worker([top, middle, grandchild, price, over, grouped, fails]):
        await failing(await cluster.start(top, "pear", id="p"))
        await failing(await cluster.start(over, id="g"))
    shown = await printed_by(cluster, "show", "p")
    lines = [line.strip() for line in shown.splitlines()]
    at = lines.index("error:")
    assert lines[at + 1 : at + 6] == [
        MID,
        f"caused by {LOW}",
        f"caused by {ACTIVITY}",
        "caused by ValueError: no price for pear",
        "caused by KeyError: 'pear'",
    ]
    assert lines.count("traceback of KeyError: 'pear'") == 1
    assert any(line.endswith("in look_up") for line in lines)
    below = (await printed_by(cluster, "tree", "p")).splitlines()
    assert all("  ValueError: no price for pear (" in line for line in below), below
    assert "child 'p/mid' (middle) failed" in below[0]
    group = await printed_by(cluster, "show", "g")
    assert "member of the group:" in group
    assert "ValueError: pear is bad" in group


async def printed_by(cluster: Cluster, *arguments: str) -> str:
    """Return what ``continuum runs`` prints."""
    url = cluster.url

    def run() -> str:
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            assert main(["runs", *arguments, "--url", url]) == 0
        return printed.getvalue()

    return await asyncio.to_thread(run)
