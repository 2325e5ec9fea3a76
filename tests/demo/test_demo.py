"""The command as a user calls it: real workers, really killed, on a Postgres of its own."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from continuum.embedded.locks import exclusively
from tests.embedded.harness import gone, until
from tests.interrupts import interruptible

MEBI = 1 << 20
LONG = bool(os.environ.get("CONTINUUM_LONG"))
PACKAGES = 30 if LONG else 12


class Demo:
    """Calls ``continuum demo`` in a folder, on a database of the test's own."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder
        self.environ = {**os.environ, "CONTINUUM_DATABASE_URL": url, "CONTINUUM_HOME": str(folder / "home")}

    def start(self, *arguments: str, **environ: str) -> subprocess.Popen[str]:
        with interruptible():
            return subprocess.Popen(
                [sys.executable, "-m", "continuum", "demo", *arguments],
                cwd=self.folder,
                env={**self.environ, **environ},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )

    def run(self, *arguments: str, **environ: str) -> tuple[int, str, str]:
        process = self.start(*arguments, **environ)
        out, err = process.communicate(timeout=120)
        assert all(map(gone, self.workers())), "a worker was left behind"
        return process.returncode, out, err

    def figures(self, *arguments: str) -> dict[str, Any]:
        code, out, err = self.run("--json", *arguments)
        assert code == 0, err
        found: dict[str, Any] = json.loads(out)
        return found

    def workers(self, run: str = "*") -> list[int]:
        """Return every process that has written into a ledger."""
        text = "".join(path.read_text() for path in self.folder.glob(f"home/demo/{run}.ledger"))
        return [int(line.split("\t")[2]) for line in text.splitlines()]


@pytest.fixture
def demo(tmp_path: Path, database: str) -> Demo:
    return Demo(tmp_path, database)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Folders whose files take no room and some time to read."""
    tree = tmp_path / "tree"
    for number in range(PACKAGES):
        folder = tree / f"package-{number:02}"
        folder.mkdir(parents=True)
        (folder / "name").write_text(folder.name)
        with (folder / "zeros").open("wb") as stream:
            stream.truncate(16 * MEBI)
    return tree


@pytest.mark.skipif(not LONG, reason="at length: CONTINUUM_LONG=1")
def test_the_report_is_complete_and_the_same_with_and_without_a_kill(demo: Demo, tree: Path) -> None:
    quiet = demo.figures("--path", "tree", "--kills", "0")
    assert (quiet["ok"], quiet["kills"], quiet["again"], quiet["resumed"]) == (True, 0, 0, 0)
    assert (quiet["children"], quiet["report"]["total"]["files"]) == (PACKAGES, 2 * PACKAGES)
    assert quiet["report"]["total"]["bytes"] == PACKAGES * (16 * MEBI + len("package-00"))
    killed = demo.figures("--path", str(tree), "--kills", "1")
    assert (killed["ok"], killed["kills"], killed["steps"]) == (True, 1, quiet["steps"])
    assert killed["resumed"] > 0
    assert killed["report"] == quiet["report"]
    assert (quiet["run_id"], killed["run_id"]) == ("audit-1", "audit-2")


def test_an_empty_folder_is_an_empty_report(demo: Demo) -> None:
    (demo.folder / "empty").mkdir()
    figures = demo.figures("--path", "empty")
    assert (figures["children"], figures["kills"], figures["ok"]) == (0, 0, True)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--path", "gone"], "there is no folder 'gone'"),
        (["--path", "file"], "'file' is a file: --path names a folder"),
    ],
)
def test_a_path_that_is_no_folder_is_refused_in_one_line(demo: Demo, arguments: list[str], says: str) -> None:
    (demo.folder / "file").touch()
    assert demo.run(*arguments) == (2, "", f"continuum: {says}\n")


def test_a_number_of_kills_below_none_is_refused(demo: Demo) -> None:
    code, _, err = demo.run("--kills", "-1")
    assert (code, "--kills" in err) == (2, True)


def test_a_worker_that_ends_by_itself_is_told_with_the_end_of_its_log(demo: Demo, tree: Path) -> None:
    code, _, err = demo.run("--path", "tree", CONTINUUM_CACHE="many")
    assert code == 1
    assert err.count("\n") == 1
    assert "worker 1 ended by itself (exit code 2)" in err
    assert "CONTINUUM_CACHE is a whole number: got 'many'" in err


@pytest.mark.skipif(not LONG, reason="at length: CONTINUUM_LONG=1")
def test_interrupted_it_ends_its_worker_and_the_next_one_carries_the_run_on(demo: Demo, tree: Path) -> None:
    for number, (sent, code) in enumerate([(signal.SIGINT, 130), (signal.SIGTERM, 143)], 1):
        process = demo.start("--path", "tree")
        until(lambda: demo.workers(f"audit-{number}"))
        process.send_signal(sent)
        out, _ = process.communicate(timeout=60)
        assert process.returncode == code
        assert f"audit-{number} stays in the journal" in out
        assert "-m continuum worker continuum.demo.flows\n" in out
        assert all(map(gone, demo.workers()))
    code, out, err = demo.run("--path", "tree", "--kills", "0")
    assert (code, err) == (0, "")
    # The second demo's worker carried the first one's run on, and may have come to its end.
    assert re.search(r"carried on as well: (audit-1, )?audit-2\n", out)
    _is_for_people(demo, out)


def _is_for_people(demo: Demo, out: str) -> None:
    """They get lines, a table, and the commands to look further."""
    assert f"100%  {PACKAGES} of {PACKAGES} packages, {2 * PACKAGES} files\n" in out
    assert f"\n  children    {PACKAGES}  ({PACKAGES} entries)\n" in out
    assert "nothing is missing" in out
    [tree_command, history_command] = [line.strip() for line in out.splitlines() if " -m continuum runs " in line]
    for command, says in ((tree_command, "audit-3"), (history_command, "count_files-1")):
        found = subprocess.run(
            command, shell=True, cwd=demo.folder, env=demo.environ, capture_output=True, text=True, check=True
        )
        assert says in found.stdout


@pytest.mark.skipif(not LONG, reason="at length: CONTINUUM_LONG=1")
def test_a_worker_does_not_outlive_a_demo_that_is_killed(demo: Demo, tree: Path) -> None:
    process = demo.start("--path", "tree", "--kills", "0")
    until(demo.workers)
    process.kill()
    process.communicate(timeout=60)
    until(lambda: all(map(gone, demo.workers())))


def test_a_second_demo_in_one_place_is_refused(demo: Demo, tree: Path) -> None:
    place = demo.folder / "home" / "demo"
    place.mkdir(parents=True)
    with exclusively(place / "lock"):
        code, out, err = demo.run("--path", "tree")
    assert (code, out) == (1, "")
    assert (
        err == f"continuum: another demo runs in {place.parent}: wait for it, or name another folder by --home\n"
    )
