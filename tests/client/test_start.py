"""Starting runs: refused before anything is written, or durable; the same twice is once."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from continuum import (
    Client,
    DefinitionError,
    EncodeError,
    InvalidId,
    RunAlreadyExists,
    RunNotFound,
    UnknownWorkflow,
    workflow,
)
from continuum._asked import new_run_id
from continuum._journal.commit import Announcement
from continuum._journal.journal import PostgresJournal
from tests.client.flows import Order, Receipt, audit_flow, complete, order_flow
from tests.journal.harness import select


async def test_a_started_run_is_a_row_with_its_input(client: Client, database: str) -> None:
    run = await client.start(order_flow, Order("o1"), id="order-1", namespace="shop", priority=7)
    assert run.id == "order-1"
    found = select(
        database, "select workflow, version, input::text, namespace, priority, state from continuum.runs"
    )
    assert found == [("order_flow", 1, '{"id":"o1","cents":100}', "shop", 7, "pending")]


async def test_a_run_without_an_id_gets_one_that_sorts_behind_older_ones(client: Client) -> None:
    run = await client.start(audit_flow)
    assert uuid.UUID(run.id).version == 7
    ids = [new_run_id() for _ in range(2_000)]
    assert len(set(ids)) == len(ids)
    stamps = [run_id[:13] for run_id in ids]
    assert stamps == sorted(stamps)
    assert {uuid.UUID(run_id).variant for run_id in ids} == {uuid.RFC_4122}


async def test_an_input_that_does_not_fit_is_refused_and_nothing_is_written(client: Client, database: str) -> None:
    for flow, wrong in ((order_flow, "o1"), (order_flow, Order("o\0")), (audit_flow, 3), (order_flow, None)):
        with pytest.raises(EncodeError):
            await client.start(flow, wrong, id="x")  # type: ignore[call-overload]
    assert select(database, "select run_id from continuum.runs") == []


@pytest.mark.parametrize("bad", ["", "  ", "a/b", "line\n", "\ud800", "nul\0", "é" * 451])
async def test_an_id_that_cannot_name_a_root_is_refused(client: Client, bad: str) -> None:
    with pytest.raises(InvalidId):
        await client.start(audit_flow, id=bad)


async def test_an_id_of_900_bytes_is_taken(client: Client) -> None:
    run = await client.start(audit_flow, id="é" * 450)
    assert (await run.describe()).id == "é" * 450


async def test_the_same_start_again_attaches_to_the_run_that_is_there(
    client: Client, engine: PostgresJournal, database: str
) -> None:
    await client.start(order_flow, Order("o1", 100), id="order-1")
    again = await client.start(order_flow, Order("o1"), id="order-1")
    await complete(engine, "order-1")
    ended = await client.start(order_flow, Order("o1"), id="order-1")
    assert await again.result(timeout=5) == await ended.result(timeout=5) == Receipt("o1")
    assert select(database, "select count(*) from continuum.runs") == [(1,)]


async def test_an_input_is_the_same_if_it_means_the_same(client: Client, database: str) -> None:
    """Its workflow got a field with a default since, or its JSON has another order."""
    await client.start(order_flow, Order("o1"), id="order-1")
    select(database, """update continuum.runs set input = '{"id": "o1"}'""")
    assert (await client.start(order_flow, Order("o1"), id="order-1")).id == "order-1"


async def test_an_id_of_another_run_is_refused_and_that_run_stays_as_it_is(client: Client) -> None:
    run = await client.start(order_flow, Order("o1"), id="x")
    before = await run.describe()
    with pytest.raises(
        RunAlreadyExists, match="run 'x' exists already, of workflow 'order_flow' with another input"
    ):
        await client.start(order_flow, Order("o2"), id="x")
    with pytest.raises(RunAlreadyExists, match="'order_flow' and not 'audit_flow'") as caught:
        await client.start(audit_flow, id="x")
    assert (caught.value.run_id, caught.value.workflow) == ("x", "order_flow")
    assert isinstance(caught.value, ValueError)
    assert await run.describe() == before


async def test_by_name_the_highest_version_announced_is_started(client: Client, engine: PostgresJournal) -> None:
    versions = [Announcement("workflow", "ship", number) for number in (1, 12, 9)]
    await engine.announce([*versions, Announcement("activity", "pack")])
    run = await client.start("ship", {"to": ["north", 1.5, None]}, id="s")
    found = await run.describe()
    assert (found.workflow, found.version, found.input) == ("ship", 12, {"to": ["north", 1.5, None]})
    assert (await client.start("ship", {"to": ["north", 1.5, None]}, id="s")).id == "s"
    with pytest.raises(RunAlreadyExists):
        await client.start("ship", {"to": []}, id="s")


async def test_a_name_that_nobody_announced_is_refused_with_the_nearest_one(
    client: Client, engine: PostgresJournal
) -> None:
    with pytest.raises(UnknownWorkflow, match="'ship'; there are: none"):
        await client.start("ship")
    await engine.announce([Announcement("workflow", "ship", 1), Announcement("activity", "shop")])
    with pytest.raises(UnknownWorkflow, match="'shipp'; did you mean 'ship'") as caught:
        await client.start("shipp")
    assert caught.value.name == "shipp"
    assert isinstance(caught.value, LookupError)
    with pytest.raises(UnknownWorkflow, match=r"'x'; there are: ship$"):
        await client.start("x")


async def test_what_is_no_workflow_and_no_option_is_refused(client: Client) -> None:
    start: Any = client.start
    with pytest.raises(DefinitionError, match="decorate it"):
        await start(order_flow.function, Order("o1"))
    with pytest.raises(TypeError, match="'priorty'; did you mean 'priority'"):
        await start(audit_flow, priorty=1)
    with pytest.raises(ValueError, match="from 0 to 1000: got 1001"):
        await start(audit_flow, priority=1001)
    with pytest.raises(TypeError, match="whole number"):
        await start(audit_flow, priority=True)
    with pytest.raises(InvalidId, match="namespace"):
        await start(audit_flow, namespace="")
    with pytest.raises(DefinitionError):
        client.get_run("x", start)


async def test_a_handle_is_made_without_looking(client: Client) -> None:
    missing = client.get_run("missing/child", order_flow)
    assert repr(missing) == "<run missing/child (order_flow)>"
    for verb in (missing.result(), missing.describe(), missing.history(), missing.signal("go"), missing.cancel()):
        with pytest.raises(RunNotFound, match="there is no run 'missing/child'"):
            await verb
    for verb in (missing.resume(), client.list_children("missing"), client.tree("missing")):
        with pytest.raises(RunNotFound):
            await verb
    for bad in ("", " ", "nul\0", "\ud800", "x" * 901):
        with pytest.raises(InvalidId):
            client.get_run(bad)


async def test_a_workflow_of_a_new_name_can_be_started_before_any_worker_has_it(client: Client) -> None:
    @workflow(name="later", version=2)
    async def flow(number: int) -> int:
        return number

    run = await client.start(flow, 1)
    found = await run.describe()
    assert found.state == "pending"
    assert found.waiting_for == "a worker with workflow 'later' version 2; none is running"
