"""Starts worker processes fast: it has imported what they all need, and forks.

The rule: it has no threads and no connections, so a fork of it is as good as a new process. Orders come a line
each, it answers with the pid; how a process ended goes into a file. When its input ends, all that it started end.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

EARLY = ("continuum.worker", "continuum._journal.journal", "tests.processes.entry", "psycopg")
FLOWS = ("tests.processes.flows", "tests.processes.parents", "tests.crash.children", "tests.crash.parents")
running: dict[int, Path] = {}


def start(order: dict[str, Any]) -> int:
    """Fork a worker; return its pid."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    pid = os.fork()
    if pid == 0:
        become(order)
    running[pid] = Path(order["ended"])
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
    return pid


def become(order: dict[str, Any]) -> None:
    """Be the worker; never returns."""
    code = 1
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
        for number, path in ((0, os.devnull), (1, order["out"]), (2, order["log"])):
            opened = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
            os.dup2(opened, number)
            os.close(opened)
        os.environ["CONTINUUM_TEST_FOLDER"] = order["folder"]
        from tests.processes.entry import main, set_up_logging

        set_up_logging()
        asyncio.run(main(order))
        code = 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def reap(*_: object) -> None:
    """Write down how those ended that have."""
    while running:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:  # one that ended meanwhile interrupted this, and was the last
            return
        if pid == 0:
            return
        running.pop(pid).write_text(f"{os.waitstatus_to_exitcode(status)}\n")


def warm() -> None:
    """Make what each worker would make of its definitions when it starts, and keeps."""
    from continuum import Definitions
    from continuum._engine.engine import announcements

    for module in FLOWS:
        definitions = Definitions([importlib.import_module(module)])
        definitions.prepare()
        announcements(definitions)


def main() -> None:
    for module in EARLY:
        importlib.import_module(module)
    warm()
    signal.signal(signal.SIGCHLD, reap)
    for line in sys.stdin:
        print(start(json.loads(line)), flush=True)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for pid in running:
        os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    main()
