"""Run the tests on every supported Python of this machine: `matrix.py UV [PYTEST ARGUMENTS]`.

The classifiers in pyproject.toml say which versions are supported. Each gets an environment of its own
with the locked dependencies, .venv-3.12 and so on. The first failure ends it, so that it is read last.
With --prepare the environments are only made; with --others the tests of this program's own Python are left out.
"""

import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

# Free-threaded builds carry the same number and are another platform; other implementations are, too.
PROBE = """
import sys, sysconfig
assert sys.implementation.name == "cpython" and not sysconfig.get_config_var("Py_GIL_DISABLED")
assert "%d.%d" % sys.version_info[:2] == sys.argv[1]
print(sys.executable)
"""


def main() -> None:
    uv, *arguments = sys.argv[1:]
    only_prepare = arguments == ["--prepare"]
    own = ""
    if "--others" in arguments:
        arguments.remove("--others")
        own = f"{sys.version_info.major}.{sys.version_info.minor}"
    pythons = {version: find(version) for version in supported_versions()}
    for version, python in pythons.items():
        print(f"Python {version}: {python}" if python else f"skipped: {version} not found", flush=True)
    if not any(pythons.values()):
        sys.exit("no supported Python was found")
    found = {version: python for version, python in pythons.items() if python}
    for version, python in found.items():  # all of them first: what one records the others replay
        prepare(uv, version, python)
    for version in [version for version in found if version != own and not only_prepare]:
        print(f"\nPython {version}", flush=True)
        run([f".venv-{version}/bin/python", "-m", "pytest", *arguments], dict(os.environ))


def supported_versions() -> list[str]:
    with open(ROOT / "pyproject.toml", "rb") as file:
        classifiers = tomllib.load(file)["project"]["classifiers"]
    versions = [text.removeprefix("Programming Language :: Python :: ") for text in classifiers]
    return [version for version in versions if version.startswith("3.")]


def prepare(uv: str, version: str, python: str) -> None:
    sync = [uv, "sync", "--locked", "--quiet", "--no-default-groups", "--group", "test", "--python", python]
    run(sync, {**os.environ, "UV_PROJECT_ENVIRONMENT": f".venv-{version}"})


def run(command: list[str], environment: dict[str, str]) -> None:
    code = subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode
    if code:
        sys.exit(code)


def find(version: str) -> str | None:
    """Return an interpreter of this version that starts: a pyenv shim may exist and fail when run."""
    for candidate in candidates(version):
        answer = ask([str(candidate), "-c", PROBE, version])
        if answer:
            return answer
    return None


def candidates(version: str) -> Iterator[Path]:
    for folder in os.get_exec_path():
        for name in (f"python{version}", "python3", "python"):
            yield Path(folder, name)
    for root in (ask(["pyenv", "root"]), os.path.expanduser("~/.pyenv")):
        if root:
            yield from sorted(Path(root, "versions").glob(f"{version}*/bin/python"))


def ask(command: list[str]) -> str | None:
    try:
        answer = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip() or None


if __name__ == "__main__":
    main()
