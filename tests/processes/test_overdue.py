"""Runs that were asked to stop, in workers that stand still or are gone."""

from __future__ import annotations

import pytest

from continuum import RunCancelled
from tests.processes import flows
from tests.processes.harness import Site, until


@pytest.mark.parametrize("fate", ["frozen", "killed"])
async def test_the_grace_passes_also_where_the_run_is_stuck(site: Site, fate: str) -> None:
    """CA10 its worker does nothing any more, and has not lost its lease: another one keeps the deadline."""
    stuck = site.worker(lease=60)
    await stuck.ready()
    run = await site.start(flows.held, "r", gate="go")
    await until(lambda: site.did("r#1"), "it is in its activity")
    (stuck.freeze if fate == "frozen" else stuck.kill)()
    other = site.worker("tests.processes.flows:leaf", lease=60)
    await other.ready()
    await run.cancel("enough", grace=0.1)
    with pytest.raises(RunCancelled, match="enough"):
        await run.result(timeout=30)
    if fate == "frozen":
        stuck.thaw()
        await until(lambda: stuck.said("reborn") or site.alive() == {stuck.pid, other.pid}, "it goes on")
        assert site.entries("r") == [("activity_completed", "step-1")], "it writes nothing more"
