"""``continuum demo``: the main job on real input, with workers that are killed on the way.

The rule: exit code 0 means that the report is complete and that ledger and journals agree, whatever the report
says of the files.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shlex
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from continuum.cli.options import Commands, add_verb, database, whole
from continuum.cli.output import say
from continuum.cli.text import as_json

if TYPE_CHECKING:
    from continuum.demo import Figures

ABOUT = """A parent run takes stock of the distributions and the standard library of this Python, and starts a
child for each, which counts and hashes its files and compares them with RECORD. The worker is killed on the way,
and another one goes on. In the end the file in which the activities wrote what they did is held against the
journals."""
ENDED_BY_SIGNAL = 143


def add(commands: Commands) -> None:
    """Add ``demo``."""
    parser = add_verb(
        commands,
        "demo",
        _run,
        "show a fan-out that outlives kill -9",
        about=ABOUT,
        example="continuum demo --path . --kills 3",
    )
    parser.add_argument("--path", metavar="DIR", help="take stock of this folder's entries instead")
    parser.add_argument("--kills", type=whole(0), default=1, metavar="N", help="how many workers are killed (1)")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON, and all else on stderr")


def _run(arguments: argparse.Namespace) -> int:
    _refuse_path(arguments.path)
    from continuum.demo import Options, run_demo
    from continuum.demo.show import Show

    stream = sys.stderr if arguments.json else sys.stdout
    if stream is None:  # it was closed before we began
        stream = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - for as long as the process lives
    show = Show(stream, _call(), _options(arguments))
    options = Options(tree=arguments.path, kills=arguments.kills, **database(arguments))
    try:
        figures = asyncio.run(run_demo(options, show))
    except asyncio.CancelledError:
        return ENDED_BY_SIGNAL
    finally:
        show.close()
    if arguments.json:
        say(as_json(_plain(figures), indent=2))
    else:
        show.result(figures)
    return 0 if figures.ok else 1


def _refuse_path(path: str | None) -> None:
    from continuum.errors import InvalidSetting

    if path is None:
        return
    try:
        os.listdir(path)
    except FileNotFoundError:
        raise InvalidSetting(f"there is no folder {path!r}") from None
    except NotADirectoryError:
        raise InvalidSetting(f"{path!r} is a file: --path names a folder") from None
    except (OSError, ValueError) as error:
        raise InvalidSetting(f"the folder {path!r} cannot be read: {error}") from None


def _plain(figures: Figures) -> dict[str, object]:
    from dataclasses import asdict

    return {**asdict(figures), "children": figures.report.packages, "ok": figures.ok}


def _call() -> str:
    """Return how the command ``continuum`` is called here."""
    called = Path(sys.argv[0])
    found = shutil.which("continuum")
    if found is not None and Path(found).resolve() == called.resolve():
        return "continuum"
    if called.name == "continuum":
        return shlex.quote(min(os.path.relpath(called), str(called), key=len))
    return f"{shlex.quote(sys.executable)} -m continuum"


def _options(arguments: argparse.Namespace) -> str:
    """Return the options that another command needs to find the same database. A password is not repeated."""
    given = {name: value for name, value in database(arguments).items() if value is not None}
    if "url" in given:
        from continuum._journal.connections import shown

        given["url"] = given["url"] if shown(given["url"]) == given["url"] else "…"
    return "".join(f" --{name} {value if value == '…' else shlex.quote(value)}" for name, value in given.items())
