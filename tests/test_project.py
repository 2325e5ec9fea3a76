"""The project as a whole: packaging, sizes, links, and linters that refuse what they should."""

import ast
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

import continuum

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted((ROOT / "src").rglob("*.py"))
PUBLIC_HOSTS = {"pypi.org", "files.pythonhosted.org"}


def settings() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


# --- packaging


def test_the_installed_version_is_the_one_in_pyproject() -> None:
    assert importlib.metadata.version("continuum-py") == settings()["project"]["version"]


def test_the_wheel_takes_the_whole_package_and_its_type_marker() -> None:
    wheel = settings()["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert wheel == {"packages": ["src/continuum"]}, "an include or exclude here may lose py.typed"
    assert (ROOT / "src/continuum/py.typed").is_file()


def test_the_lock_file_knows_no_index_but_the_public_one() -> None:
    lock = (ROOT / "uv.lock").read_text(encoding="utf-8")
    urls = re.findall(r'"([a-z+]+://[^"]+)"', lock)
    assert urls
    assert {urlsplit(url).hostname for url in urls} <= PUBLIC_HOSTS
    assert {urlsplit(url).scheme for url in urls} == {"https"}
    sources = [package["source"] for package in tomllib.loads(lock)["package"]]
    assert [source for source in sources if "registry" not in source] == [{"editable": "."}]


def test_every_name_in_all_exists_once() -> None:
    assert len(continuum.__all__) == len(set(continuum.__all__))
    assert [name for name in continuum.__all__ if not hasattr(continuum, name)] == []


# --- sizes


def test_no_source_file_is_longer_than_400_lines() -> None:
    lengths = {str(path): len(path.read_text(encoding="utf-8").splitlines()) for path in SOURCES}
    assert {path: length for path, length in lengths.items() if length > 400} == {}


def test_no_function_is_longer_than_60_lines() -> None:
    too_long = [place for path in SOURCES for place, length in functions(path) if length > 60]
    assert too_long == []


def functions(path: Path) -> Iterator[tuple[str, int]]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno:
            yield f"{path}:{node.lineno} {node.name}", node.end_lineno - node.lineno + 1


# --- links


CODE = re.compile(r"^```.*?^```|`[^`\n]*`", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\(<?([^)\s>]+)|^\[[^\]]+\]:\s*(\S+)", re.MULTILINE)


def test_every_local_link_in_the_documentation_leads_to_a_file() -> None:
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    links = [(page, link) for page in pages for link in local_links(page)]
    assert [f"{page}: {link}" for page, link in links if not (page.parent / link).exists()] == []


def local_links(page: Path) -> Iterator[str]:
    for inline, reference in LINK.findall(CODE.sub("", page.read_text(encoding="utf-8"))):
        path = (inline or reference).partition("#")[0]
        if path and not urlsplit(path).scheme:
            yield path


# --- the linters' rules, each on a planted file

BANNED_IN_CORE = {
    "import time": "time",
    "from time import monotonic": "time",
    "import random": "random",
    "import secrets": "secrets",
    "import os.path": "os",
    "from os import environ": "os",
    "import socket": "socket",
    "import threading": "threading",
    "import subprocess": "subprocess",
    "import uuid; uuid.uuid4()": "uuid.uuid4",
    "from uuid import uuid1 as fresh; fresh()": "uuid.uuid1",
    "import datetime; datetime.datetime.now()": "datetime.datetime.now",
    "from datetime import datetime; datetime.utcnow()": "datetime.datetime.utcnow",
    "from datetime import datetime; datetime.today()": "datetime.datetime.today",
    "import datetime as clock; clock.date.today()": "datetime.date.today",
}


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty package with our settings, to plant files in."""
    root = tmp_path_factory.mktemp("layout")
    shutil.copy(ROOT / "pyproject.toml", root)
    package = root / "src" / "continuum"
    (package / "_core").mkdir(parents=True)
    for module in ("__init__", "_core/__init__", "policies", "errors", "failures"):
        (package / f"{module}.py").touch()
    return root


def tool(name: str) -> str:
    found = shutil.which(name, path=Path(sys.executable).parent)
    if found is None:
        pytest.skip(f"{name} is not installed in this environment; `make test` has it")
    return found


def test_the_ban_list_refuses_each_name_in_the_core_and_only_there(layout: Path) -> None:
    package = layout / "src" / "continuum"
    for folder in (package, package / "_core"):
        for number, line in enumerate(BANNED_IN_CORE):
            (folder / f"planted_{number}.py").write_text(line.replace("; ", "\n") + "\n", encoding="utf-8")
    command = [tool("ruff"), "check", "--no-cache", "--select", "TID251", "--output-format", "concise", "src"]
    report = subprocess.run(command, cwd=layout, capture_output=True, text=True, check=False)
    refused = set(re.findall(r"(\S+?\.py):.*?TID251.*?`([\w.]+)` is banned", report.stdout))
    expected = {f"src/continuum/_core/planted_{n}.py": name for n, name in enumerate(BANNED_IN_CORE.values())}
    assert refused == set(expected.items()), report.stdout + report.stderr


AT_LENGTH = (
    ("_core/planted", "from pathlib import Path", "The core is pure"),
    ("_core/planted", "import continuum.workflow", "Imports go one way"),
    ("workflow", "import continuum.client", "Imports go one way"),
)


@pytest.mark.parametrize(
    ("module", "line", "contract"),
    [
        ("_core/planted", "import concurrent.futures", "The core is pure"),
        ("client", "import psycopg.rows", "Only _journal and embedded import psycopg"),
        ("surprise", "", "Imports go one way"),
        *(AT_LENGTH if os.environ.get("CONTINUUM_LONG") else ()),
    ],
)
def test_an_import_contract_refuses(layout: Path, tmp_path: Path, module: str, line: str, contract: str) -> None:
    assert contract in broken_contracts(layout, tmp_path, {"workflow": "", "client": "", module: line})


def test_the_import_contracts_allow_what_the_layers_are_for(layout: Path, tmp_path: Path) -> None:
    planted = {
        "_journal": "import psycopg, os, time",
        "embedded": "import psycopg, subprocess",
        "client": "import continuum._journal, continuum.embedded",
        "workflow": "import random, uuid, continuum._core",
        "children": "import continuum.workflow, continuum.errors",
    }
    assert broken_contracts(layout, tmp_path, planted) == set()


def broken_contracts(layout: Path, tmp_path: Path, planted: dict[str, str]) -> set[str]:
    root = tmp_path / "planted"
    shutil.copytree(layout, root, ignore=shutil.ignore_patterns("planted_*"))
    for module, line in planted.items():
        (root / "src" / "continuum" / f"{module}.py").write_text(line + "\n", encoding="utf-8")
    report = subprocess.run(
        [tool("lint-imports"), "--no-cache", "--no-logo"],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root / "src"), "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Contracts: " in report.stdout, report.stdout + report.stderr
    return set(re.findall(r"^(.+) BROKEN", report.stdout, re.MULTILINE))


def test_the_contract_on_psycopg_names_every_layer_but_two() -> None:
    layers, _, psycopg = settings()["tool"]["importlinter"]["contracts"]
    named = set(re.findall(r"\w+", " ".join(layers["layers"])))
    assert {f"*.{layer}" for layer in named - {"_journal", "embedded"}} == set(psycopg["source_modules"])
