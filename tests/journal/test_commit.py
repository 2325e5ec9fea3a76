"""Commits: every part of one, whole or not at all, and groups that stand or fall together."""

from __future__ import annotations

import asyncio
import json

import pytest

from continuum._core.effects import Cancellation
from continuum._core.failure import encode_failure
from continuum._journal.commit import (
    Cancel,
    Commit,
    Committed,
    Complete,
    Continue,
    Fail,
    Fenced,
    Keep,
    Park,
    Passivate,
    Status,
    Undone,
)
from continuum.errors import Failure
from continuum.policies import Retry
from tests.journal.harness import (
    FLOW,
    KID,
    begin,
    child,
    claim,
    entry,
    root,
    select,
    signal,
    task,
    turn,
    worker,
    write,
)

BOOM = encode_failure(Failure("Boom", "it went wrong"))
START = entry("", b'{"input":2,"carried":0,"child_deadlines":{}}', "run_started")
ROW = """select state, lease_owner, next_wakeup_at is not null, completed_at is not null, result::text,
         error::text, waiting_for, generation, version from continuum.runs where run_id = 'r'"""


async def test_a_commit_under_an_old_token_changes_nothing(database: str) -> None:
    async with worker(database) as journal:
        (run,) = await begin(journal)
        assert await journal.commit(Commit("r", run.token - 1, 1, 1)) == (Fenced(),)
        (outcome,) = await journal.commit(Commit("r", run.token, 1, 1))
        assert isinstance(outcome, Committed)


@pytest.mark.parametrize(
    ("status", "row"),
    [
        (Keep(), ("running", "w", False, False, None, None, None, 1, 1)),
        (Passivate(), ("suspended", None, False, False, None, None, "", 1, 1)),
        (Passivate(10**18, "a timer"), ("suspended", None, True, False, None, None, "a timer", 1, 1)),
        (Passivate(-(10**18)), ("suspended", None, True, False, None, None, "", 1, 1)),
        (Complete(b'{"a": 1}'), ("completed", None, False, True, '{"a": 1}', None, None, 1, 1)),
        (Fail(BOOM), ("failed", None, False, True, None, BOOM.decode(), None, 1, 1)),
        (Cancel(BOOM), ("cancelled", None, False, True, None, BOOM.decode(), None, 1, 1)),
        (Park(BOOM), ("parked", None, False, False, None, BOOM.decode(), None, 1, 1)),
        (Continue(7, (START,)), ("running", "w", False, False, None, None, None, 2, 7)),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, tuple) else "",
)
async def test_a_status_is_how_the_run_stands_after_it(
    database: str, status: Status, row: tuple[object, ...]
) -> None:
    async with worker(database) as journal:
        (run,) = await begin(journal)
        await write(journal, turn(run, entries=(entry(),), status=status))
        assert select(database, ROW) == [row]


async def test_all_parts_of_a_commit_are_written_together(database: str) -> None:
    async with worker(database) as journal:
        run, _ = await begin(journal, root("r"), root("s"))
        await journal.send([signal("r", b"1"), signal("r", b"2")])
        await write(journal, turn(run, tasks=(task("old"),)))
        (first, second) = (await journal.mail(["r"]))["r"]
        whole = turn(
            run,
            entries=(entry("a"), entry("b")),
            consumed=(first.id,),
            children=(child("r", "k"), child("r", "j")),
            claimed=1,
            messages=(signal("s", b"1"), signal("r/j", b"2"), signal("s", b"3"), signal("nobody")),
            tasks=(task("new", priority=3, max_attempts=4, options=b'{"x":1}'),),
            discarded=("old", "never"),
            published=b'{"progress":1}',
        )
        (done,) = await write(journal, whole)
        assert (done.existed, done.undelivered) == ((), ("nobody",))
        mail = await journal.mail(["r", "s", "r/j"])
        assert mail["r"] == (second,)
        assert [found.payload for found in mail["s"]] == [b'{"payload":1}', b'{"payload":3}']
        assert len(mail["r/j"]) == 1, "a message may go to a child that is started beside it"
        assert select(database, "select key, priority, max_attempts from continuum.tasks") == [("new", 3, 4)]
        leases = sorted((lease.run_id, lease.token) for lease in await journal.leases())
        assert leases == [("r", 1), ("r/k", 1), ("s", 1)]
        row = await journal.views.describe("r")
        assert row is not None
        assert row.published == b'{"progress":1}'
        assert [found.seq for found in await journal.views.history("r")] == [1, 2]


async def test_a_parked_run_waits_until_it_is_resumed(database: str) -> None:
    async with worker(database) as journal:
        (run,) = await begin(journal)
        await write(journal, turn(run, status=Park(BOOM)))
        await journal.send([signal("r")])
        assert await claim(journal) == {}
        assert await journal.resume("r")
        (again,) = (await claim(journal)).values()
        assert (again.token, again.generation) == (2, 1)
        assert select(database, "select error from continuum.runs") == [(None,)]


async def test_higher_priority_is_claimed_first(database: str) -> None:
    async with worker(database) as journal:
        (run,) = await begin(journal)
        kids = tuple(child("r", f"k{n}", priority=n) for n in (0, 5, 2, 2000, -3))
        await write(journal, turn(run, children=kids))
        order = [next(iter(await claim(journal, KID, limit=1))) for _ in kids]
        assert order[:3] == ["r/k2000", "r/k5", "r/k2"]
        assert set(order[3:]) == {"r/k0", "r/k-3"}


async def test_a_childs_options_are_in_its_row(database: str) -> None:
    async with worker(database) as journal:
        (run,) = await begin(journal, root(attributes=b'{"a":1}'))
        retry = Retry(max_attempts=3, initial=0.5, non_retryable=("ValueError",))
        kid = child(
            "r", "k", input=b'{"b":1,"a":2}', on_parent_close="cancel", retry=retry, attributes={"z": None}
        )
        await write(journal, turn(run, children=(kid,)))
        (claimed,) = (await claim(journal, KID)).values()
        assert (claimed.depth, claimed.input) == (1, b'{"b":1,"a":2}')
        assert claimed.retry is not None
        assert json.loads(claimed.retry)["non_retryable"] == ["ValueError"]
        assert json.loads(claimed.retry)["initial_s"] == 0.5
        (row,) = select(database, "select on_parent_close, attributes from continuum.runs where run_id = 'r/k'")
        assert row == ("cancel", {"a": 1, "z": None})


VALUES = [
    b"null",
    b'""',
    b'"text"',
    b"0",
    b"-0.0",
    b"true",
    b"123456789012345678901234567890",
    b"1e300",
    b"[]",
    b'{"b":1,"a":2,"b":3}',
    '"ünïcödé \U0001f600 \\n \\u0001 \\\\ "'.encode(),
    b'{"spaced" :  1, "spelled": "\\u00e9\\/"}',
    b"[" * 500 + b"]" * 500,
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: value[:12].decode())
async def test_a_value_comes_back_as_it_was(database: str, value: bytes) -> None:
    async with worker(database) as journal:
        run, _ = await begin(journal, root("r", input=value), root("s"))
        assert run.input == value
        payload = b'{"payload":%b}' % value
        kid, job = child("r", "k", input=value), task("t")
        parts = {"messages": (signal("s", value),), "children": (kid,), "tasks": (job,), "published": value}
        await write(journal, turn(run, entries=(entry("go", payload, "signal_received"),), **parts))
        (loaded,) = await journal.load([run])
        assert loaded.entries[0].payload == payload
        assert (await journal.mail(["s"]))["s"][0].payload == payload
        assert (await claim(journal, KID))["r/k"].input == value
        await write(journal, turn(run, seq=2, status=Complete(value)))
        assert (await journal.ends(["r"]))["r"].result == value
        row = await journal.views.describe("r")
        assert row is not None
        assert row.published == value


async def test_ten_megabytes_come_back_as_they_were(database: str) -> None:
    value = b'{"text":"' + b"x" * 10_000_000 + b'"}'
    async with worker(database) as journal:
        (run,) = await begin(journal, root(input=value))
        assert run.input == value
        await write(journal, turn(run, entries=(entry("s", value, "side_effect_recorded"),)))
        (loaded,) = await journal.load([run])
        assert loaded.entries[0].payload == value
        await write(journal, turn(run, status=Complete(value)))
        assert (await journal.ends(["r"]))["r"].result == value


async def test_a_text_by_itself_may_be_spelled_anew(database: str) -> None:
    async with worker(database) as journal:
        (run,) = await begin(journal, root(input=rb' "\u00e9\/" '))
        assert run.input == '"é/"'.encode()


async def test_published_null_is_something_that_was_said(database: str) -> None:
    async with worker(database) as journal:
        (run,) = await begin(journal)
        said = "select published::text from continuum.runs"
        assert select(database, said) == [(None,)]
        await write(journal, turn(run, published=b"null"))
        assert select(database, said) == [("null",)]
        await write(journal, turn(run, entries=(entry(),), status=Passivate()))
        assert select(database, said) == [("null",)], "a commit that says nothing keeps what was said"


# --- groups


async def test_a_group_stands_or_falls_together(database: str) -> None:
    async with worker(database) as journal:
        a, b, c = await begin(journal, root("a"), root("b"), root("c"))
        assert await journal.release([lease for lease in await journal.leases() if lease.run_id == "b"]) == {"b"}
        alone = journal.commit(turn(c, entries=(entry(),)))
        group = journal.commit(turn(a, entries=(entry(),)), turn(b, entries=(entry(),)))
        other, outcomes = await asyncio.gather(alone, group)
        assert outcomes == (Undone(), Fenced())
        assert isinstance(other[0], Committed)
        assert select(database, "select run_id from continuum.events") == [("c",)]


async def test_a_parent_and_its_child_end_in_one_group(database: str) -> None:
    async with worker(database) as journal:
        (run,) = await begin(journal)
        await write(journal, turn(run, children=(child("r", "k"),), claimed=1))
        (kid,) = await journal.reclaim([lease for lease in await journal.leases() if lease.run_id == "r/k"])
        done = entry("k", b'{"result":1}', "child_completed")
        await write(
            journal, turn(kid, status=Complete(b"1")), turn(run, entries=(done,), status=Complete(b'"all"'))
        )
        assert {run_id: end.state for run_id, end in (await journal.ends(["r", "r/k"])).items()} == {
            "r": "completed",
            "r/k": "completed",
        }


async def test_a_run_has_one_commit_under_way(database: str) -> None:
    async with worker(database) as journal:
        (run,) = await begin(journal)
        first = journal.submit(turn(run, entries=(entry(),)))
        with pytest.raises(RuntimeError, match="under way"):
            journal.submit(turn(run, seq=2, entries=(entry(),)))
        with pytest.raises(RuntimeError, match="under way"):
            journal.submit(turn(run, seq=2), turn(run, seq=3))
        await first
        await write(journal, turn(run, seq=2, entries=(entry(),)))


async def test_a_commit_that_cancels_does_all_of_it_or_nothing(database: str) -> None:
    async with worker(database) as journal:
        (run,) = await begin(journal)
        await write(journal, turn(run, children=(child("r", "k"), child("r", "j"))))
        cancels = (Cancellation("r/k", "not needed"), Cancellation("r/gone", "never was"))
        stale = turn(run, cancels=cancels)
        await journal.reclaim(await journal.leases())
        assert await journal.commit(stale) == (Fenced(),)
        (fresh,) = await journal.reclaim(await journal.leases())
        requested = entry("k", b'{"reason":"not needed"}', "child_cancel_requested")
        (done,) = await write(
            journal, turn(fresh, entries=(requested,), cancels=cancels, messages=(signal("r/j"),))
        )
        assert done.undelivered == ()
        states = select(database, "select run_id, state from continuum.overview order by run_id")
        assert states == [("r", "running"), ("r/j", "pending"), ("r/k", "cancelled")]
        assert [mail.type for mail in (await journal.mail(["r"]))["r"]] == ["child_cancelled"]


async def test_claims_are_by_definition_and_bounded(database: str) -> None:
    async with worker(database) as journal:
        await journal.start([root(f"r{n}") for n in range(9)] + [root("other", "elsewhere")])
        assert len(await claim(journal, FLOW, limit=4)) == 4
        assert await claim(journal, ("flow", 2), ("nothing", 1)) == {}
        assert await journal.claim([], 10) == []
        assert set(await claim(journal, ("elsewhere", 1))) == {"other"}
        assert len(await claim(journal, ("elsewhere", 1), FLOW)) == 5
