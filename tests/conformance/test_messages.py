"""Signals, starts and other things that come from outside."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import psycopg
import pytest

from continuum._core.effects import Message
from continuum._journal.commit import Complete, Continue, Fenced, Lease, Passivate, Stale, Undone
from continuum._journal.migrate import migrate, migrations
from continuum._journal.outside import cancelling_here, sending, starting, take, take_async
from continuum.errors import ContinuumError, MessageIdTaken, RunNotActive, RunNotFound
from tests.conformance.harness import World
from tests.journal.harness import begin, child, claim, entry, outcome, root, signal, soon, task, turn, until, write


async def test_an_early_signal_waits(world: World) -> None:
    """ST01 an early signal waits."""
    async with world.journal() as journal, world.journal(None) as client:
        await client.start([root()])
        assert await client.send([signal("r", b'"early"')]) == {}
        (run,) = (await claim(journal)).values()
        (loaded,) = await journal.load([run])
        assert [mail.payload for mail in loaded.mail] == [b'{"payload":"early"}']


async def test_signals_come_in_the_order_in_which_they_were_sent(world: World) -> None:
    """ST02 FIFO per name."""
    async with world.journal() as journal:
        receiver, sender = await begin(journal, root("r"), root("s"))
        await journal.send([signal("r", b"%d" % number) for number in range(50)])
        await write(journal, turn(sender, messages=tuple(signal("r", b"%d" % number) for number in range(50, 99))))
        (loaded,) = await journal.load([receiver])
        assert [mail.payload for mail in loaded.mail] == [b'{"payload":%d}' % number for number in range(99)]


async def test_a_signal_to_nobody_and_one_to_an_ended_run_are_told(world: World) -> None:
    """ST05 to a missing run RunNotFound, to an ended one RunNotActive."""
    async with world.journal() as journal:
        ended, _, sender = await begin(journal, root("ended"), root("live"), root("sender"))
        await write(journal, turn(ended, status=Complete(b"1")))
        missed = await journal.send([signal(to) for to in ("ended", "missing", "live", "nul\0", "\udc80")])
        assert missed == {"ended": "completed", "missing": None, "nul\0": None, "\udc80": None}
        assert set(await journal.mail(["ended", "missing", "live"])) == {"live"}
        (done,) = await write(journal, turn(sender, messages=tuple(map(signal, ("ended", "missing", "live")))))
        assert done.undelivered == ("ended", "missing")


async def test_of_all_messages_with_one_delivery_id_a_run_gets_the_first(world: World) -> None:
    """ST07 a delivery id makes a signal idempotent, however it is sent."""
    async with world.journal() as journal, world.journal(None) as client:
        await begin(journal, root("r"), root("s"))
        assert await client.send([signal("r", b"1", delivery_id="d"), signal("r", b"2", delivery_id="d")]) == {}
        assert await client.send([signal("r", b"3", delivery_id="d"), signal("s", b"4", delivery_id="d")]) == {}
        assert await journal.send([signal("r", b"5"), signal("r", b"6", delivery_id="e"), signal("r", b"5")]) == {}
        mail = await journal.mail(["r", "s"])
        assert [found.payload for found in mail["r"]] == [b'{"payload":%d}' % number for number in (1, 5, 6, 5)]
        assert [found.payload for found in mail["s"]] == [b'{"payload":4}']


async def test_a_delivery_id_is_remembered_after_the_message_was_read_and_the_generation_is_over(
    world: World,
) -> None:
    """ST07 a delivery id makes a signal idempotent, across generations."""
    async with world.journal() as journal:
        (run,) = await begin(journal)
        await journal.send([signal("r", b"1", delivery_id="d")])
        ((mail,),) = (await journal.mail(["r"])).values()
        await write(journal, turn(run, entries=(entry(),), consumed=(mail.id,)))
        assert await journal.send([signal("r", b"1", delivery_id="d")]) == {}
        started = entry("", b'{"input":null,"carried":0,"child_deadlines":{}}', "run_started")
        await write(journal, turn(run, seq=2, status=Continue(1, (started,))))
        assert await journal.send([signal("r", b"1", delivery_id="d")]) == {}
        assert await journal.mail(["r"]) == {}


async def test_of_two_who_send_under_one_delivery_id_at_once_one_counts(world: World) -> None:
    """ST07 a delivery id makes a signal idempotent, whoever sends."""
    async with world.journal() as journal, world.journal(None) as client, world.journal(None) as other:
        await begin(journal)
        senders = (client, other, journal)
        for number in range(30):
            sends = [who.send([signal("r", b"%d" % number, delivery_id=f"d{number}")]) for who in senders]
            assert await asyncio.gather(*sends) == [{}] * 3
        assert [mail.payload for mail in (await journal.mail(["r"]))["r"]] == [
            b'{"payload":%d}' % number for number in range(30)
        ]


async def test_a_delivery_to_nobody_leaves_the_id_free(world: World) -> None:
    """ST07 a delivery id makes a signal idempotent; where nothing arrived, it is as if never used."""
    async with world.journal() as journal:
        assert await journal.send([signal("r", delivery_id="d")]) == {"r": None}
        (run,) = await begin(journal)
        assert await journal.send([signal("r", b"1", delivery_id="d")]) == {}
        assert len((await journal.mail(["r"]))["r"]) == 1
        await write(journal, turn(run, status=Complete(b"1")))
        for _ in range(2):
            assert await journal.send([signal("r", b"1", delivery_id="new")]) == {"r": "completed"}


async def test_a_delivery_that_a_run_has_had_counts_as_sent_after_its_end(world: World) -> None:
    """ST07 a delivery id makes a signal idempotent: who repeats it after the end hears no other answer."""
    async with world.journal() as journal:
        run, _ = await begin(journal, root("r"), root("live"))
        await journal.send([signal("r", delivery_id="d")])
        await write(journal, turn(run, status=Complete(b"1")))
        assert await journal.send([signal("r", b"2", delivery_id="d"), signal("live", delivery_id="d")]) == {}
        assert set(await journal.mail(["live"])) == {"live"}
        with pytest.raises(MessageIdTaken):
            await journal.send([signal("r", name="other", delivery_id="d")])


async def test_a_delivery_id_is_one_message_of_one_kind_and_name(world: World) -> None:
    """ST07 a delivery id makes a signal idempotent, and never stands for two different messages."""
    async with world.journal() as journal:
        await begin(journal, root("r"), root("s"))
        assert await journal.send([signal("r", b"1", "paid", delivery_id="d")]) == {}
        update = Message("r", "update_requested", "paid", b'{"id":"d","input":1}', "d")
        for other in (signal("r", b"1", "shipped", delivery_id="d"), update):
            with pytest.raises(
                MessageIdTaken, match="id 'd' of run 'r' is that of signal 'paid': choose"
            ) as taken:
                await journal.send([other, signal("s", b"1", other.type, delivery_id=f"with {other.type}")])
            error = taken.value
            assert (error.run_id, error.id, error.taken_by) == ("r", "d", "signal paid")
        with pytest.raises(
            MessageIdTaken, match="of run 's' is that of signal 'a': choose another id for signal 'b'"
        ):
            await journal.send([signal("s", name=name, delivery_id="e") for name in ("a", "b")])
        mail = await journal.mail(["r", "s"])
        assert [found.key for found in mail["r"]] == ["paid"]
        assert [found.key for found in mail["s"]] == ["signal_received", "update_requested", "a"]


async def test_a_delivery_id_that_is_taken_leaves_a_transaction_usable(world: World, database: str) -> None:
    """ST07 a delivery id is one message, also inside the caller's own transaction."""
    async with world.journal() as journal:
        (run,) = await begin(journal)
        with psycopg.connect(database) as connection:
            take(connection, sending("continuum", [signal("r", name="a", delivery_id="d")]))
            with pytest.raises(MessageIdTaken):
                take(connection, sending("continuum", [signal("r"), signal("r", name="b", delivery_id="d")]))
            connection.commit()
            with pytest.raises(MessageIdTaken):
                take(connection, sending("continuum", [signal("r", name="b", delivery_id="d")]))
            connection.commit()
            assert [mail.key for mail in (await journal.mail(["r"]))["r"]] == ["a"]
            await write(journal, turn(run, status=Complete(b"1")))
            take(connection, sending("continuum", [signal("r", name="a", delivery_id="d")]))
            with pytest.raises(RunNotActive):
                take(connection, sending("continuum", [signal("r", name="a", delivery_id="new")]))


async def test_a_delivery_inside_a_transaction_counts_with_its_commit(world: World, database: str) -> None:
    """ST07 a delivery id makes a signal idempotent, also inside the caller's own transaction."""
    async with world.journal() as journal:
        await begin(journal)
        with psycopg.connect(database) as connection:
            take(connection, sending("continuum", [signal("r", b"0", delivery_id="d")]))
            connection.rollback()
            take(connection, sending("continuum", [signal("r", b"1", delivery_id="d")]))
            take(connection, sending("continuum", [signal("r", b"2", delivery_id="d")]))
            connection.commit()
            take(connection, sending("continuum", [signal("r", b"3", delivery_id="d")]))
            with pytest.raises(RunNotFound):
                take(connection, sending("continuum", [signal("r", delivery_id="e"), signal("x")]))
            connection.commit()
        assert await journal.send([signal("r", b"4", delivery_id="e")]) == {}
        assert [mail.payload for mail in (await journal.mail(["r"]))["r"]] == [b'{"payload":1}', b'{"payload":4}']


async def test_mail_leaves_only_in_the_commit_that_records_it(world: World) -> None:
    """LF19 mail leaves only in the commit that journals it, by its id."""
    async with world.journal() as journal:
        (run,) = await begin(journal)
        await journal.send([signal("r", b"1"), signal("r", b"2")])
        first, second = (await journal.mail(["r"]))["r"]
        await write(journal, turn(run, entries=(entry(),), consumed=(second.id,)))
        assert (await journal.mail(["r"]))["r"] == (first,)


async def test_what_consumes_mail_that_is_journaled_already_is_void(world: World) -> None:
    """LF19 mail is journaled once: a commit that consumes it again is stale, and its group is undone."""
    async with world.journal() as journal:
        run, mate = await begin(journal, root("r"), root("mate"))
        await journal.send([signal("r", b"1"), signal("r", b"2")])
        first, second = (await journal.mail(["r"]))["r"]
        await write(journal, turn(run, entries=(entry("a"),), consumed=(first.id,)))
        again = turn(run, seq=2, entries=(entry("b"), entry("c")), consumed=(first.id, second.id))
        assert await journal.commit(again) == (Stale(),)
        assert await journal.commit(turn(mate, entries=(entry(),)), again) == (Undone(), Stale())
        assert world.entries("r") == [(1, "activity_completed", "a")]
        assert world.entries("mate") == []
        assert (await journal.mail(["r"]))["r"] == (second,), "what it would have consumed is still there"
        await journal.release([Lease("r", 1)])
        assert await journal.commit(again) == (Fenced(),), "whoever lost the lease is told that"


async def test_a_start_by_a_taken_id_changes_nothing(world: World) -> None:
    """SV05 a start by an id that is taken attaches to the run there is."""
    async with world.journal(None) as client:
        starts = [client.start([root("r", input=b"%d" % number)]) for number in range(20)]
        started = await asyncio.gather(*starts)
        assert sorted(map(len, started)) == [0] * 19 + [1]
        assert await client.start([root("r", "other"), root("s")]) == {"s"}


async def test_a_child_whose_id_is_taken_is_told(world: World) -> None:
    """CH25 same key, same child: the second start finds the first."""
    async with world.journal() as journal:
        (run,) = await begin(journal)
        (first,) = await write(journal, turn(run, children=(child("r", "k", input=b"1"),)))
        (second,) = await write(journal, turn(run, children=(child("r", "k", input=b"2"), child("r", "j"))))
        assert (first.existed, second.existed) == ((), ("r/k",))
        assert (await claim(journal))["r/k"].input == b"1"


async def test_a_fan_in_costs_a_row_a_child(world: World) -> None:
    """CH29 N children cost at most c·N rows."""
    async with world.journal() as journal:
        (run,) = await begin(journal)
        kids = tuple(child("r", f"k{number}") for number in range(200))
        await write(journal, turn(run, children=kids, claimed=200, status=Passivate()))
        held = await journal.reclaim([lease for lease in await journal.leases() if lease.run_id != "r"])
        await asyncio.gather(
            *(write(journal, turn(kid, status=Complete(b"1"), messages=(outcome(kid.run_id),))) for kid in held)
        )
        assert (world.count("runs"), world.count("inbox"), world.count("events")) == (201, 200, 0)


async def test_starts_and_signals_of_a_transaction_that_is_rolled_back_leave_nothing(
    world: World, database: str
) -> None:
    """SV06 start, signal and cancel inside the caller's own transaction: rollback leaves nothing."""
    async with world.journal() as journal:
        (run,) = await begin(journal, root("old"))
        await write(journal, turn(run, children=(child("old", "k"),), tasks=(task(),), status=Passivate()))
        with psycopg.connect(database) as connection:
            assert take(connection, starting("continuum", [root("new")])) == {"new"}
            take(connection, sending("continuum", [signal("old"), signal("new")]))
            assert take(connection, cancelling_here("continuum", "old", "changed my mind")).runs == 2
            connection.rollback()
        async with await psycopg.AsyncConnection.connect(database) as there:
            await take_async(there, starting("continuum", [root("new")]))
            await take_async(there, cancelling_here("continuum", "old/k", ""))
            await there.rollback()
        assert [world.count(table) for table in ("runs", "inbox", "tasks")] == [2, 0, 1]
        assert [world.state(run_id) for run_id in ("old", "old/k")] == ["suspended", "pending"]


@pytest.mark.parametrize("sync", [True, False])
async def test_starts_and_signals_of_a_transaction_wake_at_its_commit(
    world: World, database: str, sync: bool
) -> None:
    """SV06 start, signal and cancel inside the caller's own transaction: commit wakes."""
    async with world.journal() as journal, world.journal(None) as client:
        await world.heard["w"].until("gap")
        run, other = await begin(journal, root("old"), root("other"))
        await write(journal, turn(run, status=Passivate()), turn(other, children=(child("other", "k"),)))
        waiting = asyncio.ensure_future(client.wait("other/k"))
        steps = (
            starting("continuum", [root("new")]),
            sending("continuum", [signal("old")]),
            cancelling_here("continuum", "other", ""),
        )
        if sync:
            with psycopg.connect(database) as connection:
                for step in steps:
                    take(connection, step)
        else:
            async with await psycopg.AsyncConnection.connect(database) as connection:
                for step in steps:
                    await take_async(connection, step)
        for kind, name in (("ready", "flow:1"), ("wake", "old"), ("fenced", "w"), ("ended", "other")):
            await world.heard["w"].until(kind, name)
        assert (await soon(waiting)).state == "cancelled"
        found: set[str] = set()

        async def all_claimed() -> bool:
            found.update(await claim(journal))
            return found == {"new", "old"}

        await until(all_claimed)


async def test_a_transaction_is_told_what_cannot_be_signalled_or_cancelled(world: World, database: str) -> None:
    """SV06 the caller's own transaction: what does not exist or has ended raises."""
    async with world.journal() as journal:
        (run,) = await begin(journal)
        await write(journal, turn(run, status=Complete(b"1")))
        with psycopg.connect(database) as connection:
            for missing in ("missing", "nul\0", "\udc80"):
                with pytest.raises(RunNotFound):
                    take(connection, sending("continuum", [signal(missing)]))
                with pytest.raises(RunNotFound):
                    take(connection, cancelling_here("continuum", missing, ""))
            with pytest.raises(RunNotActive) as caught:
                take(connection, sending("continuum", [signal("r")]))
            assert caught.value.state == "completed"
            assert take(connection, cancelling_here("continuum", "r", "")).runs == 0


async def test_a_cascade_refuses_a_transaction_that_sees_only_its_past(world: World, database: str) -> None:
    """SV06 a cascade in a transaction with one snapshot would miss children, so it is refused."""
    async with world.journal() as journal:
        (run,) = await begin(journal)
        with psycopg.connect(database) as connection:
            connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            connection.execute("select 1")
            await write(journal, turn(run, children=(child("r", "escapes"),)))
            with pytest.raises(ContinuumError, match="read committed"):
                take(connection, cancelling_here("continuum", "r", ""))
            take(connection, starting("continuum", [root("new")]))


async def test_migrating_again_or_twice_at_once_changes_nothing(empty_database: str) -> None:
    """SV10 migrations run twice, and by two processes at once."""
    code = """import asyncio, sys; from continuum._journal.migrate import migrate
print(len(asyncio.run(migrate(sys.argv[1]))))"""
    command = [sys.executable, "-c", code, empty_database]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    done = [process.communicate(timeout=30)[0] for process in both]
    assert sum(map(int, done)) == len(migrations())
    assert await migrate(empty_database) == []
