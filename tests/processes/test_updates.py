"""Updates whose worker dies between hearing of them and answering."""

from __future__ import annotations

import asyncio

from tests.processes import flows
from tests.processes.harness import Site, until


async def test_an_update_whose_worker_dies_is_answered_once(site: Site) -> None:
    """ST10 an update is handled once and answered once, whoever dies."""
    dying = site.worker()
    await dying.ready()
    run = await site.start(flows.booking, "r", gate="go")
    asked = asyncio.ensure_future(run.update(flows.book, "one", id="u-1"))
    await until(lambda: site.did("r#one"), "it is being handled")
    await dying.die()
    heir = site.worker()
    again = asyncio.ensure_future(run.update(flows.book, "another", id="u-1"))
    site.open("go")
    assert await asyncio.wait_for(asyncio.gather(asked, again), 30) == ["booking 1"] * 2
    await run.signal("close")
    assert await run.result(timeout=30) == ["r#one"]
    assert set(site.did("r#one")) == {dying.pid, heir.pid}
    kinds = [kind for kind, _ in site.entries("r")]
    assert kinds == ["update_requested", "activity_completed", "update_answered", "signal_received"]
    assert await run.update(flows.book, "late", id="u-1", timeout=30) == "booking 1"
    site.check()
