"""What the tests of the command share: a database that it finds by the environment, and a folder to work in."""

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from continuum.cli import main
from tests.cli.harness import Program

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command in this process; gives its exit code, what it printed, and its errors."""

    def once(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main(list(arguments))
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return once


@pytest.fixture(autouse=True)
def no_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("CONTINUUM_")] + ["COLUMNS"]:
        if name not in ("CONTINUUM_PG_BIN", "CONTINUUM_TEST_MARK"):
            monkeypatch.delenv(name) if name in os.environ else None


@pytest.fixture
def here(database: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The url of a migrated database that commands use by themselves."""
    monkeypatch.setenv("CONTINUUM_DATABASE_URL", database)
    return database


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working directory; what is imported from it is forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    paths, modules = list(sys.path), set(sys.modules)
    yield tmp_path
    sys.path[:] = paths
    for name in set(sys.modules) - modules:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


@pytest.fixture
def program(folder: Path, here: str) -> Iterator[Callable[..., Program]]:
    """Start commands as processes of their own; none is left at the end."""
    begun: list[Program] = []

    def start(*arguments: str) -> Program:
        begun.append(Program(*arguments))
        return begun[-1]

    yield start
    for one in begun:
        one.kill()
