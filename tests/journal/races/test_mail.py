"""Races of mail: cross-waking flushes (3), a message against passivation (4) and a claim (9), to a child of its
own commit (6), the order of one sender's signals (7), and NOTIFY beside POKE (16)."""

from __future__ import annotations

import asyncio

import pytest

from continuum._journal.commit import Committed, Continue, Park, Passivate, Status
from tests.journal.races.sides import FLOW, Session, child, entry, message, session, turn, working
from tests.journal.races.stepper import before_deadline

FAR_US = 4_000_000_000_000_000  # a timer that is not due for decades


@pytest.mark.parametrize("timer", [None, FAR_US])
@pytest.mark.parametrize("first", ["sender", "receiver"])
async def test_whoever_commits_later_wakes_a_run_that_passivates_beside_a_message(
    raced: str, db: Session, first: str, timer: int | None
) -> None:
    async with working(raced, "s", "r") as (sender, receiver):
        await db.put("from", "s")
        await db.put("to", "r")
        late, early = (sender, receiver) if first == "receiver" else (receiver, sender)
        commits = {
            "s": turn("from", messages=(message("to", "m"),)),
            "r": turn("to", status=Passivate(timer)),
        }
        stop = late.stepper.stop_at("flush.begin")
        pending = late.journal.submit(commits[late.name])
        await stop.reached()
        await early.journal.commit(commits[early.name])
        stop.let_go()
        assert isinstance((await pending)[0], Committed)
        await db.until_due("to")


@pytest.mark.parametrize("open_side", ["sender", "receiver"])
async def test_neither_open_transaction_hides_the_message_from_the_other_side(
    raced: str, db: Session, open_side: str
) -> None:
    """Each statement saw the tables as they were before the other's commit; the later POKE sees both."""
    async with working(raced, "w") as (worker,), session(raced) as slow:
        await db.put("from", "w" if open_side == "receiver" else "slow")
        await db.put("to", "w" if open_side == "sender" else "slow")
        sending = turn("from", messages=(message("to", "m"),))
        passivating = turn("to", status=Passivate())
        mine, theirs = (passivating, sending) if open_side == "sender" else (sending, passivating)
        await slow.begin()
        await slow.flush("slow", theirs)
        stop = worker.stepper.stop_at("poke.committed")
        await worker.journal.commit(mine)
        await stop.reached()  # it has looked, and could not see
        stop.let_go()
        await slow.commit()
        if open_side == "sender":
            assert not await db.is_due("to")  # the passivator looked too early, so the sender has to
        await slow.run("poke", run_ids=["to"], channels=[], payloads=[], ready_channel="c")
        assert await db.is_due("to")


async def test_a_message_to_a_run_that_its_own_worker_passivates_wakes_it(raced: str, db: Session) -> None:
    async with working(raced, "w") as (worker,):
        await db.put("from", "w")
        await db.put("to", "w")
        stop = worker.stepper.stop_at("flush.begin")
        both = [
            worker.journal.submit(turn("from", messages=(message("to", "m"),))),
            worker.journal.submit(turn("to", status=Passivate())),
        ]
        await stop.reached()
        stop.let_go()
        await asyncio.gather(*both)
        assert worker.stepper.visits["flush.begin"] == 1  # one statement
        await db.until_due("to")


async def test_flushes_that_wake_each_other_do_not_wait_for_each_other(raced: str, db: Session) -> None:
    async with working(raced, "b") as (other,), session(raced) as slow:
        for run_id, owner in (("a1", "a"), ("a2", "a"), ("b1", "b"), ("b2", "b")):
            await db.put(run_id, owner)
        await slow.begin()
        await slow.flush("a", turn("a1", messages=(message("b1", "1"), message("b2", "2")), status=Passivate()))
        (outcome,) = await before_deadline(
            other.journal.commit(
                turn("b2", messages=(message("a1", "3"), message("a2", "4")), status=Passivate())
            ),
            "the second flush",
        )
        assert isinstance(outcome, Committed)
        await slow.commit()
        await slow.run("poke", run_ids=["a1", "b1", "b2"], channels=[], payloads=[], ready_channel="c")
        await db.until_due("a1")
        await db.until_due("b2")
        assert [await db.inbox_of(run_id) for run_id in ("a1", "a2", "b1", "b2")] == [["3"], ["4"], ["1"], ["2"]]


async def test_a_claimer_reads_a_message_that_came_between_its_claim_and_its_look(raced: str, db: Session) -> None:
    async with working(raced, "c", "s") as (claimer, sender):
        await db.put("to", due=True)
        await db.put("from", "s")
        stop = claimer.stepper.stop_at("claim.committed")
        claim = asyncio.ensure_future(claimer.journal.claim([FLOW], 1))
        await stop.reached()
        await sender.journal.commit(turn("from", messages=(message("to", "m"),)))
        stop.let_go()
        (loaded,) = await claimer.journal.load(await claim)
        assert [mail.key for mail in loaded.mail] == ["m"]


async def test_a_message_that_commits_after_the_claimers_look_is_found_among_its_residents(
    raced: str, db: Session
) -> None:
    async with working(raced, "c") as (claimer,), session(raced) as slow:
        await db.put("to", due=True)
        await db.put("from", "slow")
        await slow.begin()
        result = await slow.flush("slow", turn("from", messages=(message("to", "m"),)))
        assert result.far == {"to"}
        run = await claimer.claim_one()
        (loaded,) = await claimer.journal.load([run])
        assert loaded.mail == ()
        await slow.commit()
        assert await claimer.journal.residents_with_mail() == ["to"]


async def test_a_claim_that_is_rolled_back_leaves_the_run_to_a_later_poke(raced: str, db: Session) -> None:
    async with working(raced, "s") as (sender,), session(raced) as claimer:
        await db.put("to")
        await db.put("from", "s")
        await claimer.begin()
        await claimer.hold("to")
        stop = sender.stepper.stop_at("poke.committed")
        await sender.journal.commit(turn("from", messages=(message("to", "m"),)))
        await stop.reached()
        assert not await db.is_due("to")
        stop.let_go()
        await claimer.roll_back()
        await db.until_due("to")


@pytest.mark.parametrize("claimed", [0, 1])
async def test_a_signal_to_a_child_started_in_the_same_commit_arrives(
    raced: str, db: Session, claimed: int
) -> None:
    async with working(raced, "w") as (worker,):
        await db.put("r", "w")
        signals = tuple(message("r/c", f"{number}") for number in range(3))
        (outcome,) = await worker.journal.commit(
            turn("r", children=(child("r/c"),), claimed=claimed, messages=signals)
        )
        assert isinstance(outcome, Committed)
        assert outcome.undelivered == ()
        assert await db.inbox_of("r/c") == ["0", "1", "2"]
        if claimed:
            assert await worker.journal.residents_with_mail() == ["r/c"]
        else:
            (loaded,) = await worker.journal.load([await worker.claim_one()])
            assert [mail.key for mail in loaded.mail] == ["0", "1", "2"]


async def test_a_signal_to_a_child_of_a_large_commit_arrives(raced: str, db: Session) -> None:
    async with working(raced, "w") as (worker,):
        await db.put("r", "w")
        children = tuple(child(f"r/c{number:04}") for number in range(1500))
        signals = tuple(message(kid.run_id, "s") for kid in children)
        stop = worker.stepper.stop_at("large.written")
        pending = worker.journal.submit(turn("r", children=children, messages=signals))
        await stop.reached()
        assert await db.one("select count(*) from continuum.inbox") == 0
        stop.let_go()
        (outcome,) = await before_deadline(pending, "the large commit")
        assert isinstance(outcome, Committed)
        assert await db.one("select count(*) from continuum.inbox") == 1500


@pytest.mark.parametrize("between", ["nothing", "a passivation", "a next generation", "parking"])
async def test_signals_of_one_sender_keep_their_order(raced: str, db: Session, between: str) -> None:
    statuses: dict[str, Status] = {
        "a passivation": Passivate(),
        "a next generation": Continue(1, (entry("", kind="run_started"),)),
        "parking": Park(b'{"type":"E","message":"m"}'),
    }
    async with working(raced, "s", "r") as (sender, receiver):
        await db.put("from", "s")
        await db.put("to", "r")
        first = turn("from", messages=tuple(message("to", f"{number}") for number in range(20)))
        await sender.journal.commit(first)
        if between in statuses:
            await receiver.journal.commit(turn("to", status=statuses[between]))
        stop = sender.stepper.stop_at("flush.begin")
        second = sender.journal.submit(
            turn("from", messages=tuple(message("to", f"{number}") for number in range(20, 40)))
        )
        await stop.reached()
        stop.let_go()
        await second
        mail = (await receiver.journal.mail(["to"]))["to"]
        assert [found.key for found in mail] == [f"{number}" for number in range(40)]


async def test_a_message_with_a_smaller_id_that_commits_later_is_not_skipped(raced: str, db: Session) -> None:
    async with working(raced, "r") as (receiver,), session(raced) as slow, session(raced) as fast:
        await db.put("to", "r")
        await db.put("slow", "slow")
        await db.put("fast", "fast")
        await slow.begin()
        await slow.flush("slow", turn("slow", messages=(message("to", "early id"),)))
        await fast.flush("fast", turn("fast", messages=(message("to", "late id"),)))
        (seen,) = (await receiver.journal.mail(["to"]))["to"]
        assert seen.key == "late id"
        await slow.commit()
        await receiver.journal.commit(turn("to", keys=[seen.key], consumed=(seen.id,)))
        (rest,) = (await receiver.journal.mail(["to"]))["to"]
        assert rest.key == "early id"
        assert rest.id < seen.id


# --- NOTIFY beside POKE


async def test_a_run_with_mail_is_told_to_the_worker_that_holds_it(raced: str, db: Session) -> None:
    async with working(raced, "s", "r") as (sender, receiver):
        await db.put("from", "s")
        await db.put("to", "r")
        await receiver.listen()
        await sender.journal.commit(turn("from", messages=(message("to", "m"),)))
        await receiver.hears("wake", "to")


async def test_a_hint_is_not_heard_before_what_it_tells_is_durable(raced: str, db: Session) -> None:
    async with working(raced, "s", "r") as (sender, receiver):
        await db.put("from", "s")
        await db.put("to")
        await receiver.listen()
        stop = sender.stepper.stop_at("poke.begin")
        await sender.journal.commit(turn("from", messages=(message("to", "m"),)))
        await stop.reached()
        assert ("ready", "flow:1") not in receiver.heard
        assert not await db.is_due("to")
        stop.let_go()
        await receiver.hears("ready", "flow:1")
        assert (await receiver.claim_one()).run_id == "to"  # armed and told in one commit


async def test_a_hint_to_a_run_that_is_not_armed_yet_is_repeated_when_it_is(raced: str, db: Session) -> None:
    async with working(raced, "s", "r") as (sender, receiver), session(raced) as holding:
        await db.put("from", "s")
        await db.put("to")
        await receiver.listen()
        await holding.begin()
        await holding.hold("to")
        await sender.journal.commit(turn("from", messages=(message("to", "m"),)))
        await receiver.hears("wake", "to")
        assert ("ready", "flow:1") not in receiver.heard
        await holding.roll_back()
        await receiver.hears("ready", "flow:1")
        assert await db.is_due("to")
