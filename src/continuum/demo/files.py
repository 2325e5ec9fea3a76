"""A package's files: which there are, and whether they are as its RECORD says.

The rule: the same files give the same tally, whoever counts and in how many parts; what cannot be read is counted
and never an error. A link to a folder is not followed, and of a file no more is read than its size.
"""

from __future__ import annotations

import csv
import hashlib
import os
import stat
from base64 import urlsafe_b64encode
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from itertools import islice

from continuum.demo.packages import Package, as_path, as_text, is_ours, is_volatile

MAX_FILES = 20_000  # of one package
MAX_BYTES = 1 << 30  # of one file; a larger one is counted and not read
MAX_EXAMPLES = 10
ALGORITHMS = ("sha256", "sha384", "sha512")  # that a RECORD may name
CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class File:
    """A file's path below the package's place, and what RECORD says of it: ``sha256=…`` and a size, or nothing."""

    path: str
    digest: str = ""
    size: int | None = None
    listed: bool = False


@dataclass(frozen=True, slots=True)
class Listing:
    """A package's files in order; how many more there are; whether a RECORD is missing that should be there."""

    files: Sequence[File]
    left_out: int = 0
    unlisted: bool = False


@dataclass(frozen=True, slots=True)
class Tally:
    """What was found in some files. Tallies of parts add up to the one of the whole.

    ``compared`` were held against RECORD, ``unread`` could not be read or were too large, ``left_out`` were too
    many. ``digest`` depends on every path and every byte that was read.
    """

    files: int = 0
    bytes: int = 0
    compared: int = 0
    unread: int = 0
    left_out: int = 0
    unlisted: int = 0
    mismatches: int = 0
    examples: list[str] = field(default_factory=list[str])
    digest: str = ""

    def plus(self, other: Tally) -> Tally:
        """Return the tally of both, this one's files first."""
        return Tally(
            self.files + other.files,
            self.bytes + other.bytes,
            self.compared + other.compared,
            self.unread + other.unread,
            self.left_out + other.left_out,
            self.unlisted + other.unlisted,
            self.mismatches + other.mismatches,
            (self.examples + other.examples)[:MAX_EXAMPLES],
            hashlib.sha256(f"{self.digest} {other.digest}".encode()).hexdigest(),
        )


def files_of(package: Package, home: str) -> Listing:
    """List a package's files in the order of their paths: those in RECORD, or those that are there."""
    if package.kind == "distribution":
        return _recorded(package)
    found = list(islice(_walk(as_path(package.place), as_path(package.name), home), MAX_FILES + 1))
    return Listing([File(path) for path in found[:MAX_FILES]], left_out=len(found) - len(found[:MAX_FILES]))


def examine(package: Package, files: Sequence[File]) -> Tally:
    """Read the files and compare them with what RECORD says."""
    place, lines = as_path(package.place), hashlib.sha256()
    size = compared = unread = mismatches = 0
    examples: list[str] = []
    for file in files:
        shown = as_text(file.path)
        seen = _read(os.path.join(place, file.path), file)
        lines.update(f"{shown}\0{seen.size}\0{seen.digest}\n".encode())
        size += seen.size
        unread += seen.state == "unread"
        problem = _problem(file, seen)
        compared += bool(file.digest) and seen.state != "unread"
        if problem:
            mismatches += 1
            examples.append(f"{package.id}: {_printable(shown)} {problem}")
    return Tally(len(files), size, compared, unread, 0, 0, mismatches, examples[:MAX_EXAMPLES], lines.hexdigest())


def _recorded(package: Package) -> Listing:
    distribution = next(iter(metadata.distributions(name=package.name, path=[as_path(package.place)])), None)
    try:
        text = distribution.read_text("RECORD") if distribution is not None else None
        rows = list(csv.reader((text or "").splitlines()))
    except (OSError, ValueError, csv.Error):
        text, rows = None, []
    if text is None:
        return Listing((), unlisted=True)
    files: dict[str, File] = {}
    for path, digest, size, *_ in (row + ["", ""] for row in rows if row and row[0] and "\0" not in row[0]):
        if not any(map(is_volatile, path.split("/"))):
            known = digest if digest.partition("=")[0] in ALGORITHMS else ""
            files[path] = File(path, known, int(size) if size.isdecimal() else None, listed=True)
    ordered = [files[path] for path in sorted(files)]
    return Listing(ordered[:MAX_FILES], left_out=len(ordered[MAX_FILES:]))


def _walk(place: str, path: str, home: str) -> Iterator[str]:
    """Yield the files at and below ``path`` in order; a folder that cannot be read as if it were a file."""
    ahead = [path]
    while ahead:
        path = ahead.pop()
        whole = os.path.join(place, path)
        if not os.path.isdir(whole):
            yield path
        elif not os.path.islink(whole):
            try:
                names = sorted(os.listdir(whole), reverse=True)
            except OSError:
                yield path
                continue
            kept = (n for n in names if not is_volatile(n) and not is_ours(os.path.join(whole, n), home))
            ahead.extend(os.path.join(path, name) for name in kept)


@dataclass(frozen=True, slots=True)
class _Seen:
    """What a file is like: ``read``, ``missing`` or ``unread``, with its digests by algorithm."""

    state: str
    size: int = 0
    digest: str = ""
    recorded: str = ""  # in the words of RECORD


def _read(path: str, file: File) -> _Seen:
    algorithm = file.digest.partition("=")[0] or "sha256"
    try:
        # A pipe would let us wait for its writer, a device may do anything: only files are opened.
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            return _Seen("unread")
        if status.st_size > MAX_BYTES:
            return _Seen("unread", status.st_size)
        sha256 = hashlib.sha256()
        other = sha256 if algorithm == "sha256" else hashlib.new(algorithm)
        size = 0
        with open(path, "rb", buffering=0) as stream:
            while size < status.st_size and (chunk := stream.read(min(CHUNK, status.st_size - size))):
                size += len(chunk)
                sha256.update(chunk)
                if other is not sha256:
                    other.update(chunk)
    except (FileNotFoundError, NotADirectoryError):
        return _Seen("missing" if file.listed else "unread")
    except (OSError, ValueError):
        return _Seen("unread")
    recorded = urlsafe_b64encode(other.digest()).decode().rstrip("=")
    return _Seen("read", size, sha256.hexdigest(), f"{algorithm}={recorded}")


def _problem(file: File, seen: _Seen) -> str:
    """Say what is wrong with a file; nothing if it is as it should be, or cannot be known."""
    if seen.state == "missing":
        return "is missing"
    if seen.state == "unread":
        return ""
    if file.size is not None and file.size != seen.size:
        return f"has {seen.size} bytes, RECORD says {file.size}"
    if file.digest and file.digest.rstrip("=") != seen.recorded:
        return f"has another {file.digest.partition('=')[0]} than RECORD says"
    return ""


def _printable(text: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in text)
