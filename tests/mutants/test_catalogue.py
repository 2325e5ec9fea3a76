"""The catalogue of planted bugs fits the sources, and the tool that plants them is not easily convinced."""

from __future__ import annotations

import ast
import re
import shutil
from pathlib import Path

import psycopg
import pytest
from tools import mutants as tool

from continuum._journal import statements
from tests.mutants import CATALOGUE, Check, Mutant, Replacement
from tests.mutants.mutant import OutOfDate

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src/continuum"
MUTANTS = pytest.mark.parametrize("mutant", CATALOGUE.values(), ids=CATALOGUE)


def planted(mutant: Mutant, folder: Path) -> dict[str, str]:
    """Return the files that a bug changes, with the bug in them."""
    names = {change.file for change in (*mutant.changes, *mutant.in_memory)}
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(PACKAGE / name, folder / name)
    mutant.apply(folder)
    return {name: (folder / name).read_text(encoding="utf-8") for name in names}


# --- the catalogue


@MUTANTS
def test_a_bug_can_still_be_planted(mutant: Mutant, tmp_path: Path) -> None:
    for name, text in planted(mutant, tmp_path).items():
        before = (PACKAGE / name).read_text(encoding="utf-8")
        if name.endswith(".py"):
            assert ast.dump(ast.parse(text)) != ast.dump(ast.parse(before))
        else:
            assert re.sub("--.*", "", text) != re.sub("--.*", "", before)


def test_a_statement_with_a_bug_in_it_still_prepares(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What Postgres cannot even read would be caught by any test, and would show nothing."""
    with psycopg.connect(database, autocommit=True) as connection:
        for mutant in CATALOGUE.values():
            texts = planted(mutant, tmp_path / mutant.name)
            for file in (name for name in texts if name.endswith(".sql")):
                name = Path(file).stem
                monkeypatch.setattr(statements, "file_text", lambda _, text=texts[file]: text)
                for parts in (frozenset[str](), statements.parts_of(name)):
                    made = statements.statement.__wrapped__(name, "continuum", parts)
                    connection.execute(b"prepare tried as " + made.text)
                    connection.execute("deallocate tried")


@MUTANTS
def test_what_catches_a_bug_is_a_test(mutant: Mutant) -> None:
    assert mutant.caught_by
    for check in mutant.caught_by:
        path, _, name = check.node.partition("::")
        tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
        names = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
        assert name in names, f"{path} has no {name}"


def test_the_table_of_reliability_md_is_the_catalogue() -> None:
    text = (ROOT / "docs/reliability.md").read_text(encoding="utf-8")
    assert "\n".join(tool.table()) in text, "it is what `python -m tools.mutants --table` prints"


# --- planting


@pytest.mark.parametrize("text", ["nothing of the kind", "old old", "ol d"])
def test_text_that_does_not_stand_there_once_is_not_replaced(text: str, tmp_path: Path) -> None:
    (tmp_path / "file.py").write_text(text)
    with pytest.raises(OutOfDate, match="file"):
        Replacement("file.py", "old", "new").apply(tmp_path)
    with pytest.raises(OutOfDate, match=r"no other\.py"):
        Replacement("other.py", "old", "new").apply(tmp_path)
    assert (tmp_path / "file.py").read_text() == text


# --- judging

ALONE = {
    "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"
}  # plugins, ours among them, would look for what is not in the package
PROJECT = """
import pytest

@pytest.fixture
def broken():
    raise OSError("no room")

@pytest.fixture
def judging():
    assert not "planted"

def test_passes(): ...

def test_fails():
    assert not "planted"

def test_names_nothing():
    planted()

def test_in_broken_room(broken): ...

def test_in_judging_room(judging): ...
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with a package of our name that has nothing in it."""
    for folder in ("src/continuum", "tests"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "__init__.py").touch()
    shutil.copytree(ROOT / "tests/mutants", tmp_path / "tests/mutants")
    (tmp_path / "tests/test_some.py").write_text(PROJECT)
    (tmp_path / "tests/test_unreadable.py").write_text("import nothing_of_the_kind\ndef test_passes(): ...\n")
    (tmp_path / "pyproject.toml").write_text("[tool.pytest.ini_options]\n")
    return tmp_path


@pytest.mark.parametrize(
    ("test", "caught", "says"),
    [
        ("test_some.py::test_passes", False, "test_passes passes"),
        ("test_some.py::test_fails", True, "test_fails"),
        ("test_some.py::test_in_broken_room", False, "no verdict: OSError: no room"),
        ("test_some.py::test_in_judging_room", True, "test_in_judging_room"),
        ("test_unreadable.py::test_passes", False, "No module named 'nothing_of_the_kind'"),
        ("test_some.py::test_names_nothing", False, "no verdict: NameError"),
        ("test_some.py::test_that_is_not_there", False, "no verdict: "),
    ],
)
def test_only_a_test_that_fails_has_caught_something(project: Path, test: str, caught: bool, says: str) -> None:
    verdict = tool.check(project, Check("core", test, ALONE))
    assert (verdict.caught, says in verdict.what) == (caught, True), verdict


def test_tests_that_would_see_another_package_are_not_run(project: Path) -> None:
    shutil.rmtree(project / "src")
    verdict = tool.check(project, Check("core", "test_some.py::test_fails", ALONE))
    assert not verdict.caught
    assert "the tests would see" in verdict.what


def test_a_name_that_is_no_bug_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="no such bug: no-fense") as refused:
        tool.main(["no-fense"])
    assert "no-fence" in str(refused.value)
