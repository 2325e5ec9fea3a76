"""What the listeners of all workers are told, compared with the journals: each thing once, and nothing else."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from tests.processes import telling_flows
from tests.processes.harness import LONG, Site, until

FLOWS = ("tests.processes.flows", "tests.processes.telling_flows")
Told = tuple[str, str, str]  # what happened to which child, and its workflow
ENTRIES = """
select c.type, c.key, c.xmin::text, r.workflow
from continuum.events c join continuum.runs r on r.run_id = 'm/' || c.key
where c.run_id = 'm' and c.type in ('child_started', 'child_completed', 'child_failed', 'child_cancelled')
union all
select 'child_failed', 'slow', c.xmin::text, 'idle' from continuum.events c
where c.run_id = 'm' and c.type = 'timer_fired' and c.key = 'slow.timeout'"""


def told(site: Site) -> Counter[Told]:
    """Return what was told of children, by all workers, and how often."""
    counted: Counter[Told] = Counter()
    for worker in site.workers:
        for line in worker.said("told"):
            name, fields = json.loads(line)
            if name.startswith("continuum.child."):
                assert fields["parent_run_id"] == "m"
                key = fields["child_run_id"].removeprefix("m/")
                counted[f"child_{name.rpartition('.')[2]}", key, fields["workflow"]] += 1
    return counted


def journaled(site: Site) -> dict[Told, str]:
    """Return what the journal of the parent says of its children, and in which transaction it was written."""
    return {(kind, key, workflow): transaction for kind, key, transaction, workflow in site.sql(ENTRIES)}


async def play(site: Site, *crashes: dict[str, object]) -> None:
    """Play the parent to its end; the first worker dies where it is told to, and another one goes on."""
    first = site.worker(*FLOWS, crashes=list(crashes), tells=True)
    await first.ready()
    run = await site.client.start(telling_flows.mixed, telling_flows.Mixed("m"), id="m")
    if crashes:
        assert await first.ended() == -9
        await site.worker(*FLOWS, tells=True).ready()
    await until(lambda: site.one("select generation from continuum.runs where run_id = 'm'") == 2, "it continues")
    site.open("go")
    assert await run.result(timeout=30) == 5
    for worker in site.workers:
        if worker.code is None:
            worker.terminate()  # what it still has to tell it tells before its end
            await worker.ended()


async def test_each_end_of_a_child_is_told_once(site: Site) -> None:
    """CH39 telemetry events and their fields: started and ended in every way, over two generations."""
    await play(site)
    assert told(site) == Counter(journaled(site).keys())
    ends = {(kind, key) for kind, key, _ in journaled(site) if kind != "child_started"}
    assert {("child_failed", "bad"), ("child_failed", "slow"), ("child_cancelled", "gone")} < ends
    assert {("child_completed", key) for key in ("c0", "unawaited", "held", "second")} < ends


POINTS = [("turn.taken", 2), ("flush.begin", 4)]
MORE = [("turn.begin", 1), ("turn.begin", 2), ("turn.taken", 1), ("flush.begin", 1), ("flush.begin", 8)]


@pytest.mark.parametrize(("point", "after"), [*POINTS, *(MORE if LONG else [])])
async def test_a_death_before_a_commit_loses_and_doubles_nothing(site: Site, point: str, after: int) -> None:
    """CH39 what was not committed is told by the worker that commits it; a takeover and a replay tell nothing."""
    await play(site, {"point": point, "run": "m" if point.startswith("turn") else "", "after": after})
    known, entries = told(site), journaled(site)
    assert known.keys() <= entries.keys(), "nothing is told that is not durable"
    assert max(known.values()) == 1, "nothing is told twice"
    lost = entries.keys() - known.keys()
    assert len({entries[one] for one in lost}) <= 1, "but what was on its way when the worker died"
    if point == "flush.begin":
        assert not lost


@pytest.mark.parametrize("after", [0, *([1, 2] if LONG else [])])
async def test_a_death_after_a_commit_loses_what_that_commit_would_have_told(site: Site, after: int) -> None:
    """CH39 at most once: of a commit whose worker dies before it tells, nothing is ever told."""
    await play(site, {"point": "turn.committed", "run": "m", "after": after})
    known, entries = told(site), journaled(site)
    assert known.keys() <= entries.keys()
    assert max(known.values()) == 1
    lost = entries.keys() - known.keys()
    assert lost or after, "the first commit starts children"
    assert len({entries[one] for one in lost}) <= 1, "those of one commit"
