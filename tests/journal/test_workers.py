"""Workers, what they announce, what they take over, and the chores that one does for all."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import psycopg
import pytest

from continuum._journal import lane
from continuum._journal.commit import Announcement, Beat, Complete, Lease, Park, Passivate, Swept
from continuum._journal.connections import Connection
from continuum._journal.journal import PostgresJournal
from continuum._journal.lane import Lane
from continuum.errors import DatabaseRefused, DatabaseUnreachable
from tests.journal.harness import (
    FLOW,
    begin,
    child,
    claim,
    entry,
    listening,
    root,
    select,
    signal,
    soon,
    strike,
    task,
    turn,
    worker,
    write,
)
from tests.journal.proxy import proxied

T = TypeVar("T")


def age(url: str, worker_id: str, *columns: str) -> None:
    for column in columns:
        sql = f"update continuum.workers set {column} = {column} - interval '1 hour' where worker_id = %s"
        select(url, sql, worker_id)


def deliver(url: str, *run_ids: str) -> None:
    """Leave mail as a sender does that dies before it tells anybody."""
    for run_id in run_ids:
        sql = "insert into continuum.inbox (run_id, type, key, payload) values (%s, 'signal_received', 'go', '{}')"
        select(url, sql, run_id)


# --- workers


async def test_a_worker_is_counted_while_it_beats(database: str) -> None:
    async with worker(database, "a") as one, worker(database, "b") as other:
        assert (await one.beat()).workers == 2
        age(database, "b", "beat_at")
        beat = await one.beat()
        assert (beat.alive, beat.workers) == (True, 1)
        assert (await other.beat()).workers == 2, "a late beat is a beat"
        await other.deregister()
        assert (await one.beat()).workers == 1
        assert (await other.beat()).alive is False


async def test_a_client_that_never_registered_is_not_alive_and_claims_nothing(database: str) -> None:
    async with PostgresJournal(database).open() as client:
        await client.start([root()])
        assert isinstance(await client.beat(), Beat)
        assert not (await client.beat()).alive
        assert await claim(client) == {}
        assert await client.leases() == []
        assert await client.claim_tasks("q", 10, 10) == []
        taken = await client.take_over()
        assert (taken.released, taken.workers) == (0, ())


async def test_an_id_is_used_once(database: str) -> None:
    async with worker(database, "a") as journal:
        with pytest.raises(DatabaseRefused):
            await journal.register("a", 10, {})
        await journal.register("b", 10, {"thawed": True})
        assert journal.worker_id == "b"


async def test_who_has_just_connected_takes_over_from_nobody(database: str) -> None:
    async with worker(database, "a") as one, worker(database, "b") as other:
        await begin(one)
        age(database, "a", "beat_at")
        assert (await other.take_over()).workers == ()
        await other.beat()
        age(database, "b", "connected_at")
        await other.beat()
        assert (await other.take_over()).workers == ("a",)


async def test_who_was_silent_itself_must_watch_again(database: str) -> None:
    async with worker(database, "a") as one, worker(database, "b") as other:
        await begin(one)
        age(database, "a", "beat_at")
        age(database, "b", "connected_at", "beat_at")
        await other.beat()
        assert (await other.take_over()).workers == ()


async def test_who_was_cut_off_judges_nobody_before_its_next_beat(database: str) -> None:
    """The beat would say that it is newly connected; a takeover that comes first must not go by the old one."""
    async with (
        worker(database, "a") as one,
        proxied(database) as proxy,
        PostgresJournal(proxy.url).open(migrating=False) as other,
    ):
        await other.register("b", 10, {})
        await begin(one)
        await other.beat()
        age(database, "b", "connected_at")
        age(database, "a", "beat_at")
        proxy.cut_all()
        taken = await soon(until_reached(other.take_over))
        assert (taken.released, taken.workers) == (0, ())
        await soon(until_reached(other.beat))
        assert (await soon(until_reached(other.take_over))).workers == ()
        age(database, "b", "connected_at")
        assert (await other.take_over()).workers == ("a",)


async def test_who_is_cut_off_when_it_is_about_to_judge_judges_nobody(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with worker(database, "a") as one, worker(database, "b") as other:
        await begin(one)
        await other.beat()
        age(database, "b", "connected_at")
        age(database, "a", "beat_at")
        is_ended, looks = lane.is_ended, list[bool]()

        def cut_off_after_the_first_look(connection: Connection) -> bool:
            if connection is not other._control._connection:
                return is_ended(connection)
            if len(looks) == 1:
                strike(database, "heartbeat")
            looks.append(is_ended(connection))
            return looks[-1]

        monkeypatch.setattr(lane, "is_ended", cut_off_after_the_first_look)
        with pytest.raises(DatabaseUnreachable):
            await other.take_over()
        assert looks == [False, True]
        assert (await other.take_over()).workers == ()


async def until_reached(ask: Callable[[], Awaitable[T]]) -> T:
    """Ask until there is a connection again."""
    while True:
        try:
            return await ask()
        except DatabaseUnreachable:
            await asyncio.sleep(0)


async def test_leases_of_somebody_who_never_was_are_released(database: str) -> None:
    async with worker(database) as journal:
        await begin(journal)
        select(database, "update continuum.runs set lease_owner = 'ghost'")
        taken = await journal.take_over()
        assert (taken.released, taken.workers) == (1, ())
        assert (await claim(journal))["r"].token == 3


async def test_a_takeover_goes_through_many_portions(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from continuum._journal import journal as module

    monkeypatch.setattr(module, "TAKE_OVER_AT_ONCE", 7)
    async with worker(database, "a") as one, worker(database, "b") as other:
        await begin(one, *(root(f"r{number}") for number in range(30)))
        age(database, "a", "beat_at")
        age(database, "b", "connected_at")
        heard = await listening(one)
        assert (await other.take_over()).released == 30
        await heard.until("fenced", "a")
        await heard.until("ready", "flow:1")


async def test_only_the_named_run_is_charged(database: str) -> None:
    async with worker(database, "heir") as heir:
        age(database, "heir", "connected_at")
        await heir.start([root("named"), root("other"), root("elsewhere")])
        for number in range(2):
            async with worker(database, f"w{number}") as dying:
                await claim(dying, limit=10)
                await dying.suspect("named")
                await dying.suspect("nobody" if number else "named")
                age(database, f"w{number}", "beat_at")
                await heir.take_over()
        deaths = {run_id: run.deaths for run_id, run in (await claim(heir)).items()}
        assert deaths == {"named": 1, "other": 0, "elsewhere": 0}


async def test_a_suspect_is_named_until_another_is(database: str) -> None:
    named = "select suspect_run_id from continuum.workers"
    async with worker(database) as journal:
        assert (await journal.suspect("one")).alive
        await journal.beat()
        assert select(database, named) == [("one",)]
        await journal.suspect("other")
        assert select(database, named) == [("other",)]
        await journal.suspect(None)
        assert select(database, named) == [(None,)]
        with pytest.raises(DatabaseRefused):
            await journal.suspect("\udc80")
        await journal.suspect(None)


async def test_beats_at_once_share_one_connection(database: str) -> None:
    async with worker(database) as journal:
        beats = await soon(asyncio.gather(*(journal.beat() for _ in range(8)), journal.suspect("r")))
        assert all(beat.alive for beat in beats)
        count = """select count(*) from pg_stat_activity
                   where datname = current_database() and application_name = 'continuum heartbeat'"""
        assert select(database, count) == [(1,)]
        assert journal._control.epoch == 1


async def test_reclaiming_takes_only_what_is_held_under_the_token_named_or_a_later_one(database: str) -> None:
    async with worker(database, "a") as journal, worker(database, "b") as other:
        await begin(journal, root("r"), root("s"))
        found = await journal.reclaim([Lease("r", 1), Lease("s", 9), Lease("gone", 1)])
        assert [(run.run_id, run.token) for run in found] == [("r", 2)]
        (again,) = await journal.reclaim([Lease("r", 1)])
        assert again.token == 3, "it may be asked again when its answer was lost"
        assert await other.reclaim([Lease("r", 1)]) == []
        assert await journal.reclaim([]) == []


async def test_residents_with_mail_are_found_without_a_hint(database: str) -> None:
    async with worker(database) as journal:
        await begin(journal, root("r"), root("s"), root("t"))
        deliver(database, "r", "r", "t")
        assert sorted(await journal.residents_with_mail()) == ["r", "t"]
        await journal.release([Lease("t", 1)])
        assert await journal.residents_with_mail() == ["r"]


# --- definitions


async def test_definitions_say_how_many_live_workers_have_them(database: str) -> None:
    flow = Announcement("workflow", "flow", 2, b'{"signals":{}}')
    work = Announcement("activity", "work")
    async with worker(database, "a") as one, worker(database, "b") as other:
        await one.announce([flow, work])
        await other.announce([flow])
        await other.announce([flow])
        await other.announce([])
        assert await one.definitions() == {flow: 2, work: 1}
        age(database, "a", "beat_at")
        assert await other.definitions() == {flow: 1, work: 0}
        await other.deregister()
        assert set((await other.definitions()).values()) == {0}, "what nobody has any more is still known"


async def test_announcements_of_the_dead_are_forgotten_when_others_made_them_too(database: str) -> None:
    flow = Announcement("workflow", "flow", 1)
    async with worker(database, "a") as one, worker(database, "b") as other:
        await one.announce([flow, Announcement("activity", "lonely")])
        await other.announce([flow])
        select(database, "update continuum.workers set dead_at = now() - interval '2 days' where worker_id = 'a'")
        assert await other.sweep(every_s=0) == Swept(0, 0, True)
        assert select(database, "select worker_id from continuum.workers") == [("b",)]
        rows = select(database, "select name, worker_id from continuum.definitions order by name")
        assert rows == [("flow", "b"), ("lonely", "a")]


async def test_the_dead_who_still_have_leases_are_not_forgotten(database: str) -> None:
    async with worker(database, "a") as one, worker(database, "b") as other:
        await begin(one)
        select(database, "update continuum.workers set dead_at = now() - interval '2 days' where worker_id = 'a'")
        await other.sweep(every_s=0)
        assert select(database, "select count(*) from continuum.workers") == [(2,)]
        assert (await other.take_over()).released == 1
        await other.sweep(every_s=0)
        assert select(database, "select count(*) from continuum.workers") == [(1,)]


# --- the sweep


async def test_the_sweep_arms_what_waits_and_drops_what_nobody_will_read(database: str) -> None:
    async with worker(database, "a") as journal:
        names = ("waits", "held", "ended", "parked", "quiet", "later")
        runs = dict(zip(names, await begin(journal, *map(root, names)), strict=True))
        await write(journal, turn(runs["ended"], status=Complete(b"1")))
        await write(journal, turn(runs["parked"], status=Park(b"{}")))
        for name in ("waits", "quiet"):
            await write(journal, turn(runs[name], status=Passivate()))
        await write(journal, turn(runs["later"], status=Passivate(wakeup_us=10**16)))
    deliver(database, "waits", "held", "ended", "ended", "parked", "gone", "later")
    select(database, "update continuum.chores set done_at = '-infinity'")
    async with worker(database, "b") as journal:
        assert await journal.sweep() == Swept(2, 3, True)
        assert set(await claim(journal)) == {"waits", "later"}
        left = select(database, "select run_id from continuum.inbox order by run_id")
        assert [row[0] for row in left] == ["held", "later", "parked", "waits"]


async def test_the_sweep_is_done_by_one_and_not_too_often(database: str) -> None:
    async with worker(database, "a") as one, worker(database, "b") as other:
        found = await asyncio.gather(*(side.sweep() for side in (one, other) * 4))
        assert sorted(map(str, found)) == sorted([str(Swept(0, 0, True))] + ["None"] * 7)
        assert await one.sweep() is None
        assert await one.sweep(every_s=0) == Swept(0, 0, True)


async def test_a_heartbeat_tells_when_half_a_minute_has_passed_since_the_last_sweep(database: str) -> None:
    async with worker(database) as journal:
        assert await journal.sweep() == Swept(0, 0, True)
        for ago, due in (("10 seconds", False), ("30 seconds", True)):
            select(database, f"update continuum.chores set done_at = now() - interval '{ago}'")
            assert (await journal.beat()).unswept is due
        assert await journal.sweep() == Swept(0, 0, True)
        assert not (await journal.beat()).unswept


async def test_what_an_idle_worker_asks_is_a_statement_each(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts: list[bytes] = []
    answered = Lane.answered

    async def counted(self: Lane, connection: object, text: bytes, arguments: object = ()) -> object:
        if self.name in ("journal", "heartbeat") and text != b"select 1":  # which is a ping, after a while
            texts.append(text)
        return await answered(self, connection, text, arguments)  # type: ignore[arg-type]

    async with worker(database) as journal:
        monkeypatch.setattr(Lane, "answered", counted)
        for ask in (lambda: claim(journal), journal.beat, journal.take_over, journal.sweep, journal.leases):
            await ask()
        assert len(texts) == 5


async def test_the_sweep_goes_on_where_it_stopped(database: str) -> None:
    async with worker(database) as journal:
        deliver(database, *(f"gone{number}" for number in range(7)))
        parts = [await journal.sweep(every_s=0, budget=3) for _ in range(4)]
        assert parts == [Swept(0, 3, False), Swept(0, 3, False), Swept(0, 1, True), Swept(0, 0, True)]


async def test_until_the_sweep_is_finished_its_next_part_is_due_at_once(database: str) -> None:
    async with worker(database, "a") as one, worker(database, "b") as other:
        deliver(database, *(f"gone{number}" for number in range(7)))
        parts = [await side.sweep(every_s=3600, budget=3) for side in (one, other, one)]
        assert parts == [Swept(0, 3, False), Swept(0, 3, False), Swept(0, 1, True)]
        assert await one.sweep(every_s=3600, budget=3) is None
        assert await other.sweep(every_s=3600, budget=3) is None


async def test_the_sweep_skips_what_others_hold(database: str) -> None:
    async with worker(database, "a") as journal:
        (run,) = await begin(journal)
        await write(journal, turn(run, status=Passivate()))
    deliver(database, "r")
    async with worker(database, "b") as journal:
        with psycopg.connect(database) as somebody:
            somebody.execute("select 1 from continuum.runs for update")
            assert await soon(journal.sweep(every_s=0)) == Swept(0, 0, True)
        assert await journal.sweep(every_s=0) == Swept(1, 0, True)


# --- tasks


async def test_tasks_are_taken_by_priority_when_they_are_due(database: str) -> None:
    async with worker(database) as journal:
        (run,) = await begin(journal)
        wanted = [task(f"t{number}", priority=number % 3) for number in range(6)]
        await write(journal, turn(run, tasks=(*wanted, task("elsewhere", "other"))))
        select(database, "update continuum.tasks set run_at = now() + interval '1 hour' where key = 't5'")
        order = [(await journal.claim_tasks("q", 1, 10))[0].key for _ in range(5)]
        assert order[:1] == ["t2"]
        assert sorted(order[1:3]) == ["t1", "t4"]
        assert await journal.claim_tasks("q", 1, 10) == []


async def test_a_tasks_priority_makes_it_due_hours_ago_within_bounds(database: str) -> None:
    async with worker(database) as journal:
        (run,) = await begin(journal)
        given = {"none": 0, "two": 2, "below": -3, "beyond": 70_000}
        await write(journal, turn(run, tasks=tuple(task(key, priority=given[key]) for key in given)))
        sql = "select key, priority, (extract(epoch from now() - run_at) / 3600)::int from continuum.tasks"
        found = {key: (priority, hours) for key, priority, hours in select(database, sql)}
        assert found == {"none": (0, 0), "two": (2, 2), "below": (0, 0), "beyond": (1000, 1000)}
        select(database, "update continuum.tasks set run_at = now() - interval '3 hours' where key = 'none'")
        order = [(await journal.claim_tasks("q", 1, 10))[0].key for _ in range(3)]
        assert order == ["beyond", "none", "two"], "what waited for long goes before what is urgent"


async def test_only_who_was_connected_for_a_lease_judges_attempts(database: str) -> None:
    async with worker(database, "a") as one, PostgresJournal(database).open() as client:
        (run,) = await begin(one)
        await write(one, turn(run, tasks=(task(max_attempts=9),)))
        await one.claim_tasks("q", 1, 10)
        select(database, "update continuum.tasks set lease_until = now() - interval '1 second'")
        assert await client.requeue_tasks() == 0
        assert await one.requeue_tasks() == 0
        age(database, "a", "connected_at")
        select(database, "update continuum.workers set dead_at = now()")
        assert await one.requeue_tasks() == 0, "the dead judge nobody"
        select(database, "update continuum.workers set dead_at = null")
        assert await one.requeue_tasks() == 1


async def test_a_task_goes_its_way(database: str) -> None:
    async with worker(database, "a") as one, worker(database, "b") as other:
        (run,) = await begin(one)
        await write(one, turn(run, tasks=(task(max_attempts=3, options=b'{"x": 1}'),)))
        (first,) = await other.claim_tasks("q", 5, 10)
        assert (first.run_id, first.attempt, first.max_attempts, first.options) == ("r", 1, 3, b'{"x": 1}')
        assert await other.renew_tasks([(first, b'{"row":1}'), (first, None)], 10) == {first.task_id}
        assert await other.retry_tasks([(first, 3600)]) == {first.task_id}
        assert await other.claim_tasks("q", 5, 10) == []
        select(database, "update continuum.tasks set run_at = now()")
        (second,) = await other.claim_tasks("q", 5, 10)
        assert (second.attempt, second.details) == (2, b'{"row":1}')
        answer = entry("t", b'{"name":"work","input":null,"result":1}')
        assert await other.report_tasks([(second, signal("r"))]) == {second.task_id}
        assert await other.report_tasks([(second, signal("r"))]) == set()
        ((mail,),) = (await one.mail(["r"])).values()
        await write(one, turn(run, entries=(answer,), consumed=(mail.id,)))
        assert select(database, "select 1 from continuum.tasks") == []


async def test_a_task_of_a_run_that_ended_leaves_no_mail(database: str) -> None:
    async with worker(database) as journal:
        (run,) = await begin(journal)
        await write(journal, turn(run, tasks=(task(),)))
        (attempt,) = await journal.claim_tasks("q", 1, 10)
        await write(journal, turn(run, status=Complete(b"1")))
        assert await journal.report_tasks([(attempt, signal("r"))]) == {attempt.task_id}
        assert await journal.mail(["r"]) == {}


async def test_new_tasks_are_told_to_other_workers(database: str) -> None:
    async with worker(database, "a") as one, worker(database, "b") as other:
        heard = await listening(other)
        (run,) = await begin(one)
        await write(one, turn(run, tasks=(task(queue="gpu"),), children=(child("r", "k"),)))
        await heard.until("tasks", "gpu")
        await heard.until("ready", "kid:1")
        assert await claim(one, FLOW) == {}
