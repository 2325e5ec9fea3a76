"""Bad input: it is refused by itself, and whoever stands beside it goes on."""

from __future__ import annotations

import asyncio

import psycopg
import pytest

from continuum._core.effects import Message
from continuum._core.entries import Entry
from continuum._journal.commit import Claimed, Commit, Committed, Complete, NewRoot, Rejected, Undone
from continuum._journal.journal import PostgresJournal
from continuum.errors import DatabaseRefused, RunNotFound
from tests.journal.harness import (
    begin,
    child,
    claim,
    entry,
    listening,
    root,
    select,
    signal,
    soon,
    task,
    turn,
    until,
    worker,
    write,
)

ODD = [
    "it's",
    'a "quoted" one',
    "back\\slash \\u0041 \\n",
    "$1 $2::text",
    "%s %(name)s %%",
    "{schema} {} {0}",
    "new\nline\r\ttab",
    ":run_ids -- comment /* */",
    "'); drop table continuum.runs; --",
    "ünïcödé \U0001f600  ",
    " ",
    "x" * 2_000,
]


@pytest.mark.parametrize("odd", ODD, ids=range(len(ODD)))
async def test_odd_text_is_text(database: str, odd: str) -> None:
    async with worker(database, f"w {odd}") as journal:
        name = odd[:100]
        run, other = await begin(journal, root(odd, namespace=odd), root("s"))
        parts = {"tasks": (task(odd, queue=odd),), "messages": (signal(odd, name=odd), signal("s", name=odd))}
        await write(journal, turn(run, entries=(entry(odd),), children=(child(odd, name),), **parts))
        (attempt,) = await journal.claim_tasks(odd, 1, 10)
        assert (attempt.run_id, attempt.key) == (odd, odd)
        (loaded,) = await journal.load([run])
        assert (loaded.entries[0].key, loaded.mail[0].key) == (odd, odd)
        row = await journal.views.describe(odd)
        assert row is not None
        assert row.namespace == odd
        assert [kid.run_id for kid in await journal.views.below(odd)] == [f"{odd}/{name}"]
        waiting = asyncio.ensure_future(journal.wait(odd))
        assert (await journal.cancel(odd, odd)).runs == 2
        assert (await soon(waiting)).state == "cancelled"
        await write(journal, turn(other))


def refused(run: Claimed) -> dict[str, Commit]:
    """Commits that no Postgres takes."""
    broken = [
        b'{"a":["\\u0000"]}',
        b"{",
        b"",
        b"nul",
        b"NaN",
        b"-Infinity",
        b'"\xff"',
        b'"\x00"',
        b'"\n"',
        b"'a'",
        b"1 2",
        b"\\",
    ]
    found = {f"payload {text!r}": turn(run, entries=(entry(payload=text),)) for text in broken}
    for text in ("a\0b", "a\udc80b"):
        found[f"key {text!r}"] = turn(run, entries=(entry(text),))
        found[f"receiver {text!r}"] = turn(run, messages=(signal(text),))
        found[f"child {text!r}"] = turn(run, children=(child("r", text),))
        found[f"queue {text!r}"] = turn(run, tasks=(task("t", text),))
        found[f"run {text!r}"] = Commit(text, 1, 1, 1, (entry(),))
        found[f"type {text!r}"] = turn(run, entries=(entry(type=text),))
    long = "".join(chr(0x4E00 + number % 20_000) for number in range(1_000))  # 3,000 bytes that do not compress
    found["long child"] = turn(run, children=(child("r", long),))
    found["huge number"] = Commit("r", 1, 2**40, 1, (entry(),))
    found["negative generation"] = Commit("r", 1, -(2**31) - 1, 1, (entry(),))
    found["huge token"] = Commit("r", 2**70, 1, 1)
    found["huge id of mail"] = turn(run, consumed=(2**70,))
    found["huge time"] = turn(run, entries=(Entry("timer_fired", "1", 2**70, b"{}"),))
    found["huge depth"] = turn(run, children=(child("/".join("r" * 40_000), "k"),))
    found["huge attempts"] = turn(run, tasks=(task(max_attempts=2**40),))
    found["twice the same entry"] = turn(run, entries=(entry(), entry()), seq=2**31 - 1)
    found["attributes"] = turn(run, children=(child("r", "k", attributes={"a": "\0"}),))
    return found


async def test_each_refused_commit_is_told_so_and_its_neighbours_are_written(database: str) -> None:
    async with worker(database) as journal:
        run, *others = await begin(journal, root("r"), *(root(f"s{number}") for number in range(6)))
        for number, (name, bad) in enumerate(refused(run).items(), 1):
            good = [turn(other, seq=number, entries=(entry(),)) for other in others]
            all_at_once = [*good[:3], bad, *good[3:]]
            outcomes = [found for (found,) in await soon(asyncio.gather(*map(journal.commit, all_at_once)))]
            told = outcomes.pop(3)
            assert isinstance(told, Rejected), name
            assert "\n" not in told.error, name
            assert {type(found) for found in outcomes} == {Committed}, name
        assert select(database, "select count(*) from continuum.events where run_id = 'r'") == [(0,)]
        assert select(database, "select count(*) from continuum.runs") == [(7,)]
        await write(journal, turn(run, status=Complete(b"1")))


async def test_a_refused_commit_undoes_its_group(database: str) -> None:
    async with worker(database) as journal:
        a, b, c = await begin(journal, root("a"), root("b"), root("c"))
        group = journal.commit(turn(a, entries=(entry(),)), turn(b, entries=(entry(payload=b"{"),)))
        also = journal.commit(turn(c, entries=(entry("\udc80"),)), turn(run_of("nobody")))
        outcomes = await soon(asyncio.gather(group, also))
        assert [[type(found) for found in pair] for pair in outcomes] == [[Undone, Rejected], [Rejected, Undone]]
        assert select(database, "select count(*) from continuum.events") == [(0,)]


def run_of(run_id: str) -> Claimed:
    return Claimed(run_id, 1, 1, "flow", 1, 0, 0, b"null", False, 0, None)


@pytest.mark.parametrize(
    "bad",
    [
        NewRoot("x" * 5 + "".join(map(chr, range(0x4E00, 0x5200))), "flow", 1, b"null"),
        NewRoot("bad", "flow", 1, b"{"),
        NewRoot("b\0d", "flow", 1, b"null"),
        NewRoot("b\udc80d", "flow", 1, b"null"),
        NewRoot("bad", "fl\ud800w", 1, b"null"),
        NewRoot("bad", "flow", 2**40, b"null"),
        NewRoot("bad", "flow", 1, b"null", priority=7_000),
        NewRoot("bad", "flow", 1, b"null", attributes=b'{"a":"\\u0000"}'),
    ],
    ids=range(8),
)
async def test_a_bad_start_raises_and_starts_nothing(database: str, bad: NewRoot) -> None:
    async with worker(database) as journal:
        with pytest.raises(DatabaseRefused):
            await journal.start([root("good"), bad])
        assert select(database, "select 1 from continuum.runs") == []
        assert await journal.start([root("good")]) == {"good"}


async def test_waiting_for_what_no_table_can_hold_is_not_found_and_disturbs_nobody(database: str) -> None:
    async with worker(database) as journal:
        (run,) = await begin(journal)
        waiting = asyncio.ensure_future(journal.wait("r"))
        for missing in ("a\0b", "\udc80", "", "r/", "x" * 100_000):
            with pytest.raises(RunNotFound):
                await soon(journal.wait(missing))
            assert await journal.ends([missing, "r"]) == {}
            assert await journal.views.describe(missing) is None
            assert await journal.mail(["r"]) == {}
        await write(journal, turn(run, status=Complete(b"1")))
        assert (await soon(waiting)).state == "completed"


async def test_a_name_too_long_for_a_notification_holds_up_no_other(database: str) -> None:
    long = "r" * 20_000  # it compresses, so it fits into an index
    async with worker(database) as journal, worker(database, "b") as other:
        heard = await listening(other)
        for run_id in (long, "short"):
            await journal.start([root(run_id, run_id)])
        await heard.until("ready", "short:1")
        for name in (long, "short"):
            (run,) = (await claim(journal, (name, 1))).values()
            await write(journal, turn(run, status=Complete(b"1")))
        await heard.until("ended", "short")


async def test_many_definitions_do_not_overflow_a_notification(database: str) -> None:
    names = [f"{'workflow' * 12}_{number}" for number in range(120)]
    async with worker(database) as journal:
        await journal.start([root(f"r{number}", name) for number, name in enumerate(names)])
        definitions = [(name, 1) for name in names]
        select(database, "update continuum.runs set next_wakeup_at = null, state = 'suspended'")
        await journal.send([signal(f"r{number}") for number in range(len(names))])
        found: set[str] = set()

        async def all_armed() -> bool:
            found.update(await claim(journal, *definitions, limit=200))
            return len(found) == len(names)

        await until(all_armed)


async def test_a_stranger_s_notification_harms_nobody(database: str) -> None:
    async with worker(database) as journal:
        (run,) = await begin(journal)
        await listening(journal)
        waiting = asyncio.ensure_future(journal.wait("r"))
        for channel in ("run_wake", "mail", "run_ready", "run_ended", "fenced", "tasks", "probe"):
            for payload in ("", "\n\n", "/", "nobody", "r", "x" * 7_999, "'; --"):
                select(database, "select pg_notify(%s, %s)", f"continuum_{channel}", payload)
        await write(journal, turn(run, status=Complete(b"1")))
        assert (await soon(waiting)).state == "completed"
        assert await journal.send([Message("r", "signal_received", "go", b"{}")]) == {"r": "completed"}


# --- journals that somebody edited

SPOILED = {
    "a gap": "delete from continuum.events where run_id = 'bad' and seq = 2",
    "no beginning": "delete from continuum.events where run_id = 'bad' and seq = 1",
    "a negative number": "update continuum.events set seq = -1 where run_id = 'bad' and seq = 1",
    "no start": "update continuum.runs set generation = 2 where run_id = 'bad'",
    "another start": "update continuum.runs set generation = 2 where run_id = 'bad'; update continuum.events"
    " set generation = 2, seq = seq - 1 where run_id = 'bad'",
    "an unknown type": "update continuum.events set type = 'surprise' where run_id = 'bad' and seq = 2",
    "no object": "update continuum.events set payload = '[1]' where run_id = 'bad' and seq = 2",
    "nothing": "update continuum.events set payload = null where run_id = 'bad' and seq = 2",
    "a text": "update continuum.events set payload = '\"a\"' where run_id = 'bad' and seq = 2",
}


@pytest.mark.parametrize("what", SPOILED)
async def test_a_spoiled_journal_is_the_problem_of_its_run_alone(database: str, what: str) -> None:
    async with worker(database) as journal:
        good, bad = await begin(journal, root("good"), root("bad"))
        for run in (good, bad):
            await write(journal, turn(run, entries=(entry("a"), entry("b"), entry("c"))))
        with psycopg.connect(database, autocommit=True) as connection:
            connection.execute(SPOILED[what].encode())
        again = {run.run_id: run for run in await journal.reclaim(await journal.leases())}
        loaded = {found.run_id: found for found in await journal.load([again["bad"], again["good"]])}
        assert loaded["good"].problem is None
        assert len(loaded["good"].entries) == 3
        problem = loaded["bad"].problem
        assert problem, what
        assert "\n" not in problem


async def test_a_negative_generation_cannot_even_be_edited_in(database: str) -> None:
    async with PostgresJournal(database).open() as journal:
        await journal.start([root()])
        with pytest.raises(psycopg.errors.CheckViolation):
            select(database, "update continuum.runs set generation = -1")
