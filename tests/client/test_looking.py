"""Looking at runs: descriptions, lists, trees, histories."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from continuum import Client, Event, Failure, InvalidId, InvalidSetting, RunFailed, RunNotFound
from continuum._core.entries import Entry
from continuum._core.failure import encode_failure
from continuum._journal import views
from continuum._journal.commit import Announcement, Complete, Continue, Fail, Passivate
from continuum._journal.journal import PostgresJournal
from continuum.descriptions import AnnouncedDefinition
from tests.client.flows import BOOM, Order, Receipt, audit_flow, complete, fail, order_flow, take
from tests.journal.harness import child, claim, entry, select, turn, write

BEGAN = Entry("run_started", "", 1_700_000_000_000_000, b'{"input":2,"carried":0,"child_deadlines":{}}')


async def test_a_description_has_all_that_is_known(client: Client, engine: PostgresJournal) -> None:
    run = await client.start(order_flow, Order("o1"), id="r", namespace="shop")
    before = datetime.now(UTC) - timedelta(minutes=5)
    fresh = await run.describe()
    assert dataclasses.asdict(fresh) | {"created_at": None} == {
        "id": "r",
        "workflow": "order_flow",
        "version": 1,
        "state": "pending",
        "input": {"id": "o1", "cents": 100},
        "result": None,
        "error": None,
        "parent_run_id": None,
        "depth": 0,
        "generation": 1,
        "created_at": None,
        "started_at": None,
        "completed_at": None,
        "waiting_for": "a worker with workflow 'order_flow' version 1; none is running",
        "namespace": "shop",
        "worker_id": None,
        "published": None,
        "attributes": {},
        "traceparent": None,
        "stop_by": None,
        "stop_reason": None,
    }
    assert fresh.created_at > before
    assert fresh.input == Order("o1")
    claimed = await take(engine, "r")
    await write(engine, turn(claimed, children=(child("r", "a"),), published=b'{"done":3}'))
    running = await run.describe()
    assert (running.state, running.worker_id, running.published, running.waiting_for) == (
        "running",
        "w",
        {"done": 3},
        None,
    )
    kid = await client.get_run("r/a").describe()
    assert (kid.workflow, kid.parent_run_id, kid.depth) == ("kid", "r", 1)
    await write(engine, turn(claimed, status=Complete(b'{"order_id":"o1"}')))
    ended = await run.describe()
    assert (ended.state, ended.result, ended.error, ended.worker_id) == ("completed", Receipt("o1"), None, None)
    assert ended.started_at is not None
    assert ended.completed_at is not None
    with pytest.raises(dataclasses.FrozenInstanceError):
        ended.state = "running"  # type: ignore[misc]


async def test_a_handle_with_another_workflow_than_the_runs_describes_it_plainly(client: Client) -> None:
    await client.start(order_flow, Order("o1"), id="r")
    found = await client.get_run("r", audit_flow).describe()
    assert found.input == {"id": "o1", "cents": 100}


async def test_a_run_that_is_due_while_a_worker_has_its_workflow_does_not_blame_workers(
    client: Client, engine: PostgresJournal
) -> None:
    await engine.announce([Announcement("workflow", "order_flow", 1)])
    run = await client.start(order_flow, Order("o1"), id="r")
    assert (await run.describe()).waiting_for == "a worker to take it up"
    far = int(datetime(2200, 1, 1, tzinfo=UTC).timestamp() * 1_000_000)
    await write(engine, turn(await take(engine, "r"), status=Passivate(far, "timer sleep-1")))
    await engine.deregister()
    assert (await run.describe()).waiting_for == "timer sleep-1", "it is not due, so it waits for no worker"


async def test_a_failure_that_somebody_edited_is_described_all_the_same(
    client: Client, engine: PostgresJournal, database: str
) -> None:
    run = await client.start(order_flow, Order("o1"), id="r")
    await fail(engine, "r")
    for text, shown in (("3", Failure("Unknown", "3")), ('{"type":null,"cause":[]}', None)):
        select(database, "update continuum.runs set error = $1::json".replace("$1", f"'{text}'"))
        found = (await run.describe()).error
        assert found == (shown or Failure("None", "", cause=Failure("Unknown", "[]")))
        with pytest.raises(RunFailed):
            await run.result(timeout=10)


async def test_lists_go_on_from_the_last_run_of_the_page_before(client: Client, engine: PostgresJournal) -> None:
    ids = [f"r{number}" for number in range(7)]
    for run_id in ids:
        await client.start(
            order_flow, Order(run_id), id=run_id, namespace="even" if int(run_id[1]) % 2 == 0 else None
        )
    found: list[str] = []
    last = None
    while page := await client.list_runs(limit=3, before=last):
        found += [run.id for run in page]
        last = page[-1]
    assert found == ids[::-1]
    assert [run.id for run in await client.list_runs(namespace="even", workflow="order_flow")] == ids[::-2]
    await complete(engine, "r3")
    assert [run.id for run in await client.list_runs(state="completed")] == ["r3"]
    assert await client.list_runs(workflow="missing") == []


async def test_filters_that_cannot_be_are_refused(client: Client) -> None:
    with pytest.raises(ValueError, match="'complete'; did you mean 'completed'"):
        await client.list_runs(state="complete")
    with pytest.raises(ValueError, match="from 1: got 0"):
        await client.list_runs(limit=0)
    with pytest.raises(TypeError):
        await client.tree("r", limit="3")  # type: ignore[arg-type]
    with pytest.raises(InvalidSetting, match="levels is a whole number from 1: got 0"):
        await client.tree("r", levels=0)
    with pytest.raises(InvalidSetting, match="limit is a whole number from 1: got -1"):
        await client.list_children("r", limit=-1)
    for after, kind in ((3, TypeError), ("a\0", InvalidId), ("\ud800", InvalidId)):
        with pytest.raises(kind, match="after"):
            await client.list_children("r", after=after)  # type: ignore[arg-type]
    for look in (client.list_children, client.tree):
        with pytest.raises(RunNotFound, match="'nobody'"):
            await look("nobody")
        with pytest.raises(InvalidId):
            await look("")


async def test_children_come_page_after_page_and_without_what_lies_below_them(
    client: Client, engine: PostgresJournal
) -> None:
    await client.start(order_flow, Order("o1"), id="r")
    kids = tuple(child("r", f"k{number:02}") for number in range(7))
    await write(engine, turn(await take(engine, "r"), children=kids))
    await write(engine, turn(await take(engine, "r/k03"), children=(child("r/k03", "below"),)))
    found: list[str] = []
    while page := await client.list_children("r", limit=3, after=found[-1] if found else ""):
        found += [run.id for run in page]
    assert found == [f"r/k{number:02}" for number in range(7)]
    assert [run.id for run in await client.list_children("r/k03")] == ["r/k03/below"]


async def test_a_tree_without_values_is_the_same_but_for_them(client: Client, engine: PostgresJournal) -> None:
    await client.start(order_flow, Order("o1"), id="r", attributes={"a": 1})
    await write(engine, turn(await take(engine, "r"), children=(child("r", "a"), child("r", "b"))))
    runs = await claim(engine, ("kid", 1))
    await write(engine, turn(runs["r/a"], status=Complete(b'"long"')))
    await write(engine, turn(runs["r/b"], status=Fail(encode_failure(BOOM))))
    whole, light = await client.tree("r"), await client.tree("r", values=False)
    assert [run.result for run in whole] == [None, "long", None]
    assert light[0] == whole[0], "the run that was asked for has everything"
    left_out = {"input": None, "result": None, "published": None, "attributes": {}}
    assert light[1:] == [dataclasses.replace(run, **left_out) for run in whole[1:]]
    assert str(light[2].error) == "ValueError: no such order"


async def test_a_tree_is_the_run_and_then_what_lies_below_it(
    client: Client, engine: PostgresJournal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("continuum.client.PAGE", 2)
    await client.start(order_flow, Order("o1"), id="r")
    await client.start(order_flow, Order("o1"), id="r0")
    kids = tuple(child("r", key) for key in "abc")
    await write(engine, turn(await take(engine, "r"), children=kids))
    await write(engine, turn(await take(engine, "r/b"), children=(child("r/b", "x"), child("r/b", "y"))))
    whole = ["r", "r/a", "r/b", "r/b/x", "r/b/y", "r/c"]
    assert [run.id for run in await client.tree("r")] == whole
    for limit in range(1, 8):
        assert [run.id for run in await client.tree("r", limit=limit)] == whole[:limit]
    assert [run.id for run in await client.tree("r", levels=1)] == ["r", "r/a", "r/b", "r/c"]
    assert [run.id for run in await client.tree("r/b")] == whole[2:5]
    assert [run.id for run in await client.list_children("r")] == ["r/a", "r/b", "r/c"]
    assert [run.id for run in await client.list_children("r", after="r/a", limit=1)] == ["r/b"]
    assert await client.list_children("r/a") == []


async def test_a_history_has_all_pages_and_generations(
    client: Client, engine: PostgresJournal, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = await client.start(order_flow, Order("o1"), id="r")
    assert await run.history() == []
    claimed = await take(engine, "r")
    entries = tuple(entry(f"a-{number}") for number in range(1, views.PAGE + 3))
    await write(engine, turn(claimed, entries=entries, status=Continue(1, (BEGAN, entry("b")))))
    whole = await run.history()
    assert [(event.generation, event.seq) for event in whole] == [
        *((1, seq) for seq in range(1, views.PAGE + 3)),
        (2, 0),
        (2, 1),
    ]
    assert whole[0] == Event(
        seq=1,
        generation=1,
        type="activity_completed",
        key="a-1",
        at=datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC),
        payload={"name": "a", "input": None, "result": 1},
    )
    assert [event.type for event in await run.history(generation=2)] == ["run_started", "activity_completed"]
    assert len(await run.history(1)) == views.PAGE + 2
    assert await run.history(3) == []


async def test_a_childs_result_that_is_kept_once_stands_in_the_history(
    client: Client, engine: PostgresJournal
) -> None:
    run = await client.start(order_flow, Order("o1"), id="r")
    claimed = await take(engine, "r")
    await write(engine, turn(claimed, children=(child("r", "a"),)))
    large = b'"%b"' % (b"x" * 1_500_000)
    await write(engine, turn(await take(engine, "r/a"), status=Complete(large)))
    arrived = Entry("child_completed", "a", 1, b'{"result":%b}' % large)
    await write(engine, turn(claimed, entries=(arrived,)))
    (event,) = await run.history()
    assert event.payload == {"result": "x" * 1_500_000}


async def test_definitions_say_how_many_live_workers_have_them(client: Client, engine: PostgresJournal) -> None:
    assert await client.definitions() == []
    schemas = b'{"input":{"type":"integer"}}'
    await engine.announce([Announcement("workflow", "ship", 2, schemas), Announcement("activity", "pack")])
    expected: list[Any] = [
        AnnouncedDefinition("activity", "pack", 0, 1),
        AnnouncedDefinition("workflow", "ship", 2, 1, {"input": {"type": "integer"}}),
    ]
    assert await client.definitions() == expected
    await engine.deregister()
    assert [(found.name, found.workers) for found in await client.definitions()] == [("pack", 0), ("ship", 0)]
