"""``python -m bench.neighbour URL``: a worker beside others, that has 20 commits under way at all times.

For each line on its input it writes one line: the latencies in milliseconds of its commits since the last one,
those that are still under way included. It ends with its input.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Sequence

from bench.yardstick import PAYLOAD, T0
from continuum._core.entries import Entry
from continuum._journal.commit import Commit, Committed, Lease, NewRoot
from continuum._journal.journal import PostgresJournal

IN_FLIGHT = 20
WARM_S = 0.3


class Latencies:
    """Of commits that are done, and the beginnings of those that are not."""

    def __init__(self) -> None:
        self._done_ms: list[float] = []
        self._since: dict[str, float] = {}

    def begin(self, run_id: str) -> None:
        """Note that a run's commit is handed in."""
        self._since[run_id] = time.perf_counter()

    def end(self, run_id: str) -> None:
        """Note that it is durable."""
        self._done_ms.append((time.perf_counter() - self._since.pop(run_id)) * 1e3)

    def take(self) -> list[float]:
        """Return what was gathered since the last call."""
        now = time.perf_counter()
        done, self._done_ms = self._done_ms, []
        return done + [(now - began) * 1e3 for began in self._since.values()]


async def flush(journal: PostgresJournal, lease: Lease, latencies: Latencies) -> None:
    """Commit an entry of one run again and again."""
    seq = 0
    while True:
        seq += 1
        entry = Entry("activity_completed", f"step-{seq}", T0 + seq, PAYLOAD)
        latencies.begin(lease.run_id)
        (outcome,) = await journal.submit(Commit(lease.run_id, lease.token, 1, seq, (entry,)))
        assert isinstance(outcome, Committed), outcome
        latencies.end(lease.run_id)


async def lease_runs(journal: PostgresJournal) -> Sequence[Lease]:
    """Start the runs and claim them."""
    worker = f"neighbour-{os.getpid()}-{time.time_ns()}"
    await journal.register(worker, 3600, {})
    await journal.start([NewRoot(f"{worker}-{number}", worker, 1, b"null") for number in range(IN_FLIGHT)])
    claimed = await journal.claim([(worker, 1)], IN_FLIGHT)
    assert len(claimed) == IN_FLIGHT
    return [Lease(run.run_id, run.token) for run in claimed]


async def main(url: str) -> None:
    """Flush until the input ends."""
    latencies = Latencies()
    asked = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(asked), sys.stdin)
    async with PostgresJournal(url).open(migrating=False) as journal, asyncio.TaskGroup() as runs:
        tasks = [runs.create_task(flush(journal, lease, latencies)) for lease in await lease_runs(journal)]
        await asyncio.sleep(WARM_S)
        print("ready", flush=True)
        while await asked.readline():
            print(json.dumps([round(each, 3) for each in latencies.take()]), flush=True)
        for task in tasks:
            task.cancel()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
