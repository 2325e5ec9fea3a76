"""How Postgres carries out what may reach thousands of runs: by ranges of ids, never by a walk over all runs.

And what it does with a batch: no loop over the batch for each row of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import combinations, pairwise
from typing import Any

import psycopg
import pytest

from continuum._journal.cascade import _level, stopped
from continuum._journal.connections import adapt
from continuum._journal.statements import parts_of, statement

ONE, MANY = ["deep"], [f"map/{number}" for number in range(1_000)]
RUNS = """insert into continuum.runs (run_id, depth, workflow, version, input)
  select id, length(id) - length(replace(id, '/', '')), 'flow', 1, 'null' from (
    select 'other-' || n from generate_series(1, 20000) n union all select 'deep' union all select 'map'
    union all select 'deep/' || n from generate_series(1, 5000) n
    union all select 'map/' || n from generate_series(0, 2999) n) x(id)"""
MAIL = "insert into continuum.inbox (run_id, type, key) select run_id, 'x', '' from continuum.runs"

COME_AND_GONE = """
  insert into continuum.inbox (run_id, type, key) select 'r', 'x', '' from generate_series(1, 20000);
  insert into continuum.tasks (run_id, generation, key, queue, name, input)
    select 'r', 1, 'k' || n, 'q', 'n', 'null' from generate_series(1, 20000) n;
  delete from continuum.inbox; delete from continuum.tasks; analyze continuum.inbox; analyze continuum.tasks"""


@pytest.fixture
def filled(database: str) -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(RUNS)
        connection.execute(MAIL)
        connection.execute("vacuum analyze")
        yield connection


def test_cascades_walk_ranges_of_ids(filled: psycopg.Connection[tuple[Any, ...]]) -> None:
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


def test_no_row_of_a_batch_has_the_batch_or_a_table_looked_through(database: str) -> None:
    """Two parts of a statement that are thought to be small are looped over, one for each row of the other.

    So is a table that was nearly empty when it was counted, as that of mail mostly is, whatever has come since.
    """
    parts = parts_of("flush")
    choices = [frozenset(some) for size in (1, 2, 3, len(parts)) for some in combinations(sorted(parts), size)]
    with psycopg.connect(database, autocommit=True) as connection, psycopg.RawCursor(connection) as cursor:
        cursor.execute("set enable_seqscan = off")
        for filling in ("", COME_AND_GONE, RUNS, "analyze"):
            for some in filling.split(";"):
                cursor.execute(some.encode())
            for chosen in choices:
                text = statement("flush", "continuum", chosen).text
                ((asked,),) = cursor.execute(b"explain (generic_plan, format json) " + text).fetchall()
                found = list(looped(asked[0]["Plan"]))
                assert found in ([], ["o"]), sorted(chosen)  # o: with the one row of "timeout"
                assert list(walked(asked[0]["Plan"])) == [], sorted(chosen)


def test_who_wakes_a_run_does_not_read_everybodys_mail(database: str) -> None:
    with psycopg.connect(database, autocommit=True) as connection, psycopg.RawCursor(connection) as cursor:
        cursor.execute("set enable_seqscan = off")
        for filling in COME_AND_GONE.split(";"):
            cursor.execute(filling.encode())
        for name in ("poke", "load_inbox", "load_inbox_of_one", "residents_with_mail", "claim"):
            text = statement(name, "continuum").text
            ((asked,),) = cursor.execute(b"explain (generic_plan, format json) " + text).fetchall()
            assert list(walked(asked[0]["Plan"])) == [], name


def walked(node: dict[str, Any]) -> Iterator[str]:
    """Yield the tables of mail and tasks if they are read as a whole."""
    for found in with_all_below([node]):
        whole = "Scan" in found["Node Type"] and not {"Index Cond", "Recheck Cond", "TID Cond"} & found.keys()
        if whole and found.get("Relation Name") in ("inbox", "tasks"):
            yield found["Relation Name"]


def looped(node: dict[str, Any]) -> Iterator[str]:
    """Yield the parts of a statement that are read again for each row of another."""
    inner = [found for found in node.get("Plans", ()) if found["Parent Relationship"] == "Inner"]
    if node["Node Type"] == "Nested Loop":
        yield from filter(None, (found.get("CTE Name") for found in with_all_below(inner)))
    for below in node.get("Plans", ()):
        yield from looped(below)


def with_all_below(nodes: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for node in nodes:
        yield node
        yield from with_all_below(node.get("Plans", ()))


@pytest.mark.parametrize("state", ["", "failed", "parked"])
def test_roots_are_walked_in_their_order(filled: psycopg.Connection[tuple[object, ...]], state: str) -> None:
    """Whatever is asked of them: who gathers and sorts all roots there are makes each page cost as much as all."""
    made = statement("list_roots", "continuum", frozenset((state,) if state else ()))
    filled.execute("set enable_seqscan = off")  # as every session of ours
    plan = "\n".join(str(row[0]) for row in filled.execute(b"explain (generic_plan) " + made.text))
    assert "Sort" not in plan, plan
    if not state:
        filled.execute("delete from pg_statistic where starelid = 'continuum.runs'::regclass")
        plan = "\n".join(str(row[0]) for row in filled.execute(b"explain (generic_plan) " + made.text))
        assert "Sort" not in plan, f"without statistics:\n{plan}"


def test_who_takes_over_looks_up_what_it_takes(filled: psycopg.Connection[tuple[object, ...]]) -> None:
    """However many it may be at once: each call would else cost as much as all runs there are."""
    filled.execute("update continuum.runs set state = 'running', lease_owner = 'dead' where run_id < 'other-15'")
    filled.execute("vacuum analyze continuum.runs")
    filled.execute("set enable_seqscan = off")
    made = statement("take_over", "continuum")
    plan = [str(row[0]) for row in filled.execute(b"explain (generic_plan) " + made.text)]
    for line, below in pairwise(plan):
        assert "runs_pkey on runs" not in line or "Index Cond" in below, "\n".join(plan)


def test_one_generation_is_read_from_its_beginning_to_its_end(database: str) -> None:
    """Not from the first one on, nor up to the last: a chain of generations may be long."""
    made = statement("history", "continuum")
    with psycopg.connect(database, autocommit=True) as connection:
        plan = "\n".join(str(row[0]) for row in connection.execute(b"explain (generic_plan) " + made.text))
    assert "Filter" not in plan, plan
