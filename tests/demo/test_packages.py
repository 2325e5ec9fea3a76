"""What there is to take stock of, and the names of its children."""

import os
from pathlib import Path

import pytest

from continuum._core.keys import check_child_key
from continuum.demo import packages
from continuum.demo.packages import as_path, as_text, entries, environment
from tests.demo.harness import fill


def test_the_environment_has_distributions_and_the_standard_library() -> None:
    found = environment().found
    ids = [package.id for package in found]
    assert {"pydantic", "psycopg", "asyncio", "json", "ast"} <= set(ids)
    assert len(set(ids)) == len(ids)
    assert {package.kind for package in found} == {"distribution", "library"}


def test_the_environment_is_listed_the_same_twice() -> None:
    assert environment() == environment()


def test_a_tree_is_listed_without_what_python_and_we_write_there(tmp_path: Path) -> None:
    home = tmp_path / "ours"
    fill(
        tmp_path,
        {"b.txt": b"", "a/x": b"", "__pycache__/m.pyc": b"", "m.pyc": b"", ".continuum/pg": b"", "ours/x": b""},
    )
    assert [package.id for package in entries(str(tmp_path), str(home)).found] == ["a", "b.txt"]


def test_every_name_a_file_may_have_can_name_a_child(tmp_path: Path) -> None:
    names = [
        b"a b",
        b"caf\xe9",
        b"caf\xe8",
        b"new\nline",
        "é".encode() * 100,
        b"x" * 200,
        b"take_stock-1",
        b"100%",
    ]
    for name in names:
        (tmp_path / os.fsdecode(name)).touch()
    found = entries(str(tmp_path), "").found
    ids = [check_child_key(package.id) for package in found]
    assert len(set(ids)) == len(names)
    assert "take_stock-1" not in ids
    assert {os.fsencode(as_path(package.name)) for package in found} == set(names)
    assert all(package.name.encode().decode() == package.name for package in found)


def test_a_path_comes_back_from_its_text() -> None:
    for path in ("/plain/path", "/50%25/of", os.fsdecode(b"/caf\xe9/\xff"), "/é"):
        assert as_path(as_text(path)) == path


def test_more_entries_than_the_limit_are_counted_and_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packages, "MAX_PACKAGES", 2)
    fill(tmp_path, dict.fromkeys("edcba", b""))
    found = entries(str(tmp_path), "")
    assert ([package.id for package in found.found], found.left_out) == (["a", "b"], 3)


def test_a_folder_without_entries_has_no_packages(tmp_path: Path) -> None:
    assert entries(str(tmp_path), "").found == []
