"""What the demo's tests share: trees with known files, a distribution with a RECORD, plain calls of it all."""

import hashlib
from base64 import urlsafe_b64encode
from pathlib import Path

from continuum.demo.files import Tally
from continuum.demo.flows import Audit, Check, Report, check_files, count_files, list_packages
from continuum.demo.packages import Package


def fill(folder: Path, files: dict[str, bytes]) -> Path:
    """Write files below a folder."""
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def installed(folder: Path, files: dict[str, bytes], *, name: str = "Nice.Things", more: str = "") -> Package:
    """Install a distribution: its files and a RECORD that fits them, ``more`` rows behind."""
    info = f"{name.lower().replace('.', '_')}-1.0.dist-info"
    rows = [f"{path},{sha256(data)},{len(data)}" for path, data in files.items()]
    record = "\n".join([*rows, f"{info}/RECORD,,", f"{name}/__pycache__/a.cpython-311.pyc,,"]) + f"\n{more}"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n".encode()
    fill(folder, {**files, f"{info}/METADATA": metadata, f"{info}/RECORD": record.encode()})
    return Package(name, "distribution", name, str(folder))


def sha256(data: bytes) -> str:
    return f"sha256={urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip('=')}"


def ledger_in(home: Path) -> Path:
    """Make an empty ledger where a demo has it."""
    path = home / "demo" / "audit-1.ledger"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def tallied(check: Check) -> Tally:
    """Check a package as its workflow does, by plain calls."""
    counted = count_files.function(check)
    tally: Tally = counted.tally
    for part in range(1, counted.parts + 1):
        tally = tally.plus(check_files.function(check, part).tally)
    return tally


def reported(ledger: Path, tree: Path) -> Report:
    """Take stock of a tree as the audit does, by plain calls."""
    packages = list_packages.function(Audit(str(ledger), str(tree))).packages
    total = Tally()
    for package in packages.found:
        total = total.plus(tallied(Check(str(ledger), package)))
    return Report(len(packages.found), packages.left_out, {"entry": len(packages.found)}, total)
