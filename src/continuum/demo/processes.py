"""The demo's workers: processes of their own, one at a time.

The rule: whatever happens, no worker outlives the block that holds them, nor the process: it has one end of a
socket, and stops when the other end, which only this process has, is closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from continuum.errors import ContinuumError

LEASE_S = 2.0  # much shorter than the default, so that nobody waits long for the next one to take over
HEARTBEAT_S = 0.4
PATIENCE_S = 3.0
LAST_LINES = 5
MODULE = "continuum.demo.flows"


class WorkerEnded(ContinuumError):
    """A worker ended by itself."""


class Workers:
    """One worker at a time. ``pids`` are the processes there were, ``killed`` those of them that were killed."""

    def __init__(self, log: Path, environ: dict[str, str]) -> None:
        self.log = log
        self.number = 0
        self.pids: list[int] = []
        self.killed: list[int] = []
        self._environ = environ
        self._process: asyncio.subprocess.Process | None = None
        self._tie: socket.socket | None = None

    @property
    def pid(self) -> int:
        """The process of the worker there is."""
        assert self._process is not None
        return self._process.pid

    async def start(self) -> None:
        """Start the next one, which takes over when the lease of the one before has ended."""
        # -P: a folder called continuum where we are must not be taken for us.
        call = [sys.executable, "-P", "-m", "continuum", "worker", MODULE]
        settings = ["--lease", f"{LEASE_S:g}", "--heartbeat", f"{HEARTBEAT_S:g}"]
        nothing = asyncio.subprocess.DEVNULL
        self._untie()
        self._tie, theirs = socket.socketpair()
        with theirs, open(self.log, "ab") as log:  # noqa: ASYNC230 - as fast as starting a process
            tie = ["--supervised", str(theirs.fileno())]
            self._process = await asyncio.create_subprocess_exec(
                *call,
                *settings,
                *tie,
                stdin=nothing,
                stdout=log,
                stderr=log,
                env=self._environ,
                pass_fds=[theirs.fileno()],
            )
        self.number += 1
        self.pids.append(self._process.pid)

    async def kill(self) -> None:
        """Kill it by SIGKILL, and wait until it is gone. Raises ``WorkerEnded`` if it was gone before."""
        assert self._process is not None
        self.killed.append(self._process.pid)
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()
        if self._process.returncode != -signal.SIGKILL:
            self.killed.pop()
            self.check()

    def check(self) -> None:
        """Raise ``WorkerEnded`` if it has ended."""
        if self._process is not None and self._process.returncode is not None:
            raise WorkerEnded(
                f"worker {self.number} ended by itself (exit code {self._process.returncode}); its log {self.log} "
                f"ends with: {self._last_lines()}"
            )

    async def end(self) -> None:
        """Ask it to stop; kill it if it does not in time, which loses nothing either."""
        try:
            await self._ended()
        finally:
            self._untie()

    async def _ended(self) -> None:
        process = self._process
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            async with asyncio.timeout(PATIENCE_S):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()
        except asyncio.CancelledError:
            process.kill()
            raise

    def _untie(self) -> None:
        if self._tie is not None:
            self._tie.close()

    def _last_lines(self) -> str:
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        return " | ".join(line.strip() for line in lines[-LAST_LINES:] if line.strip()) or "nothing"


@asynccontextmanager
async def workers(
    log: Path, *, url: str | None = None, schema: str | None = None, home: str | None = None
) -> AsyncGenerator[Workers, None]:
    """Give workers for the block, the first one started. The database is named as for ``connect()``."""
    environ = dict(os.environ)
    if url is not None:
        environ["CONTINUUM_DATABASE_URL"] = url
    elif home is not None:
        environ.pop("CONTINUUM_DATABASE_URL", None)
        environ["CONTINUUM_HOME"] = home
    if schema is not None:
        environ["CONTINUUM_SCHEMA"] = schema
    made = Workers(log, environ)
    try:
        await made.start()
        yield made
    finally:
        await made.end()
