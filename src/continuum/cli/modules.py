"""Modules named on a command line: dotted names and paths of files.

The rule: they are found as Python would find them, from the working directory and PYTHONPATH, and whatever goes
wrong while they are imported is one line that says where.
"""

from __future__ import annotations

import difflib
import importlib
import os
import pkgutil
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from traceback import walk_tb
from types import ModuleType

from continuum.errors import InvalidSetting


def load(names: Sequence[str]) -> list[ModuleType]:
    """Import modules, each once, in the order given. Raises ``InvalidSetting``, caused by what went wrong.

    A file is imported under the name that it has below the topmost folder that is no package, which becomes the
    first place where modules are looked for: as ``python path/to/file.py`` does it, but for packages.
    """
    _look_first_in(Path.cwd())
    found = {id(module): module for module in map(_load, names)}
    return list(found.values())


def _load(name: str) -> ModuleType:
    path = _path(name)
    if path is not None:
        return _load_file(name, path)
    if not all(part.isidentifier() for part in name.split(".")):
        raise InvalidSetting(f"{name!r} is no module: give a dotted name such as shop.orders, or a file's path")
    return _import(name, name)


def _path(name: str) -> Path | None:
    """Return the file or folder that ``name`` is the path of, None for a dotted name."""
    looks_like_one = name.endswith(".py") or "/" in name or os.sep in name
    return Path(name) if looks_like_one else None


def _load_file(name: str, path: Path) -> ModuleType:
    if path.is_dir():
        raise InvalidSetting(f"{name} is a folder: give a module in it, as a dotted name or as its file's path")
    if not path.is_file():
        raise InvalidSetting(f"there is no file {name}")
    path = path.resolve()
    parts = [path.stem] if path.stem != "__init__" else []
    folder = path.parent
    while (folder / "__init__.py").is_file() and folder != folder.parent:
        parts.insert(0, folder.name)
        folder = folder.parent
    dotted = ".".join(parts)
    if path.suffix != ".py" or not all(part.isidentifier() for part in parts):
        raise InvalidSetting(
            f"{name} cannot be imported: a module's file is named like a variable, and ends in .py"
        )
    _look_first_in(folder)
    module = _import(dotted, name)
    if _file_of(module) != path:
        other = _file_of(module) or "built in"
        raise InvalidSetting(f"{name} would be the module {dotted!r}, which is {other}: rename the file")
    return module


def _file_of(module: ModuleType) -> Path | None:
    return Path(module.__file__).resolve() if module.__file__ else None


def _look_first_in(folder: Path) -> None:
    place = str(folder)
    if place not in sys.path:
        sys.path.insert(0, place)
        importlib.invalidate_caches()


def _import(dotted: str, name: str) -> ModuleType:
    try:
        return importlib.import_module(dotted)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if dotted == missing or dotted.startswith(f"{missing}."):
            raise InvalidSetting(_not_found(dotted, missing)) from None
        raise InvalidSetting(_told(name, error)) from error
    except (Exception, SystemExit) as error:  # whatever a module does when it is imported
        raise InvalidSetting(_told(name, error)) from error


def _not_found(dotted: str, missing: str) -> str:
    parent = missing.rpartition(".")[0]
    near = difflib.get_close_matches(missing, _modules_beside(parent), n=1)
    hint = f"; did you mean {near[0] + dotted.removeprefix(missing)!r}?" if near else ""
    where = f"the package {parent!r}" if parent else "the working directory or PYTHONPATH"
    return f"there is no module {missing!r} in {where}{hint}"


def _modules_beside(parent: str) -> Iterator[str]:
    """Yield the names of the modules in a package, or of those in the working directory."""
    spec = find_spec(parent) if parent else None
    places = list(spec.submodule_search_locations or ()) if spec else [str(Path.cwd())]
    for module in pkgutil.iter_modules(places):
        yield f"{parent}.{module.name}" if parent else module.name


def _told(name: str, error: BaseException) -> str:
    text = error.msg if isinstance(error, SyntaxError) else str(error)
    if isinstance(error, SystemExit):
        text = f'it ends the process (exit code {error.code}); put what runs under `if __name__ == "__main__"`'
    kind = type(error).__name__
    return f"cannot import {name}: {_place(error)}: {kind}{': ' + text if text else ''}"


def _place(error: BaseException) -> str:
    """Return the file and line of the author's code in which an error happened."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{_short(error.filename)}:{error.lineno or 0}"
    frames = [(frame.f_code.co_filename, line) for frame, line in walk_tb(error.__traceback__)]
    frames = [frame for frame in frames if not frame[0].startswith("<")]
    of_author = [frame for frame in frames if not frame[0].startswith(_not_the_authors())]
    file, line = (of_author or frames)[-1]
    return f"{_short(file)}:{line}"


def _not_the_authors() -> tuple[str, ...]:
    """Return the folders of Python, of what is installed in it, and of this library."""
    ours = str(Path(__file__).resolve().parents[1])
    paths = sysconfig.get_paths()
    return (ours, *(paths[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")))


def _short(file: str) -> str:
    """Return a path as it is seen from the working directory, if it lies below it."""
    try:
        return str(Path(file).resolve().relative_to(Path.cwd()))
    except ValueError:
        return file
