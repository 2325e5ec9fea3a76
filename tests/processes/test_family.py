"""Parents and children on different workers, which have different modules."""

from __future__ import annotations

import pytest

from tests.journal.proxy import proxied
from tests.processes import flows, parents
from tests.processes.harness import FLOWS, LONG, PARENTS, Site, until

KIDS = FLOWS


async def test_children_run_on_workers_that_have_their_code(site: Site) -> None:
    """CH35 children run on other workers than the parent's. CH27 code registered nowhere: it waits, visibly."""
    above = site.worker(PARENTS)
    await above.ready()
    run = await site.start(parents.family, "f", children=20)
    await until(
        lambda: site.one("select count(*) from continuum.runs where run_id like 'f/%%'") == 20, "they are born"
    )
    found = await site.client.get_run("f/c0").describe()
    assert found.state == "pending"
    assert "leaf" in str(found.waiting_for)
    below = site.worker(KIDS)
    assert await run.result(timeout=30) == 60
    assert set(site.did("f#0") + site.did("f#1")) == {above.pid}
    assert {line.pid for line in site.ledger() if "/" in line.label} == {below.pid}
    site.check()


async def test_a_parents_crash_leaves_its_children_running(site: Site) -> None:
    """CH17 a parent's crash leaves children running; it resumes with their outcomes."""
    above, below = site.worker(PARENTS), site.worker(KIDS)
    await above.ready()
    await below.ready()
    run = await site.start(parents.held_family, "f", children=8, gate="go")
    await until(lambda: all(site.did(f"f/c{number}#1") for number in range(8)), "the children are under way")
    await above.die()
    await until(lambda: site.alive() == {below.pid}, "its death is noticed")
    held = "select count(*) from continuum.runs where run_id like 'f/%%' and lease_owner is not null"
    assert site.one(held) == 8
    assert site.tokens("f/%") == {1}, "nobody touched them"
    again = site.worker(PARENTS)
    await again.ready()
    site.open("go")
    assert await run.result(timeout=30) == 24
    kinds = [kind for kind, _ in site.entries("f")]
    assert kinds.count("child_started") == kinds.count("child_completed") == 8
    assert site.did("f#0") == [above.pid]
    assert site.did("f#1") == [again.pid]
    labels = [line.label for line in site.ledger()]
    assert len(labels) == len(set(labels)), "nothing was done twice"
    site.check()


@pytest.mark.parametrize("passivate_after", [0.05, 60] if LONG else [0.05])
async def test_what_ended_while_the_parent_was_down_is_found(site: Site, passivate_after: float) -> None:
    """CH18 a child that ended while the parent was down is found."""
    above, below = site.worker(PARENTS, passivate_after=passivate_after), site.worker(KIDS)
    await above.ready()
    await below.ready()
    run = await site.start(parents.held_family, "f", children=8, gate="go")
    await until(lambda: all(site.did(f"f/c{number}#1") for number in range(8)), "the children are under way")
    if passivate_after < 1:
        await until(
            lambda: site.one("select lease_owner is null from continuum.runs where run_id = 'f'"), "it left"
        )
    await above.die()
    site.open("go")
    ended = "select count(*) from continuum.runs where run_id like 'f/%%' and state = 'completed'"
    await until(lambda: site.one(ended) == 8, "all children end")
    assert not site.did("f#1")
    site.worker(PARENTS)
    assert await run.result(timeout=30) == 24
    labels = [line.label for line in site.ledger()]
    assert len(labels) == len(set(labels)), "nothing was done twice"
    site.check()


@pytest.mark.parametrize(("point", "passivate_after"), [("flush.committed", 60), ("poke.begin", 0.05)])
async def test_a_childs_end_survives_its_workers_death_before_the_wake(
    site: Site, point: str, passivate_after: float
) -> None:
    """CR02 a commit survives the writer's death before the wake: a waiting parent still hears of it."""
    above = site.worker(PARENTS, passivate_after=passivate_after)
    below = site.worker(KIDS, crashes=[{"point": point, "seen": "f/c0#2"}])
    await above.ready()
    await below.ready()
    run = await site.start(parents.held_family, "f", children=1, gate="go")
    await until(lambda: site.did("f/c0#1"), "the child is under way")
    if passivate_after < 1:
        await until(
            lambda: site.one("select lease_owner is null from continuum.runs where run_id = 'f'"), "it left"
        )
    site.open("go")
    assert await below.ended() == -9
    ended = site.one("select state from continuum.runs where run_id = 'f/c0'") == "completed"
    if not ended:  # it died one commit before the last: somebody has to finish it
        site.worker(KIDS)
    assert await run.result(timeout=20) == 3
    site.check()


async def test_everything_finishes_when_no_notification_ever_comes(site: Site) -> None:
    """CH36 with NOTIFY switched off altogether parents, children, signals and generations go on by polling."""
    async with proxied(site.url) as proxy:
        proxy.deaf = True
        for worker in [site.worker(kind, url=proxy.url, passivate_after=0.3) for kind in (PARENTS, KIDS)]:
            await worker.ready()
        family = await site.start(parents.family, "f", children=10)
        waiting = await site.start(flows.signalled, "s")
        chain = await site.start(flows.chain, "g", steps=4)
        paced = await site.start(flows.paced, "t", pause_s=0.6)
        await waiting.signal("go", "a")
        await until(lambda: site.did("s#0"), "the first signal came")
        await waiting.signal("go", "b")
        assert await waiting.result(timeout=30) == "ab"
        assert await family.result(timeout=30) == 30
        assert await chain.result(timeout=30) == 4
        assert await paced.result(timeout=30) == ["t#0", "t#1"]
        site.check()
        for worker in site.workers:
            worker.terminate()
        for worker in site.workers:
            assert await worker.ended() == 0
