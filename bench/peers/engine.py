"""An engine at work: its script in a process of its own, told what to do a line at a time.

The rule: each answer is waited for so long and no longer, and when the block ends nothing of the engine is left:
the script ends with its input, and then its whole process group is killed, whatever it did with its children.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = "bench.peers.scripts"
READY_WITHIN_S = 60.0
ANSWERS_WITHIN_S = 60.0
ENDS_WITHIN_S = 8.0
MOST_LINE = 16_000_000
# Loopback is all that is asked for, and a proxy would be asked for it too.
WITHOUT = {"http_proxy", "https_proxy", "all_proxy", "pythonpath", "virtual_env"}


class EngineFailed(Exception):
    """An engine did not do what it was told to."""


class Engine:
    """A script that waits for orders. ``workers`` are the processes that do the work, ``stores`` keep it."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self._process = process
        self._log = log
        self.pid = process.pid
        self.version = ""
        self.workers: list[int] = []
        self.stores: list[int] = []

    async def ready(self) -> None:
        """Wait until it says hello. Raises ``EngineFailed``."""
        hello = await self._answer(READY_WITHIN_S)
        self.version, self.workers, self.stores = hello["version"], hello["workers"], hello.get("stores", [])

    async def tell(self, what: str, **how: object) -> dict[str, Any]:
        """Give an order, and return the answer. Raises ``EngineFailed``."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": what, **how}).encode() + b"\n")
        return await self._answer(ANSWERS_WITHIN_S)

    async def _answer(self, within_s: float) -> dict[str, Any]:
        assert self._process.stdout is not None
        try:
            async with asyncio.timeout(within_s):
                line = await self._process.stdout.readline()
        except TimeoutError:
            raise EngineFailed(f"no answer within {within_s:.0f} s") from None
        if not line:
            raise EngineFailed(f"it ended: {self._last_words()}")
        answer: dict[str, Any] = json.loads(line)
        if "problem" in answer:
            raise EngineFailed(answer["problem"])
        return answer

    def _last_words(self) -> str:
        lines = self._log.read_text(encoding="utf-8", errors="replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")[:300]


@asynccontextmanager
async def running(
    python: Path, script: str, url: str, options: Mapping[str, object], log: Path
) -> AsyncGenerator[Engine, None]:
    """Run a script for the block. Raises ``EngineFailed`` if it does not become ready."""
    env = {name: value for name, value in os.environ.items() if name.lower() not in WITHOUT}
    with log.open("wb") as errors:
        process = await asyncio.create_subprocess_exec(
            *(str(python), "-m", f"{SCRIPTS}.{script}", url, json.dumps(dict(options))),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=errors,
            env=env,
            cwd=ROOT,
            limit=MOST_LINE,
            start_new_session=True,  # Ctrl-C is ours to act on, and its group is only its own
        )
    engine = Engine(process, log)
    try:
        await engine.ready()
        yield engine
    finally:
        await _end(process)


async def _end(process: asyncio.subprocess.Process) -> None:
    assert process.stdin is not None
    process.stdin.close()
    try:
        async with asyncio.timeout(ENDS_WITHIN_S):
            await process.wait()
    except TimeoutError:
        pass
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
