"""Waiting in tests: for a condition, never for a time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")
PATIENCE_S = 10.0


async def soon(what: Awaitable[T]) -> T:
    """Return what comes before patience ends."""
    async with asyncio.timeout(PATIENCE_S):
        return await what


async def until(condition: Callable[[], Awaitable[T]]) -> T:
    """Return what ``condition`` gives as soon as it is true of anything."""

    async def look() -> T:
        while not (found := await condition()):
            await asyncio.sleep(0.003)
        return found

    return await soon(look())
