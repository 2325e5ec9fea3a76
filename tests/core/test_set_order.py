"""What sets of tasks and futures are ordered by: the same in every replay, whatever lies where in memory."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.core.harness import Run

from continuum import wait_signal, workflow


def test_tasks_and_futures_hash_alike_in_every_replay() -> None:
    """RP04: the order of a set of tasks is the same everywhere."""
    made: list[list[Any]] = []  # kept, so that no two of them ever have one address

    @workflow
    async def flow() -> None:
        tasks = [asyncio.create_task(asyncio.sleep(number)) for number in range(3)]
        made.append([*tasks, *(asyncio.get_running_loop().create_future() for _ in range(3))])
        await wait_signal("go")

    Run(flow)
    Run(flow)
    Run(flow, id="another")
    hashes = [[hash(one) for one in some] for some in made]
    assert hashes[0] == hashes[1]
    assert len(set(hashes[0])) == 6
    assert hashes[0] != hashes[2]
