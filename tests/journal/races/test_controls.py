"""Storms against a broken journal: each mutation of its SQL must be seen, else the storms prove nothing.

A race is seen by chance, mostly within 60 rounds and once in a while not within 1,200: `make races` has the time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import pytest

from continuum._core.effects import Cancellation
from continuum._journal import cascade, endings, flusher, large, statements
from continuum._journal.commit import Commit, Passivate
from continuum._journal.hints import Hints
from continuum._journal.statements import Statement
from tests.journal.races import scenarios, sides
from tests.journal.races import storm as storm_module
from tests.journal.races.invariants import check, no_deadlocks
from tests.journal.races.round import Round, Storm
from tests.journal.races.sides import session
from tests.journal.races.storm import Scenario, brewing, rage

MOST_ROUNDS = 6000
LONG = 200  # rounds of a storm from which on the controls take part
PORTION = 60
Mutate = Callable[[str, str, str], None]
pytestmark = pytest.mark.skipif(storm_module.rounds() < LONG, reason="by chance, so in `make races` alone")
Render = Callable[[str, str, frozenset[str]], Statement]


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for a wake that will not come no longer than it takes to tell."""
    monkeypatch.setattr(storm_module, "REACH_S", 0.3)


@pytest.fixture
def mutate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Mutate]:
    """Replace a piece of a statement's text, in every module that runs it."""
    wanted: set[str] = set()

    def mutation(name: str, piece: str, instead: str) -> None:
        def mutated(asked: str, schema: str, parts: frozenset[str] = frozenset()) -> Statement:
            found = plain(asked, schema, parts)
            if asked != name or piece.encode() not in found.text:
                return found
            wanted.discard(piece)
            return replace(found, text=found.text.replace(piece.encode(), instead.encode()))

        wanted.add(piece)
        plain: Render = getattr(flusher, "statement")
        for module in (flusher, large, cascade, endings, sides):
            monkeypatch.setattr(module, "statement", mutated)

    yield mutation
    assert not wanted, f"no statement had {wanted}"


async def _seen(url: str, scenario: Scenario, symptom: str, *, poked: bool = True) -> Storm:
    """Storm until a problem speaks of ``symptom``."""
    rounds = 0
    async with brewing(url, poked=poked) as storm:
        while rounds < MOST_ROUNDS and not any(symptom in problem for problem in storm.problems):
            rounds += PORTION
            await rage(storm, scenario, check, PORTION)
    async with session(url) as db:
        storm.problems.extend(filter(None, [await no_deadlocks(db)]))
    assert any(symptom in problem for problem in storm.problems), storm.problems[:20]
    print(f"\ncontrol {symptom!r}: seen within {rounds} rounds, seed {storm.seed}")
    return storm


async def _deadlocks(url: str, scenario: Scenario) -> None:
    """Storm until Postgres has found a deadlock."""
    for _ in range(MOST_ROUNDS // PORTION):
        async with brewing(url, poked=True) as storm:
            await rage(storm, scenario, check, PORTION)
        async with session(url) as db:
            if await db.deadlocks():
                return
            await db.rows("delete from continuum.workers")
    pytest.fail("no deadlock was seen")


async def test_control_locks_in_reverse_order_are_seen_as_deadlocks(raced: str, mutate: Mutate) -> None:
    mutate("flush", "order by depth, run_id for update", "order by depth desc, run_id desc for update")
    await _deadlocks(raced, batched_cascade)


async def test_control_locks_in_the_order_of_ids_alone_are_seen_as_deadlocks(raced: str, mutate: Mutate) -> None:
    mutate("flush", "order by depth, run_id for update", "order by run_id for update")
    await _deadlocks(raced, batched_cascade)


async def test_control_a_flush_without_a_fence_is_seen(raced: str, mutate: Mutate) -> None:
    piece = "where l.run_id = o.r and l.lease_owner = $4 and l.lease_token = o.tok"
    found = statements.statement("flush", "continuum")
    at = found.parameters.index("worker") + 1
    mutate("flush", piece.replace("$4", f"${at}"), f"where l.run_id = o.r and ${at}::text is not null")
    await _seen(raced, scenarios.takeover, "after")


async def test_control_a_flush_that_forgets_the_group_is_seen(raced: str, mutate: Mutate) -> None:
    mutate("flush", "on mate.grp = b.grp", "on mate.r = b.r")
    await _seen(raced, scenarios.grouped, "and its parent one was written")


async def test_control_a_cascade_in_one_statement_is_seen(raced: str, mutate: Mutate) -> None:
    mutate("cancel_level", "and depth = ", "and depth >= ")
    mutate("cancel_deeper", "and depth > $2", "and depth > $2 and $2 < 1")
    await _seen(raced, scenarios.cascade, "which is cancelled")


async def test_control_a_sender_that_does_not_poke_is_seen(raced: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Hints, "mail", lambda self, near, far: None)
    await _seen(raced, scenarios.passivation, "are due for nobody")


async def test_control_a_passivator_that_does_not_poke_is_seen(
    raced: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Hints, "arm", lambda self, run_ids: None)
    await _seen(raced, passivating, "are due for nobody")


async def test_control_a_drain_up_to_the_last_id_is_seen(raced: str, mutate: Mutate) -> None:
    own = "using c0 join ok using (r) where i.run_id = c0.r and i.id"
    mutate("flush", f"{own} = c0.id", f"{own} <= c0.id")
    await _seen(raced, draining, "is lost")


async def test_control_tasks_left_by_a_cascade_are_seen(raced: str, mutate: Mutate) -> None:
    mutate("cancel_rest", "task_id = any(array(select task_id from jobs))", "false")
    await _seen(raced, scenarios.cascade, "tasks of cancelled runs")


async def test_control_cascades_of_one_commit_one_after_the_other_are_seen_as_deadlocks(
    raced: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def one_by_one(schema: str, commits: Sequence[Commit]) -> cascade.Steps[cascade.Cascade]:
        done = cascade.Cascade()
        for wanted in (wanted for commit in commits for wanted in commit.cancels):
            done = yield from cascade.cancelling(schema, wanted.run_id, wanted.reason)
        return done

    monkeypatch.setattr(large, "bringing_about", one_by_one)
    await _deadlocks(raced, closing)


# --- scenarios made for one control


async def passivating(found: Round) -> None:
    """A run that gives up its lease without another look at its mail, against a message."""
    receiver, sender = await found.put("X", "a"), await found.put("s", "b")
    says = (found.says(sender, receiver),)

    async def passivates() -> None:
        await found.jitter(10)
        await found.commit(found.worker("a"), sides.turn(receiver, status=Passivate()))

    await asyncio.gather(passivates(), found.commit(found.worker("b"), sides.turn(sender, messages=says)))


async def draining(found: Round) -> None:
    """A run that reads its mail all the time, against two senders."""
    receiver = await found.put("X", "a")

    async def sends(owner: str, sender: str) -> None:
        for seq in range(1, 9):
            says = (found.says(sender, receiver),)
            await found.commit(found.worker(owner), sides.turn(sender, 1, seq, messages=says))

    async def reads() -> None:
        for _ in range(12):
            await found.serve(found.worker("a"), receiver, 1)

    await asyncio.gather(sends("b", await found.put("s", "b")), sends("c", await found.put("t", "c")), reads())


async def closing(found: Round) -> None:
    """A close that cancels two children, against flushes and ends below both."""
    top = await found.put("P", "a")
    kids = [await found.put(name, "b") for name in ("P/a", "P/b", "P/a/g", "P/b/g")]
    cancels = tuple(Cancellation(kid, "") for kid in kids[:2])

    async def writes() -> None:
        await found.jitter(40)
        await asyncio.gather(*(found.commit(found.worker("b"), sides.turn(kid)) for kid in kids[1:3]))

    await asyncio.gather(writes(), found.commit(found.worker("a"), sides.turn(top, cancels=cancels)))


async def batched_cascade(found: Round) -> None:
    """One worker's runs of all depths in one flush, against a cascade."""
    runs = [await found.put(name, "a") for name in ("P", "P/z", "P/a/b", "P/a", "P/a/b/c")]
    worker = found.worker("a")

    async def writes() -> None:
        await found.jitter(10)
        some = found.chance.sample(runs[1:], 3)
        await asyncio.gather(*(found.commit(worker, sides.turn(run)) for run in some))

    await asyncio.gather(writes(), found.cancel(runs[0]), found.cancel(runs[3]))
