"""What is paused, killed, forked, removed or interrupted at a bad moment: every wait has an end."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from continuum.embedded import EmbeddedError, Server, locks, starting, stopping
from tests.embedded.harness import (
    data,
    gone,
    has_stopped,
    plan,
    postmaster_pid,
    query,
    server,
    supervisor_pid,
    until,
)
from tests.interrupts import interruptible
from tests.length import at_length


class Starting:
    """A start in a thread, and what became of it."""

    def __init__(self, home: Path) -> None:
        self.told = ""
        self._home = home
        self._thread = threading.Thread(target=self._start)
        self._thread.start()

    def _start(self) -> None:
        try:
            self.told = server(self._home).start()
        except EmbeddedError as error:
            self.told = str(error)

    def join(self) -> str:
        self._thread.join(20)
        assert not self._thread.is_alive()
        return self.told


@at_length
def test_stop_ends_a_server_that_is_paused_and_whoever_waits_for_it(home: Path) -> None:
    with server(home).running():
        postmaster = postmaster_pid(home)
        os.kill(postmaster, signal.SIGSTOP)
        waiting = Starting(home)
        until(lambda: locks.is_held_exclusively(home / locks.START))
        began = time.monotonic()
        status = server(home).status()
        assert (status.running, status.starting, time.monotonic() - began < 3) == (False, True, True)
        assert server(home).stop()
        waiting.join()
        assert has_stopped(home)
        assert gone(postmaster)


def test_stop_ends_a_supervisor_that_is_paused(home: Path) -> None:
    with server(home).running():
        postmaster, supervisor = postmaster_pid(home), supervisor_pid(home)
        os.kill(supervisor, signal.SIGSTOP)
        assert server(home).stop()
        until(lambda: gone(postmaster) and gone(supervisor))
    assert "database system is shut down" in (home / "postgres.log").read_text()


def test_stop_kills_a_supervisor_that_does_not_end(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stopping, "SUPERVISOR_LIMIT_S", 0.05)
    monkeypatch.setattr(stopping, "tell_supervisor", lambda pid: os.kill(pid, signal.SIGSTOP))
    with server(home).running():
        postmaster, supervisor = postmaster_pid(home), supervisor_pid(home)
        assert server(home).stop()
        until(lambda: gone(postmaster) and gone(supervisor))


def test_stop_names_the_process_that_keeps_it_from_its_end(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stopping, "STARTER_LIMIT_S", 0.05)
    with (
        locks.exclusively(home / locks.START),
        pytest.raises(EmbeddedError, match=rf"process {os.getpid()} holds .*start\.lock .* end that process"),
    ):
        server(home).stop()


def test_a_starter_names_the_process_that_it_waits_for(
    home: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(locks, "PATIENCE_S", 0.02)
    monkeypatch.setattr(locks, "LIMIT_S", 0.1)
    with locks.exclusively(home / locks.START), pytest.raises(EmbeddedError, match=f"process {os.getpid()} "):
        server(home).start()
    assert f"waiting for process {os.getpid()}" in caplog.records[0].getMessage()


@pytest.mark.usefixtures("never_ready")
def test_a_stop_during_a_start_ends_it_and_the_starter_is_told(home: Path) -> None:
    waiting = Starting(home)
    until(lambda: server(home).status().supervisor_pid)
    assert server(home).stop()
    assert "told to stop while it started" in waiting.join()
    assert has_stopped(home)


@pytest.mark.usefixtures("never_ready")
def test_a_start_that_is_interrupted_says_one_line_and_leaves_no_supervisor(home: Path) -> None:
    command = [sys.executable, "-m", "continuum", "db", "start", "--home", str(home)]
    with interruptible():
        running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    until(lambda: locks.supervisor_pid(home))
    running.send_signal(signal.SIGINT)
    printed, error = running.communicate(timeout=20)
    assert (running.returncode, printed, error) == (130, "", "continuum: interrupted\n")
    until(lambda: has_stopped(home))


@contextlib.contextmanager
def forked() -> Iterator[None]:
    """A child that was forked here and lives for the block."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # there are other threads: it does nothing
        child = os.fork()
    if child == 0:
        signal.pause()
        os._exit(0)
    try:
        yield
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_a_process_forked_during_a_start_does_not_keep_its_lock(home: Path) -> None:
    with contextlib.ExitStack() as child:
        with locks.exclusively(home / locks.START):
            child.enter_context(forked())
        assert not locks.is_held_exclusively(home / locks.START)


def test_a_process_forked_during_a_start_does_not_keep_its_report(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with server(home).running():
        pass
    until(lambda: has_stopped(home))
    reader, writer = os.pipe()  # the writing end stays open, as in a child
    os.write(writer, b'{"ok": true}\n')
    assert starting._report(reader, plan(home)) == {"ok": True}
    monkeypatch.setattr(starting, "SILENCE_S", 0.05)
    monkeypatch.setattr(starting, "PATIENCE_S", 0.05)
    assert starting._report(reader, plan(home)) is None
    os.close(reader)
    os.close(writer)


def test_a_server_whose_data_folder_is_removed_stops_and_the_next_one_begins_anew(home: Path) -> None:
    with server(home).running():
        pids = supervisor_pid(home), postmaster_pid(home)
        while data_is_there(home):  # the server writes, so a folder may not be empty at once
            shutil.rmtree(plan(home).data, ignore_errors=True)
        until(lambda: all(gone(pid) for pid in pids))
    with server(home).running() as url:
        assert query(url, "SELECT 1") == [(1,)]


def data_is_there(home: Path) -> bool:
    return Path(plan(home).data).exists()


def test_a_supervisor_that_fails_in_an_unexpected_way_says_so(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = starting.make_plan(home, {}, idle_stop_s=0.1, port=None)
    strange = type(good)(**{**{name: getattr(good, name) for name in good.__slots__}, "settings": 5})  # type: ignore[arg-type]
    with pytest.raises(EmbeddedError, match=r"supervisor failed with (Type|Attribute)Error"):
        starting.launch(strange)


def test_a_large_log_of_the_supervisor_begins_anew(home: Path) -> None:
    (home / "supervisor.log").write_bytes(b"x" * 1_000_001)
    with server(home).running():
        assert (home / "supervisor.log").stat().st_size < 1000


@pytest.mark.parametrize("version", ["missing", "empty"])
def test_data_without_its_version_is_told_in_words(home: Path, version: str) -> None:
    file = data(home) / "PG_VERSION"
    file.write_text("") if version == "empty" else file.unlink()
    with pytest.raises(EmbeddedError, match=f"PG_VERSION is {version}.*move .* away"):
        server(home).start()


def test_a_stop_of_nothing_is_no_error(folder: Path) -> None:
    assert not Server(folder / "home").stop()
    (folder / "home").mkdir()
    assert not Server(folder / "home").stop()
