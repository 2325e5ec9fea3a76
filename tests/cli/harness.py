"""Runs made by hand through the journal, and commands as processes of their own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from continuum._core.failure import capture, encode_failure
from continuum._journal.commit import Announcement, Claimed, NewRoot
from tests.interrupts import interruptible
from tests.journal.harness import claim, turn, worker, write

PATIENCE_S = 30.0
FLOWS = """
from continuum import (
    Retry, Update, activity, await_children, on_update, set_state, start_child, wait_signal, workflow
)

@activity
async def double(n: int) -> int:
    return 2 * n

@workflow
async def order_flow(n: int) -> int:
    return await double(n)

@workflow
async def batch_flow(n: int) -> int:
    return sum(await await_children([start_child(order_flow, i, id=f"o-{i}") for i in range(n)]))

set_price = Update("set_price", int, int)

@workflow(signals={"approve": bool}, updates=[set_price], state=int)
async def approved(n: int) -> bool:
    async def change(price: int) -> int:
        set_state(price)
        return price * 2

    def known(price: int) -> None:
        if price < 0:
            raise ValueError("a price is 0 or more")

    on_update(set_price, change, validator=known)
    return await wait_signal("approve", bool)
"""


def boom() -> bytes:
    """An error with a cause, and with what no terminal should act upon."""
    try:
        try:
            raise KeyError("o1")
        except KeyError as cause:
            raise ValueError("no such \x1b[31morder") from cause
    except ValueError as error:
        return encode_failure(capture(error))


def made(url: str, *steps: Callable[[Any], Any]) -> None:
    """Take steps with an open journal whose process is a worker that has announced some workflows."""

    async def make() -> None:
        async with worker(url, "w-1") as journal:
            await journal.announce([Announcement("workflow", name, 1) for name in ("order_flow", "batch_flow")])
            for step in steps:
                await step(journal)

    asyncio.run(make())


def ended(run_id: str, status: object, *, workflow: str = "order_flow", input: bytes = b"1") -> Callable[..., Any]:
    """A step: a run that has come to ``status``."""

    async def step(journal: Any) -> None:
        found = await begun(journal, run_id, workflow, input)
        await write(journal, turn(found, status=status))

    return step


async def begun(journal: Any, run_id: str, workflow: str, input: bytes = b"1") -> Claimed:
    """Start a run and claim it."""
    await journal.start([NewRoot(run_id, workflow, 1, input)])
    return (await claim(journal, (workflow, 1)))[run_id]


def until(condition: Callable[[], object], seconds: float = PATIENCE_S) -> None:
    """Look again and again whether something has come true; fail if it has not in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"did not come true within {seconds} s"
        time.sleep(0.01)


class Program:
    """The command as a process of its own, and what it has said on stderr."""

    def __init__(self, *arguments: str) -> None:
        with interruptible():
            self.process = subprocess.Popen(
                [sys.executable, "-m", "continuum", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
        self.lines: list[str] = []
        self._said_all = False
        self._more = threading.Condition()
        self._reading = threading.Thread(target=self._read, daemon=True)
        self._reading.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self._more:
                self.lines.append(line)
                self._more.notify_all()
        with self._more:
            self._said_all = True
            self._more.notify_all()

    @property
    def said(self) -> str:
        return "".join(self.lines)

    def says(self, pattern: str, times: int = 1) -> list[str]:
        """Wait until lines have come that match, so many; return all that do."""

        def found() -> list[str]:
            return [line for line in self.lines if re.search(pattern, line)]

        with self._more:
            self._more.wait_for(lambda: len(found()) >= times or self._said_all, PATIENCE_S)
        assert len(found()) >= times, f"{pattern!r} did not come {times} times:\n{self.said}"
        return found()

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def ends(self) -> int:
        """Wait until it has ended, and return its exit code."""
        code = self.process.wait(PATIENCE_S)
        self._reading.join(PATIENCE_S)
        return code

    def kill(self) -> None:
        if self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        for pid in map(int, re.findall(r"^\S+Z \w+ (\d+) continuum.worker: worker", self.said, re.MULTILINE)):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                if pid != self.process.pid and not gone(pid):
                    os.kill(pid, signal.SIGKILL)
        self._reading.join(PATIENCE_S)
        if self.process.stderr is not None:
            self.process.stderr.close()


def gone(pid: int) -> bool:
    """Tell whether a process has ended."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def free_ports(count: int) -> int:
    """Return the first of some ports in a row that nobody listens on."""
    while True:
        with contextlib.ExitStack() as held:
            first = held.enter_context(socket.socket())
            first.bind(("127.0.0.1", 0))
            port = int(first.getsockname()[1])
            try:
                for number in range(1, count):
                    held.enter_context(socket.socket()).bind(("127.0.0.1", port + number))
            except (OSError, OverflowError):
                continue
            return port
