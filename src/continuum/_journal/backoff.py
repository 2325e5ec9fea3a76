"""How long to wait before the same is tried again."""

from __future__ import annotations

import asyncio
import random

FIRST_PAUSE_S = 0.05
LONGEST_PAUSE_S = 2.0


class Backoff:
    """Pauses that grow from 0.05 to ``longest_s`` seconds, each spread by ± 20 %."""

    def __init__(self, longest_s: float = LONGEST_PAUSE_S) -> None:
        self._longest_s = longest_s
        self._next_s = FIRST_PAUSE_S

    async def pause(self) -> None:
        """Wait a little longer than the last time."""
        seconds, self._next_s = self._next_s, min(self._next_s * 2, self._longest_s)
        await asyncio.sleep(seconds * random.uniform(0.8, 1.2))

    def reset(self) -> None:
        """Begin with short pauses again."""
        self._next_s = FIRST_PAUSE_S
