"""The workflows of the demo: take stock of packages, check each in a child of its own, add up.

    audit ── take_stock                 one child, awaited: an activity lists the packages
          └─ check_package, N of them   a child for each, all started in one commit: activities hash its files

The rule: the report is the same however often a worker is killed. So the workflows only add up what activities
have returned, and that depends on the files alone, but for the name of the execution (see ``ledger``).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import lru_cache

from continuum import activity, await_children, child, start_child, workflow
from continuum.demo.files import Listing, Tally, examine, files_of
from continuum.demo.ledger import written
from continuum.demo.packages import Package, Packages, as_path, entries, environment

FILES_PER_PART = 200


@dataclass(frozen=True, slots=True)
class Audit:
    """What to take stock of: a folder, or this Python's packages. The ledger lies two folders below our home."""

    ledger: str
    tree: str | None = None


@dataclass(frozen=True, slots=True)
class Check:
    """What one child checks."""

    ledger: str
    package: Package


@dataclass(frozen=True, slots=True)
class Stock:
    """What ``list_packages`` answers."""

    packages: Packages
    execution: str


@dataclass(frozen=True, slots=True)
class Counted:
    """What ``count_files`` answers: in how many parts a package is checked, and what is known without reading."""

    parts: int
    tally: Tally
    execution: str


@dataclass(frozen=True, slots=True)
class Checked:
    """What ``check_files`` answers."""

    tally: Tally
    execution: str


@dataclass(frozen=True, slots=True)
class Report:
    """What an audit comes to. ``left_out`` packages were too many; ``total.left_out`` are files."""

    packages: int
    left_out: int
    kinds: dict[str, int]
    total: Tally


@activity
def list_packages(audit: Audit) -> Stock:
    with written(as_path(audit.ledger), "", 0) as noted:
        packages = environment() if audit.tree is None else entries(audit.tree, _home(audit.ledger))
        noted.how_many = len(packages.found)
    return Stock(packages, noted.id)


@activity
def count_files(check: Check) -> Counted:
    with written(as_path(check.ledger), check.package.id, 0) as noted:
        listing = _listing(check)
        noted.how_many = parts = -(-len(listing.files) // FILES_PER_PART)
    return Counted(parts, Tally(left_out=listing.left_out, unlisted=int(listing.unlisted)), noted.id)


@activity
def check_files(check: Check, part: int) -> Checked:
    with written(as_path(check.ledger), check.package.id, part) as noted:
        files = _listing(check).files[(part - 1) * FILES_PER_PART : part * FILES_PER_PART]
        tally = examine(check.package, files)
        noted.how_many = len(files)
    return Checked(tally, noted.id)


@workflow
async def take_stock(audit: Audit) -> Packages:
    return (await list_packages(audit)).packages


@workflow
async def check_package(check: Check) -> Tally:
    counted = await count_files(check)
    tally = counted.tally
    for part in range(1, counted.parts + 1):
        tally = tally.plus((await check_files(check, part)).tally)
    return tally


@workflow
async def audit(audit: Audit) -> Report:
    stock = await child(take_stock, audit)
    refs = [start_child(check_package, Check(audit.ledger, package), id=package.id) for package in stock.found]
    total = Tally()
    for tally in await await_children(refs):
        total = total.plus(tally)
    kinds: dict[str, int] = {}
    for package in stock.found:
        kinds[package.kind] = kinds.get(package.kind, 0) + 1
    return Report(len(stock.found), stock.left_out, kinds, total)


def _home(ledger: str) -> str:
    """Return our home folder: ``<home>/demo/audit-1.ledger``."""
    return os.path.dirname(os.path.dirname(as_path(ledger)))


@lru_cache(maxsize=256)
def _listing(check: Check) -> Listing:
    """List a package's files once in each process, not once for each part. A ledger belongs to one audit."""
    return files_of(check.package, _home(check.ledger))
