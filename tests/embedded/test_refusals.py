"""What is refused before anything starts: wrong values, folders of others, planted links, ports and settings."""

import os
import pwd
import socket
from pathlib import Path
from typing import Any

import psycopg
import pytest

from continuum.embedded import EmbeddedError, Server, account, checks, places
from tests.embedded.harness import as_root, has_stopped, query, server, until


@pytest.mark.parametrize(
    "wrong",
    [
        *[{"idle_stop": value} for value in (float("nan"), float("inf"), -1, "5", True, None)],
        *[{"port": value} for value in (True, "5433", 5433.0)],
        *[{"settings": value} for value in ("fsync", [("fsync", "off")], {"fsync": False}, {1: "a"})],
        *[{"home": value} for value in (1, "", "a\nb", "a\0b", "~no-such-user/home", "not-utf8-\udcff", True)],
    ],
    ids=repr,
)
def test_a_value_of_a_wrong_kind_is_an_embedded_error(folder: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(EmbeddedError, match=r"choose|pass") as refused:
        Server(**{"home": folder, **wrong})
    assert "\n" not in str(refused.value)
    assert list(folder.iterdir()) == []


def test_a_folder_that_is_gone_is_told_with_the_way_out(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "gone").mkdir()
    monkeypatch.chdir(folder / "gone")
    (folder / "gone").rmdir()
    with pytest.raises(EmbeddedError, match="CONTINUUM_HOME or --home"):
        Server()


def test_a_loop_of_links_is_told_with_the_way_out(folder: Path) -> None:
    (folder / "home").symlink_to(folder / "home")
    with pytest.raises(EmbeddedError, match="CONTINUUM_HOME or --home"):
        server(folder / "home").start()


def test_a_user_without_a_name_is_told_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 54321)
    with pytest.raises(EmbeddedError, match=r"uid 54321 has no name.*/etc/passwd, or set CONTINUUM_DATABASE_URL"):
        account.server_account()


# --- folders of others


@as_root
def test_root_leaves_the_home_folder_of_somebody_else_alone(home: Path) -> None:
    nobody = pwd.getpwnam("nobody")
    os.chown(home, nobody.pw_uid, nobody.pw_gid)
    home.chmod(0o700)
    before = sorted(path.name for path in home.iterdir())
    for use in (server(home).start, server(home).stop, server(home).status):
        with pytest.raises(EmbeddedError, match="belongs to the user nobody: run this as that user, or choose"):
            use()
    assert sorted(path.name for path in home.iterdir()) == before


@as_root
def test_data_in_the_home_folder_is_never_hidden_by_a_place_elsewhere(
    home: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places, "ROOTS_PLACE", folder / "roots")
    (folder / "closed").mkdir(mode=0o700)
    closed = home.rename(folder / "closed" / "home")
    with pytest.raises(EmbeddedError, match=r"pg\d+ is out of reach of"):
        server(closed).start()
    assert not (closed / places.LOCATION).exists()
    assert not (folder / "roots").exists()


@pytest.mark.parametrize("name", ["supervisor.log", "postgres.log", "server.keep", "start.lock", "server.json"])
def test_a_link_in_the_home_folder_is_not_followed(home: Path, folder: Path, name: str) -> None:
    target = folder / "target"
    target.write_text("theirs")
    (home / name).unlink(missing_ok=True)
    (home / name).symlink_to(target)
    with pytest.raises(EmbeddedError):
        server(home).start()
    assert target.read_text() == "theirs"
    (home / name).unlink()
    until(lambda: has_stopped(home))


@pytest.mark.parametrize("noted", ["", "/", "data-here", "ROOTS/other", "ROOTS/data-a/b", "ROOTS/../data-a"])
def test_a_noted_place_that_is_not_one_of_roots_is_refused(
    home: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, noted: str
) -> None:
    monkeypatch.setattr(places, "ROOTS_PLACE", folder / "roots")
    (home / places.LOCATION).write_text(noted.replace("ROOTS", str(folder / "roots")))
    with pytest.raises(EmbeddedError, match=r"server\.location does not name a folder .*: remove it"):
        server(home).start()
    assert not (folder / "roots").exists()


# --- ports and settings


@pytest.fixture
def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
    return port


def test_a_setting_and_a_port_that_will_not_do_leave_no_data(folder: Path) -> None:
    with pytest.raises(EmbeddedError, match='no_such=1: unrecognized configuration parameter "no_such"'):
        server(folder / "home", {"no_such": "1"}).start()
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        pytest.raises(EmbeddedError, match="is taken by another program"),
    ):
        server(folder / "home", port=taken.getsockname()[1]).start()
    assert list((folder / "home").glob("pg*")) == []
    assert has_stopped(folder / "home")


def test_a_port_for_root_alone_is_refused_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "_FIRST_FOR_ALL", Path("/no/such/file"))
    with pytest.raises(EmbeddedError, match=r"port 80 is for root, .* from 1024"):
        checks.refuse_port(80, account.Account("postgres", 5432, 5432))


def test_a_start_with_a_port_does_not_need_a_connection(home: Path, free_port: int) -> None:
    few = {"max_connections": "4", "superuser_reserved_connections": "0", "reserved_connections": "0"}
    with server(home, few, port=free_port).running() as url:
        taken = [psycopg.connect(url) for _ in range(4)]
        with server(home, port=free_port).running() as again:
            assert again == url
        for one in taken:
            one.close()
        assert query(url, "SELECT 1") == [(1,)]


@as_root
def test_durable_data_whose_home_folder_is_gone_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "ROOTS_PLACE", folder / "roots")
    place = folder / "roots" / "data-a"
    place.mkdir(parents=True)
    (place / "home").write_text(f"{folder}/gone\n")
    assert places.left_behind() == [(place, f"{folder}/gone")]
