"""What waits for a run's commit, seen by stopping the flush before it; and mail of which no hint speaks."""

from __future__ import annotations

from continuum import Worker, side_effect, wait_signal, workflow
from continuum._engine.hooks import EngineHooks
from continuum._engine.resident import Resident
from tests.conformance.cluster import FORGETFUL, Cluster, Gate
from tests.conformance.flows import waiter
from tests.journal.harness import select
from tests.journal.races.stepper import Stepper
from tests.until import until


def resident(worker: Worker, run_id: str) -> Resident | None:
    """Return a worker's copy of a run: that it has read its mail is written nowhere else."""
    assert worker._engine is not None
    return worker._engine.residents.by_id.get(run_id)


async def test_no_activity_begins_before_what_caused_it_is_durable(cluster: Cluster) -> None:
    """CR22 nothing outside a run sees a decision before its commit."""
    gate, stepper = Gate(), Stepper()

    @workflow
    async def flow() -> int:
        return await gate.held(side_effect(lambda: 7, type=int))

    async with cluster.worker([flow, gate.held], hooks=EngineHooks(journal=stepper)):
        stop = stepper.stop_at("flush.begin")
        run = await cluster.start(flow, id="r")
        await stop.reached()
        assert await cluster.entries("r") == []  # a question to the database: whatever could begin has begun
        assert gate.calls == []
        stop.let_go()
        await gate.entered()
        assert [kind for kind, _ in await cluster.entries("r")] == ["side_effect_recorded"]
        gate.open()
        assert await run.result(timeout=10) == 7


async def test_a_run_has_one_commit_under_way(cluster: Cluster) -> None:
    """LF20 what happens to a run while a commit of it is under way waits for it, and is journaled once."""
    stepper = Stepper()

    @workflow
    async def reads(count: int) -> list[int]:
        return [await wait_signal("number", int) for _ in range(count)]

    async with cluster.worker([reads], hooks=EngineHooks(journal=stepper)) as worker:
        run = await cluster.start(reads, 5, id="r")
        await cluster.until_state("r", "running")
        stop = stepper.stop_at("flush.begin")
        for number in range(5):
            await run.signal("number", number)

            async def is_read() -> bool:
                found = resident(worker, "r")
                return found is not None and len(found.known_mail) > number

            await until(is_read)
            if number == 0:
                await stop.reached()
        found = resident(worker, "r")
        assert found is not None
        assert len(found.arrivals) == 4
        stop.let_go()
        assert await run.result(timeout=10) == list(range(5))
    assert len(await run.history()) == 5
    assert cluster.transactions("r") == 2, "the first alone, then all that had waited"
    assert select(cluster.url, "select lease_token from continuum.runs") == [(1,)], "it was not read anew"


MAIL = """insert into continuum.inbox (run_id, type, key, payload)
          values ('r', 'signal_received', 'go', '{"payload":"on"}')"""


async def test_mail_that_nobody_speaks_of_is_found(cluster: Cluster) -> None:
    """LF21 a worker looks for mail of the runs that it holds, whatever became of the hints."""
    async with cluster.worker([waiter], passivate_after=60) as worker:
        run = await cluster.start(waiter, "me", id="r")

        async def has_read_its_mail() -> bool:
            found, engine = resident(worker, "r"), worker._engine
            if found is None or engine is None or found.machine is None or not found.at_rest:
                return False
            return not (found.reading or found.more_mail or engine.mailroom._wanted)

        await until(has_read_its_mail)
        select(cluster.url, MAIL)
        assert await run.result(timeout=10) == "me on"


async def test_mail_of_a_run_that_nobody_holds_is_found_when_a_heartbeat_says_that_a_sweep_is_due(
    cluster: Cluster,
) -> None:
    """CR02 a sender that dies before it tells anybody is no reason for a run to wait for ever."""
    url, swept = cluster.url, "update continuum.chores set done_at = now() - interval '%s seconds'"
    async with cluster.worker([waiter], **FORGETFUL):
        run = await cluster.start(waiter, "me", id="r")
        await cluster.until_state("r", "suspended")
    select(url, MAIL)
    select(url, swept % 0)
    async with cluster.worker([waiter]):

        async def has_looked_around() -> bool:
            return bool(
                select(url, "select 1 from continuum.workers where beat_at > connected_at + interval '0.1 s'")
            )

        await until(has_looked_around)
        assert (await run.describe()).state == "suspended"
        select(url, swept % 30)
        assert await run.result(timeout=10) == "me on"
