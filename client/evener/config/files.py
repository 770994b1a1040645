"""Finds the configuration file, and reads it: every mistake in it is named with its line.

Rules of this file: one file holds, the first that is found; nothing is merged. A file that somebody
else could have put in the way (as in /tmp) is not believed: it can name the broker, and whoever
chooses the broker chooses what runs here.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final, NamedTuple, cast

from evener.config.errors import ConfigError
from evener.config.schema import SCHEMA, SECTIONS

VARIABLE: Final = "EVENER_CONFIG"
LOCAL: Final = "evener.toml"
PROJECT: Final = "pyproject.toml"

FILE_BYTES_MAX: Final = 1 << 20
"""Of a file. Larger: somebody named the wrong one."""

_HEADER: Final = re.compile(r"\s*\[\s*([^\[\]]+?)\s*\]\s*(?:#.*)?$")
_ASSIGNED: Final = re.compile(r"""\s*([A-Za-z0-9_\-."']+(?:\s*\.\s*[A-Za-z0-9_\-"']+)*)\s*=""")


class Read(NamedTuple):
    """A value that a file gives: as it stands there, as Python has it, and the line."""

    raw: Any
    value: Any
    where: str


class ConfigFile(NamedTuple):
    """A file that was read."""

    path: Path
    values: Mapping[str, Read]


# --- Finding --------------------------------------------------------------------------------------


def find() -> Path | None:
    """The file that holds: the one named, or the first of those looked for."""
    if named := os.environ.get(VARIABLE):
        return Path(named)
    # Not the methods of Path, which raise where this user may not look, or the folder is gone.
    if os.path.isfile(LOCAL):
        return _believed(Path.cwd() / LOCAL)
    if _has_section(Path(PROJECT)):
        return _believed(Path.cwd() / PROJECT)
    home = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    path = os.path.join(home, "evener", "config.toml")
    return Path(path) if os.path.isfile(path) else None


def _has_section(path: Path) -> bool:
    try:
        data = path.read_bytes()
    except OSError:
        return False
    return re.search(rb"(?m)^\s*\[\s*tool\s*\.\s*[\"']?evener\b", data) is not None


def _believed(path: Path) -> Path:
    facts, folder = path.stat(), path.parent.stat()
    ours = facts.st_uid in (0, os.geteuid())
    if facts.st_mode & stat.S_IWOTH or (folder.st_mode & stat.S_IWOTH and not ours):
        raise ConfigError(
            [f"{path} may be from anybody, so it is not read; if it is right: {VARIABLE}={path}"]
        )
    return path


# --- Reading --------------------------------------------------------------------------------------


def read(path: Path) -> ConfigFile:
    """All settings of a file. Raises `ConfigError` with everything that is wrong with it."""
    import tomllib

    shown = _shown(path)
    try:
        with path.open("rb") as file:
            data = file.read(FILE_BYTES_MAX + 1)
        if len(data) > FILE_BYTES_MAX:
            raise ConfigError([f"{shown}: this is larger than any file of settings"])
        text = data.decode("utf-8")
        table: dict[str, Any] = tomllib.loads(text)
    except OSError as error:
        raise ConfigError([f"{shown}: {error.strerror or error}"]) from error
    except UnicodeDecodeError as error:
        raise ConfigError([f"{shown}: this is no UTF-8 text"]) from error
    except tomllib.TOMLDecodeError as error:
        line = re.search(r"line (\d+)", str(error))
        place = f"{shown}:{line[1]}" if line else shown
        raise ConfigError([f"{place}: this is no TOML: {error}"]) from error
    prefix = ""
    if path.name == PROJECT:
        prefix, table = "tool.evener.", table.get("tool", {}).get("evener", {})
    return _Reader(shown, _lines(text), prefix).read(path, table)


def _shown(path: Path) -> str:
    try:
        return str(path.absolute().relative_to(Path.cwd()))
    except (ValueError, OSError):
        return str(path)


class _Reader:
    def __init__(self, shown: str, lines: Mapping[str, int], prefix: str) -> None:
        self._shown = shown
        self._lines = lines
        self._prefix = prefix
        self._problems: list[str] = []
        self._values: dict[str, Read] = {}

    def read(self, path: Path, table: Mapping[str, Any]) -> ConfigFile:
        for section, keys in table.items():
            if section not in SECTIONS:
                self._unknown_section(section, keys)
            elif not isinstance(keys, dict):
                self._complain(section, f"{section} is a section: write [{self._prefix}{section}]")
            else:
                for name, value in cast("dict[str, Any]", keys).items():
                    self._read_key(section, name, value)
        if self._problems:
            raise ConfigError(self._problems)
        return ConfigFile(path, self._values)

    def _read_key(self, section: str, name: str, value: Any) -> None:
        key = SCHEMA.get(f"{section}.{name.replace('-', '_')}")
        if key is None:
            self._unknown_key(section, name)
            return
        try:
            read = Read(value, key.kind.read(value), self._where(f"{section}.{name}"))
        except ValueError as error:
            self._complain(f"{section}.{name}", f"{name} in [{section}] is {_toml(value)}: {error}")
            return
        if key.path in self._values:
            self._complain(f"{section}.{name}", f"{name} in [{section}] stands there twice")
        self._values[key.path] = read

    def _unknown_section(self, section: str, keys: Any) -> None:
        if isinstance(keys, dict):
            hint = _closest(section, list(SECTIONS))
            text = (
                f"unknown section [{self._prefix}{section}].{hint} Sections: {', '.join(SECTIONS)}"
            )
        else:
            at_home = [key for key in SCHEMA.values() if key.name == section.replace("-", "_")]
            hint = f" It belongs into [{at_home[0].section}]." if at_home else ""
            text = f'unknown key "{section}" outside of all sections.{hint}'
        self._complain(section, text)

    def _unknown_key(self, section: str, name: str) -> None:
        known = [key.name for key in SCHEMA.values() if key.section == section]
        hint = _closest(name, known)
        elsewhere = [key for key in SCHEMA.values() if key.name == name.replace("-", "_")]
        if elsewhere:
            hint = f" It belongs into [{elsewhere[0].section}]."
        self._complain(f"{section}.{name}", f'unknown key "{name}" in [{section}].{hint}')

    def _complain(self, path: str, text: str) -> None:
        self._problems.append(f"{self._where(path)}: {text}")

    def _where(self, path: str) -> str:
        # A key of an inline table has the line of its section.
        inside = self._prefix + path
        line = self._lines.get(inside) or self._lines.get(inside.rpartition(".")[0])
        return f"{self._shown}:{line}" if line else self._shown


def _toml(value: Any) -> str:
    """About as it stands in the file."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return f'"{value}"' if isinstance(value, str) else str(value)


def _closest(name: str, known: list[str]) -> str:
    close = get_close_matches(name, known, n=1)
    return f' Did you mean "{close[0]}"?' if close else ""


def _lines(text: str) -> dict[str, int]:
    """The line of each section and key, which `tomllib` does not tell."""
    found: dict[str, int] = {}
    section = ""
    for number, line in enumerate(text.splitlines(), 1):
        if header := _HEADER.match(line):
            section = _plain(header[1])
            found.setdefault(section, number)
            section += "."
        elif assigned := _ASSIGNED.match(line):
            parts = (section + _plain(assigned[1])).split(".")
            for end in range(1, len(parts) + 1):
                found.setdefault(".".join(parts[:end]), number)
    return found


def _plain(name: str) -> str:
    return re.sub(r"[\s\"']", "", name)
