"""The life of the embedded server: who starts it, who keeps it, who ends it, and what survives whom."""

import contextlib
import logging
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from continuum.embedded import TEST_SETTINGS, EmbeddedError, Server, locks, starting
from continuum.embedded.account import server_account
from continuum.embedded.binaries import find_binaries
from tests.embedded.harness import (
    Client,
    account_arguments,
    gone,
    has_stopped,
    plan,
    postmaster_pid,
    query,
    server,
    supervisor_pid,
    ticks,
    until,
)
from tests.length import at_length

DURABLE = {"synchronous_commit": "on"}  # for rows that are to survive a crash
Starter = Callable[[Path], Client]


def test_a_cold_start_gives_a_server_with_the_settings_asked_for(folder: Path) -> None:
    with server(folder / "home", {"work_mem": "5MB"}).running() as url:
        found = dict(query(url, "SELECT name, setting FROM pg_settings"))
    assert found["work_mem"] == "5120"
    assert found["fsync"] == "off"
    assert found["jit"] == "off"
    assert found["listen_addresses"] == ""


def test_without_settings_nothing_that_is_durable_is_given_up(home: Path) -> None:
    with Server(home, idle_stop=0.1).running() as url:
        found = dict(query(url, "SELECT name, setting FROM pg_settings"))
    assert [found[name] for name in TEST_SETTINGS] == ["on", "on", "on"]


def test_a_warm_start_finds_what_was_written(home: Path) -> None:
    with server(home).running() as url:
        query(url, "CREATE TABLE kept AS SELECT 7 AS number")
    until(lambda: has_stopped(home))
    with server(home).running() as url:
        assert query(url, "SELECT number FROM kept") == [(7,)]


def test_a_second_client_uses_the_server_that_runs(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "continuum.embedded")
    with server(home).running() as url:
        first = supervisor_pid(home)
        with server(home).running() as again:
            assert (again, supervisor_pid(home)) == (url, first)
        assert server(home).status().running
    assert [record.getMessage() for record in caplog.records] == [
        f"using the embedded Postgres {plan(home).version}, started in {plan(home).data}",
        f"using the embedded Postgres {plan(home).version} that runs in {plan(home).data}",
    ]


@at_length
def test_five_starters_at_once_get_one_server(folder: Path, client: Starter) -> None:
    home = folder / "home"
    clients = [client(home) for _ in range(5)]
    assert len({one.url() for one in clients}) == 1
    assert (home / "supervisor.log").read_text().count("started") == 1
    assert [one.leave() for one in clients] == [0] * 5


def test_the_server_stops_when_its_last_client_has_left(home: Path) -> None:
    with server(home).running(), server(home).running():
        pids = supervisor_pid(home), postmaster_pid(home)
    until(lambda: all(gone(pid) for pid in pids))
    assert has_stopped(home)
    assert "database system is shut down" in (home / "postgres.log").read_text()


def test_the_handle_of_a_client_that_was_killed_is_not_kept(home: Path, client: Starter) -> None:
    clients = [client(home) for _ in range(2)]
    for one in clients:
        one.url()
    for one in clients:
        one.kill()
    until(lambda: has_stopped(home))


@at_length
def test_a_starter_killed_at_its_start_leaves_a_server_that_others_can_use(folder: Path, client: Starter) -> None:
    home = folder / "home"
    starter = client(home)
    until(lambda: (home / locks.SUPERVISOR).exists())
    starter.kill()
    with server(home).running() as url:
        assert query(url, "SELECT 1") == [(1,)]


def test_a_killed_supervisor_takes_the_server_with_it_and_the_next_client_starts_another(home: Path) -> None:
    with server(home).running() as url:
        query(url, "CREATE TABLE kept AS SELECT 7 AS number")
        killed = supervisor_pid(home)
        os.kill(killed, signal.SIGKILL)
        until(lambda: gone(killed))
        with server(home).running() as again:
            assert supervisor_pid(home) != killed
            assert query(again, "SELECT number FROM kept") == [(7,)]
    assert "received fast shutdown request" in (home / "postgres.log").read_text()


def test_a_killed_postmaster_is_started_again_with_its_settings_and_all_rows(home: Path) -> None:
    with server(home, {"work_mem": "5MB", **DURABLE}).running() as url:
        query(url, "CREATE TABLE kept AS SELECT 7 AS number")
        killed = postmaster_pid(home)
        os.kill(killed, signal.SIGKILL)
        until(lambda: server(home).status().running and postmaster_pid(home) != killed)
        assert query(url, "SELECT number, current_setting('work_mem') FROM kept") == [(7, "5MB")]


def test_a_client_that_comes_during_the_recovery_waits_for_it(home: Path) -> None:
    with server(home, DURABLE).running() as url:
        query(url, "CREATE TABLE kept AS SELECT 7 AS number")
        os.kill(postmaster_pid(home), signal.SIGKILL)
        until(lambda: not server(home).status().running)
        with server(home).running() as again:
            assert query(again, "SELECT number FROM kept") == [(7,)]


def test_a_server_that_is_shut_down_by_others_is_not_started_again(home: Path) -> None:
    with server(home).running():
        os.kill(postmaster_pid(home), signal.SIGINT)
        until(lambda: has_stopped(home))


def crash(home: Path) -> None:
    """Kill supervisor and postmaster so that neither can clean up."""
    supervisor, postmaster = supervisor_pid(home), postmaster_pid(home)
    os.kill(supervisor, signal.SIGSTOP)
    os.kill(postmaster, signal.SIGKILL)
    os.kill(supervisor, signal.SIGKILL)
    until(lambda: gone(supervisor) and gone(postmaster))


def test_a_stale_pid_file_does_not_matter(home: Path) -> None:
    with server(home, DURABLE).running() as url:
        query(url, "CREATE TABLE kept AS SELECT 7 AS number")
        crash(home)
    assert (Path(plan(home).data) / "postmaster.pid").exists()
    with server(home).running() as url:
        assert query(url, "SELECT number FROM kept") == [(7,)]


def test_a_pid_file_whose_pid_was_given_to_another_process_does_not_matter(home: Path) -> None:
    with server(home).running():
        crash(home)
    file = Path(plan(home).data) / "postmaster.pid"
    written = file.read_text().splitlines()
    other = subprocess.Popen(["sleep", "60"], **account_arguments())
    try:
        file.write_text("\n".join([str(other.pid), *written[1:]]) + "\n")
        alone = [f"{plan(home).binaries}/postgres", "-D", plan(home).data]
        refused = subprocess.run(alone, capture_output=True, text=True, cwd="/", **account_arguments())
        assert "already exists" in refused.stderr  # Postgres alone believes the pid
        with server(home).running() as url:
            assert query(url, "SELECT 1") == [(1,)]
    finally:
        other.kill()
        other.wait()


def test_the_server_stops_when_its_home_folder_is_removed(home: Path) -> None:
    with server(home).running():
        pids = supervisor_pid(home), postmaster_pid(home)
        shutil.rmtree(home, ignore_errors=True)
        until(lambda: all(gone(pid) for pid in pids))


def test_a_kept_server_stays_without_clients_until_it_is_stopped(home: Path) -> None:
    url = server(home).start()
    assert server(home).start() == url
    supervisor = supervisor_pid(home)
    with server(home).running():
        pass
    before = ticks(supervisor)
    until(lambda: ticks(supervisor) > before + 10)  # it has four of them in the time after which it would stop
    assert supervisor_pid(home) == supervisor
    assert server(home).status().kept
    assert server(home).stop()
    assert has_stopped(home)
    until(lambda: gone(supervisor))
    assert not server(home).status().kept
    assert not server(home).stop()


def test_stop_ends_a_server_that_has_clients(home: Path) -> None:
    with server(home).running() as url, psycopg.connect(url) as connection:
        assert server(home).connections() == 1
        assert server(home).stop()
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")
        connection.close()
    assert has_stopped(home)


def test_the_supervisor_stops_the_server_when_the_system_tells_it_to(home: Path) -> None:
    with server(home).running():
        postmaster = postmaster_pid(home)
        os.kill(supervisor_pid(home), signal.SIGTERM)
        until(lambda: has_stopped(home))
        assert gone(postmaster)
    assert "database system is shut down" in (home / "postgres.log").read_text()


def test_a_start_that_takes_long_is_no_failure(
    home: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real, gate = find_binaries(server_account()).folder, folder / "gate"
    slow = folder / "slow"
    slow.mkdir()
    (slow / "initdb").symlink_to(f"{real}/initdb")
    (slow / "postgres").write_text(
        f'#!/bin/sh\n[ "$1" = -D ] && until [ -e {gate} ]; do sleep 0.01; done\nexec {real}/postgres "$@"\n'
    )
    (slow / "postgres").chmod(0o755)
    monkeypatch.setenv("CONTINUUM_PG_BIN", str(slow))
    monkeypatch.setattr(starting, "PATIENCE_S", 0.05)
    said = threading.Event()
    monkeypatch.setattr(starting._logger, "warning", lambda *_: (said.set(), gate.touch()))
    with server(home).running() as url:
        assert said.is_set()
        assert query(url, "SELECT 1") == [(1,)]


def test_other_settings_than_the_running_server_has_are_named_in_a_warning(
    home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with server(home).running(), server(home, {"work_mem": "5MB"}, port=5439).running(), server(home).running():
        pass
    [warning] = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert "work_mem=5MB (the server has its default), port=5439 (the server has none)" in warning
    assert "fsync" not in warning


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"no_such": "1"}, 'no_such=1: unrecognized configuration parameter "no_such"'),
        ({"work_mem": "much"}, 'work_mem=much: invalid value for parameter "work_mem": "much"'),
        ({"max_wal_senders": "3"}, "WAL streaming"),
    ],
)
def test_a_setting_that_postgres_refuses_is_told_in_its_words(
    home: Path, settings: dict[str, str], says: str
) -> None:
    with pytest.raises(EmbeddedError, match="Postgres") as refusal, server(home, settings).running():
        pass
    assert says in str(refusal.value)
    until(lambda: has_stopped(home))


@pytest.mark.parametrize(
    "name", ["port", "listen_addresses", "data_directory", "Unix_Socket_Directories", "", "a=b"]
)
def test_a_setting_that_is_not_the_users_is_refused_at_once(folder: Path, name: str) -> None:
    with pytest.raises(EmbeddedError, match="setting"):
        Server(folder / "home", {name: "1"})
    assert not (folder / "home").exists()


def test_a_client_in_a_thread_can_share_the_server_with_others(home: Path) -> None:
    found: list[object] = []

    def use() -> None:
        with server(home).running() as url:
            found.append(query(url, "SELECT 1"))

    threads = [threading.Thread(target=use) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [[(1,)]] * 3


def test_no_descriptor_is_left_open_by_a_start_that_fails(home: Path) -> None:
    with contextlib.suppress(EmbeddedError):
        server(home, {"no_such": "1"}).start()
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(EmbeddedError):
        server(home, {"no_such": "1"}).start()
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_copy_of_a_home_folder_whose_server_runs_leaves_that_server_alone(home: Path, folder: Path) -> None:
    with server(home).running() as url:
        copied = folder / "copy"
        copied.mkdir()
        copied.chmod(0o755)
        shutil.copy(home / "server.json", copied)
        with server(copied).running() as other:
            assert other != url
            assert query(url, "SELECT 1") == query(other, "SELECT 1")


def test_a_server_whose_connections_are_all_taken_counts_as_running(home: Path) -> None:
    few = {"max_connections": "4", "superuser_reserved_connections": "0", "reserved_connections": "0"}
    with contextlib.ExitStack() as taken, server(home, few).running() as url:
        for _ in range(4):
            taken.enter_context(psycopg.connect(url))
        with pytest.raises(psycopg.OperationalError, match="too many clients"):
            psycopg.connect(url)
        with server(home).running() as again:
            assert again == url
        assert server(home).connections() is None


def test_those_who_look_whether_a_lock_is_held_do_not_see_each_other(folder: Path) -> None:
    path = folder / locks.SUPERVISOR
    assert not locks.is_held_exclusively(path)
    looking = locks.take_shared(path)
    assert not locks.is_held_exclusively(path)
    path.write_text("1234567\n")
    locks.empty_if_free(path)
    assert path.read_text() == ""
    os.close(looking)
    with locks.exclusively(path):
        assert locks.is_held_exclusively(path)
        path.write_text("1\n")
        locks.empty_if_free(path)
        assert path.read_text() == "1\n"
    assert not locks.is_held_exclusively(path)


@at_length
def test_a_supervisor_that_finds_another_one_leaves_the_server_to_it(home: Path) -> None:
    with server(home).running() as url:
        first = supervisor_pid(home)
        assert server(home)._started() is None
        assert supervisor_pid(home) == first
        assert query(url, "SELECT 1") == [(1,)]
