"""Which value a setting has: that of the environment, of the file, or its default.

Rules of this file: no state but the file that was read. Flags stand above all this; the command
line has them, and asks here for what was not given.
"""

from __future__ import annotations

import os
from typing import Any, NamedTuple

from evener.config.errors import ConfigError
from evener.config.files import ConfigFile, find, read
from evener.config.schema import SCHEMA, Key


class Setting(NamedTuple):
    """A value, as it was written and as Python has it, and where it comes from."""

    raw: Any
    value: Any
    source: str


class Settings:
    """The settings of a moment."""

    def __init__(self) -> None:
        found = find()
        self.file: ConfigFile | None = None if found is None else read(found)

    def find(self, path: str) -> Setting | None:
        """What environment or file say of a setting such as `broker.port`. Raises `ConfigError`."""
        key = SCHEMA[path]
        return from_environment(key) or self.from_file(key)

    def given(self, path: str, value: Any) -> Any:
        """An argument of a program, or what holds where it gave None."""
        return self.value(path) if value is None else value

    def value(self, path: str) -> Any:
        """The same as a value, or its default; None without one."""
        return self.of(SCHEMA[path]).value

    def from_file(self, key: Key) -> Setting | None:
        """What the file says of it."""
        said = self.file.values.get(key.path) if self.file is not None else None
        return None if said is None else Setting(said.raw, said.value, said.where)

    def of(self, key: Key) -> Setting:
        """Its value and where it comes from. Raises `ConfigError` for a variable that is wrong."""
        found = from_environment(key) or self.from_file(key)
        if found is not None:
            return found
        if key.default is None:
            return Setting(None, None, "default")
        return Setting(key.default, key.kind.read(key.default), "default")


def from_environment(key: Key) -> Setting | None:
    """What the environment says of it. Raises `ConfigError`."""
    for name in key.variables:
        text = os.environ.get(name)
        if text:
            try:
                return Setting(text, key.kind.read(text), name)
            except ValueError as error:
                raise ConfigError([f'{name} is "{text}": {error}']) from None
    return None


def settings() -> Settings:
    """The settings as they are now. Raises `ConfigError` for a file that cannot be used."""
    return Settings()
