"""Workers that stand still for longer than their lease and then go on."""

from __future__ import annotations

from tests.processes import flows, parents
from tests.processes.harness import Site, until


async def test_a_worker_that_thaws_writes_nothing_and_begins_again(site: Site) -> None:
    """CR19 SIGSTOP past the lease, then SIGCONT: the zombie writes nothing, registers anew and goes on working."""
    zombie = site.worker()
    name = await zombie.ready()
    runs = [await site.start(flows.held, f"r{number}", gate="go") for number in range(5)]
    runs += [await site.start(flows.leaf, f"busy{number}", steps=30, pause_s=0.05) for number in range(2)]
    await until(lambda: all(site.did(f"r{number}#1") for number in range(5)), "it is in their activities")
    await until(lambda: site.did("busy0#5"), "and takes steps of others")
    zombie.freeze()
    heir = site.worker()
    await heir.ready()
    site.open("go")
    for run in runs[:5]:
        assert await run.result(timeout=30) == 3
    assert site.alive() == {heir.pid}
    before = {run.id: site.entries(run.id) for run in runs[:5]}
    zombie.thaw()
    (anew,) = await until(lambda: zombie.said("reborn"), "it begins again")
    assert anew != name
    await until(lambda: site.alive() == {heir.pid, zombie.pid}, "it is registered")
    heir.terminate()
    assert await heir.ended() == 0
    last = await site.start(parents.family, "last", children=5)
    assert await last.result(timeout=30) == 15
    assert set(site.did("last#0")) == {zombie.pid}
    for run in runs[5:]:
        assert await run.result(timeout=30) == 30
    assert {run.id: site.entries(run.id) for run in runs[:5]} == before
    assert site.one("select bool_and(dead_at is not null) from continuum.workers where worker_id = %s", name) in (
        True,
        None,
    )
    frozen = [
        line for line in site.ledger() if line.pid == zombie.pid and not line.label.startswith(("last", "busy"))
    ]
    assert {line.label.partition("#")[2] for line in frozen} <= {"0", "1"}
    _check(site, zombie.pid)


def _check(site: Site, pid: int) -> None:
    """The books are right but for what was under way in the zombie: it may finish that after others did it."""
    lines = [line for line in site.ledger() if line.label.startswith("busy")]
    for run in ("busy0", "busy1"):
        numbers = [int(line.label.partition("#")[2]) for line in lines if line.label.startswith(run)]
        again = len(numbers) - len(set(numbers))
        assert again <= 2, "at most what was in flight at the freeze, and at the heir's end, was done twice"
    site.check(late=(pid,))
