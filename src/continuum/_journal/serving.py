"""Running a journal's services for a block."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any


@asynccontextmanager
async def serving(run: Callable[[], Coroutine[Any, Any, None]]) -> AsyncGenerator[None, None]:
    """Run ``run()`` beside the block and cancel it at its end; what the block raises comes out as it is."""
    raised: Exception | None = None
    async with asyncio.TaskGroup() as services:
        running = services.create_task(run())
        try:
            yield
        except Exception as error:  # noqa: BLE001 - raised below as it is, not in a group
            raised = error
        finally:
            running.cancel()
    if raised is not None:
        raise raised
