"""How Postgres carries out what may reach thousands of runs: by ranges of ids, never by a walk over all runs."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from continuum._journal.cascade import _level, stopped
from continuum._journal.connections import adapt
from continuum._journal.statements import statement

ONE, MANY = ["deep"], [f"map/{number}" for number in range(1_000)]
RUNS = """insert into continuum.runs (run_id, depth, workflow, version, input)
  select id, length(id) - length(replace(id, '/', '')), 'flow', 1, 'null' from (
    select 'other-' || n from generate_series(1, 20000) n union all select 'deep' union all select 'map'
    union all select 'deep/' || n from generate_series(1, 5000) n
    union all select 'map/' || n from generate_series(0, 2999) n) x(id)"""
MAIL = "insert into continuum.inbox (run_id, type, key) select run_id, 'x', '' from continuum.runs"


@pytest.fixture
def filled(database: str) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(RUNS)
        connection.execute(MAIL)
        connection.execute("vacuum analyze")
        yield connection


def test_cascades_walk_ranges_of_ids(filled: psycopg.Connection[tuple[object, ...]]) -> None:
    """With the values known, and as a plan for any values, which Postgres makes after some executions."""
    roots = [stopped(run_id, "why") for run_id in MANY]
    for name, values in (
        ("cancel_level", _level(1, [], dict.fromkeys(ONE, "why"))),
        ("cancel_level", _level(1, roots, {})),
        ("cancel_level", _level(2, [], dict.fromkeys(MANY, "why"))),
        ("cancel_deeper", {"trees": ONE, "depth": 0}),
        ("cancel_deeper", {"trees": MANY, "depth": 1}),
        ("cancel_rest", {"trees": ONE}),
        ("cancel_rest", {"trees": MANY}),
        ("cancel_lock", {"own": ["map"], "trees": MANY, "depth": 0}),
        ("list_closing", {"run_id": "map", "depth": 1}),
    ):
        made = statement(name, "continuum")
        with psycopg.RawCursor(filled) as cursor:
            adapt(cursor)
            for asked in (
                cursor.execute(b"explain " + made.text, made.arguments(values)).fetchall(),
                cursor.execute(b"explain (generic_plan) " + made.text).fetchall(),
            ):
                plan = "\n".join(str(row[0]) for row in asked)
                assert "Seq Scan on runs" not in plan, f"{name}:\n{plan}"
                assert "Seq Scan on inbox" not in plan, f"{name}:\n{plan}"
