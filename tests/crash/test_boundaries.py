"""Real workers, killed before and after every commit: runs come to what they come to undisturbed."""

from __future__ import annotations

from itertools import count
from typing import Any

import pytest

import continuum
from tests.crash import parents
from tests.crash.conftest import Sites
from tests.crash.walk import PLACES, Lane, Shape, Tally, walk, wanted_share
from tests.processes.harness import PATIENCE_S, Site, until

LANES = {"all": 3, "long": 3, "short": 3}
EVERY = {"all": 1, "long": 5, "short": 3}


async def holding(site: Site, run: continuum.RunHandle[Any], labels: list[str]) -> None:
    """Wait until all of these steps are under way."""
    wanted = {f"{run.id}{label}" for label in labels}
    await until(lambda: wanted <= {line.label for line in site.ledger()}, "all are under way")


TREES = [f"/{tree}/c{number}#0" for tree in ("t0", "t1") for number in range(2)]


async def cancel_all(site: Site, run: continuum.RunHandle[Any]) -> None:
    await holding(site, run, TREES)
    await run.cancel(reason="enough")


async def let_cancel(site: Site, run: continuum.RunHandle[Any]) -> None:
    await holding(site, run, TREES)
    await run.signal("now")


async def let_close(site: Site, run: continuum.RunHandle[Any]) -> None:
    await holding(site, run, ["/t/c0#0", "/t/c1#0"])
    await run.signal("now")
    await run.result(timeout=PATIENCE_S)
    await site.client.get_run(f"{run.id}/l").signal("now")


SHAPES = {
    shape.name: shape
    for shape in (
        Shape("fan-out", parents.fan_out, runs=7),
        Shape("cascade", parents.cascade, cancel_all, runs=7),
        Shape("cancelling", parents.cancelling, let_cancel, runs=7),
        Shape("chain", parents.chained, runs=3),
        Shape("activity retry", parents.activity_retry, runs=3),
        Shape("child retry", parents.child_retry, runs=4),
        Shape("closing", parents.closing, let_close, runs=5),
    )
}
SHARES = {
    "short": [("fan-out", "one worker")],
    "long": [(shape, "one worker") for shape in SHAPES] + [("fan-out", "the parent's worker")],
    "all": [(shape, place) for shape in SHAPES for place in PLACES],
}


@pytest.mark.parametrize(("shape", "place"), SHARES[wanted_share()])
async def test_killed_at_any_commit_it_comes_to_the_same(
    sites: Sites, shape: str, place: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """CH17 CH18 CH32 a worker's death at any commit boundary changes no result, no journal and no ledger."""
    share = wanted_share()
    tally, numbers = Tally(shape, place), count(1)
    lanes = [Lane(await sites.make(), SHAPES[shape], PLACES[place], tally, numbers) for _ in range(LANES[share])]

    def say(text: str) -> None:
        with capsys.disabled():
            print(f"\n{text}" if share == "all" else "", end="")

    try:
        await walk(lanes, tally, every=EVERY[share], says=say)
    finally:
        for lane in lanes:
            lane.close()
    assert tally.killed
