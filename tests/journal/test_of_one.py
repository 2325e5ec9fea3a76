"""What is read of one run by a shorter statement is what is read of it among many."""

from __future__ import annotations

import pytest

from continuum._journal import reader
from continuum._journal.commit import Complete, Fail
from tests.journal.harness import begin, root, signal, turn, worker, write


@pytest.mark.parametrize(("most", "size"), [(900, 3_000_000), (2, 3_000_000), (900, 12), (900, 1)])
async def test_mail_of_one_run_is_that_of_it_among_many(
    database: str, monkeypatch: pytest.MonkeyPatch, most: int, size: int
) -> None:
    monkeypatch.setattr(reader, "MOST_MAIL", most)
    monkeypatch.setattr(reader, "MOST_BYTES", size)
    async with worker(database) as journal:
        await begin(journal, root("r"), root("other"))
        await journal.send([signal(to, b"%d" % number) for number in range(4) for to in ("r", "other")])
        alone, among = await journal.mail(["r"]), await journal.mail(["r", "other"])
        assert alone["r"] == among["r"]
        assert len(alone["r"]) == {900: 4 if size > 100 else 1, 2: 2}[most]


async def test_the_end_of_one_run_is_that_of_it_among_many(database: str) -> None:
    async with worker(database) as journal:
        done, failed, _ = await begin(journal, root("done"), root("failed"), root("live"))
        await write(journal, turn(done, status=Complete(b"null")))
        await write(journal, turn(failed, status=Fail(b'{"type":"x"}')))
        names = ("done", "failed", "live", "unknown")
        alone = {name: end for one in names for name, end in (await journal.ends([one])).items()}
        assert alone == await journal.ends(names)
        assert list(alone) == ["done", "failed"]
