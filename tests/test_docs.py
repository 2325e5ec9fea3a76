"""The documentation runs: every ``python`` block of README.md and docs/, each page in one namespace.

A block marked ``python no-run`` is only compiled. A page's blocks are written to one file, each at its own
line of the page, and imported from there. So a traceback names the page's line, and ``inspect`` finds the
source that the guards read.
"""

import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "ARCHITECTURE.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^```(?P<info>[^\n`]*)\n(?P<body>.*?)^```$", re.DOTALL | re.MULTILINE)
LINE = re.compile(r":\d+ in")
KNOWN = {"", "python", "python no-run", "text", "sh"}


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block: what stands behind its fence, its text, and the line of the page it begins on."""

    info: str
    body: str
    line: int


def blocks(page: Path) -> Iterator[Block]:
    text = page.read_text(encoding="utf-8")
    for match in FENCE.finditer(text):
        line = text.count("\n", 0, match.start("body")) + 1
        yield Block(match["info"].strip(), match["body"], line)


def module_of(page: Path, info: str) -> str:
    """Return the page's blocks as one source text, each on the lines it has in the page."""
    source = ""
    for block in blocks(page):
        if block.info == info:
            source += "\n" * (block.line - 1 - source.count("\n")) + block.body
    return source


def run(page: Path, folder: Path) -> ModuleType:
    name = f"docs_{page.stem.replace('-', '_').lower()}"
    path = folder / page.name  # so that a traceback says determinism.md:12
    path.write_text(module_of(page, "python"), encoding="utf-8")
    spec = importlib.util.spec_from_loader(name, SourceFileLoader(name, str(path)))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and annotations look their module up
    try:
        spec.loader.exec_module(module)
    finally:
        del sys.modules[name]
    return module


def title(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=title)
def test_every_block_of_the_page_runs(page: Path, tmp_path: Path) -> None:
    run(page, tmp_path)


def test_the_first_workflow_of_the_readme_can_be_pasted_and_run(database: str, tmp_path: Path) -> None:
    (program,) = [block for block in blocks(ROOT / "README.md") if "__main__" in block.body]
    script = tmp_path / "hello.py"
    script.write_text(program.body, encoding="utf-8")
    environment = {**os.environ, "CONTINUUM_DATABASE_URL": database}
    for _ in range(2):  # the second time it finds the run, ended
        ran = subprocess.run(
            [sys.executable, "-W", "error", script],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert (ran.stdout, ran.returncode) == ("['HELLO ANN', 'HELLO BEN']\n", 0), ran.stderr


@pytest.mark.parametrize("page", PAGES, ids=title)
def test_every_block_that_is_not_run_compiles(page: Path) -> None:
    for block in blocks(page):
        if block.info == "python no-run":
            compile("\n" * (block.line - 1) + block.body, title(page), "exec")


@pytest.mark.parametrize("page", PAGES, ids=title)
def test_every_block_says_what_it_is(page: Path) -> None:
    unknown = [f"line {block.line}: {block.info!r}" for block in blocks(page) if block.info not in KNOWN]
    assert unknown == []
    fences = re.findall(r"^```", page.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(fences) == 2 * len(list(blocks(page))), "a fence is not closed, or is indented"


def test_a_wrong_block_fails_and_its_traceback_names_the_line_of_the_page(tmp_path: Path) -> None:
    page = tmp_path / "planted.md"
    (tmp_path / "run").mkdir()
    text = "# Title\n\n```python\nx = 1\n```\n\nText.\n\n```python\nassert x == 2\n```\n"
    page.write_text(text, encoding="utf-8")
    with pytest.raises(AssertionError) as caught:
        run(page, tmp_path / "run")
    assert caught.traceback[-1].lineno + 1 == 10


def test_the_divergence_that_is_shown_is_the_one_that_is_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = ROOT / "docs" / "determinism.md"
    run(page, tmp_path)
    shown = [block.body for block in blocks(page) if block.info == "text"]
    assert [LINE.sub(":n in", text) for text in shown] == [LINE.sub(":n in", capsys.readouterr().out)]
