"""What must hold after every round of a storm, read from the tables."""

from __future__ import annotations

from collections import Counter, defaultdict

from tests.journal.races.round import Round
from tests.journal.races.sides import LIVE, Session

_RUNS = "select run_id, state from continuum.runs where run_id > $1 and run_id < $1 || '~'"
_ENTRIES = """select run_id, key from continuum.events
  where run_id > $1 and run_id < $1 || '~' order by run_id, generation, seq"""
_INBOX = "select run_id, key from continuum.inbox where run_id > $1 and run_id < $1 || '~' order by run_id, id"
_TASKS = """select count(*) from continuum.tasks t join continuum.runs r using (run_id)
  where t.run_id > $1 and t.run_id < $1 || '~' and r.state = 'cancelled'"""


async def check(found: Round) -> None:
    """Compare the tables with what the sides of the round were told."""
    states = dict(await found.db.rows(_RUNS, found.prefix))
    entries = await found.db.rows(_ENTRIES, found.prefix)
    inbox = await found.db.rows(_INBOX, found.prefix)
    _each_commit_whole_or_not_at_all(found, entries)
    _one_writer_after_the_other(found, entries)
    _each_message_once(found, states, entries, inbox)
    _each_senders_order(found, entries, inbox)
    for (run_id, token), times in found.claims.items():
        if times > 1:
            found.problem(f"{run_id} was claimed {times} times under token {token}")
    await _nothing_after_a_cancel(found, states)


def _each_commit_whole_or_not_at_all(found: Round, entries: list[tuple[str, str]]) -> None:
    marks = Counter(key for _, key in entries if key.startswith("#"))
    for mark, durable in found.markers.items():
        if marks[mark] != durable:
            found.problem(f"commit {mark} is there {marks[mark]} times, its writer was told {durable}")


def _one_writer_after_the_other(found: Round, entries: list[tuple[str, str]]) -> None:
    last: dict[str, int] = {}
    for run_id, key in entries:
        if key.startswith("#"):
            token = int(key.partition(":")[2])
            if token < last.get(run_id, 0):
                found.problem(f"{run_id} was written under token {token} after {last[run_id]}")
            last[run_id] = token


def _each_message_once(
    found: Round, states: dict[str, str], entries: list[tuple[str, str]], inbox: list[tuple[str, str]]
) -> None:
    recorded = Counter((run_id, key) for run_id, key in entries if key and not key.startswith("#"))
    waiting = Counter(inbox)
    for sent, times in found.sent.items():
        state = states.get(sent[0], "gone")
        if recorded[sent] + waiting[sent] > times:
            found.problem(f"message {sent} is there {recorded[sent]} + {waiting[sent]} times")
        elif recorded[sent] + waiting[sent] == 0 and state in LIVE:
            found.problem(f"message {sent} to a {state} run is lost")
        elif waiting[sent] and state in LIVE and state != "parked":
            found.problem(f"message {sent} to a {state} run is served by nobody")
    for stranger in recorded.keys() - found.sent.keys() - found.maybe:
        found.problem(f"message {stranger} was never sent")


def _each_senders_order(found: Round, entries: list[tuple[str, str]], inbox: list[tuple[str, str]]) -> None:
    last: defaultdict[tuple[str, str], int] = defaultdict(int)
    for run_id, key in entries + inbox:
        sender, dash, number = key.partition(">")
        if dash:
            if int(number) <= last[run_id, sender]:
                found.problem(f"{run_id} got {key} after {last[run_id, sender]}")
            last[run_id, sender] = int(number)


async def _nothing_after_a_cancel(found: Round, states: dict[str, str]) -> None:
    for root, before in found.cancelled.items():
        if (after := await found.entries_below(root)) != before:
            found.problem(f"{after - before} entries after the cancellation of {root}")
        for run_id, state in states.items():
            if (run_id == root or run_id.startswith(f"{root}/")) and state in LIVE:
                found.problem(f"{run_id} is {state} below {root}, which is cancelled")
    if tasks := await found.db.one(_TASKS, found.prefix):
        found.problem(f"{tasks} tasks of cancelled runs")


async def no_deadlocks(db: Session) -> str | None:
    count = await db.deadlocks()
    return f"{count} deadlocks" if count else None
