"""What a step costs, in counts: a ten-step workflow with activities in place, two hundred in flight."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from bench import flows

from tests.databases import Servers
from tests.guard.bounds import beyond
from tests.guard.counting import Calls
from tests.guard.rounds import Spent, rounds

RUNS, WARM = 200, 20
STEPS = RUNS * flows.STEPS
ROWS_PER_RUN = flows.STEPS + 2  # an entry a step; the claim and the end write the run's own row
BOUNDS = {
    "our calls": 63.0,
    "all calls": 91.0,
    "commits": 0.015,
    "statements": 0.017,
    "WAL bytes": 512.0,
    "replays": 0.0,
}


async def test_a_step_costs_no_more_than_its_bounds(database: str, servers: Servers) -> None:
    spent, rows = await steps(database, servers.log("embedded"))
    assert beyond(spent.each(STEPS), BOUNDS) == ""
    assert rows == (RUNS + WARM) * ROWS_PER_RUN


async def steps(database: str, log: Path) -> tuple[Spent, int]:
    """Play the steps; return what they cost, and all rows that were written."""
    async with rounds(database, log) as played:
        await played.play(flows.ten_steps, runs=WARM, given=0)
        spent = await played.play(flows.ten_steps, runs=RUNS, given=0)
    return spent, played.rows


def test_a_figure_beyond_its_bound_is_named_beside_it() -> None:
    assert beyond({"commits": 2, "replays": 0}, {"commits": 2, "replays": 0}) == ""
    found = beyond({"commits": 2.5, "replays": 0}, {"commits": 2, "replays": 0})
    assert found.startswith("commits: 2.5, where at most 2 are allowed\n")
    assert "replays" not in found


def test_calls_are_counted_in_the_block_alone_and_each_time_that_they_go_on() -> None:
    calls = Calls()

    def numbers() -> Iterator[int]:
        yield 1
        yield 2

    code = flows.ten_steps.input.encode.__func__.__code__
    flows.ten_steps.input.encode(1)
    with calls.counted():
        flows.ten_steps.input.encode(1)
        flows.ten_steps.input.encode(2)
        list(numbers())
    flows.ten_steps.input.encode(3)
    assert calls.of(code) == 2
    assert calls.ours >= 2
    assert calls.of(numbers.__code__) == 0, "what a test does itself is left out"
