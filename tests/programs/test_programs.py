"""Generated programs replay exactly: at every point, in another process, hash seed and Python."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.programs.driver import Mismatch, record, transcript, verify
from tests.programs.generate import Node
from tests.programs.planted import PLANTED
from tests.programs.proof import read, write
from tests.programs.shrink import shrink

COUNT = int(os.environ.get("CONTINUUM_PROGRAMS", "2000"))
ROOT = Path(__file__).parents[2]
VERSIONS = ("3.11", "3.12", "3.13", "3.14")


def other_pythons() -> list[str]:
    """Return the environments that ``make matrix`` has made for other Pythons."""
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    return [version for version in VERSIONS if version != here and (ROOT / f".venv-{version}/bin/python").exists()]


def run_proof(python: str, *arguments: str, hash_seed: str, plant: str = "") -> subprocess.CompletedProcess[str]:
    environment = os.environ | {
        "PYTHONHASHSEED": hash_seed,
        "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)]),
        "CONTINUUM_PLANT": plant,
        "PYTHONWARNINGS": "error",
    }
    command = [python, "-m", "tests.programs.proof", *arguments]
    return subprocess.run(
        command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )


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


def test_programs_replay_after_a_restart_at_every_point() -> None:
    """RP04: every program, made again from its journal after each event, goes on and replays alike."""
    for seed in range(COUNT):
        try:
            verify(record(seed))
        except Mismatch as mismatch:
            pytest.fail(report(seed, mismatch))


def test_programs_replay_in_another_process_with_another_hash_seed(tmp_path: Path) -> None:
    """RP04: journals of one process replay in others that hash strings differently."""
    path = tmp_path / "histories.jsonl"
    write(path, (record(seed, restarts=False) for seed in range(COUNT)))
    for hash_seed in ("1", "2"):
        result = run_proof(sys.executable, "verify", str(path), hash_seed=hash_seed)
        assert result.returncode == 0, result.stdout + result.stderr
        assert f"verified {COUNT}, 0 differ" in result.stdout


@pytest.mark.parametrize("version", VERSIONS)
def test_programs_recorded_here_replay_on_another_python_and_back(version: str, tmp_path: Path) -> None:
    """RP04: recorded on one Python, replayed on the others."""
    if version not in other_pythons():
        pytest.skip(f"no environment .venv-{version} of another Python; `make matrix` makes those it finds")
    other = str(ROOT / f".venv-{version}/bin/python")
    here, there = tmp_path / "here.jsonl", tmp_path / "there.jsonl"
    write(here, (record(seed, restarts=False) for seed in range(COUNT)))
    recorded = run_proof(other, "record", str(there), str(COUNT), str(COUNT), hash_seed="3")
    assert recorded.returncode == 0, recorded.stdout + recorded.stderr
    for python, path in ((other, here), (sys.executable, there)):
        result = run_proof(python, "verify", str(path), hash_seed="4")
        assert result.returncode == 0, result.stdout + result.stderr
        assert f"verified {COUNT}, 0 differ" in result.stdout


@pytest.mark.parametrize("plant", sorted(set(PLANTED) - {"unpinned"}))
def test_a_planted_bug_is_caught(plant: str, tmp_path: Path) -> None:
    """A proof that cannot fail proves nothing."""
    path = tmp_path / "histories.jsonl"
    recorded = run_proof(sys.executable, "record", str(path), "600", hash_seed="1", plant=plant)
    assert recorded.returncode == 0, recorded.stdout + recorded.stderr
    result = run_proof(sys.executable, "verify", str(path), hash_seed="2", plant=plant)
    assert result.returncode == 1, result.stdout + result.stderr
    assert "verified 600," in result.stdout


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
