"""Generated programs replay exactly: at every point, in another process, hash seed and Python."""

from __future__ import annotations

import fcntl
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.programs.driver import Mismatch, record, transcript, verify
from tests.programs.generate import Node
from tests.programs.planted import PLANTED
from tests.programs.proof import read, write
from tests.programs.shrink import shrink

COUNT = int(os.environ.get("CONTINUUM_PROGRAMS", "250"))
ENOUGH = 150  # programs that show a planted bug: one of eight does, or more
ENOUGH_OF = {"unhashed_future": 300, "ordinal_by_line": 800}  # one of twenty; one of ninety
LONG = bool(os.environ.get("CONTINUUM_LONG"))
SHARES = os.cpu_count() or 1
ROOT = Path(__file__).parents[2]
VERSIONS = ("3.11", "3.12", "3.13", "3.14")
HERE = f"{sys.version_info.major}.{sys.version_info.minor}"


def run_proof(
    python: str, *arguments: object, hash_seed: str, plant: str = ""
) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {
        "PYTHONHASHSEED": hash_seed,
        "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)]),
        "CONTINUUM_PLANT": plant,
        "PYTHONWARNINGS": "error",
    }
    command = [python, "-m", "tests.programs.proof", *map(str, arguments)]
    return subprocess.run(
        command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False
    )


def record_files(python: str, folder: Path, first: int, count: int) -> list[Path]:
    """Record ``count`` programs in as many processes as there are cores. Fail with the smallest that fails."""
    files = [folder / f"{share}.jsonl" for share in range(SHARES)]
    bounds = [first + count * share // SHARES for share in range(SHARES + 1)]
    with ThreadPoolExecutor(SHARES) as pool:
        results = pool.map(
            lambda file, start, stop: run_proof(python, "record", file, start, stop, hash_seed="1"),
            files,
            bounds,
            bounds[1:],
        )
    for result in results:
        if failed := re.match(r"failed (\d+)", result.stdout):
            pytest.fail(report(int(failed[1]), Mismatch(result.stdout)))
        assert result.returncode == 0, result.stdout + result.stderr
    return files


def verify_files(python: str, files: list[Path], hash_seed: str, *, first: int = 0, every: int = 1) -> int:
    """Replay files in as many processes, or of each one in so many programs; return how many those were."""
    total = 0
    with ThreadPoolExecutor(SHARES) as pool:
        for result in pool.map(
            lambda file: run_proof(python, "verify", file, first, every, hash_seed=hash_seed), files
        ):
            assert result.returncode == 0, result.stdout + result.stderr
            found = re.search(r"verified (\d+), 0 differ", result.stdout)
            assert found is not None, result.stdout
            total += int(found[1])
    return total


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> list[Path]:
    """What this Python recorded, once for all processes that run these tests."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if hasattr(request.config, "workerinput") else base) / "programs"
    folder.mkdir(exist_ok=True)
    (folder / "lock").touch()
    with (folder / "lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "done").exists():
            record_files(sys.executable, folder, 0, COUNT)
            (folder / "done").touch()
    return sorted(folder.glob("*.jsonl"))


def fails(seed: int, tree: Node) -> str | None:
    """Say how a program fails, over a few orders of answers."""
    for attempt in range(seed, seed + 20):
        try:
            verify(record(attempt, tree))
        except Mismatch as mismatch:
            return str(mismatch)
    return None


def report(seed: int, mismatch: Mismatch) -> str:
    tree = record(seed, restarts=False).tree
    small = shrink(tree, lambda candidate: fails(seed, candidate) is not None)
    for attempt in range(seed, seed + 20):
        try:
            verify(record(attempt, small))
        except Mismatch as found:
            told = transcript(record(attempt, small, restarts=False))
            return f"{mismatch}\n\nsmallest program that fails, with seed {attempt}:\n{found}\n{told}"
    return f"{mismatch}\n\n(does not fail again when shrunk)"


def test_programs_replay_after_a_restart_at_every_point(recorded: list[Path]) -> None:
    """RP04: a program made again from its journal after each event goes on as if nothing had been."""
    assert sum(1 for file in recorded for _ in read(file)) == COUNT


@pytest.mark.parametrize("hash_seed", ["0", "2"] if LONG else ["2"])
def test_programs_replay_in_another_process_and_hash_seed(recorded: list[Path], hash_seed: str) -> None:
    """RP04: journals of one process replay in others that hash strings differently."""
    assert verify_files(sys.executable, recorded, hash_seed) == COUNT


@pytest.mark.parametrize("version", [version for version in VERSIONS if version != HERE])
def test_programs_replay_on_another_python_and_back(recorded: list[Path], version: str, tmp_path: Path) -> None:
    """RP04: recorded on one Python, replayed on the others; and some of theirs here.

    Each program is replayed on one of the others, and on all of them where there is time.
    """
    other = str(ROOT / f".venv-{version}/bin/python")
    if not Path(other).exists():
        pytest.skip(f"no environment .venv-{version}; `make pythons` makes one where it finds that Python")
    others = [known for known in VERSIONS if known != HERE]
    if not LONG and version != [known for known in others if Path(ROOT / f".venv-{known}").exists()][-1]:
        pytest.skip("at length: CONTINUUM_LONG=1")
    first, every = (0, 1) if LONG else (others.index(version), len(others))
    shown = sum(len(list(read(file))[first::every]) for file in recorded)
    assert verify_files(other, recorded, "3", first=first, every=every) == shown > COUNT // len(VERSIONS)
    theirs = record_files(other, tmp_path, COUNT, COUNT // 8)
    assert verify_files(sys.executable, theirs, "4") == COUNT // 8


QUICK = ["global_count", "set_order"]  # for some of the others it takes hundreds of programs


@pytest.mark.parametrize("plant", sorted(set(PLANTED) - {"unpinned"}) if LONG else QUICK)
def test_a_planted_bug_is_caught(plant: str, tmp_path: Path) -> None:
    """A proof that cannot fail proves nothing."""
    path, count = tmp_path / "histories.jsonl", ENOUGH_OF.get(plant, ENOUGH)
    for start, stop in ((0, count // 3), (count // 3, count)):  # the first of them show it as a rule
        made = run_proof(sys.executable, "record", path, start, stop, hash_seed="1", plant=plant)
        assert made.returncode == 0, made.stdout + made.stderr
        result = run_proof(sys.executable, "verify", path, hash_seed="2", plant=plant)
        assert f"verified {stop - start}," in result.stdout
        if result.returncode == 1:
            return
    pytest.fail(f"{count} programs do not show it: {result.stdout}{result.stderr}")


def test_a_history_survives_its_file(tmp_path: Path) -> None:
    history = record(7)
    write(tmp_path / "one.jsonl", [history])
    assert list(read(tmp_path / "one.jsonl")) == [history]


def test_a_failing_program_shrinks_to_what_makes_it_fail() -> None:
    tree = [
        "seq",
        [["try", ["gather", True, [["sleep", 1], ["child", 3]]], ["bump"], ["pause"], False], ["act", 2]],
    ]
    small = shrink(tree, lambda candidate: "child" in str(candidate))
    assert small == ["child", 3]
