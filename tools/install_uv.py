"""Make an environment that holds uv: `install_uv.py FOLDER VERSION`. Needs Python's standard library only.

Debian's python3 comes without ensurepip; there pip is run once from its own wheel, checked against its hash.
"""

import hashlib
import importlib.util
import subprocess
import sys
import tempfile
import urllib.request
import venv
from pathlib import Path

PIP_WHEEL = (
    "https://files.pythonhosted.org/packages/07/25/"
    "ee8c38ae72d66b844ce8eb9711ba905dba21ca1a8a0c960057c41cd23337/pip-26.3-py3-none-any.whl"
)
PIP_SHA256 = "f3b60b20ffaadd4415ed7957212a38ac63fa4c5fa375bd0f4a797777940fad13"


def main() -> None:
    folder, version = sys.argv[1:]
    if sys.version_info < (3, 11):  # noqa: UP036 - this file also runs where the project cannot
        sys.exit(f"Python 3.11 or later is needed, {sys.executable} is older: try PYTHON=python3.12")
    has_pip = importlib.util.find_spec("ensurepip") is not None
    venv.create(folder, clear=True, symlinks=True, with_pip=has_pip)
    python = str(Path(folder).absolute() / "bin" / "python")
    if has_pip:
        install([python, "-m", "pip"], version)
    else:
        with tempfile.TemporaryDirectory() as scratch:
            install([python, str(download_pip(Path(scratch)) / "pip")], version)


def install(pip: list[str], version: str) -> None:
    options = ["--quiet", "--disable-pip-version-check", "--no-input"]
    subprocess.run([*pip, "install", *options, f"uv=={version}"], check=True)


def download_pip(scratch: Path) -> Path:
    """Return the path of pip's wheel; a wheel with the package's name behind it runs as a program."""
    with urllib.request.urlopen(PIP_WHEEL, timeout=60) as answer:
        content = answer.read()
    if hashlib.sha256(content).hexdigest() != PIP_SHA256:
        sys.exit(f"{PIP_WHEEL} is not the file this project knows")
    wheel = scratch / PIP_WHEEL.rpartition("/")[2]
    wheel.write_bytes(content)
    return wheel


if __name__ == "__main__":
    main()
