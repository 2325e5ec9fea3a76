"""``continuum db prune``."""

from __future__ import annotations

import pytest

from continuum._journal.commit import Complete, Passivate
from tests.cli.conftest import Run
from tests.cli.harness import ended, made
from tests.journal.harness import select

COMPLETE = Complete(b"2")


def left(url: str) -> list[str]:
    return [run_id for (run_id,) in select(url, "select run_id from continuum.runs order by run_id")]


def test_what_ended_long_ago_is_deleted_and_counted(run: Run, here: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made(here, *(ended(f"r{n}", COMPLETE) for n in range(5)), ended("live", Passivate(None, "signal 'go'")))
    assert run("db", "prune", "--older-than", "1h") == (0, "deleted 0 trees\n", "")
    select(here, "update continuum.runs set completed_at = now() - interval '2 hours' where run_id like 'r%%'")
    assert run("db", "prune", "--older-than", "1h", "--limit", "1") == (0, "deleted 1 tree\n", "")
    assert len(left(here)) == 5
    monkeypatch.setattr("continuum.cli.prune.AT_ONCE", 2)
    assert run("db", "prune", "--older-than", "1h", "--url", here) == (0, "deleted 4 trees\n", "")
    assert left(here) == ["live"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "the following arguments are required: --older-than"),
        (["--older-than", "30"], "it is a number with w, d, h, min or s behind it, not '30'"),
        (["--older-than", "-1d"], "expected one argument"),
        (["--older-than", "1y"], "not '1y'"),
        (["--older-than", "999999999w"], "999999999w is longer than there are runs"),
        (["--older-than", "1d", "--limit", "0"], "it is a whole number of at least 1"),
    ],
)
def test_an_age_without_a_unit_deletes_nothing(run: Run, here: str, arguments: list[str], says: str) -> None:
    made(here, ended("r", COMPLETE))
    code, printed, error = run("db", "prune", *arguments)
    assert (code, printed, error.count("\n")) == (2, "", 1)
    assert says in error
    assert left(here) == ["r"]
