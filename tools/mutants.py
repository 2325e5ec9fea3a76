"""Plants bugs, one at a time, in a copy of the sources, and sees that the tests catch each.

    python -m tools.mutants [-j 2] [--all] [--simulate SEEDS] [--table] [names]

The catalogue is tests/mutants. First the tests that are to catch bugs must pass without any. Then each bug is
planted and its checks run until a test fails; with --all every check must fail, and those of the protocol once
more on the in-memory journal. With --simulate the simulation is run too, of bugs that it can see. The exit code
is 1 if a bug is caught by nothing, or not by what the catalogue says. --table prints what docs/reliability.md
lists. The work tree is read once and never written.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.mutants import CATALOGUE, Check, Mutant
from tests.mutants.mutant import OutOfDate
from tests.mutants.witness import COPY, REPORT

ROOT = Path(__file__).resolve().parents[1]
COPIED = ("src", "tests", "pyproject.toml")
PATIENCE_S = 240.0  # for one check; for all together without a bug as often as there are checks
SIMULATION = Path("tests/simulation/__main__.py")
NAME_WIDTH = max(map(len, CATALOGUE))


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of one check, or of the simulation: who caught the bug, or what went wrong."""

    suite: str
    caught: bool
    what: str  # the test, or the trouble
    took_s: float


def main(arguments: Sequence[str]) -> int:
    """Do what is asked and return the exit code."""
    asked = _parser().parse_args(arguments)
    if unknown := [name for name in asked.names if name not in CATALOGUE]:
        sys.exit(f"no such bug: {', '.join(unknown)}. There are:\n  " + "\n  ".join(CATALOGUE))
    if asked.table:
        print("\n".join(table()))
        return 0
    wanted = [CATALOGUE[name] for name in asked.names] or list(CATALOGUE.values())
    with copied(ROOT) as plain:
        if trouble := _trouble_without_bugs(plain, wanted, asked.jobs):
            print(f"without any bug:\n{trouble}")
            return 1
        with ThreadPoolExecutor(asked.jobs) as pool:
            found = pool.map(lambda mutant: _try(plain, mutant, asked.all, asked.simulate), wanted)
            results = [_tell(mutant, verdicts) for mutant, verdicts in zip(wanted, found, strict=True)]
    print(f"{len(results)} bugs: {sum(results)} caught as the catalogue says, {len(results) - sum(results)} not")
    return int(not all(results))


def table() -> list[str]:
    """Return the catalogue as the lines of a table."""
    lines = ["| Bug | What is broken | Promise | Caught by | Simulation |", "|---|---|---|---|---|"]
    for mutant in CATALOGUE.values():
        tests = ", ".join(f"{check.suite}: `{check.name}`" for check in mutant.caught_by)
        lines.append(f"| `{mutant.name}` | {mutant.breaks} | {mutant.promise} | {tests} | {mutant.simulated} |")
    return lines


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="mutants", description="Plant bugs and see that tests catch them.")
    parser.add_argument("names", nargs="*", help="bugs, as fence-without-lock; all, if none is named")
    parser.add_argument("-j", dest="jobs", type=int, default=2, help="how many at a time (2)")
    parser.add_argument("--all", action="store_true", help="run every check of a bug: each must catch it")
    parser.add_argument("--simulate", type=int, default=0, metavar="SEEDS", help="run the simulation as well")
    parser.add_argument("--table", action="store_true", help="print the catalogue as docs/reliability.md has it")
    return parser


# --- copies


@contextmanager
def copied(project: Path) -> Iterator[Path]:
    """A copy of what the tests need, for the block."""
    folder = Path(tempfile.mkdtemp(prefix="continuum-mutants-"))
    try:
        for name in COPIED:
            if (project / name).is_dir():
                shutil.copytree(project / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy2(project / name, folder / name)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


# --- trying


def _trouble_without_bugs(plain: Path, wanted: Sequence[Mutant], jobs: int) -> str:
    """Return how the checks fail though there is no bug, or nothing."""
    apart: dict[tuple[tuple[str, str], ...], dict[str, None]] = {}
    for mutant in wanted:
        for wanted_check in mutant.caught_by:
            apart.setdefault(tuple(wanted_check.environment.items()), {})[wanted_check.node] = None
    for environment, nodes in apart.items():
        parallel = ["-n", str(jobs), "--dist", "worksteal"] if jobs > 1 else []
        done, failures = _pytest(plain, [*parallel, *nodes], dict(environment), PATIENCE_S * len(nodes))
        if done.returncode:
            return "\n".join([*(f"{one['test']}: {one['error']}" for one in failures), done.stdout[-4000:]])
    return ""


def _try(plain: Path, mutant: Mutant, every: bool, seeds: int) -> list[Verdict]:
    """Plant one bug and run its checks, until one catches it unless ``every`` one is to."""
    verdicts: list[Verdict] = []
    with copied(plain) as copy:
        try:
            mutant.apply(copy / "src/continuum")
        except OutOfDate as error:
            return [Verdict("catalogue", False, f"out of date: {error}", 0.0)]
        for wanted in mutant.caught_by:
            verdicts.append(check(copy, wanted))
            if verdicts[-1].caught and not every:
                break
            if mutant.in_memory and wanted.suite == "conformance":
                verdicts.append(check(copy, wanted, "-k", "memory"))
        if seeds and mutant.simulated != "no" and (copy / SIMULATION).is_file():
            verdicts.append(_simulate(copy, seeds))
    return verdicts


def check(copy: Path, wanted: Check, *options: str) -> Verdict:
    """Run one check in a copy in which a bug is planted."""
    began_at = time.monotonic()
    done, failures = _pytest(copy, ["-x", wanted.node, *options], wanted.environment, PATIENCE_S)
    took_s = time.monotonic() - began_at
    if done.returncode == 0:
        return Verdict(wanted.suite, False, f"{wanted.name} passes", took_s)
    if done.returncode == 1 and failures and failures[0]["verdict"]:
        return Verdict(wanted.suite, True, str(failures[0]["test"]), took_s)
    reason = failures[0]["error"] if failures else (done.stdout + done.stderr)[-2000:]
    return Verdict(wanted.suite, False, f"{wanted.name} comes to no verdict: {reason}", took_s)


def _simulate(copy: Path, seeds: int) -> Verdict:
    began_at = time.monotonic()
    done = _run([sys.executable, "-m", "tests.simulation", "--stop", "--seeds", str(seeds)], copy, {}, PATIENCE_S)
    took_s = time.monotonic() - began_at
    last = (done.stdout.splitlines() or [""])[-1]
    if done.returncode not in (0, 1):
        return Verdict("simulation", False, f"it comes to no verdict: {done.stderr[-2000:]}", took_s)
    return Verdict("simulation", done.returncode == 1, last, took_s)


def _pytest(
    copy: Path, arguments: Sequence[str], environment: Mapping[str, str], patience_s: float
) -> tuple[subprocess.CompletedProcess[str], list[dict[str, object]]]:
    """Run tests of a copy on the package of that copy; return how it ended, and the failures in order."""
    report = copy / "failures.jsonl"
    report.unlink(missing_ok=True)
    options = ["-q", "-p", "no:randomly", "-p", "no:cacheprovider", "-p", "tests.mutants.witness"]
    command = [sys.executable, "-m", "pytest", *options, *arguments]
    done = _run(command, copy, {**environment, REPORT: str(report)}, patience_s)
    lines = report.read_text(encoding="utf-8").splitlines() if report.exists() else []
    return done, [json.loads(line) for line in lines]


def _run(
    command: Sequence[str], copy: Path, environment: dict[str, str], patience_s: float
) -> subprocess.CompletedProcess[str]:
    """Run a command in a copy. It is ended, with all that it started, when it takes too long."""
    path = os.pathsep.join([str(copy / "src"), str(copy)])
    variables = {**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1", COPY: str(copy), **environment}
    with subprocess.Popen(
        command,
        cwd=copy,
        env=variables,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            out, err = process.communicate(timeout=patience_s)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            out, err = process.communicate()
            err += f"\nended after {patience_s:g} s"
    return subprocess.CompletedProcess(command, process.returncode, out, err)


# --- telling


def _tell(mutant: Mutant, verdicts: Sequence[Verdict]) -> bool:
    """Print what came of one bug; return whether all went as the catalogue says."""
    for verdict in verdicts:
        mark = "caught by" if verdict.caught else "NOT CAUGHT"
        text = f"{mark} {verdict.suite}: {verdict.what}"
        print(f"{mutant.name:<{NAME_WIDTH}}  {verdict.took_s:5.1f} s  {text}", flush=True)
    return bool(verdicts) and all(verdict.caught for verdict in verdicts)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
