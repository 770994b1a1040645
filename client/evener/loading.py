"""Finds the app that a command line names: `module:attribute`, `path/file.py:attribute`, `module`.

Rules of this file: it imports the user's code, nothing else runs. What goes wrong is a `LoadError`
with one sentence; if it went wrong inside the user's code, their traceback and not ours is in it.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import os
import sys
import traceback
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Final

from evener.app import App
from evener.errors import LoadError

_DEFAULT_ATTRIBUTE: Final = "app"

# How much of a name must be the same. With less, some module of Python is near to any short name;
# with more, two letters of `demo` could not be exchanged.
_ALIKE: Final = 0.7


def load_app(target: str) -> App:
    """The app named by `target`; without an attribute, `app`, or the only one of the module.

    The current folder is put on `sys.path`, for a file its own folder too. Raises `LoadError`.
    """
    _put_on_path(os.getcwd())
    where, colon, attribute = target.rpartition(":")
    if not colon or attribute.endswith(".py") or "/" in attribute:
        where, attribute = target, ""
    if not where:
        raise LoadError(f'"{target}" names no module: give module:attribute, such as demo:app')
    if where.endswith(".py") or "/" in where:
        module = _import_file(Path(where))
    else:
        module = _import_named(where)
    return _pick(module, where, attribute)


def _put_on_path(folder: str) -> None:
    if folder not in sys.path:
        sys.path.insert(0, folder)


# --- The module -----------------------------------------------------------------------------------


def _import_named(name: str) -> ModuleType:
    if not all(part.isidentifier() for part in name.split(".")):
        raise LoadError(f'"{name}" is not the name of a module; for a file say path/file.py:app')
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if name == missing or name.startswith(f"{missing}."):
            raise LoadError(_no_module(name, missing)) from None
        raise _failed(name, error) from error
    except (Exception, SystemExit) as error:
        raise _failed(name, error) from error


def _close(name: str, known: Iterable[str]) -> list[str]:
    """Names that may have been meant, the likeliest first."""
    return difflib.get_close_matches(name, list(known), n=3, cutoff=_ALIKE)


def _no_module(name: str, missing: str) -> str:
    parent = missing.rpartition(".")[0]
    folders: Iterable[str] = sys.path
    if parent in sys.modules:
        folders = getattr(sys.modules[parent], "__path__", [])
    here = {path.stem for folder in folders for path in _modules_in(folder)}
    text = f'no module "{missing}"' + (f' (for "{name}")' if missing != name else "")
    text += f" in {os.getcwd()} or on the path of {sys.executable}"
    close = _close(missing.rpartition(".")[2], here)
    return f"{text}. Closest: {', '.join(close)}" if close else text


def _modules_in(folder: str) -> list[Path]:
    try:
        entries = [*Path(folder or ".").iterdir()]
    except OSError:  # sys.path names folders that do not exist, and archives
        return []
    return [path for path in entries if path.suffix == ".py" or (path / "__init__.py").is_file()]


def _import_file(path: Path) -> ModuleType:
    file = path.resolve()
    if not file.is_file():
        near = {other.stem: other.name for other in _modules_in(str(path.parent))}
        close = [near[stem] for stem in _close(path.stem, near)]
        hint = f". Closest: {', '.join(close)}" if close else ""
        raise LoadError(f"no file {path} (looked in {os.getcwd()}){hint}")
    # A file inside a package is imported as part of it, so that its relative imports work.
    name, folder = file.stem, file.parent
    while (folder / "__init__.py").is_file():
        name, folder = f"{folder.name}.{name}", folder.parent
    name = name.removesuffix(".__init__")
    _put_on_path(str(folder))
    known = sys.modules.get(name)
    if known is not None and _is_file_of(known, file):
        return known
    if known is None and _found_by_name(name, file):
        return _import_named(name)
    # Something else has this name already: the file still runs, under a name of its own.
    return _import_alone(name if known is None else f"_evener_{file.stem}", file)


def _is_file_of(module: ModuleType, file: Path) -> bool:
    return module.__file__ is not None and Path(module.__file__).resolve() == file


def _found_by_name(name: str, file: Path) -> bool:
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return False
    return spec is not None and spec.origin is not None and Path(spec.origin).resolve() == file


def _import_alone(name: str, file: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise LoadError(f"{file} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise _failed(str(file), error) from error
    return module


def _failed(name: str, error: BaseException) -> LoadError:
    trace = _their_frames(error.__traceback__)
    text = "".join(traceback.format_exception(type(error), error, trace))
    if isinstance(error, SystemExit):
        return LoadError(
            f"{name} left with SystemExit({error.code}) when it was imported: put what starts the "
            'program under if __name__ == "__main__":',
            text,
        )
    return LoadError(f"cannot import {name}: {type(error).__name__}: {error}", text)


def _their_frames(trace: TracebackType | None) -> TracebackType | None:
    while trace is not None:
        filename = trace.tb_frame.f_code.co_filename
        if filename != __file__ and "importlib" not in filename:
            return trace
        trace = trace.tb_next
    return None


# --- The app in it --------------------------------------------------------------------------------


def _pick(module: ModuleType, where: str, attribute: str) -> App:
    apps = {name: value for name, value in vars(module).items() if isinstance(value, App)}
    if not attribute:
        chosen = apps.get(_DEFAULT_ATTRIBUTE)
        if chosen is not None:
            return chosen
        if len(set(map(id, apps.values()))) == 1:
            return next(iter(apps.values()))
    value: object = module
    for part in (attribute or _DEFAULT_ATTRIBUTE).split("."):
        if not hasattr(value, part):
            raise LoadError(_no_attribute(where, attribute, apps, vars(module)))
        value = getattr(value, part)
    if not isinstance(value, App):
        kind = f"{type(value).__module__}.{type(value).__qualname__}"
        raise LoadError(f"{where}:{attribute} is a {kind}, not an evener.App{_others(apps)}")
    return value


def _no_attribute(where: str, attribute: str, apps: dict[str, App], names: Iterable[str]) -> str:
    if not attribute:
        rule = 'no app named "app"' if apps else "no evener.App"
        return f"{where} has {rule}{_others(apps)}"
    public = [name for name in names if not name.startswith("_")]
    close = _close(attribute, [*apps] or public)
    hint = f". Closest: {', '.join(close)}" if close else ""
    return f'{where} has no "{attribute}"{hint}{_others(apps)}'


def _others(apps: dict[str, App]) -> str:
    return f" (apps in it: {', '.join(apps)})" if apps else ""
