"""Prints what steps and children cost now, beside their bounds: ``make guard ARGS='--functions 40'``."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Coroutine, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar

from bench.ending import Ending

from tests.databases import FAST_PLACE, Servers
from tests.guard import test_cost_of_a_child as child
from tests.guard import test_cost_of_a_step as step
from tests.guard.bounds import proposed
from tests.guard.rounds import Spent

T = TypeVar("T")


def main() -> None:
    asking = argparse.ArgumentParser(prog="make guard", description=__doc__)
    asking.add_argument("--functions", type=int, default=0, metavar="N", help="the N functions called most")
    words, ending = asking.parse_args(), Ending()
    ending.watch()
    try:
        with _own_servers(ending) as servers:
            play(servers, ending, words.functions)
    except KeyboardInterrupt:  # one that is not ours cannot be: the signals are watched
        assert ending.number is not None
        sys.exit(128 + ending.number)


def play(servers: Servers, ending: Ending, functions: int) -> None:
    log = servers.log("embedded")
    with servers.database("embedded") as url:
        steps, _ = _played(ending, step.steps(url, log))
    show(f"a step, {step.RUNS} runs in flight", steps, step.STEPS, step.BOUNDS, functions)
    with servers.database("embedded") as url:
        few, many, _ = _played(ending, child.children(url, log))
    show(f"a child of {child.FEW}", few, child.FEW, {}, 0)
    show(f"a child of {child.MANY}", many, child.MANY, child.BOUNDS, functions)


@contextmanager
def _own_servers(ending: Ending) -> Iterator[Servers]:
    """Run a server for the block. Its folder is in memory, so it is removed also after a signal."""
    with ExitStack() as stack:
        with ending.held_back():
            home = Path(tempfile.mkdtemp(prefix="continuum-guard-", dir=FAST_PLACE))
            stack.callback(shutil.rmtree, home)
            home.chmod(0o755)
            servers = Servers(home)
            stack.callback(servers.stop)
            stack.callback(ending.ignore)
            servers.url("embedded")
        yield servers


def _played(ending: Ending, rounds: Coroutine[Any, Any, T]) -> T:
    found: list[T] = []

    async def play() -> None:
        found.append(await rounds)

    ending.run(play())
    return found[0]


def show(what: str, spent: Spent, count: int, bounds: dict[str, float], functions: int) -> None:
    print(f"{what:44} {'now':>12} {'bound':>12} {'proposed':>12}")
    for name, figure in spent.each(count).items():
        bound = f"{bounds[name]:12.4g} {proposed(name, figure):12.4g}" if bounds else ""
        print(f"  {name:42} {figure:12.4f} {bound}")
    for name, calls in spent.calls.most(functions):
        print(f"    {calls / count:10.3f} {name}")
    print()


if __name__ == "__main__":
    main()
