"""``python -m bench.flame PY_SPY``: where the time of a step and of a child goes, in the worker.

The rule: py-spy looks at the worker of the engine's figures while it works, from outside; the worker knows nothing
of it. The work is done twice. Once it is drawn, into ``docs/images``: whoever holds the interpreter's lock. Once
it is counted, and printed as markdown: whoever does not sleep, scaled by the CPU time that the worker took for one
step in the very same stretch. py-spy needs the right to look into another process: root, or
``kernel.yama.ptrace_scope = 0``.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import signal
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from bench import fanout, steps
from bench.disk import InMemory
from bench.ending import Ending
from bench.engine import FILL_OTHERS
from bench.flows import STEPS
from bench.folded import table
from bench.place import Place, opened
from bench.server import COUNTED, SETTINGS, connection, make_database, own_server
from bench.worker import ROOT, WorkerProcess, running_worker
from bench.yardstick import OTHERS
from continuum.client import connect

IMAGES = ROOT / "docs" / "images"
A_SECOND = 250
ENDS_WITHIN_S = 60.0
FORMATS: dict[str, list[str]] = {"raw": [], "flamegraph": ["--gil"]}
_TITLE = re.compile(r'(<text id="title"[^>]*>)[^<]*(</text>)')


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is done while one recording is made."""

    runs: int = 20_000
    in_flight: int = 1_000
    warm: int = 500
    children: int = 10_000
    families: int = 10


@dataclass(frozen=True, slots=True)
class Recorder:
    """py-spy, and where its files go. ``microseconds`` of client CPU for one are what the work returns."""

    py_spy: str
    folder: Path

    async def record(self, one: str, worker: WorkerProcess, work: Callable[[], Awaitable[float]]) -> None:
        """Have ``work`` done twice, draw it, and print a table; it returns the client's CPU time for one."""
        files = {kind: self.folder / f"flame-{one}.{'svg' if kind == 'flamegraph' else kind}" for kind in FORMATS}
        each_us = dict.fromkeys(FORMATS, 0.0)
        for kind, file in files.items():
            async with self._watching(worker.pid, kind, file):
                each_us[kind] = await work()
        _entitle(files["flamegraph"], f"A {one}: the worker's time, {each_us['flamegraph']:.1f} µs of a core")
        print(table(one, _take(files["raw"]), each_us["raw"]), flush=True)

    @asynccontextmanager
    async def _watching(self, pid: int, kind: str, file: Path) -> AsyncGenerator[None, None]:
        """Record for the block. Raises ``RuntimeError`` if nothing was."""
        process = await asyncio.create_subprocess_exec(
            *(self.py_spy, "record", f"--pid={pid}", f"--format={kind}", f"--output={file}"),
            # Not stopped for a sample: a process is stopped where it calls the system, and most would seem to be.
            *("--nonblocking", "--function", f"--rate={A_SECOND}", "--duration=unlimited", *FORMATS[kind]),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is ours to act on
        )
        assert process.stdout is not None
        try:
            said = await process.stdout.readline()  # it samples now, or says why not
            yield
        finally:
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGINT)
            async with asyncio.timeout(ENDS_WITHIN_S):
                said += await process.stdout.read()
                await process.wait()
        if process.returncode:
            raise RuntimeError(f"py-spy has recorded nothing: {said.decode(errors='replace').strip()}")


def _entitle(file: Path, title: str) -> None:
    """Give a graph a title: py-spy's own is its command line, with this machine's folders in it."""
    file.write_text(_TITLE.sub(rf"\g<1>{title}\g<2>", file.read_text(encoding="utf-8")), encoding="utf-8")


def _take(file: Path) -> str:
    found = file.read_text(encoding="utf-8")
    file.unlink()
    return found


async def _measure(url: str, recorder: Recorder, sizes: Sizes) -> None:
    async with connection(url, "bench") as admin, opened(await make_database(admin, url, "flame")) as place:
        for fill in FILL_OTHERS:
            await place.own.execute(fill, [OTHERS])
        await place.vacuum()
        await _steps(place, recorder, sizes)
        await _children(place, recorder, sizes)


async def _steps(place: Place, recorder: Recorder, sizes: Sizes) -> None:
    async with running_worker(place.url, f"--cache={sizes.in_flight}") as worker:

        async def work() -> float:
            _, spent = await steps.together(place, [worker], sizes.runs)
            return spent.client_us / sizes.runs / STEPS

        await steps.warm_up(place, sizes.warm)
        await recorder.record("step", worker, work)


async def _children(place: Place, recorder: Recorder, sizes: Sizes) -> None:
    async with running_worker(place.url) as worker, connect(place.url, migrate=False) as client:

        async def work() -> float:
            name, found = "children", list[dict[str, float]]()
            for _ in range(sizes.families):
                found.append(await fanout.family(place, worker, client, name, sizes.children))
            return sum(each[f"{name}, client CPU"] for each in found) / len(found)

        await fanout.warm_up(place)
        await recorder.record("child", worker, work)


def run(py_spy: str, ending: Ending, sizes: Sizes | None = None, folder: Path = IMAGES) -> None:
    """Draw both graphs and print both tables."""
    folder.mkdir(parents=True, exist_ok=True)
    settings = SETTINGS | COUNTED
    with own_server(ending, settings) as (url, _):
        ending.run(_measure(url, Recorder(py_spy, folder), sizes or Sizes()))


def main() -> None:
    """Draw and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.flame")
    parser.add_argument("py_spy", metavar="PY_SPY", help="the command py-spy")
    words, ending = parser.parse_args(), Ending()
    ending.watch()
    try:
        run(words.py_spy, ending)
    except (InMemory, RuntimeError) as error:
        sys.exit(f"flame: {error}")
    except KeyboardInterrupt:  # one that is not ours cannot be: the signals are watched
        assert ending.number is not None
        sys.exit(128 + ending.number)


if __name__ == "__main__":
    main()
