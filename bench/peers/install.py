"""The engines' environments: one folder each below ``.venv-peers``, made by uv; Restate's server comes by npm.

The rule: versions are pinned here and nowhere else, so that figures can be repeated. What is there and has these
versions is left alone. Scripts of npm packages are not run.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from bench.peers.engine import ROOT

FOLDER = ROOT / ".venv-peers"
WITHIN_S = 300.0
PACKAGES = {
    "dbos": ["dbos==3.4.0", "psycopg[binary]==3.3.9"],
    "absurd": ["absurd-sdk==0.5.1", "absurdctl==0.5.1", "psycopg[binary]==3.3.9"],
    "restate": ["restate-sdk==1.3.0", "hypercorn==0.18.0", "httpx==0.28.1"],
}
RESTATE_SERVER = "1.7.12"
SERVERS = {"restate": [f"@restatedev/restate-server@{RESTATE_SERVER}"]}
INDEX = "https://pypi.org/simple"


class NotInstalled(Exception):
    """An engine could not be installed. Says why."""


def python_of(engine: str) -> Path:
    """Return the interpreter of an engine; ours is the one that runs."""
    return Path(sys.executable) if engine == "continuum" else FOLDER / engine / "bin" / "python"


def restate_server() -> Path | None:
    """Return the path of Restate's server, if it is there."""
    packages = FOLDER / "restate" / "node" / "node_modules" / "@restatedev"
    return next(iter(sorted(packages.glob("restate-server-*/bin/restate-server"))), None)


def install(engine: str, uv: str) -> None:
    """Make an engine's environment, if it is not there. Raises ``NotInstalled``."""
    if engine not in PACKAGES:
        return
    folder, wanted = FOLDER / engine, PACKAGES[engine] + SERVERS.get(engine, [])
    marker = folder / "installed"
    if marker.is_file() and marker.read_text(encoding="utf-8").split() == wanted:
        return
    _run([uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(folder)])
    python = str(python_of(engine))
    _run([uv, "pip", "install", "--quiet", "--python", python, "--default-index", INDEX, *PACKAGES[engine]])
    if engine in SERVERS:
        node = folder / "node"
        node.mkdir()
        npm = shutil.which("npm")
        if npm is None:
            raise NotInstalled("its server comes by npm, which is not on this machine")
        _run([npm, "install", "--ignore-scripts", "--no-audit", "--no-fund", f"--prefix={node}", *SERVERS[engine]])
    marker.write_text("\n".join(wanted), encoding="utf-8")


def _run(command: list[str]) -> None:
    name = Path(command[0]).name
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=WITHIN_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotInstalled(f"{name}: {error}"[:300]) from error
    if done.returncode:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        raise NotInstalled(f"{name}: {lines[-1] if lines else done.returncode}"[:300])
