"""``make bench-peers``: install the peers, measure them beside ours, and write the page's tables and plots."""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from bench.disk import InMemory, commit_ms, home_folder, make_commit_table
from bench.ending import Ending
from bench.peers import page
from bench.peers.figures import Figure, Sitting, load
from bench.peers.install import FOLDER, NotInstalled, install
from bench.peers.measure import measure
from bench.peers.settings import NAMES, Setting, chosen
from bench.server import SETTINGS, connection, own_server, server_facts

ABOUT = """Install DBOS, Absurd and Restate below .venv-peers (once), have each do the same work as Continuum, one
after the other, ours first and last, and write tables and plots to docs/performance.md and docs/peers. Takes about
six minutes on a quiet machine."""

TRIAL = FOLDER / "trial"


def words_of(given: Sequence[str]) -> argparse.Namespace:
    """Return what is asked for; ends the program with what is wrong with it."""
    parser = argparse.ArgumentParser(prog="make bench-peers", description=ABOUT)
    parser.add_argument("--uv", default="uv", help="the installer")
    parser.add_argument("--only", default=",".join(NAMES), metavar="ENGINES", help="some of " + ",".join(NAMES))
    parser.add_argument("--to", type=Path, metavar="FOLDER", help=f"not docs; for some engines only: {TRIAL.name}")
    parser.add_argument(
        "--again", action="store_true", help="measure nothing: tables and plots of the last sitting"
    )
    words = parser.parse_args(given)
    words.only = frozenset(words.only.split(","))
    words.to = words.to or (page.DOCS if words.only == set(NAMES) else TRIAL)
    if unknown := words.only - set(NAMES):
        parser.error(
            f"--only: no such engine: {', '.join(map(repr, sorted(unknown)))}; there are {', '.join(NAMES)}"
        )
    if words.again and not page.kept(words.to).is_file():
        parser.error(f"--again: there are no figures of an earlier sitting in {page.kept(words.to)}")
    return words


def main() -> None:
    """Measure, keep the figures, write the page."""
    words, ending = words_of(sys.argv[1:]), Ending()
    if words.again:
        page.write(load(page.kept(words.to)), words.to)
        return
    ending.watch()
    settings = {"autovacuum": "off", "shared_preload_libraries": "pg_stat_statements"}
    sitting = Sitting(_facts())
    try:
        installed = _installed(words.only, words.uv, sitting)
        with own_server(ending, SETTINGS | settings) as (url, found), home_folder() as home:
            sitting.facts["file_system"] = found["file_system"]  # not where it lay: the page is for everybody
            ending.run(_measure(url, home, chosen(installed), sitting))
    except InMemory as error:
        sys.exit(f"bench: {error}")
    except KeyboardInterrupt:  # one that is not ours cannot be: the signals are watched
        assert ending.number is not None
        sys.exit(128 + ending.number)
    sitting.save(page.kept(words.to))
    page.write(sitting, words.to)


def _installed(engines: frozenset[str], uv: str, sitting: Sitting) -> frozenset[str]:
    there = set[str]()
    for engine in sorted(engines):
        try:
            install(engine, uv)
            there.add(engine)
        except NotInstalled as error:
            problem = f"not installed: {error}"
            print(f"bench: {engine} is {problem}", file=sys.stderr)
            sitting.figures.append(Figure(engine=engine, setting="", default=False, what="none", problem=problem))
    return frozenset(there)


async def _measure(url: str, home: Path, settings: list[Setting], sitting: Sitting) -> None:
    started = time.monotonic()
    versions = sitting.facts.setdefault("versions", {})
    async with connection(url, "bench") as admin:
        await make_commit_table(admin)
        sitting.facts.update(await server_facts(admin))
        commits = [await commit_ms(admin)]
        for number, setting in enumerate(settings):
            version = await measure(admin, url, home, setting, f"peers_{number}", lambda f: _say(f, sitting))
            if version:
                versions[setting.engine] = version
        commits.append(await commit_ms(admin))
    sitting.facts["plain_commit_ms"] = [round(value, 3) for value in commits]
    sitting.facts["took_s"] = round(time.monotonic() - started)


def _say(figure: Figure, sitting: Sitting) -> None:
    sitting.figures.append(figure)
    if figure.problem:
        print(f"bench: {figure.engine}, {figure.setting}: {figure.problem}", file=sys.stderr, flush=True)
        return
    told = {"rate": figure.rate, "p50": figure.p50_ms, "p99": figure.p99_ms, "app": figure.app_us}
    told |= {"store": figure.store_us, "commits": figure.commits, "statements": figure.statements}
    told |= {"bytes": figure.bytes, "MB": figure.memory_mb}
    short = ", ".join(f"{name} {value:,.4g}" for name, value in told.items() if value is not None)
    print(f"{figure.what} {figure.how} {figure.count} x{figure.at_once}: {short}", flush=True)


def _facts() -> dict[str, object]:
    cpus = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    models = {line.partition(":")[2].strip() for line in cpus.splitlines() if line.startswith("model name")}
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "when": time.strftime("%Y-%m-%d", time.gmtime()),
        "cpu": ", ".join(sorted(models)) or platform.machine(),
        "cores": os.cpu_count(),
        "memory_gb": round(memory / 1e9),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "load": round(os.getloadavg()[0], 2),
    }


if __name__ == "__main__":
    main()
