"""What there is to take stock of: distributions and the standard library of this Python, or a folder's entries.

The rule: the same place gives the same packages in the same order, under ids that can name a child. Nothing that a
mere run of Python changes (compiled files) and nothing of our own home folder is looked at.
"""

from __future__ import annotations

import os
import re
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from importlib import metadata
from itertools import count
from pathlib import Path
from typing import Literal, TypeAlias

Kind: TypeAlias = Literal["distribution", "library", "entry"]

MAX_PACKAGES = 2_000
MAX_ID_BYTES = 70  # a child's is 80, and some get a number behind them
RESERVED = frozenset({"take_stock-1"})  # the child that has its name from its workflow
OURS = ".continuum"
_UNDECODABLE = re.compile("[\udc80-\udcff%]")
_WRITTEN = re.compile("%([0-9a-f]{2})")


@dataclass(frozen=True, slots=True)
class Package:
    """Something to check: ``name`` in the folder ``place``. A distribution's name is looked up there.

    ``id`` names its child. Both paths are as ``as_text`` writes them.
    """

    id: str
    kind: Kind
    name: str
    place: str


@dataclass(frozen=True, slots=True)
class Packages:
    """What was found, and how many more there are beyond ``MAX_PACKAGES``."""

    found: list[Package]
    left_out: int = 0


def environment() -> Packages:
    """List the distributions that this Python can import, and the modules of its standard library."""
    return _bounded([*_distributions(sys.path), *_library()])


def entries(tree: str, home: str) -> Packages:
    """List what lies at the top of a folder, but for our own home folder. ``tree`` is written by ``as_text``."""
    names = sorted(os.listdir(as_path(tree)))
    skipped = {name for name in names if is_ours(os.path.join(as_path(tree), name), home) or is_volatile(name)}
    return _bounded([Package(name, "entry", as_text(name), tree) for name in names if name not in skipped])


def is_volatile(name: str) -> bool:
    """Tell whether Python writes this file or folder of its own accord."""
    return name == "__pycache__" or name.endswith((".pyc", ".pyo"))


def is_ours(path: str, home: str) -> bool:
    """Tell whether this is a home folder of Continuum: what runs now writes there."""
    return os.path.basename(path) == OURS or path == home


def as_text(path: str) -> str:
    """Write a path so that a journal holds it: a byte that is not UTF-8 becomes ``%ff``, ``%`` becomes ``%25``."""
    return _UNDECODABLE.sub(lambda found: f"%{ord(found[0]) & 0xFF:02x}", path)


def as_path(text: str) -> str:
    """Read back what ``as_text`` wrote."""
    return _WRITTEN.sub(lambda found: os.fsdecode(bytes([int(found[1], 16)])), text)


def _distributions(places: Iterable[str]) -> Iterator[Package]:
    """Yield each distribution once, where an import would find it."""
    known: dict[str, Package] = {}
    for place in places:
        for distribution in metadata.distributions(path=[place]):
            name = _name(distribution)
            if name is not None:
                known.setdefault(_normal(name), Package(name, "distribution", name, as_text(place)))
    yield from (known[name] for name in sorted(known))


def _name(distribution: metadata.Distribution) -> str | None:
    """Return its name; None where its metadata is damaged, such as what a broken upgrade leaves behind."""
    try:
        found: str | None = distribution.metadata["Name"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found or None


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _library() -> Iterator[Package]:
    """Yield the standard library's top-level modules that lie in files."""
    folder = Path(sysconfig.get_path("stdlib"))
    compiled = folder / "lib-dynload"
    extensions = {path.name.partition(".")[0]: path.name for path in sorted(compiled.glob("*.*"))}
    for name in sorted(sys.stdlib_module_names):
        if (folder / name).is_dir():
            yield Package(name, "library", name, as_text(str(folder)))
        elif (folder / f"{name}.py").is_file():
            yield Package(name, "library", f"{name}.py", as_text(str(folder)))
        elif name in extensions:
            yield Package(name, "library", as_text(extensions[name]), as_text(str(compiled)))


def _bounded(packages: list[Package]) -> Packages:
    kept = packages[:MAX_PACKAGES]
    ids = _unique(package.id for package in kept)
    return Packages([replace(p, id=made) for p, made in zip(kept, ids, strict=True)], len(packages) - len(kept))


def _unique(names: Iterable[str]) -> Iterator[str]:
    """Yield names that can be children's ids, each once."""
    taken = set(RESERVED)
    for name in names:
        plain = "".join(letter if letter.isprintable() and letter != "/" else "_" for letter in name)
        short = plain.encode()[:MAX_ID_BYTES].decode(errors="ignore")
        tries = (short if n == 1 else f"{short}~{n}" for n in count(1))
        made = next(tried for tried in tries if tried not in taken)
        taken.add(made)
        yield made
