"""A value that Postgres refuses (12) and a fenced run (13) among 200, and edges that fall together (14)."""

from __future__ import annotations

import math
from typing import Any

import pytest

from continuum._journal.commit import (
    Commit,
    Committed,
    Complete,
    Fail,
    Fenced,
    Outcome,
    Passivate,
    Rejected,
    Stale,
    Undone,
)
from tests.journal.races.sides import Session, Worker, child, entry, message, session, turn, working
from tests.journal.races.stepper import before_deadline

MANY = 200
BAD: dict[str, dict[str, Any]] = {
    "an entry": {"entries": (entry("a", b'{"x":"\\u0000"}'),)},
    "an entry's text": {"entries": (entry("a", b'{"x":'),)},
    "a message": {"messages": (message("r000", "m", b'{"x":"\\u0000"}'),)},
    "a key": {"entries": (entry("a\0b"),)},
    "a result": {"status": Complete(b'"\\u0000"')},
    "an entry twice": {"entries": (entry("a"),), "seq": 0},
    "a depth": {"children": (child("r077" + "/c" * 40_000),)},
}


async def _many(worker: Worker, db: Session, commits: dict[int, Commit]) -> tuple[list[Outcome], int]:
    """Write a batch of 200; return the outcomes, and how many statements it took."""
    sql = """insert into continuum.runs (run_id, workflow, version, input, state, lease_owner, lease_token)
             select 'r' || to_char(n, 'FM000'), 'flow', 1, 'null', 'running', $1, 1
             from generate_series(0, $2::int - 1) n"""
    await db.rows(sql, worker.name, MANY)
    sql = """insert into continuum.events (run_id, generation, seq, at_us, type, key, payload)
             values ('r077', 1, 0, 1, 'signal_received', 'before', '{}')"""
    await db.rows(sql)
    stop = worker.stepper.stop_at("flush.begin")
    before = worker.stepper.visits["flush.begin"]
    futures = [
        worker.journal.submit(commits.get(number, turn(f"r{number:03}", keys=["a"]))) for number in range(MANY)
    ]
    await stop.reached()
    stop.let_go()
    outcomes = [(await before_deadline(future, "a commit"))[0] for future in futures]
    return outcomes, worker.stepper.visits["flush.begin"] - before


@pytest.mark.parametrize("kind", BAD)
async def test_a_bad_value_in_a_batch_of_200_costs_its_neighbours_nothing(
    raced: str, db: Session, kind: str
) -> None:
    async with working(raced, "w") as (worker,):
        bad = Commit(**{"run_id": "r077", "token": 1, "generation": 1, "seq": 1, **BAD[kind]})
        outcomes, statements = await _many(worker, db, {77: bad})
        assert isinstance(outcomes[77], Stale if kind == "an entry twice" else Rejected), outcomes[77]
        assert {type(outcome) for number, outcome in enumerate(outcomes) if number != 77} == {Committed}
        assert statements <= 2 * math.log2(MANY) + 2
        assert await db.journal_of("r077") == ["before"]
        assert await db.one("select count(*) from continuum.events where key = 'a'") == MANY - 1


async def test_three_bad_values_in_a_batch_of_200_are_found_each(raced: str, db: Session) -> None:
    async with working(raced, "w") as (worker,):
        bad = {
            number: Commit(f"r{number:03}", 1, 1, 1, (entry("a", b'{"x":"\\u0000"}'),)) for number in (0, 101, 199)
        }
        outcomes, statements = await _many(worker, db, bad)
        assert [number for number, outcome in enumerate(outcomes) if isinstance(outcome, Rejected)] == [
            0,
            101,
            199,
        ]
        assert sum(isinstance(outcome, Committed) for outcome in outcomes) == MANY - 3
        assert statements <= 3 * (2 * math.log2(MANY) + 2)


async def test_a_fenced_run_among_200_costs_its_neighbours_nothing(raced: str, db: Session) -> None:
    async with working(raced, "w") as (worker,):
        stale = turn("r077", 0, keys=["a"], children=(child("r077/c"),), messages=(message("r001", "m"),))
        ended = turn("r078", 1, keys=["a"], status=Passivate())
        outcomes, statements = await _many(worker, db, {77: stale, 78: ended})
        assert outcomes[77] == Fenced()
        assert sum(isinstance(outcome, Committed) for outcome in outcomes) == MANY - 1
        assert statements == 1
        assert await db.journal_of("r077") == ["before"]
        assert await db.inbox_of("r001") == []
        assert await db.live_below("r077") == 1


# --- edges of one worker that fall together

FENCE = {
    "the child": "update continuum.runs set lease_token = 2 where run_id = 'r/c'",
    "the parent": "update continuum.runs set lease_token = 2 where run_id = 'r'",
    "both": "update continuum.runs set lease_token = 2",
    "neither": "select 1",
}


def _edge(run_id: str = "r", status: Complete | Fail = Complete(b"1")) -> tuple[Commit, Commit]:
    return turn(f"{run_id}/c", keys=["end"], status=status), turn(run_id, keys=["child_completed"])


@pytest.mark.parametrize("lost", FENCE)
@pytest.mark.parametrize("large", [False, True])
async def test_a_childs_end_and_its_parents_entry_fall_together(
    raced: str, db: Session, lost: str, large: bool
) -> None:
    async with working(raced, "w") as (worker,):
        for run_id in ("r", "r/c", "n", "n/c"):
            await db.put(run_id, "w")
        await db.put("n2", "w")
        stop = worker.stepper.stop_at("large.begin" if large else "flush.begin")
        ending, parent = _edge()
        if large:
            parent = turn("r", keys=["child_completed", *map(str, range(2500))])
        pair = worker.journal.submit(ending, parent)
        beside = worker.journal.submit(*_edge("n")) if not large else None
        await stop.reached()
        await db.rows(FENCE[lost])
        if lost == "both":
            await db.rows("update continuum.runs set lease_token = 1 where run_id like 'n%'")
        stop.let_go()
        outcomes = await before_deadline(pair, "the pair")
        kinds = {"the child": [Fenced, Undone], "the parent": [Undone, Fenced], "both": [Fenced, Fenced]}
        assert [type(outcome) for outcome in outcomes] == kinds.get(lost, [Committed, Committed])
        stands = lost == "neither"
        assert bool(await db.journal_of("r")) == bool(await db.journal_of("r/c")) == stands
        assert await db.state("r/c") == ("completed" if stands else "running")
        if beside is not None:
            assert [type(outcome) for outcome in await beside] == [Committed, Committed]
            assert await db.state("n/c") == "completed"


@pytest.mark.parametrize("cancelled", ["r", "r/c"])
async def test_a_group_that_waits_for_a_cascade_falls_whole(raced: str, db: Session, cancelled: str) -> None:
    async with working(raced, "w") as (worker,), session(raced) as cancelling:
        for run_id in ("r", "r/c", "beside"):
            await db.put(run_id, "w")
        await cancelling.begin()
        await cancelling.cancel(cancelled)
        pair = worker.journal.submit(*_edge())
        beside = worker.journal.submit(turn("beside", keys=["a"]))
        await cancelling.blocks()
        await cancelling.commit()
        assert Fenced() in (await before_deadline(pair, "the pair"))
        assert not any(isinstance(outcome, Committed) for outcome in await pair)
        assert isinstance((await beside)[0], Committed)
        assert await db.journal_of("r") == await db.journal_of("r/c") == []


async def test_the_message_and_the_child_of_an_undone_commit_are_undone_too(raced: str, db: Session) -> None:
    async with working(raced, "w") as (worker,):
        for run_id in ("r", "to"):
            await db.put(run_id, "w")
        outcomes = await worker.journal.commit(
            turn("r", keys=["a"], messages=(message("to", "m"),), children=(child("r/c"),)),
            turn("r/x", keys=["b"]),
        )
        assert outcomes == (Undone(), Fenced())
        assert await db.inbox_of("to") == await db.journal_of("r") == []
        assert await db.live_below("r") == 1


async def test_a_bad_value_rejects_its_commit_and_undoes_its_group_and_no_other(raced: str, db: Session) -> None:
    async with working(raced, "w") as (worker,):
        for run_id in ("r", "r/c", "beside"):
            await db.put(run_id, "w")
        stop = worker.stepper.stop_at("flush.begin")
        ending = turn("r/c", keys=["end"], status=Complete(b'"\\u0000"'))
        pair = worker.journal.submit(turn("r", keys=["c"]), ending)
        beside = worker.journal.submit(turn("beside", keys=["a"]))
        await stop.reached()
        stop.let_go()
        assert [type(outcome) for outcome in await pair] == [Undone, Rejected]
        assert isinstance((await beside)[0], Committed)
        assert await db.journal_of("r") == []
