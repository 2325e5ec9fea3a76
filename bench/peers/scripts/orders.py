"""What the scripts here have in common: they are told what to do on stdin, and answer each order on stdout.

The rule: an order is a line of JSON, so is its answer, and the end of stdin is the end. Nothing but answers goes
there: whatever an engine prints goes where errors go. Only the standard library is used, for these lines run in
every engine's own environment.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any

STEPS = 10
NOTE = "x" * 13  # as in bench/flows.py: what a step hands over is as large for everybody
Answer = dict[str, Any]
Handler = Callable[..., Awaitable[Answer]]


def order_of(number: int) -> dict[str, Any]:
    """Return what a step is given."""
    return {"order": "o-123456", "sku": "a-1", "amount": number, "note": NOTE}


async def serve(hello: Mapping[str, Any], handlers: Mapping[str, Handler]) -> None:
    """Say hello, and carry out orders until there are none. What goes wrong with one is its answer."""
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)

        def say(line: Mapping[str, Any]) -> None:
            answers.write(json.dumps(line) + "\n")
            answers.flush()

        say(hello)
        while line := await asyncio.to_thread(sys.stdin.readline):
            order = json.loads(line)
            try:
                say(await handlers[order.pop("do")](**order))
            except Exception as error:  # noqa: BLE001 - whatever an engine raises is a finding
                say({"problem": f"{type(error).__name__}: {error}"[:300]})


async def in_flight(count: int, at_once: int, one: Callable[[int], Awaitable[None]]) -> Answer:
    """Do ``one`` that often, so many at a time, and answer how long all of it took."""
    numbers: Iterator[int] = iter(range(count))

    async def next_ones() -> None:
        for number in numbers:
            await one(number)

    started = time.perf_counter()
    await asyncio.gather(*(next_ones() for _ in range(min(at_once, count))))
    return {"seconds": time.perf_counter() - started}


async def one_by_one(pauses_s: Sequence[float], one: Callable[[int], Awaitable[None]]) -> Answer:
    """Do ``one`` after each pause, and answer how long each took."""
    times: list[float] = []
    for number, pause_s in enumerate(pauses_s):
        await asyncio.sleep(pause_s)
        started = time.perf_counter()
        await one(number)
        times.append((time.perf_counter() - started) * 1e3)
    return {"ms": times}


def expect(found: object, wanted: object) -> None:
    """Refuse a wrong result: what has not been done is not fast."""
    if found != wanted:
        raise ValueError(f"the result is {found!r}, not {wanted!r}")
