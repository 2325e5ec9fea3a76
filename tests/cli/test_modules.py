"""Modules named on a command line are found as Python finds them, and what is wrong with them is one line."""

import sys
from pathlib import Path

import pytest

from continuum.cli.modules import load
from continuum.errors import InvalidSetting
from tests.cli.conftest import Run

ONE = "from continuum import workflow\n\n@workflow\nasync def {0}() -> int:\n    return 1\n"


UNTYPED = "from continuum import workflow\n\n@workflow\nasync def untyped(x: 'Nope') -> int:\n    return 1\n"


def write(folder: Path, **files: str) -> None:
    for name, text in files.items():
        path = folder / f"{name.replace('__in__', '/')}.py"
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text(text)


def test_a_dotted_name_is_found_from_the_working_directory(folder: Path) -> None:
    write(folder, shop__in____init__="", shop__in__orders=ONE.format("order_flow"))
    [module] = load(["shop.orders"])
    assert module.__name__ == "shop.orders"
    assert module.order_flow.name == "order_flow"


def test_a_file_finds_its_neighbours_and_is_itself_found_by_them(folder: Path) -> None:
    write(
        folder,
        a__in__b__in__main_flows="import beside\n" + ONE.format("f"),
        a__in__b__in__beside="import main_flows",
    )
    [module] = load(["a/b/main_flows.py"])
    assert module is sys.modules["main_flows"]
    assert module.beside.main_flows is module


def test_a_file_in_a_package_is_that_packages_module(folder: Path) -> None:
    write(folder, a__in__shop2____in____init__="")
    write(
        folder,
        a__in__shop2__in____init__="",
        a__in__shop2__in__orders="from . import other",
        a__in__shop2__in__other="",
    )
    assert load(["a/shop2/orders.py", "shop2.orders", "a/shop2/__init__.py"]) == [
        sys.modules["shop2.orders"],
        sys.modules["shop2"],
    ]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("wrong_name", "cannot import wrong_name: wrong_name.py:2: NameError: name 'nowhere' is not defined"),
        (
            "wrong_name.py",
            "cannot import wrong_name.py: wrong_name.py:2: NameError: name 'nowhere' is not defined",
        ),
        ("wrong_syntax", "cannot import wrong_syntax: wrong_syntax.py:3: SyntaxError: "),
        (
            "wrong_import",
            "cannot import wrong_import: wrong_import.py:1: ModuleNotFoundError: No module named 'nope'",
        ),
        ("wrong_below", "cannot import wrong_below: wrong_name.py:2: NameError"),
        ("wrong_flow", "cannot import wrong_flow: wrong_flow.py:4: DefinitionError: "),
        ("wrong_end", "cannot import wrong_end: wrong_end.py:1: SystemExit: it ends the process (exit code 3)"),
        (
            "wrong_nam",
            "there is no module 'wrong_nam' in the working directory or PYTHONPATH; did you mean 'wrong_name'?",
        ),
        ("shop3.ordrs", "there is no module 'shop3.ordrs' in the package 'shop3'; did you mean 'shop3.orders'?"),
        ("shop3.orders.x", "there is no module 'shop3.orders.x' in the package 'shop3.orders'"),
        ("missing.py", "there is no file missing.py"),
        ("shop3/", "shop3/ is a folder"),
        ("json.py", "json.py would be the module 'json', which is "),
        ("two words.py", "two words.py cannot be imported"),
        ("two words", "'two words' is no module"),
        ("wrong..dots", "'wrong..dots' is no module"),
    ],
)
def test_what_is_wrong_with_a_module_is_one_line(folder: Path, run: Run, name: str, says: str) -> None:
    write(
        folder,
        wrong_name="x = 1\nnowhere\n",
        wrong_syntax="def f():\n    pass\nx = = 1",
        wrong_import="import nope",
        wrong_below="\n\nimport wrong_name",
        wrong_flow="from continuum import workflow\n\n\n@workflow\ndef f() -> int:\n    return 1\n",
        wrong_end="raise SystemExit(3)",
        shop3__in____init__="",
        shop3__in__orders="",
        json="",
    )
    (folder / "two words.py").write_text("")
    code, printed, error = run("worker", name)
    assert (code, printed) == (2, "")
    assert error.startswith(f"continuum: {says}")
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (["empty_one"], "module 'empty_one' defines no workflow and no activity"),
        (["takes"], "module 'takes' defines no workflow and no activity"),
        (["first", "second"], "two definitions of workflow 'same' version 1: first.same and second.same;"),
        (["untyped"], "untyped"),
    ],
)
def test_definitions_that_cannot_be_used_are_one_line(folder: Path, run: Run, names: list[str], says: str) -> None:
    write(
        folder,
        empty_one="",
        first=ONE.format("same"),
        second=ONE.format("same"),
        takes="from first import same",
        untyped=UNTYPED,
    )
    code, printed, error = run("worker", *names)
    assert (code, printed) == (2, "")
    assert says in error
    assert error.count("\n") == 1


def test_debug_shows_the_traceback(folder: Path, run: Run) -> None:
    write(folder, wrong_here="1 / 0")
    with pytest.raises(InvalidSetting) as told:
        run("--debug", "worker", "wrong_here")
    assert isinstance(told.value.__cause__, ZeroDivisionError)
