"""``continuum runs tree --watch``, and what a tree tells of failures far below."""

from __future__ import annotations

import asyncio
import os
import pty
import re
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest

from continuum._journal.commit import Complete, Fail, Passivate
from continuum._journal.views import Views
from tests.cli.conftest import Run
from tests.cli.harness import PATIENCE_S, begun, boom, made
from tests.interrupts import interruptible
from tests.journal.harness import child, claim, turn, worker, write
from tests.length import at_length

COMPLETE = Complete(b"2")


def begin(url: str) -> None:
    """Make a parent with a child that waits."""

    async def step(journal: Any) -> None:
        parent = await begun(journal, "batch", "batch_flow")
        kid = child("batch", "o-1", workflow="order_flow")
        await write(journal, turn(parent, children=(kid,), status=Passivate(None, "child 'o-1'")))
        (order,) = (await claim(journal, ("order_flow", 1))).values()
        await write(journal, turn(order, status=Passivate(None, "signal 'go'")))

    made(url, step)


def end(url: str, run_id: str, status: object) -> None:
    """Let a run that waits come to its end."""

    async def go() -> None:
        async with worker(url, f"w-{uuid.uuid4()}") as journal:
            with psycopg.connect(url, autocommit=True) as connection:
                connection.execute("update continuum.runs set next_wakeup_at = now() where run_id = %s", [run_id])
            found = (await claim(journal, ("order_flow", 1), ("batch_flow", 1)))[run_id]
            await write(journal, turn(found, status=status))

    asyncio.run(go())


class Watching:
    """``runs tree --watch`` as a process: on a terminal, or with its output in a pipe."""

    def __init__(self, *arguments: str, terminal: bool, lines: int = 40) -> None:
        command = [sys.executable, "-m", "continuum", "runs", "tree", *arguments]
        self._reader, writer = pty.openpty() if terminal else os.pipe()
        environment = {**os.environ, "LINES": str(lines), "PYTHONIOENCODING": "utf-8"}
        with interruptible():
            self.process = subprocess.Popen(
                command, stdout=writer, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, env=environment
            )
        os.close(writer)
        self.shown = ""

    def until(self, pattern: str, times: int = 1) -> None:
        """Read until something has been shown so often."""
        while len(re.findall(pattern, self.shown)) < times:
            more = self._read()
            assert more, f"it ended without {pattern!r}: {self.shown!r}"

    def ends(self) -> tuple[int, str]:
        """Read to the end; return the exit code and what it said on stderr."""
        while self._read():
            pass
        _, error = self.process.communicate(timeout=PATIENCE_S)
        return self.process.returncode, error.decode()

    def _read(self) -> str:
        try:
            more = os.read(self._reader, 65_536).decode()
        except OSError:  # a terminal that nobody writes to any more
            return ""
        self.shown += more
        return more

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._reader)
        if self.process.stderr is not None:
            self.process.stderr.close()


@contextmanager
def watching(*arguments: str, terminal: bool, lines: int = 40) -> Iterator[Watching]:
    made = Watching(*arguments, terminal=terminal, lines=lines)
    try:
        yield made
    finally:
        made.close()


def test_a_watched_tree_is_drawn_in_place_until_the_root_has_ended(here: str) -> None:
    begin(here)
    with watching("batch", "--watch", "0.1", terminal=True) as tree:
        tree.until("waiting for signal 'go'")
        tree.until(re.escape("\x1b[2F\x1b[J"))
        end(here, "batch/o-1", COMPLETE)
        tree.until("o-1  order_flow  completed")
        end(here, "batch", Fail(boom()))
        assert tree.ends() == (0, "")
    last = tree.shown.rpartition("\x1b[2F\x1b[J")[2].splitlines()
    assert len(last) == 2
    assert last[0].startswith("batch  batch_flow  failed")


@at_length
def test_a_tree_that_is_higher_than_the_terminal_is_cut_until_its_end(here: str) -> None:
    begin(here)
    with watching("batch", "--watch", "0.1", terminal=True, lines=2) as tree:
        tree.until("batch_flow  suspended", 2)
        end(here, "batch/o-1", COMPLETE)
        end(here, "batch", COMPLETE)
        assert tree.ends() == (0, "")
    assert tree.shown.splitlines()[-1].startswith("└─ o-1  order_flow  completed")


def test_where_there_is_no_terminal_only_changes_are_printed(here: str) -> None:
    begin(here)
    with watching("batch", "--watch", "0.1", terminal=False) as tree:
        tree.until("waiting for signal 'go'")
        end(here, "batch/o-1", COMPLETE)
        tree.until("o-1  order_flow  completed")
        end(here, "batch", COMPLETE)
        assert tree.ends() == (0, "")
    states = [tuple(re.findall(r"_flow  (\w+)", shown)) for shown in tree.shown.split("\n\n")]
    assert len(states) == len(set(states)), "nothing was printed that had been printed"
    assert (states[0], states[-1]) == (("suspended", "suspended"), ("completed", "completed"))
    assert "\x1b" not in tree.shown


@pytest.mark.parametrize("terminal", [True, False])
def test_an_interrupt_ends_watching_with_its_own_exit_code(here: str, terminal: bool) -> None:
    begin(here)
    with watching("batch", "--watch", terminal=terminal) as tree:
        tree.until("waiting for signal 'go'")
        tree.process.send_signal(signal.SIGINT)
        assert tree.ends() == (130, "continuum: interrupted\n")
    assert tree.shown.endswith("\n"), "the prompt comes on a line of its own"


def test_watching_a_tree_that_has_ended_shows_it_once(run: Run, here: str) -> None:
    begin(here)
    end(here, "batch", COMPLETE)
    code, printed, error = run("runs", "tree", "batch", "--watch", "0")
    assert (code, error) == (0, "")
    assert printed.count("batch_flow") == 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["batch", "--watch", "often"], "it is a number of seconds, not 'often'"),
        (["batch", "--watch", "-1"], "it is a number of seconds, not '-1'"),
        (["batch", "--watch", "--json"], "not allowed with argument"),
    ],
)
def test_what_watching_cannot_do_is_refused(run: Run, here: str, arguments: list[str], says: str) -> None:
    code, printed, error = run("runs", "tree", *arguments)
    assert (code, printed, error.count("\n")) == (2, "", 1)
    assert says in error


def test_a_tree_for_people_reads_no_values_and_json_has_them(
    run: Run, here: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(here)

    async def refused(*_: Any, **__: Any) -> Any:
        raise AssertionError("it reads otherwise")

    with monkeypatch.context() as patch:
        patch.setattr(Views, "outline", refused)
        assert run("runs", "tree", "batch", "--json")[0] == 0
    monkeypatch.setattr(Views, "below", refused)
    assert "o-1  order_flow  suspended" in run("runs", "tree", "batch")[1]
