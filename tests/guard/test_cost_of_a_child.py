"""What a child costs, in counts: a parent that starts children which end at once, and waits for all of them."""

from __future__ import annotations

from pathlib import Path

from bench import flows

from tests.databases import Servers
from tests.guard.bounds import beyond
from tests.guard.rounds import Spent, rounds

WARM, FEW, MANY = 20, 200, 1_000
ROWS_PER_CHILD, ROWS_PER_PARENT = (
    4,
    2,
)  # the child's row twice, its parent's entries; the claim and the end of the parent
GROWTH = 1.03  # of the calls for each child, from few to many
BOUNDS = {
    "our calls": 95.0,
    "all calls": 120.0,
    "commits": 0.012,
    "statements": 0.025,
    "WAL bytes": 1_300.0,
    "replays": 0.0,
}


async def test_a_child_costs_no_more_than_its_bounds_and_many_no_more_each_than_few(
    database: str, servers: Servers
) -> None:
    few, many, rows = await children(database, servers.log("embedded"))
    assert beyond(many.each(MANY), BOUNDS) == ""
    assert many.calls.ours / MANY <= GROWTH * few.calls.ours / FEW, "a child costs more where there are more"
    assert rows == (WARM + FEW + MANY) * ROWS_PER_CHILD + 3 * ROWS_PER_PARENT


async def children(database: str, log: Path) -> tuple[Spent, Spent, int]:
    """Play a family of few and one of many; return what each cost, and all rows that were written."""
    async with rounds(database, log) as played:
        await played.play(flows.parent, runs=1, given=WARM)
        few = await played.play(flows.parent, runs=1, given=FEW)
        many = await played.play(flows.parent, runs=1, given=MANY)
    return few, many, played.rows
