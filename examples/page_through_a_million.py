"""Page through a million: an activity pages items in, each is a child, and nothing is kept of what has ended.

    python examples/page_through_a_million.py [NUMBER [PAGE]]

A generation maps one page and continues with where it stopped, so neither its history nor its memory grows with
the number of items. It runs on the Postgres of CONTINUUM_DATABASE_URL, else on a private one in ``./.continuum``.
Kill it on the way and run it again: it goes on with the page it was at.
"""

import argparse
import asyncio
import resource
import sys
import time
from dataclasses import dataclass

from continuum import Worker, activity, connect, continue_as_new, map_children, workflow


@dataclass(frozen=True)
class Progress:
    """How far a run has come: what is done of ``number`` items, ``size`` of them a generation."""

    number: int
    size: int
    at: int = 0
    completed: int = 0


@activity
async def page(at: int, size: int, number: int) -> list[int]:
    """Read the next items: here from nowhere, else from a table, a bucket, an interface with a cursor."""
    return list(range(at, min(at + size, number)))


@workflow
async def item_flow(item: int) -> None:
    """Whatever is to be done for one item."""


@workflow
async def million_flow(progress: Progress) -> int:
    items = await page(progress.at, progress.size, progress.number)
    done = await map_children(item_flow, items, collect=False, concurrency=1000)
    at, completed = progress.at + len(items), progress.completed + done.completed
    if at < progress.number:
        continue_as_new(Progress(progress.number, progress.size, at, completed))
    return completed


async def main() -> None:
    parser = argparse.ArgumentParser(description="Map a child over many items, a page at a time.")
    parser.add_argument("number", type=int, nargs="?", default=1_000)
    parser.add_argument("page", type=int, nargs="?", default=250)
    asked = parser.parse_args()
    started = time.monotonic()
    async with connect() as client, Worker(client, [million_flow, item_flow, page]):
        progress = Progress(asked.number, asked.page)
        run = await client.start(million_flow, progress, id=f"million-{asked.number}-{asked.page}")
        completed = await run.result()
        generation = (await run.describe()).generation
        entries = len(await run.history(generation))
    unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss, in bytes
    print(f"children completed: {completed}")
    print(f"generations: {generation}")
    print(f"entries of the last generation: {entries}")
    print(f"largest memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit >> 20} MB")
    print(f"seconds: {time.monotonic() - started:.1f}")


if __name__ == "__main__":
    asyncio.run(main())
