"""Where the embedded server's files lie and who may touch them: accounts, folders, sockets, ports, full disks."""

import contextlib
import os
import pwd
import shutil
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest

import continuum
from continuum.embedded import EmbeddedError, Server, locks, places
from continuum.embedded.account import server_account
from tests.embedded.harness import (
    CLIENT,
    as_root,
    data,
    has_stopped,
    plan,
    postmaster_pid,
    query,
    server,
    until,
)
from tests.length import at_length

PLAIN_USER = "nobody"


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# --- accounts


@as_root
@pytest.mark.parametrize("name", [None, "nobody"])
def test_for_root_another_account_runs_the_server(
    folder: Path, name: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name:
        monkeypatch.setenv("CONTINUUM_PG_USER", name)
    home = folder / "home"
    with server(home).running() as url:
        assert query(url, "SELECT 1") == [(1,)]
        owner = Path(f"/proc/{postmaster_pid(home)}").stat().st_uid
        groups = Path(f"/proc/{postmaster_pid(home)}/status").read_text()
    assert owner == server_account().uid != 0  # type: ignore[union-attr]
    assert name is None or owner == pwd.getpwnam(name).pw_uid
    assert "Groups:\t \n" in groups
    assert mode(data(home)) & 0o077 == 0


@as_root
@pytest.mark.parametrize(("name", "says"), [("root", "is root"), ("no-such-user", "does not exist")])
def test_an_account_that_cannot_run_it_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, says: str
) -> None:
    monkeypatch.setenv("CONTINUUM_PG_USER", name)
    with pytest.raises(EmbeddedError, match=says):
        server(folder / "home").start()
    assert not (folder / "home").exists()


@pytest.fixture
def plain_python(folder: Path) -> list[str]:
    """A Python, with our package, that a plain user can run; the one that runs the tests may lie below /root."""
    code = folder / "code"
    ours = Path(continuum.__file__).parent
    shutil.copytree(ours, code / "continuum", ignore=shutil.ignore_patterns("__pycache__"))
    import typing_extensions

    shutil.copy(typing_extensions.__file__, code)
    for path in [code, *code.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)
    user = pwd.getpwnam(PLAIN_USER)
    for python in (sys.executable, shutil.which("python3", path="/usr/local/bin:/usr/bin:/bin")):
        command = ["env", f"PYTHONPATH={code}", str(python)]
        probe = "import sys, continuum.embedded; sys.exit(sys.version_info < (3, 11))"
        tried = subprocess.run(
            [*command, "-c", probe],
            cwd="/",
            capture_output=True,
            check=False,
            user=user.pw_uid,
            group=user.pw_gid,
            extra_groups=[],
        )
        if tried.returncode == 0:
            return command
    pytest.skip(f"{PLAIN_USER} can reach no Python of 3.11 or later")


@as_root
@at_length
def test_a_plain_user_runs_it_as_themselves(folder: Path, plain_python: list[str]) -> None:
    user = pwd.getpwnam(PLAIN_USER)
    place = folder / "theirs"
    place.mkdir()
    os.chown(place, user.pw_uid, user.pw_gid)
    home = place / "home"
    client = folder / "code" / "client.py"
    shutil.copy(CLIENT, client)
    client.chmod(0o644)
    running = subprocess.Popen(
        [*plain_python, client, home, "0.1"],
        cwd="/",
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        user=user.pw_uid,
        group=user.pw_gid,
        extra_groups=[],
    )
    assert running.stdout is not None
    url = running.stdout.readline().strip()
    assert query(url, "SELECT 1") == [(1,)]
    for pid in (postmaster_pid(home), locks.supervisor_pid(home)):
        assert Path(f"/proc/{pid}").stat().st_uid == user.pw_uid
    assert mode(home) == 0o700
    with pytest.raises(EmbeddedError, match="belongs to the user nobody: run this as that user"):
        server(home).start()  # as root
    running.communicate()
    until(lambda: locks.supervisor_pid(home) is None)


# --- folders


def test_a_home_folder_that_we_make_is_closed_and_ignored_by_git(folder: Path) -> None:
    home = folder / "parent" / "home"
    with server(home).running():
        assert mode(home) & 0o066 == 0
        assert (home / ".gitignore").read_text() == "*\n"
        for path in home.iterdir():
            if path.name not in {".gitignore", places.LOCATION}:
                assert mode(path) & 0o077 == 0, path


def test_a_folder_that_was_there_is_left_as_it_is(folder: Path) -> None:
    home = folder / "home"
    home.mkdir()
    home.chmod(0o755)
    with server(home).running():
        assert mode(home) == 0o755
        assert not (home / ".gitignore").exists()


def test_the_home_folder_is_the_given_one_else_that_of_the_environment_else_here(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    assert Server().home == folder.resolve() / ".continuum"
    monkeypatch.setenv("CONTINUUM_HOME", str(folder / "there"))
    assert Server().home == folder.resolve() / "there"
    assert Server(folder / "given").home == folder.resolve() / "given"


@as_root
@at_length
def test_below_a_closed_folder_the_data_lies_elsewhere_and_no_mode_changes(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places, "ROOTS_PLACE", folder / "roots")
    closed = folder / "closed"
    closed.mkdir(mode=0o700)
    home = closed / "home"
    with server(home).running() as url:
        query(url, "CREATE TABLE kept AS SELECT 7 AS number")
    until(lambda: has_stopped(home))
    with server(home).running() as url:
        assert query(url, "SELECT number FROM kept") == [(7,)]
        elsewhere = Path(plan(home).data)
        assert not elsewhere.is_relative_to(closed)
        assert mode(elsewhere) == 0o700
    assert mode(closed) == 0o700
    assert mode(folder) == 0o755
    until(lambda: has_stopped(home))
    shutil.copytree(home, closed / "copy")
    with pytest.raises(EmbeddedError, match="is a copy of"):
        server(closed / "copy").start()
    home.rename(closed / "moved")
    with server(closed / "moved").running() as url:
        assert query(url, "SELECT number FROM kept") == [(7,)]
    until(lambda: has_stopped(closed / "moved"))


@as_root
def test_test_data_elsewhere_goes_when_its_home_folder_is_gone(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places, "ROOTS_PLACE", folder / "roots")
    closed = folder / "closed"
    closed.mkdir(mode=0o700)
    elsewhere: dict[str, Path] = {}
    for name in ("tests", "durable", "next"):
        home = closed / name
        home.mkdir()
        elsewhere[name] = places.data_folder(home, 18, server_account(), disposable=name == "tests").parent
        if name == "durable":
            shutil.rmtree(closed / "tests")
            shutil.rmtree(closed / "durable")
    assert [path.exists() for path in elsewhere.values()] == [False, True, True]


def test_a_home_that_is_a_file_is_told_in_one_message(folder: Path) -> None:
    (folder / "home").write_text("")
    with pytest.raises(EmbeddedError, match="is a file, not a folder"):
        server(folder / "home").start()


# --- the socket


@pytest.fixture
def far_home(folder: Path, home: Path) -> Path:
    """A warm home folder whose path is too long for a socket."""
    far = folder / ("long-" * 20) / "home"
    far.parent.mkdir()
    far.parent.chmod(0o755)
    home.rename(far)
    return far


def test_a_path_too_long_for_a_socket_gets_a_short_folder_for_as_long_as_it_runs(far_home: Path) -> None:
    with server(far_home).running() as url:
        assert query(url, "SELECT 1") == [(1,)]
        short = Path(plan(far_home).socket)
        assert len(str(short)) < 60
        assert mode(short) == 0o700
    until(lambda: has_stopped(far_home))
    assert not short.exists()


@pytest.mark.parametrize("trap", ["a link", "open to all", "of somebody else"])
def test_a_socket_folder_that_others_laid_out_is_refused(far_home: Path, folder: Path, trap: str) -> None:
    with server(far_home).running():
        short = Path(plan(far_home).socket)
    until(lambda: has_stopped(far_home))
    if trap == "a link":
        short.symlink_to(folder)
    else:
        short.mkdir()
        short.chmod(0o777 if trap == "open to all" else 0o700)
        if trap == "of somebody else":
            if os.geteuid() != 0:
                short.rmdir()
                pytest.skip("only root can give a folder away")
            os.chown(short, 12345, 12345)
    try:
        with pytest.raises(EmbeddedError, match="meant for the server's socket"):
            server(far_home).start()
    finally:
        short.unlink() if short.is_symlink() else short.rmdir()


def test_a_path_with_unusual_characters_works(folder: Path) -> None:
    home = folder / "a b,'c\"%ü"
    with server(home).running() as url:
        assert query(url, "SELECT 1") == [(1,)]


# --- a port


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        yield taken.getsockname()[1]


@pytest.fixture
def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
    return port


def test_a_port_that_is_taken_is_told_with_the_way_out(home: Path, taken_port: int) -> None:
    with pytest.raises(EmbeddedError, match=rf"port {taken_port} on 127.0.0.1 is taken .* --port"):
        server(home, port=taken_port).start()
    until(lambda: has_stopped(home))


@pytest.mark.parametrize("port", [0, -1, 65536])
def test_a_port_that_is_none_is_refused(folder: Path, port: int) -> None:
    with pytest.raises(EmbeddedError, match=f"{port} is not a port"):
        Server(folder, port=port)


def test_over_tcp_the_password_of_the_file_is_asked_for(home: Path, free_port: int) -> None:
    with server(home, port=free_port).running() as url:
        assert query(url, "SHOW listen_addresses") == [("127.0.0.1",)]
        tcp = server(home).status().tcp_url
        assert tcp is not None
        assert query(tcp, "SELECT 1") == [(1,)]
        password = (home / "server.password").read_text().strip()
        assert mode(home / "server.password") == 0o600
        assert len(password) >= 32
        with pytest.raises(psycopg.OperationalError, match="password"):
            psycopg.connect(tcp.replace(quote(password), "guessed"))
        with pytest.raises(psycopg.OperationalError, match="no password supplied"):
            psycopg.connect(tcp.replace(":" + quote(password), ""))
        assert password not in (home / "postgres.log").read_text()


# --- disks


@pytest.fixture
def disk(folder: Path) -> Iterator[Path]:
    """A disk of 60 MB."""
    place = folder / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=60m,mode=755", "continuum-test", place]
    if subprocess.run(mount, check=False).returncode:
        pytest.skip("mounting a small disk is not permitted")
    yield place
    subprocess.run(["umount", place], check=True)


def fill(place: Path) -> None:
    with (place / "filling").open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(1 << 20))


@as_root
@at_length
def test_a_full_disk_is_told_and_leaves_no_half_made_data(disk: Path) -> None:
    home = disk / "home"
    home.mkdir(mode=0o755)
    fill(disk)
    with pytest.raises(EmbeddedError, match="No space left on device"):
        server(home).start()
    until(lambda: has_stopped(home))
    assert [path.name for path in home.iterdir() if path.is_dir()] == []
    (disk / "filling").unlink()
    with server(home).running() as url:
        query(url, "CREATE TABLE kept AS SELECT 7 AS number")
    until(lambda: has_stopped(home))
    fill(disk)
    with pytest.raises(EmbeddedError, match="No space left on device"):
        server(home).start()
    until(lambda: has_stopped(home))
    (disk / "filling").unlink()
    with server(home).running() as url:
        assert query(url, "SELECT number FROM kept") == [(7,)]
    until(lambda: has_stopped(home))


@as_root
def test_a_disk_that_refuses_writes_is_told(disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    with pytest.raises(EmbeddedError, match="Read-only file system"):
        server(disk / "home").start()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_refuses_writes_is_told(folder: Path) -> None:
    folder.chmod(0o555)
    with pytest.raises(EmbeddedError, match="Permission denied"):
        server(folder / "home").start()
    folder.chmod(0o755)
