"""What has waited for a worker is taken in one commit, and nothing of it gets lost there."""

from __future__ import annotations

import asyncio

from continuum import Update, on_update, set_state, wait_signal, workflow
from tests.conformance.cluster import Cluster
from tests.until import PATIENCE_S, soon

MANY = 20
add = Update("add", int, int)


@workflow(state=int)
async def counts(upto: int) -> int:
    for seen in range(1, upto + 1):
        await wait_signal("go")
        set_state(seen)
    await wait_signal("end")
    return upto


@workflow(updates=[add])
async def sums() -> int:
    total = 0

    def take(number: int) -> int:
        nonlocal total
        total += number
        return total

    async def handle(number: int) -> int:
        return take(number)

    on_update(add, handle)
    await wait_signal("end")
    return total


async def test_of_many_states_in_one_commit_the_last_is_seen(cluster: Cluster) -> None:
    """ST13 what a workflow publishes is what `describe` gives, with no worker running."""
    run = await cluster.start(counts, MANY)
    for _ in range(MANY):
        await run.signal("go")
    async with cluster.worker([counts]):
        await cluster.until_entry(run.id, "signal_received")
    assert (await run.describe()).published == MANY
    async with cluster.worker([counts]):
        await run.signal("end")
        assert await run.result(timeout=PATIENCE_S) == MANY


async def test_many_updates_that_waited_are_all_answered(cluster: Cluster) -> None:
    """ST10 an update is answered once, however many are taken in together."""
    run = await cluster.start(sums)
    asked = [asyncio.ensure_future(run.update(add, 1, id=f"u{number}")) for number in range(MANY)]
    sent = 0
    while sent < MANY:  # all are durable before anybody reads them
        sent = await _waiting(cluster, run.id)
    async with cluster.worker([sums]):
        answers = await soon(asyncio.gather(*asked))
        assert sorted(answers) == list(range(1, MANY + 1))
        await run.signal("end")
        assert await run.result(timeout=PATIENCE_S) == MANY


async def _waiting(cluster: Cluster, run_id: str) -> int:
    await asyncio.sleep(0)
    mail = await cluster.client._journal().mail([run_id])
    return len(mail.get(run_id, ()))
