"""Text that no encoding has: whatever it is given to, the caller is told by an error of ours."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import psycopg
import pytest

from continuum._core.effects import Cancellation
from continuum._journal.commit import Announcement, Lease, Rejected
from continuum._journal.journal import PostgresJournal
from continuum._journal.outside import cancelling_here, take
from continuum.errors import DatabaseRefused, RunNotFound
from tests.journal.harness import begin, child, entry, root, select, signal, soon, turn, worker, write

REFUSED: dict[str, Callable[[PostgresJournal, str], Awaitable[object]]] = {
    "start": lambda journal, text: journal.start([root("good"), root(text)]),
    "start of a workflow": lambda journal, text: journal.start([root("good"), root("bad", text)]),
    "start in a namespace": lambda journal, text: journal.start([root("good"), root("bad", namespace=text)]),
    "a signal's name": lambda journal, text: journal.send([signal("r", name=text)]),
    "the reason of a cancel": lambda journal, text: journal.cancel("r", f"because {text}"),
    "register": lambda journal, text: journal.register(f"w {text}", 10, {}),
    "claim": lambda journal, text: journal.claim([("flow", 1), (text, 1)], 10),
    "announce": lambda journal, text: journal.announce([Announcement("workflow", text)]),
    "release": lambda journal, text: journal.release([Lease(text, 1)]),
    "reclaim": lambda journal, text: journal.reclaim([Lease(text, 1)]),
    "resume": lambda journal, text: journal.resume(text),
    "mail": lambda journal, text: journal.mail(["r", text]),
    "claim of tasks": lambda journal, text: journal.claim_tasks(text, 1, 10),
    "history": lambda journal, text: journal.views.history(text),
    "below": lambda journal, text: journal.views.below(text),
    "roots of a workflow": lambda journal, text: journal.views.roots(workflow=text),
    "roots in a namespace": lambda journal, text: journal.views.roots(namespace=text),
    "roots in a state": lambda journal, text: journal.views.roots(state=text),
}
NOT_FOUND: dict[str, Callable[[PostgresJournal, str], Awaitable[object]]] = {
    "cancel": lambda journal, text: journal.cancel(text, ""),
    "wait": lambda journal, text: journal.wait(text),
}


async def refusal(call: Awaitable[object]) -> str:
    """Return what the caller is told, or nothing."""
    try:
        await soon(call)
    except DatabaseRefused as error:
        return str(error)
    return ""


@pytest.mark.parametrize("text", ["a\ud800", "\udc80b", "a\0b"], ids=ascii)
async def test_what_cannot_be_stored_is_refused_by_every_call_and_changes_nothing(
    database: str, text: str
) -> None:
    async with worker(database) as journal:
        (run,) = await begin(journal)
        for name, call in REFUSED.items():
            told = await refusal(call(journal, text))
            assert told, name
            assert "\n" not in told, name
        if "\0" not in text:  # which information about a worker may hold
            assert await refusal(journal.register("new", 10, {"host": text}))
        for call in NOT_FOUND.values():
            with pytest.raises(RunNotFound):
                await soon(call(journal, text))
        assert await journal.send([signal(text)]) == {text: None}
        assert await journal.ends([text]) == {}
        assert await journal.describe(text) is None
        counts = "select (select count(*) from continuum.runs), (select count(*) from continuum.inbox)"
        assert select(database, counts) == [(1, 0)]
        assert journal.worker_id == "w"
        await write(journal, turn(run, entries=(entry(),)))


@pytest.mark.parametrize("reason", ["a\ud800", "\udc80b", "a\0b"], ids=ascii)
async def test_a_commit_that_cancels_for_a_reason_that_cannot_be_stored_is_rejected_alone(
    database: str, reason: str
) -> None:
    async with worker(database) as journal:
        run, other = await begin(journal, root("r"), root("s"))
        await write(journal, turn(run, children=(child("r", "k"),)))
        cancels = (Cancellation("r/k", reason),)
        (found,) = await soon(journal.commit(turn(run, entries=(entry(),), cancels=cancels)))
        assert isinstance(found, Rejected)
        await write(journal, turn(other, entries=(entry(),)))
        await write(journal, turn(run, entries=(entry(),), cancels=(Cancellation("r/k", "fine"),)))
        assert (await journal.ends(["r/k"]))["r/k"].state == "cancelled"


@pytest.mark.parametrize("reason", ["a\ud800", "a\0b"], ids=ascii)
async def test_a_cascade_in_the_callers_transaction_refuses_such_a_reason(database: str, reason: str) -> None:
    async with worker(database) as journal:
        await journal.start([root()])
        with psycopg.connect(database) as connection:
            with pytest.raises(DatabaseRefused):
                take(connection, cancelling_here("continuum", "r", reason))
            assert take(connection, cancelling_here("continuum", "r", "fine")).runs == 1
