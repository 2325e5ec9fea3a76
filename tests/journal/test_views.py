"""What people read: states that follow from rows, pages that lose nothing, trees and histories."""

from __future__ import annotations

import psycopg
import pytest

from continuum._core.failure import encode_failure
from continuum._journal.commit import Complete, Continue, Fail, Park, Passivate
from continuum._journal.journal import PostgresJournal
from continuum._journal.protocol import Journal
from continuum._journal.statements import statement
from continuum.errors import Failure
from tests.journal.harness import begin, child, claim, entry, root, select, turn, worker, write

BOOM = encode_failure(Failure("Boom", ""))
START = entry("", b'{"input":2,"carried":0,"child_deadlines":{}}', "run_started")


async def test_a_state_is_what_follows_from_the_row(database: str) -> None:
    async with worker(database) as journal:
        names = ("running", "suspended", "parked", "completed", "failed", "released")
        runs = dict(zip(names, await begin(journal, *map(root, names)), strict=True))
        await journal.start([root("pending"), root("cancelled")])
        await write(journal, turn(runs["suspended"], status=Passivate(None, "signal 'go'")))
        await write(journal, turn(runs["parked"], status=Park(BOOM)))
        await write(journal, turn(runs["completed"], status=Complete(b"1")))
        await write(journal, turn(runs["failed"], status=Fail(BOOM)))
        await journal.release([lease for lease in await journal.leases() if lease.run_id == "released"])
        await journal.cancel("cancelled", "")
        found = {row.run_id: row for row in await journal.views.roots()}
        states = {run_id: row.state for run_id, row in found.items()}
        assert states.pop("released") == "suspended"
        assert states == {name: name for name in (*names[:-1], "pending", "cancelled")}
        assert found["running"].worker_id == "w"
        assert found["suspended"].waiting_for == "signal 'go'"
        assert found["completed"].result == b"1"
        assert found["failed"].error == BOOM
        for state in {*states.values()}:
            shown = await journal.views.roots(state=state)
            assert {row.state for row in shown} == {state}, "a filter finds what is shown"
        assert {row.run_id for row in await journal.views.roots(state="suspended")} == {"suspended", "released"}


async def test_a_run_that_does_not_exist_is_none(database: str) -> None:
    async with worker(database) as journal:
        assert await journal.views.describe("missing") is None
        assert await journal.views.history("missing") == []
        assert await journal.views.below("missing") == []
        assert await journal.views.describe_all(["missing", "too"]) == []


async def test_a_wake_up_that_never_comes_can_be_read_in_every_time_zone(database: str) -> None:
    name = database.split("dbname=")[1].split()[0]
    for zone in ("Pacific/Kiritimati", "Etc/GMT+12"):
        select(database, f"alter database {name} set timezone = '{zone}'")
        async with worker(database, zone) as journal:
            await journal.start([root(zone, wakeup_us=10**18), root(f"{zone} now", wakeup_us=-(10**18))])
            for run_id in (zone, f"{zone} now"):
                row = await journal.views.describe(run_id)
                assert row is not None
                assert row.next_wakeup_at is not None
            (run,) = (await claim(journal)).values()
            await write(journal, turn(run, status=Passivate(wakeup_us=10**18)))
            assert await journal.views.describe(run.run_id) is not None


async def test_the_journal_describes_a_run(database: str) -> None:
    async with worker(database) as journal:
        reader: Journal = journal
        await begin(journal)
        row = await reader.describe("r")
        assert row == await journal.views.describe("r")
        assert row is not None
        assert (row.run_id, row.state, row.worker_id) == ("r", "running", "w")
        assert await reader.describe("missing") is None
        assert await reader.describe("\udc80") is None


@pytest.mark.parametrize("state", ["failed", "parked"])
async def test_troubled_runs_are_found_by_an_index_of_their_own(database: str, state: str) -> None:
    sql = """insert into continuum.runs
               (run_id, depth, workflow, version, input, state, started_at, completed_at, error)
             select 'r' || n, 0, 'flow', 1, 'null', state, now(), case when state <> 'parked' then now() end,
                    case when state <> 'completed' then '{"type":"E","message":"m"}'::json end
             from (select n, case when n %% 5000 = 0 then 'failed' when n %% 5000 = 1 then 'parked'
                             else 'completed' end as state
                   from generate_series(1, 50000) n) x"""
    select(database, sql)
    select(database, "analyze continuum.runs")
    async with PostgresJournal(database).open() as journal:
        found = await journal.views.roots(state=state)
        assert len(found) == 10
        assert {row.state for row in found} == {state}
    wanted = statement("list_roots", "continuum", frozenset((state,)))
    with psycopg.connect(database, cursor_factory=psycopg.RawCursor) as connection:
        connection.execute("set plan_cache_mode = force_generic_plan")
        connection.execute(b"prepare tried as " + wanted.text)
        given = ",".join({"state": f"'{state}'", "limit": "100"}.get(name, "null") for name in wanted.parameters)
        plan = "\n".join(row[0] for row in connection.execute(f"explain execute tried ({given})".encode()))
    assert "runs_troubled" in plan, plan


async def test_a_history_is_read_in_pages_over_all_generations(database: str) -> None:
    async with worker(database) as journal:
        (run,) = await begin(journal)
        await write(journal, turn(run, entries=tuple(map(entry, "abc")), status=Continue(1, (START, entry("x")))))
        (again,) = await journal.reclaim(await journal.leases())
        await write(journal, turn(again, seq=2, entries=tuple(map(entry, "yz"))))
        whole = await journal.views.history("r")
        places = [(row.generation, row.seq) for row in whole]
        assert places == [(1, 1), (1, 2), (1, 3), (2, 0), (2, 1), (2, 2), (2, 3)]
        assert [row.key for row in await journal.views.history("r", 2)] == ["", "x", "y", "z"]
        after, pages = (0, -1), []
        while page := await journal.views.history("r", after=after, limit=2):
            pages.append(page)
            after = (page[-1].generation, page[-1].seq)
        assert [row for page in pages for row in page] == whole
        assert [len(page) for page in pages] == [2, 2, 2, 1]


async def test_pages_of_roots_lose_nothing_under_ties(database: str) -> None:
    async with worker(database) as journal:
        names = [f"r{number:02}" for number in range(11)]
        spaces = ("odd", "even")
        await journal.start([root(name, namespace=spaces[number % 2]) for number, name in enumerate(names)])
        found: list[str] = []
        last = None
        while page := await journal.views.roots(before=last, limit=4):
            found += [row.run_id for row in page]
            last = page[-1]
        assert found == names[::-1], "started in one transaction: all have one time"
        odd = await journal.views.roots(namespace="odd", workflow="flow", limit=100)
        assert [row.run_id for row in odd] == names[::-2]
        assert await journal.views.roots(workflow="other") == []


async def test_a_tree_is_read_level_by_level_or_whole(database: str) -> None:
    async with worker(database) as journal:
        (run,) = await begin(journal)
        await write(journal, turn(run, children=(child("r", "a"), child("r", "b"))))
        for kid in (await claim(journal)).values():
            grandchildren = (child(kid.run_id, "x"), child(kid.run_id, "y"))
            await write(journal, turn(kid, children=grandchildren))
        await journal.start([root("r0"), root("r-"), root("rr")])
        whole = ["r/a", "r/a/x", "r/a/y", "r/b", "r/b/x", "r/b/y"]
        assert [row.run_id for row in await journal.views.below("r")] == whole
        assert [row.run_id for row in await journal.views.below("r", levels=1)] == ["r/a", "r/b"]
        assert [row.run_id for row in await journal.views.below("r", after="r/a/x", limit=2)] == ["r/a/y", "r/b"]
        rows = {row.run_id: row for row in await journal.views.below("r/a")}
        assert {row.parent_run_id for row in rows.values()} == {"r/a"}
        assert {row.depth for row in rows.values()} == {2}
        top = await journal.views.describe("r")
        assert top is not None
        assert top.parent_run_id is None
        assert [row.run_id for row in await journal.views.describe_all(["r/b", "no", "r"])] == ["r/b", "r"]
