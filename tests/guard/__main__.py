"""Prints what steps and children cost now, beside their bounds: ``python -m tests.guard --functions 40``."""

from __future__ import annotations

import argparse
import asyncio
import shutil
import tempfile
from pathlib import Path

from tests.databases import FAST_PLACE, Servers
from tests.guard import test_cost_of_a_child as child
from tests.guard import test_cost_of_a_step as step
from tests.guard.bounds import proposed
from tests.guard.rounds import Spent


def main() -> None:
    asking = argparse.ArgumentParser(prog="python -m tests.guard", description=__doc__)
    asking.add_argument("--functions", type=int, default=0, metavar="N", help="the N functions called most")
    functions = asking.parse_args().functions
    home = Path(tempfile.mkdtemp(prefix="continuum-guard-", dir=FAST_PLACE))
    home.chmod(0o755)
    servers = Servers(home)
    try:
        log = servers.log("embedded")
        with servers.database("embedded") as url:
            steps, _ = asyncio.run(step.steps(url, log))
        show(f"a step, {step.RUNS} runs in flight", steps, step.STEPS, step.BOUNDS, functions)
        with servers.database("embedded") as url:
            few, many, _ = asyncio.run(child.children(url, log))
        show(f"a child of {child.FEW}", few, child.FEW, {}, 0)
        show(f"a child of {child.MANY}", many, child.MANY, child.BOUNDS, functions)
    finally:
        servers.stop()
        shutil.rmtree(home)


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
