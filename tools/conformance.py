"""Prints what must hold, a line each: code, sentence, verdict.

    python tools/conformance.py [pytest arguments]

The sentences stand in tests/conformance/sentences.txt; a test, there or in tests/processes, names in its docstring
the codes of those it shows. A sentence without a test is "not yet"; it holds when all of its tests pass on every
journal. The exit code is 1 if one does not hold, or if a test names a code that has no sentence.
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = tuple(ROOT / "tests" / name for name in ("conformance", "processes", "crash"))
SENTENCES = FOLDERS[0] / "sentences.txt"
CODE = re.compile(r"\b([A-Z]{2}\d{2})\b")
WORST_FIRST = ("fails", "skipped", "holds")


def sentences() -> dict[str, str]:
    """Return the sentence of each code, in the order of the file."""
    lines = SENTENCES.read_text(encoding="utf-8").splitlines()
    return dict(line.split(" ", 1) for line in lines if CODE.match(line))


def codes_of_tests() -> dict[tuple[str, str], list[str]]:
    """Return the codes of each test function, by module and name."""
    found: dict[tuple[str, str], list[str]] = {}
    for path in sorted(path for folder in FOLDERS for path in folder.glob("test_*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
                codes = CODE.findall(ast.get_docstring(node) or "")
                if codes:
                    found[f"tests.{path.parent.name}.{path.stem}", node.name] = codes
    return found


def verdicts(arguments: list[str]) -> dict[tuple[str, str], set[str]]:
    """Run the tests and return how each function did, over all its parameters."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", *map(str, FOLDERS), "-q", f"--junit-xml={report}", *arguments]
        environment = {**os.environ, "CONTINUUM_LONG": "1"}  # on every server, and all that is shown at length
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        if done.returncode not in (0, 1) or not report.exists():
            sys.exit(f"pytest did not run:\n{done.stdout}{done.stderr}")
        tree = ElementTree.parse(report)
    found: dict[tuple[str, str], set[str]] = {}
    for case in tree.iter("testcase"):
        bad = case.find("failure") is not None or case.find("error") is not None
        verdict = "fails" if bad else "skipped" if case.find("skipped") is not None else "holds"
        name, _, journal = case.get("name", "").partition("[")
        if verdict == "skipped" and journal.startswith("memory"):
            continue  # what speaks to the database is shown on Postgres
        found.setdefault((case.get("classname", ""), name), set()).add(verdict)
    return found


def main(arguments: list[str]) -> int:
    """Print the list and return the exit code."""
    told, codes = sentences(), codes_of_tests()
    done: dict[str, set[str]] = {}
    for test, verdict in verdicts(arguments).items():
        for code in codes.get(test, ()):
            done.setdefault(code, set()).update(verdict)
    for code, sentence in told.items():
        shown = next((word for word in WORST_FIRST if word in done.get(code, ())), "not yet")
        print(f"{code}  {shown:<8} {sentence}")
    unknown = sorted({code for found in codes.values() for code in found} - set(told))
    if unknown:
        print(f"tests name codes without a sentence: {', '.join(unknown)}")
    held = sum("holds" in found and "fails" not in found for found in done.values())
    failing = sum("fails" in found for found in done.values())
    print(f"{len(told)} sentences: {held} hold, {failing} fail, {len(told) - len(done)} not yet")
    return int(bool(failing or unknown))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
