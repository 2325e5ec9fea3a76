"""The worker of the engine's figures: ``continuum worker`` itself, in a process of its own.

The rule: it runs as users run it, so it has what the command gives it, and nothing else. It drains when it is told
to, and also when this process is gone: it holds one end of a socket, as the supervisor of several workers does.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from continuum.cli.supervisor import READY

ROOT = Path(__file__).resolve().parents[1]
MODULE = "bench.flows"
APPLICATIONS = [f"continuum {name}" for name in ("flush", "journal", "hints", "large", "heartbeat", "listen")]
ENDS_WITHIN_S = 20.0


class WorkerProcess:
    """A worker that is ready."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._clock = (~pid << 3) | 2  # Linux: the CPU time of a process, all its threads

    def cpu_us(self) -> float:
        """Return the CPU time that it has used, in microseconds."""
        return time.clock_gettime_ns(self._clock) / 1e3

    def peak_mb(self) -> float:
        """Return the most memory that was ever resident, in megabytes."""
        for line in Path(f"/proc/{self.pid}/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / 1e6
        raise RuntimeError(f"the kernel does not tell the memory of process {self.pid}")


@asynccontextmanager
async def running_worker(url: str, *options: str) -> AsyncGenerator[WorkerProcess, None]:
    """Run a worker for the block; ``options`` are those of the command."""
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "continuum", "worker", f"--url={url}", "--log-level=warning"),
                *(f"--supervised={theirs.fileno()}", *options, "--", MODULE),
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                cwd=ROOT,
                start_new_session=True,  # Ctrl-C is ours to act on
            )
        try:
            ours.setblocking(False)
            if await asyncio.get_running_loop().sock_recv(ours, 1) != READY:
                raise RuntimeError(f"the worker ended before it was ready: exit code {await process.wait()}")
            yield WorkerProcess(process.pid)
        finally:
            await _end(process)


async def _end(process: asyncio.subprocess.Process) -> None:
    with suppress(ProcessLookupError):
        process.terminate()
    try:
        async with asyncio.timeout(ENDS_WITHIN_S):
            await process.wait()
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
