"""Several worker processes, kept running: what ``continuum worker --processes`` is.

The rule: this process runs no workflow and imports no module of the author's. Each worker has a session of its
own, so a signal reaches it only from here, and one end of a socket whose other end only this process has: when it
is closed, however that came, the worker drains.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Callable
from dataclasses import dataclass

from continuum.cli.stopping import Stopping

logger = logging.getLogger("continuum.worker")
MOST_FAILED_STARTS = 3  # in a row, of every process: then it is no use to go on
FIRST_DELAY_S = 0.5
MOST_DELAY_S = 30.0
SETTLED_S = 60.0  # who lived so long is started anew without a long delay
BEYOND_DRAIN_S = 10.0  # for a drain to end by itself
READY = b"r"
_WRONG_USAGE = 2

ArgumentsOf = Callable[[int, int], list[str]]
"""Gives a worker's command line, by its number from 0 and the descriptor of its end of the socket."""


@dataclass(slots=True)
class _Slot:
    """A place for one worker process, and how its starts went."""

    number: int
    process: Process | None = None
    failed_starts: int = 0
    deaths: int = 0


def supervise(processes: int, arguments_of: ArgumentsOf, *, drain_s: float) -> int:
    """Keep that many workers running until asked to stop; return the exit code."""
    return asyncio.run(_Supervisor(processes, arguments_of, drain_s).run())


class _Supervisor:
    def __init__(self, processes: int, arguments_of: ArgumentsOf, drain_s: float) -> None:
        self._arguments_of = arguments_of
        self._patience_s = drain_s + BEYOND_DRAIN_S
        self._slots = [_Slot(number) for number in range(processes)]
        self._one_ready = asyncio.Event()
        self._ending = asyncio.Event()
        self._code = 0

    async def run(self) -> int:
        """Start the workers and start them anew until asked to stop, or until it is no use."""
        stopping = Stopping()
        with stopping.watch(self._forward):
            async with asyncio.TaskGroup() as tasks:
                killing = tasks.create_task(self._kill_leftovers())
                async with asyncio.TaskGroup() as kept:
                    for slot in self._slots:
                        kept.create_task(self._keep(slot))
                killing.cancel()
        if len(stopping.signals) > 1:
            return 128 + stopping.signals[-1]
        return self._code

    def _forward(self, number: int) -> None:
        """Hand a signal on; the second one ends every worker at once."""
        if self._ending.is_set():
            self._kill()
        else:
            self._end(0, number)

    def _end(self, code: int, number: int = signal.SIGTERM) -> None:
        if self._ending.is_set():
            return
        self._code = code
        self._ending.set()
        for slot in self._slots:
            if slot.process is not None:
                _send(slot.process, number)

    def _kill(self) -> list[int]:
        """Kill what still runs, with what it started; return the process ids."""
        alive = [slot.process for slot in self._slots if slot.process and slot.process.returncode is None]
        left = [process.pid for process in alive]
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
        return left

    async def _kill_leftovers(self) -> None:
        await self._ending.wait()
        await asyncio.sleep(self._patience_s)
        if left := self._kill():
            self._code = self._code or 1
            logger.error("killed, for they had not ended within %g s: %s", self._patience_s, left)

    async def _keep(self, slot: _Slot) -> None:
        """Keep one worker running, until this process is asked to stop or it is no use."""
        if slot.number > 0:  # if the first one cannot start, it says why once and not each of them
            await _first(self._one_ready, self._ending)
        while not self._ending.is_set():
            began = asyncio.get_running_loop().time()
            was_ready, code = await self._life(slot)
            if self._ending.is_set():
                if code not in (0, -signal.SIGTERM, -signal.SIGINT):
                    self._code = self._code or 1
                return
            settled = was_ready and asyncio.get_running_loop().time() - began > SETTLED_S
            slot.deaths = 1 if settled else slot.deaths + 1
            slot.failed_starts = 0 if was_ready else slot.failed_starts + 1
            if self._is_no_use(code):
                return
            delay_s = min(MOST_DELAY_S, FIRST_DELAY_S * 2 ** min(slot.deaths - 1, 10))
            logger.warning(
                "worker process %d %s; it is started anew in %g s", slot.number + 1, _how(code), delay_s
            )
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ending.wait(), delay_s)

    def _is_no_use(self, code: int) -> bool:
        """End everything if a worker says that it cannot be started so, or if none can be started any more."""
        if code == _WRONG_USAGE:
            self._end(_WRONG_USAGE)
            return True
        begun = self._slots if self._one_ready.is_set() else self._slots[:1]
        if min(slot.failed_starts for slot in begun) < MOST_FAILED_STARTS:
            return False
        logger.error("no worker process can be started: tried %d times in a row", MOST_FAILED_STARTS)
        self._end(1)
        return True

    async def _life(self, slot: _Slot) -> tuple[bool, int]:
        """Run one process to its end; return whether it ever was ready, and its exit code."""
        ours, theirs = socket.socketpair()
        with ours:
            try:
                slot.process = await self._begin(slot, theirs)
            except OSError as error:
                logger.error("no process can be made: %s", error)
                return False, 1
            finally:
                theirs.close()
            try:
                if self._ending.is_set():  # it was asked to stop while this one was made
                    _send(slot.process, signal.SIGTERM)
                async with asyncio.TaskGroup() as tasks:
                    hearing = tasks.create_task(self._hear(ours))
                    code = await slot.process.wait()
                    hearing.cancel()
            finally:
                slot.process = None
        return not hearing.cancelled() and hearing.result(), code

    async def _begin(self, slot: _Slot, theirs: socket.socket) -> Process:
        arguments = self._arguments_of(slot.number, theirs.fileno())
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "continuum", *arguments),
            stdin=DEVNULL,
            pass_fds=[theirs.fileno()],
            start_new_session=True,
        )

    async def _hear(self, ours: socket.socket) -> bool:
        """Wait for a worker's word that it is ready; return whether it came."""
        ours.setblocking(False)
        with contextlib.suppress(OSError):
            if await asyncio.get_running_loop().sock_recv(ours, 1) == READY:
                self._one_ready.set()
                return True
        return False


async def _first(*events: asyncio.Event) -> None:
    """Wait until one of the events is set."""
    async with asyncio.TaskGroup() as tasks:
        waiting = [tasks.create_task(event.wait()) for event in events]
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for task in waiting:
            task.cancel()


def _send(process: Process, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(number)


def _how(code: int) -> str:
    """Say how a process ended."""
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"
