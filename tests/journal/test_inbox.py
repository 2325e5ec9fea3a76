"""Reading inboxes: a run's mail comes in portions, and what a commit of a portion holds is no large one."""

from __future__ import annotations

import pytest

from continuum._journal.commit import Claimed, Committed
from continuum._journal.journal import PostgresJournal
from tests.journal.harness import begin, entry, root, signal, soon, turn, worker
from tests.journal.races.stepper import Stepper


async def portions(journal: PostgresJournal, run: Claimed) -> list[list[bytes]]:
    """Journal all mail of a run; return what came at once, each time."""
    found: list[list[bytes]] = []
    seq = 1
    while mail := (await journal.mail([run.run_id])).get(run.run_id):
        (loaded,) = await journal.load([run])
        assert loaded.mail == mail
        entries = tuple(entry(each.key, each.payload, each.type) for each in mail)
        (done,) = await soon(
            journal.commit(turn(run, seq=seq, entries=entries, consumed=tuple(each.id for each in mail)))
        )
        assert isinstance(done, Committed)
        seq += len(entries)
        found.append([each.payload for each in mail])
    return found


async def test_mail_is_read_in_portions_of_900_whose_commits_are_not_large(database: str) -> None:
    hooks = Stepper()
    async with worker(database, hooks=hooks) as journal:
        run, other = await begin(journal, root("r"), root("s"))
        await journal.send([signal("r", b"%d" % number) for number in range(2_000)] + [signal("s")])
        assert len((await journal.mail(["r", "s"]))["s"]) == 1, "a full inbox takes no other run's place"
        parts = await portions(journal, run)
        assert [len(part) for part in parts] == [900, 900, 200]
        assert [text for part in parts for text in part] == [b'{"payload":%d}' % number for number in range(2_000)]
        assert hooks.visits["large.begin"] == 0
        assert [len(part) for part in await portions(journal, other)] == [1]


@pytest.mark.parametrize(
    ("megabytes", "expected"),
    [
        ([1, 1, 1, 1], [2, 2]),
        ([4], [1]),
        ([4, 4], [1, 1]),
        ([0, 4, 0], [1, 1, 1]),
        ([0, 1, 4, 0, 1], [2, 1, 2]),
    ],
)
async def test_mail_is_read_in_portions_of_3_megabytes_and_at_least_one_message(
    database: str, megabytes: list[int], expected: list[int]
) -> None:
    async with worker(database) as journal:
        run, _ = await begin(journal, root("r"), root("s"))
        for number in megabytes:
            await journal.send([signal("r", b'"' + b"x" * (number * 1_000_000) + b'"')])
        parts = await portions(journal, run)
        assert [len(part) for part in parts] == expected
        assert [len(text) // 1_000_000 for part in parts for text in part] == megabytes
