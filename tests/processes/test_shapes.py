"""Fan-outs that are larger than one worker's memory."""

from __future__ import annotations

from collections import Counter

from tests.processes import parents
from tests.processes.harness import LONG, Site, until

CHILDREN, ROOM = (5_000, 100) if LONG else (200, 20)


async def test_two_worker_processes_share_a_fan_out(site: Site) -> None:
    """CH35 children run on other workers than the parent's: two processes share a fan-out, none runs twice."""
    workers = [site.worker(cache=ROOM, lease=5) for _ in range(2)]
    for worker in workers:
        await worker.ready()
    both = {worker.pid for worker in workers}
    run = await site.start(parents.held_family, "f", children=CHILDREN, steps=2, gate="go")
    await until(
        lambda: {line.pid for line in site.ledger() if "/" in line.label} == both, "both have a part of it"
    )
    site.open("go")
    assert await run.result(timeout=120) == 2 * CHILDREN
    done = Counter(line.label for line in site.ledger())
    assert set(done.values()) == {1}
    assert len(done) == 2 * CHILDREN + 2
    site.check()
